"""`client …`: the credentials and sessions of a client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from kms.access.verification_key import require_public
from kms.cli import remote, show
from kms.client import kept_login
from kms.errors import ValidationFailed

_CLIENTS = ("api", "v1", "clients")


@click.command("add-key")
@click.argument("client_id")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--expires-at", help="When the key stops being accepted, such as 2030-01-01T00:00:00Z.")
def add_key(client_id: str, file: Path, expires_at: str | None) -> None:
    """Add the public key in FILE (PEM or JWK): whoever has its private key can log in as the client.

    \b
    For example:
      kms client add-key shop shop.pub
    """
    body = _public_key(file) | ({"expires_at": expires_at} if expires_at else {})
    show.document(remote.call("POST", *_CLIENTS, client_id, "public-keys", body=body))


@click.command("keys")
@click.argument("client_id", required=False)
def keys(client_id: str | None) -> None:
    """List the public keys with which a client can log in; your own, if no client is named.

    \b
    For example:
      kms client keys shop
    """
    found = remote.pages(*_CLIENTS, _client(client_id), "public-keys")
    show.table(found, "kid", "algorithm", "created_at", "expires_at")


@click.command("remove-key", context_settings={"ignore_unknown_options": True})  # a thumbprint can begin with -
@click.argument("client_id")
@click.argument("kid")
def remove_key(client_id: str, kid: str) -> None:
    """Remove a public key, and end the sessions opened with it, on every worker and node, before this returns.

    \b
    For example:
      kms client remove-key shop $KID
    """
    show.document(remote.call("DELETE", *_CLIENTS, client_id, "public-keys", kid))


@click.command("remove-certificate")
@click.argument("client_id")
@click.argument("thumbprint")
def remove_certificate(client_id: str, thumbprint: str) -> None:
    """Refuse a certificate from now on, and end the sessions that the client's certificates opened.

    THUMBPRINT is the SHA-256 of the certificate's DER, in hexadecimal.

    \b
    For example:
      kms client remove-certificate shop $(openssl x509 -in shop.crt -outform DER | sha256sum | cut -c-64)
    """
    show.document(remote.call("DELETE", *_CLIENTS, client_id, "certificates", thumbprint))


@click.command("sessions")
@click.argument("client_id", required=False)
def sessions(client_id: str | None) -> None:
    """List the sessions of a client; yours, if no other is named.

    \b
    For example:
      kms client sessions shop
    """
    found = remote.pages(*_CLIENTS, _client(client_id), "sessions")
    columns = "session_id", "credential", "subject", "scope", "issued_at", "expires_at"
    show.table(found, *columns)


@click.command("end-session")
@click.argument("client_id")
@click.argument("session_id", required=False)
@click.option("--all", "every", is_flag=True, help="End all sessions of the client, and its access keys too.")
def end_session(client_id: str, session_id: str | None, *, every: bool) -> None:
    """End a session and those made from it, on every worker and node, before this returns.

    \b
    For example:
      kms client end-session shop --all
    """
    if every == (session_id is not None):
        raise click.UsageError("Give one of SESSION_ID and --all.")
    chosen = () if session_id is None else (session_id,)
    show.document(remote.call("DELETE", *_CLIENTS, client_id, "sessions", *chosen))


@click.command("credentials")
@click.argument("client_id", required=False)
def credentials(client_id: str | None) -> None:
    """List the credentials of a client; your own, if no client is named.

    \b
    For example:
      kms client credentials shop
    """
    found = remote.pages(*_CLIENTS, _client(client_id), "credentials")
    show.table(found, "credential", "scope", "created_at", "expires_at", "remaining")


@click.command("end-credentials")
@click.argument("client_id")
@click.confirmation_option(prompt="Only secret, second factor and recovery codes of the client stay. Go on?")
def end_credentials(client_id: str) -> None:
    """End the public keys, access keys, issuer roles and sessions of a client, before this returns.

    \b
    For example:
      kms client end-credentials shop
    """
    show.document(remote.call("DELETE", *_CLIENTS, client_id, "credentials"))


def _client(named: str | None) -> str:
    client_id = named or kept_login.current().client_id
    if not client_id:
        raise click.ClickException("Name the client, or log in again so that it is known who you are.")
    return client_id


def _public_key(file: Path) -> dict[str, Any]:
    """The members of a request with the public key in `file`. Raises ClickException, also for a private key."""
    try:
        text = file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        raise click.ClickException(f"{file} is not a file in PEM, or a JWK, that can be read.") from None
    private = click.ClickException(
        f"{file} has a private key in it, which stays with the program. It was not sent. Give the public half, as "
        f"`openssl pkey -in {file} -pubout` writes it."
    )
    if "PRIVATE KEY" in text:
        raise private
    if "-----BEGIN PUBLIC KEY-----" in text:
        return {"public_key": text}
    try:
        jwk = json.loads(text)
        members = dict(jwk)
    except (ValueError, TypeError):
        members = {}
    if "kty" not in members:
        raise click.ClickException(f"{file} is neither PEM with `BEGIN PUBLIC KEY` nor a JWK.")
    try:
        require_public(members)
    except ValidationFailed:
        raise private from None
    return {"jwk": members}
