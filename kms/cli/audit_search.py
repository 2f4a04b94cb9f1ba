"""`audit search` and the questions that are asked most."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import click

from kms.cli import remote, show

_COLUMNS = ("time", "client_id", "operation", "key_id", "version", "target", "outcome", "source")
_PATH = ("api", "v1", "audit")
_SINCE = "Only what was done from this time on: 2030-01-31, 2030-01-31T09:00:00Z, or 3d, 12h, 30m ago."
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}


class Since(click.ParamType[str]):
    """A moment, or how long ago it was, as the time of an audit entry."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text that the times of entries compare with."""
        text = str(value)
        if text[:-1].isdigit() and text[-1:] in _UNITS:
            moment = datetime.now(UTC) - timedelta(**{_UNITS[text[-1]]: int(text[:-1])})
        else:
            try:
                moment = datetime.fromisoformat(text)
            except ValueError:
                self.fail(f"{text} is no time; {_SINCE.partition(': ')[2]}", param, ctx)
            moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@click.command()
@click.option("--client", "client_id", help="Only what this client did.")
@click.option("--key", "key_id", help="Only what was done with this key.")
@click.option("--version", type=int, help="Only with this version of it.")
@click.option("--operation", help="Only this operation, such as encrypt.")
@click.option("--outcome", help="success, refused, or a problem such as key-revoked.")
@click.option("--target", help="Only where this is the object, such as another client.")
@click.option("--session", help="Only what was done in this session (its id is in `client sessions`).")
@click.option("--request", "request_id", help="Only the request with this id.")
@click.option("--since", "after", type=Since(), help=_SINCE)
@click.option("--until", "before", type=Since(), help="Only what was done before this time.")
@click.option("-n", "--lines", type=click.IntRange(1), default=100, show_default=True, help="At most how many.")
def search(*, lines: int, **filters: Any) -> None:
    """Search the whole audit log, the newest entries first.

    \b
    For example:
      kms audit search --key orders --version 3 --since 7d
    """
    found = _pages(limit=min(lines, 10_000), **filters)
    show.table(list(islice(found, lines)), *_COLUMNS)


def _pages(**query: Any) -> Any:
    cursor = None
    while True:
        page = remote.call("GET", *_PATH, "entries", cursor=cursor, **query)
        yield from reversed(page["items"])
        cursor = page["next_cursor"]
        if cursor is None:
            return


@click.command("users-of")
@click.argument("key_id")
@click.option("--version", type=int, help="Only this version of it.")
@click.option("--since", "after", type=Since(), help=_SINCE)
def users_of(key_id: str, **filters: Any) -> None:
    """Show who did something with a key, how often, and when first and last.

    \b
    For example:
      kms audit users-of orders --version 3 --since 2030-01-31
    """
    found = remote.call("GET", *_PATH, "users-of-key", key_id=key_id, **filters)
    show.table(found["items"], "client_id", "uses", "first", "last")


@click.command()
@click.argument("client_id")
@click.option("--since", "after", type=Since(), default="30d", show_default=True, help=_SINCE)
def novelties(client_id: str, **filters: Any) -> None:
    """Show what a client did that it had never done before: with which key, and when first.

    \b
    For example:
      kms audit novelties shop --since 7d
    """
    found = remote.call("GET", *_PATH, "novelties", client_id=client_id, **filters)
    show.table(found["items"], "first", "operation", "key_id")
