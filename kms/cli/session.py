"""`login` and `logout`."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import click
import pyotp

from kms.cli import remote

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
def login(url: str, ca_cert: Path | None, client_id: str | None, credentials: Path | None, recovery: bool) -> None:
    """Log in and keep the token for an hour, in a file that only you can read."""
    ca_cert = ca_cert or (Path("server.crt") if Path("server.crt").exists() else None)
    trusted = str(ca_cert.absolute()) if ca_cert else None
    given = _read(credentials, recovery=recovery) if credentials else _asked_for(client_id, recovery=recovery)
    try:
        answer = _token(url, trusted, given)
    except remote.Refused as refused:
        if credentials is None or recovery or not refused.retry_after or refused.retry_after > _LONGEST_WAIT:
            raise
        click.echo(f"{refused.message} Waiting.", err=True)  # nobody is there to read a later code off
        time.sleep(refused.retry_after)
        given = _read(credentials, recovery=recovery)
        answer = _token(url, trusted, given)
    curlrc = remote.save(remote.Session(url, trusted, answer["access_token"]))
    click.echo(f"Logged in to {url} as {given.client_id} for {answer['expires_in'] // 60} minutes.")
    click.echo(f"With curl: curl -K {curlrc} {url}/api/v1/keys")


class _Credentials(NamedTuple):
    client_id: str
    secret: str
    factor: str
    code: str


def _asked_for(client_id: str | None, *, recovery: bool) -> _Credentials:
    # The secret first, where nothing is shown: it is what people have just copied.
    secret = click.prompt("Client secret (it is not shown)", hide_input=True)
    client_id = client_id or click.prompt("Client id, which is your name and no secret", default="admin")
    code = click.prompt("Recovery code" if recovery else "The six digits that the authenticator app shows now")
    return _Credentials(client_id, secret, _factor(recovery=recovery), code.strip())


def _read(credentials: Path, *, recovery: bool) -> _Credentials:
    """Client id, secret and second factor from a file of credentials. Raises ClickException."""
    try:
        given = json.loads(credentials.read_text())
        code = given["recovery_codes"][0] if recovery else pyotp.TOTP(given["totp_secret"]).now()
        return _Credentials(given["client_id"], given["client_secret"], _factor(recovery=recovery), code)
    except (OSError, ValueError, LookupError, TypeError):
        raise click.ClickException(f"{credentials} is not a file of credentials that can be read.") from None


def _factor(*, recovery: bool) -> str:
    return "X-Recovery-Code" if recovery else "X-TOTP"


def _token(url: str, trusted: str | None, given: _Credentials) -> Any:
    basic = base64.b64encode(f"{given.client_id}:{given.secret}".encode()).decode()
    headers = {"Authorization": f"Basic {basic}", given.factor: given.code}
    return remote.request(url, trusted, "POST", "/auth/token", headers)


@click.command()
def logout() -> None:
    """End the session, here and in the service."""
    try:
        remote.call("POST", "auth", "logout")
    finally:
        remote.forget()
    click.echo("Logged out.")
