"""Calling the service, with the session that `login` keeps."""

from __future__ import annotations

import configparser
import io
from pathlib import Path
from typing import Any

import click
import msgspec

from kms.client import Client
from kms.client.connection import decoded, segment_of
from kms.errors import StartError
from kms.files import write_private


def client() -> Client:
    """The client for the session that `login` kept, one for the whole command. Raises KmsError if there is none."""
    context = click.get_current_context(silent=True)
    if context is None:
        return Client()
    found: Client | None = context.find_root().meta.get("kms.client")
    if found is None:
        found = context.find_root().meta["kms.client"] = Client()
    return found


def call(method: str, *segments: str, body: Any = None, **query: Any) -> Any:
    """Call the service under the current session: `segments` are joined to the path, escaped.

    Gives the decoded answer. Raises KmsError with the service's own sentence.
    """
    path = "/" + "/".join(map(segment_of, segments))
    answer = client().connection.send(method, path, body, query=query, repeatable=method == "GET")
    return decoded(msgspec.json.decode, answer)


def pages(*segments: str, **query: Any) -> list[dict[str, Any]]:
    """The items of a list, of all its pages. Raises KmsError with the service's own sentence."""
    items: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = call("GET", *segments, cursor=cursor, **query)
        items += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return items


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
