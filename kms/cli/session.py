"""`login`, `logout` and `whoami`."""

from __future__ import annotations

import base64
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import click
import pyotp

from kms.cli import assertion, remote, show

_LONGEST_WAIT = 60
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


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
    """Log in and keep the token for an hour, in a file that only you can read."""
    if key is not None and (credentials is not None or recovery):
        raise click.UsageError("--key goes without --credentials and --recovery.")
    ca_cert = ca_cert or (Path("server.crt") if Path("server.crt").exists() else None)
    trusted = str(ca_cert.absolute()) if ca_cert else None
    wanted = {"scope": scope or None, "expires_in": expires_in}
    if key is not None:
        client_id = client_id or click.prompt("Client id")
        proof = _by_key(key, client_id, (audience or url).rstrip("/"))
        answer = _token(url, trusted, proof, wanted)
    else:
        proof = _read(credentials, recovery=recovery) if credentials else _asked_for(client_id, recovery=recovery)
        try:
            answer = _token(url, trusted, proof, wanted)
        except remote.Refused as refused:
            if credentials is None or recovery or not refused.retry_after or refused.retry_after > _LONGEST_WAIT:
                raise
            click.echo(f"{refused.message} Waiting.", err=True)  # nobody is there to read a later code off
            time.sleep(refused.retry_after)
            answer = _token(url, trusted, _read(credentials, recovery=recovery), wanted)
    expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=answer["expires_in"])
    if token_file is not None:
        remote.save_token(token_file, answer["access_token"])
        click.echo(f"Wrote a token of {proof.client_id} to {token_file}; it ends at {expires_at:%Y-%m-%dT%H:%M:%SZ}.")
        return
    session = remote.Session(
        url,
        trusted,
        answer["access_token"],
        proof.client_id,
        answer["session_id"],
        expires_at,
        answer.get("scope", ""),
    )
    curlrc = remote.save(session)
    click.echo(f"Logged in to {url} as {proof.client_id} for {answer['expires_in'] // 60} minutes.")
    click.echo(f"With curl: curl -K {curlrc} {url}/api/v1/keys")


class _Proof(NamedTuple):
    """What proves the client in a request for a token."""

    client_id: str
    headers: dict[str, str]
    members: dict[str, str]


def _asked_for(client_id: str | None, *, recovery: bool) -> _Proof:
    # The secret first, where nothing is shown: it is what people have just copied.
    secret = click.prompt("Client secret (it is not shown)", hide_input=True)
    client_id = client_id or click.prompt("Client id, which is your name and no secret", default="admin")
    code = click.prompt("Recovery code" if recovery else "The six digits that the authenticator app shows now")
    return _by_secret(client_id, secret, code.strip(), recovery=recovery)


def _read(credentials: Path, *, recovery: bool) -> _Proof:
    """Client id, secret and second factor from a file of credentials. Raises ClickException."""
    try:
        given = json.loads(credentials.read_text())
        code = given["recovery_codes"][0] if recovery else pyotp.TOTP(given["totp_secret"]).now()
        return _by_secret(given["client_id"], given["client_secret"], code, recovery=recovery)
    except (OSError, ValueError, LookupError, TypeError):
        raise click.ClickException(f"{credentials} is not a file of credentials that can be read.") from None


def _by_secret(client_id: str, secret: str, code: str, *, recovery: bool) -> _Proof:
    basic = base64.b64encode(f"{client_id}:{secret}".encode()).decode()
    factor = "X-Recovery-Code" if recovery else "X-TOTP"
    return _Proof(client_id, {"Authorization": f"Basic {basic}", factor: code}, {})


def _by_key(key: Path, client_id: str, audience: str) -> _Proof:
    signed = assertion.signed(key, client_id, audience)
    return _Proof(client_id, {}, {"client_assertion_type": _ASSERTION_TYPE, "client_assertion": signed})


def _token(url: str, trusted: str | None, proof: _Proof, wanted: dict[str, Any]) -> Any:
    body = proof.members | {name: value for name, value in wanted.items() if value is not None}
    return remote.request(url, trusted, "POST", "/auth/token", proof.headers, body or None)


@click.command()
def logout() -> None:
    """End the session, here and in the service."""
    try:
        remote.call("POST", "auth", "logout")
    finally:
        remote.forget()
    click.echo("Logged out.")


@click.command()
def whoami() -> None:
    """Show as whom you are logged in, by which credential, how narrowly and until when."""
    session = remote.current()
    if not session.client_id:
        raise click.ClickException("Log in again so that it is known who you are.")
    kept = {
        "client_id": session.client_id,
        "session_id": session.session_id,
        "expires_at": f"{session.expires_at:%Y-%m-%dT%H:%M:%SZ}",
        **({"scope": session.scope} if session.scope else {}),
    }
    try:
        found = remote.pages("api", "v1", "clients", session.client_id, "sessions")
    except remote.Refused as refused:
        if refused.problem != "permission-denied":
            raise
        found = []  # a narrow session cannot list sessions, and the service has taken its token
    same = (each for each in found if each["session_id"] == session.session_id)
    show.document({"url": session.url, **next(same, kept)})
