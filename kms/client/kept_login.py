"""What `kms login` keeps for later commands and programs: the session, in a file that only its owner can read."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import msgspec

from kms.client.errors import NotLoggedIn
from kms.errors import StartError
from kms.files import private_bytes, private_directory, write_private


class KeptLogin(msgspec.Struct, frozen=True):
    """Where the service is, which CA it is checked with, the token, and what it is good for."""

    url: str
    ca_cert: str | None
    token: str
    client_id: str = ""
    session_id: str = ""
    expires_at: datetime | None = None
    scope: str = ""


def directory() -> Path:
    """Where it is kept: $KMS_HOME, or `kms` in the user's configuration directory."""
    default = Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config")) / "kms"
    return Path(os.environ.get("KMS_HOME", default))


def save(login: KeptLogin) -> Path:
    """Keep `login`, and a configuration that gives curl the same; gives the latter's path back. Raises StartError."""
    home = private_directory(directory())
    write_private(home / "session.json", msgspec.json.encode(login))
    headers = f"Authorization: Bearer {login.token}", "Content-Type: application/json"
    lines = ["silent", "show-error", *(f'header = "{header}"' for header in headers)]
    if login.ca_cert:
        lines.append(f'cacert = "{login.ca_cert}"')
    write_private(home / "curlrc", "\n".join([*lines, ""]).encode())
    return home / "curlrc"


def forget() -> None:
    """Remove it."""
    for name in ("session.json", "curlrc"):
        (directory() / name).unlink(missing_ok=True)


def current() -> KeptLogin:
    """The login that is kept. Raises NotLoggedIn where there is none that can be read."""
    path = directory() / "session.json"
    if not path.exists():
        raise NotLoggedIn("You are not logged in. Run `python -m kms login` first.")
    try:
        return msgspec.json.decode(private_bytes(path), type=KeptLogin)
    except (StartError, msgspec.DecodeError) as error:
        raise NotLoggedIn(str(error)) from None
