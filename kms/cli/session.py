"""`login`, `logout` and `whoami`."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import click
import pyotp
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from kms.cli import remote, show
from kms.client import kept_login
from kms.client.connection import Connection, Session
from kms.client.errors import PermissionDenied, Refused
from kms.client.kept_login import KeptLogin
from kms.client.logins import Login, PrivateKeyLogin, SecretLogin, read_private_key
from kms.files import write_private

_LONGEST_WAIT = 60


@click.command()
@click.option("--url", envvar="KMS_URL", default="https://localhost:8443", show_default=True, help="The service.")
@click.option(
    "--ca-cert",
    envvar="KMS_CA_CERT",
    type=click.Path(exists=True, path_type=Path),
    help="Trust this certificate.  [default: server.crt here, if there is one]",
)
@click.option("--client-id", help="Who you are; asked for where it is not given.")
@click.option(
    "--credentials",
    type=click.Path(exists=True, path_type=Path),
    help="A file as the service's --bootstrap-file writes it; nothing is asked then.",
)
@click.option("--recovery", is_flag=True, help="Use a recovery code in place of the authenticator app.")
@click.option(
    "--key",
    type=click.Path(exists=True, path_type=Path),
    help="Prove yourself by this private key (PEM), whose public half `client add-key` has made known.",
)
@click.option("--audience", help="With --key: what the service calls itself (KMS_PUBLIC_URL).  [default: --url]")
@click.option("--scope", default="", help="Do no more than this, such as 'keys:encrypt@orders-* keys:read'.")
@click.option("--expires-in", type=int, help="Seconds.  [default: as long as the service allows]")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    help="Write the token, and nothing else, into this file for a program, and stay logged in as you are.",
)
def login(
    url: str,
    ca_cert: Path | None,
    client_id: str | None,
    credentials: Path | None,
    key: Path | None,
    audience: str | None,
    token_file: Path | None,
    *,
    recovery: bool,
    scope: str,
    expires_in: int | None,
) -> None:
    """Log in and keep the token for an hour, in a file that only you can read.

    \b
    For example:
      kms login --url https://kms.example.org:8443
    """
    if key is not None and (credentials is not None or recovery):
        raise click.UsageError("--key goes without --credentials and --recovery.")
    ca_cert = ca_cert or (Path("server.crt") if Path("server.crt").exists() else None)
    trusted = str(ca_cert.absolute()) if ca_cert else None
    wanted = {"scope": scope, "expires_in": expires_in}
    connection = Connection(url, ca=trusted, wanted=wanted, patience=0)
    if key is not None:
        client_id = client_id or click.prompt("Client id")
        session = _session(connection, PrivateKeyLogin(client_id, _private_key(key), (audience or "").rstrip("/")))
    else:
        person = _read(credentials, recovery=recovery) if credentials else _asked_for(client_id, recovery=recovery)
        client_id = person.client_id
        try:
            session = _session(connection, person.login)
        except Refused as refused:
            if credentials is None or recovery or not refused.retry_after or refused.retry_after > _LONGEST_WAIT:
                raise
            click.echo(f"{refused.detail} Waiting.", err=True)  # nobody is there to read a later code off
            time.sleep(refused.retry_after)
            session = _session(connection, person.login)
    expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=session.expires_in)
    if token_file is not None:
        write_private(token_file, session.access_token.encode())
        click.echo(f"Wrote a token of {client_id} to {token_file}; it ends at {expires_at:%Y-%m-%dT%H:%M:%SZ}.")
        return
    curlrc = kept_login.save(
        KeptLogin(url, trusted, session.access_token, client_id, session.session_id, expires_at, session.scope)
    )
    click.echo(f"Logged in to {url} as {client_id} for {session.expires_in // 60} minutes.")
    click.echo(f"With curl: curl -K {curlrc} {url}/api/v1/keys")


class _Person(NamedTuple):
    client_id: str
    login: SecretLogin


def _session(connection: Connection, login: Login) -> Session:
    return connection.log_in(login.proof(connection.url))


def _asked_for(client_id: str | None, *, recovery: bool) -> _Person:
    # The secret first, where nothing is shown: it is what people have just copied.
    secret = click.prompt("Client secret (it is not shown)", hide_input=True)
    client_id = client_id or click.prompt("Client id, which is your name and no secret", default="admin")
    asked = "Recovery code" if recovery else "The six digits that the authenticator app shows now"
    code = click.prompt(asked).strip()
    return _Person(client_id, SecretLogin(client_id, secret, lambda: code, is_recovery_code=recovery))


def _read(credentials: Path, *, recovery: bool) -> _Person:
    """Who the file of credentials is about, and what proves that. Raises ClickException."""
    try:
        given = json.loads(credentials.read_text())
        client_id, secret = str(given["client_id"]), str(given["client_secret"])
        if recovery:
            code = str(given["recovery_codes"][0])
            return _Person(client_id, SecretLogin(client_id, secret, lambda: code, is_recovery_code=True))
        totp = pyotp.TOTP(given["totp_secret"])
        totp.now()
        return _Person(client_id, SecretLogin(client_id, secret, totp.now))
    except (OSError, ValueError, LookupError, TypeError):
        raise click.ClickException(f"{credentials} is not a file of credentials that can be read.") from None


def _private_key(file: Path) -> PrivateKeyTypes:
    try:
        return read_private_key(file)
    except TypeError:  # so the library says that it is encrypted
        passphrase = click.prompt(f"Passphrase of {file} (it is not shown)", hide_input=True)
        return read_private_key(file, passphrase.encode())


@click.command()
def logout() -> None:
    """End the session, here and in the service.

    \b
    For example:
      kms logout
    """
    try:
        remote.call("POST", "auth", "logout")
    finally:
        kept_login.forget()
    click.echo("Logged out.")


@click.command()
def whoami() -> None:
    """Show as whom you are logged in, by which credential, how narrowly and until when.

    \b
    For example:
      kms whoami
    """
    session = kept_login.current()
    if not session.client_id:
        raise click.ClickException("Log in again so that it is known who you are.")
    kept: dict[str, Any] = {
        "client_id": session.client_id,
        "session_id": session.session_id,
        "expires_at": f"{session.expires_at:%Y-%m-%dT%H:%M:%SZ}",
        **({"scope": session.scope} if session.scope else {}),
    }
    try:
        found = remote.pages("api", "v1", "clients", session.client_id, "sessions")
    except PermissionDenied:
        found = []  # a narrow session cannot list sessions, and the service has taken its token
    same = (each for each in found if each["session_id"] == session.session_id)
    show.document({"url": session.url, **next(same, kept)})
