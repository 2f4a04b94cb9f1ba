"""`login`, `logout` and `whoami`."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pyotp

from kms.cli import remote, show
from kms.cli.private_keys import private_key
from kms.client import kept_login
from kms.client.connection import Connection
from kms.client.errors import AuthenticationFailed, PermissionDenied, Refused
from kms.client.kept_login import KeptLogin
from kms.client.logins import PrivateKeyLogin, SecretLogin
from kms.files import write_private

_LONGEST_WAIT = 60
_CODE = "The six digits that the authenticator app shows now"


@click.command()
@click.option("--url", envvar="KMS_URL", default="https://localhost:8443", show_default=True, help="The service.")
@click.option(
    "--ca-cert",
    envvar="KMS_CA_CERT",
    type=click.Path(exists=True, path_type=Path),
    help="Trust this certificate.  [default: server.crt here, if there is one]",
)
@click.option("--client-id", help="Your client id.  [default: asked for]")
@click.option(
    "--credentials",
    type=click.Path(exists=True, path_type=Path),
    help="A file of credentials, as the service's --bootstrap-file writes it. The command then asks for nothing.",
)
@click.option("--recovery", is_flag=True, help="Use a recovery code instead of the authenticator app.")
@click.option(
    "--key",
    type=click.Path(exists=True, path_type=Path),
    help="Log in with this private key (PEM); its public key must have been added with `client add-key`.",
)
@click.option("--audience", help="With --key: the KMS_PUBLIC_URL of the service.  [default: --url]")
@click.option("--scope", default="", help="Limit the session to this, such as 'keys:encrypt@orders-* keys:read'.")
@click.option("--expires-in", type=int, help="Seconds.  [default: as long as the service allows]")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    help="Write only the token into this file, for a program. Your own kept login does not change.",
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
    """Log in, and keep the token in a file that only you can read. It is usually valid for an hour.

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
        session = connection.log_in(PrivateKeyLogin(client_id, private_key(key), (audience or "").rstrip("/")))
    else:
        person = _read(credentials, recovery=recovery) if credentials else _asked_for(client_id, recovery=recovery)
        client_id = person.client_id
        try:
            session = connection.log_in(person)
        except Refused as refused:
            if credentials is None or recovery or not refused.retry_after or refused.retry_after > _LONGEST_WAIT:
                raise
            click.echo(f"{refused.detail} Waiting.", err=True)  # nobody is there to read a later code off
            time.sleep(refused.retry_after)
            session = connection.log_in(person)
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


def _asked_for(client_id: str | None, *, recovery: bool) -> SecretLogin:
    # The secret first, where nothing is shown: it is what people have just copied.
    secret = click.prompt("Client secret (it is not shown)", hide_input=True)
    client_id = client_id or click.prompt("Client id, which is your name and no secret", default="admin")
    asked = "Recovery code" if recovery else _CODE
    code = click.prompt(asked).strip()
    return SecretLogin(client_id, secret, lambda: code, is_recovery_code=recovery)


def _read(credentials: Path, *, recovery: bool) -> SecretLogin:
    """The client and its proof (secret and second factor) from a file of credentials. Raises ClickException."""
    try:
        given = json.loads(credentials.read_text())
        client_id, secret = str(given["client_id"]), str(given["client_secret"])
        if recovery:
            code = str(given["recovery_codes"][0])
            return SecretLogin(client_id, secret, lambda: code, is_recovery_code=True)
        totp = pyotp.TOTP(given["totp_secret"])
        totp.now()
        return SecretLogin(client_id, secret, totp.now)
    except (OSError, ValueError, LookupError, TypeError):
        raise click.ClickException(f"{credentials} is not a file of credentials that can be read.") from None


@click.command()
def logout() -> None:
    """End the session, here and in the service.

    \b
    For example:
      kms logout
    """
    with suppress(AuthenticationFailed):  # it is over anyway
        remote.call("POST", "auth", "logout")
    kept_login.forget()
    click.echo("Logged out.")


@click.command()
def confirm() -> None:
    """Give the code of the authenticator app again, for what asks for one that was given a short while ago.

    Commands that need it ask for it themselves on a terminal.

    \b
    For example:
      kms confirm
    """
    give_second_factor()
    click.echo("Confirmed.", err=True)


def give_second_factor() -> None:
    """Ask for a code, and make the second factor of the session fresh with it. Raises KmsError."""
    code = click.prompt(_CODE, err=True).strip()
    remote.call("POST", "auth", "second-factor", body={"code": code})


@click.command()
def whoami() -> None:
    """Show the client, the credential and the scope of your login, and when it ends.

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
