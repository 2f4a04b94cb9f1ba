"""Calling the service, with the session that `login` keeps."""

from __future__ import annotations

import configparser
import http.client
import io
import json
import os
import ssl
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import click
import msgspec

from kms.errors import StartError
from kms.files import private_bytes, private_directory, write_private

_TIMEOUT_SECONDS = 60


_LOG_IN_AGAIN = (
    "This needs a second factor that was given a short while ago. Log in again (`python -m kms login`), then run "
    "this command again."
)


class Refused(click.ClickException):
    """The service said no. `retry_after` is in seconds, where it said when to come again; `problem` the kind."""

    def __init__(self, detail: str, retry_after: int | None, problem: str = "") -> None:
        is_said = retry_after is None or f"in {retry_after} s" in detail
        again = "" if is_said else f" Try again in {retry_after} s."
        super().__init__(_LOG_IN_AGAIN if problem == "insufficient-user-authentication" else detail + again)
        self.retry_after = retry_after
        self.problem = problem


class Session(msgspec.Struct, frozen=True):
    """What `login` keeps: where the service is, which CA it is checked with, the token, and what it is good for."""

    url: str
    ca_cert: str | None
    token: str
    client_id: str = ""
    session_id: str = ""
    expires_at: datetime | None = None
    scope: str = ""


def directory() -> Path:
    """Where sessions are kept: $KMS_HOME, or `kms` in the user's configuration directory."""
    default = Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config")) / "kms"
    return Path(os.environ.get("KMS_HOME", default))


def save(session: Session) -> Path:
    """Keep `session`, and a configuration that gives curl the same; gives the latter's path back."""
    try:
        home = private_directory(directory())
        write_private(home / "session.json", msgspec.json.encode(session))
        headers = f"Authorization: Bearer {session.token}", "Content-Type: application/json"
        lines = ["silent", "show-error", *(f'header = "{header}"' for header in headers)]
        if session.ca_cert:
            lines.append(f'cacert = "{session.ca_cert}"')
        write_private(home / "curlrc", "\n".join([*lines, ""]).encode())
    except StartError as error:
        raise click.ClickException(str(error)) from None
    return home / "curlrc"


def save_token(path: Path, token: str) -> None:
    """Write `token`, and nothing else, into a file that only its owner can read."""
    try:
        write_private(path, token.encode())
    except StartError as error:
        raise click.ClickException(str(error)) from None


def save_section(path: Path, section: str, values: dict[str, str]) -> None:
    """Put a section with these values into an INI file that only its owner can read, in place of one of that name."""
    config = configparser.RawConfigParser()
    config.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
    try:
        config.read(path, encoding="utf-8")
        config[section] = values
        path.parent.mkdir(mode=0o700, exist_ok=True)
        text = io.StringIO()
        config.write(text)
        write_private(path, text.getvalue().encode())
    except (OSError, configparser.Error, StartError) as error:
        raise click.ClickException(f"Cannot write {path}: {error}") from None


def forget() -> None:
    """Remove the session."""
    for name in ("session.json", "curlrc"):
        (directory() / name).unlink(missing_ok=True)


def current() -> Session:
    """The session that is kept. Raises ClickException where there is none."""
    path = directory() / "session.json"
    if not path.exists():
        raise click.ClickException("You are not logged in. Run `python -m kms login` first.")
    try:
        return msgspec.json.decode(private_bytes(path), type=Session)
    except (StartError, msgspec.DecodeError) as error:
        raise click.ClickException(str(error)) from None


def call(method: str, *segments: str, body: Any = None, **query: Any) -> Any:
    """Call the service under the current session: `segments` are joined to the path, escaped.

    Gives the decoded answer. Raises ClickException with the service's own sentence.
    """
    session = current()
    path = "/" + "/".join(quote(segment, safe="") for segment in segments)
    given = {name: value for name, value in query.items() if value is not None}
    if given:
        path += "?" + urlencode(given)
    return request(session.url, session.ca_cert, method, path, {"Authorization": f"Bearer {session.token}"}, body)


def pages(*segments: str, **query: Any) -> list[dict[str, Any]]:
    """The items of a list, of all its pages. Raises ClickException with the service's own sentence."""
    items: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = call("GET", *segments, cursor=cursor, **query)
        items += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return items


def request(url: str, ca_cert: str | None, method: str, path: str, headers: dict[str, str], body: Any = None) -> Any:
    """One HTTPS request. Raises Refused, and ClickException where there is no answer."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise click.ClickException(f"{url} is not an https:// URL.")
    content = None if body is None else json.dumps(body)
    if content is not None:
        headers = {**headers, "Content-Type": "application/json"}
    try:
        # A CA file given here is the only one trusted, whatever SSL_CERT_FILE says.
        context = ssl.create_default_context(cafile=ca_cert)
        connection = http.client.HTTPSConnection(
            parts.hostname, parts.port or 443, timeout=_TIMEOUT_SECONDS, context=context
        )
        connection.request(method, path, content, headers)
        response = connection.getresponse()
        answer = response.read()
    except ssl.SSLCertVerificationError as error:
        raise click.ClickException(
            f"The certificate of {url} is not trusted ({error.verify_message}). Name its CA with --ca-cert."
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise click.ClickException(f"{url} cannot be reached: {error}.") from None
    try:
        decoded = json.loads(answer)
    except ValueError:
        raise click.ClickException(f"{url} answered {response.status} with something that is not JSON.") from None
    if response.status >= http.HTTPStatus.BAD_REQUEST:
        wait = response.getheader("Retry-After", "")
        problem = str(decoded.get("type", "")).removeprefix("/problems/")
        raise Refused(decoded.get("detail", response.reason), int(wait) if wait.isdecimal() else None, problem)
    return decoded
