"""Answers as tables for people, or as JSON for programs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from typing import Any

import click
import segno
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

_JSON = "kms.json"
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SELDOM = {"activate_at", "process_until"}  # in tables inside of a document, which have little room
_TIME = re.compile(r"(?P<day>\d{4}-\d\d-\d\d)T(?P<minute>\d\d:\d\d):[\d.]+Z")
_STATES = {
    "active": "green",
    "ready": "green",
    "success": "green",
    "pre-activation": "cyan",
    "suspended": "yellow",
    "deactivated": "yellow",
    "disabled": "yellow",
    "pending-deletion": "red",
    "compromised": "red",
    "destroyed": "red",
}


def with_json_option(command: click.Command) -> click.Command:
    """`command`, and every command in it, with the option `--json`."""
    if isinstance(command, click.Group):
        for each in command.commands.values():
            with_json_option(each)
    elif not any("--json" in each.opts for each in command.params):
        about = "JSON also on a terminal; a pipe gets it anyway."
        option = click.Option(["--json"], is_flag=True, expose_value=False, callback=_note_json, help=about)
        command.params.append(option)
    return command


def _note_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.find_root().meta[_JSON] = value


def as_json() -> bool:
    """Whether the output is to be JSON: with --json, or if stdout is not a terminal."""
    context = click.get_current_context(silent=True)
    return not sys.stdout.isatty() or bool(context is not None and context.find_root().meta.get(_JSON))


def table(rows: list[dict[str, Any]], *columns: str) -> None:
    """Print `rows`: a table of the members in `columns` for people, one JSON object per line for programs."""
    if as_json():
        for row in rows:
            click.echo(json.dumps(row))
        return
    if not rows:
        click.echo("Nothing.", err=True)
        return
    shown = Table(*(Column(name, overflow="fold") for name in columns), box=None, pad_edge=False)
    for row in rows:
        shown.add_row(*(_cell(row.get(column)) for column in columns))
    Console(highlight=False).print(shown)


def document(answer: Any) -> None:
    """One answer: its members one below the other for people, JSON for programs."""
    if as_json() or not isinstance(answer, Mapping):
        click.echo(json.dumps(answer, indent=2))
        return
    grid = Table.grid(Column(style="bold", no_wrap=True), Column(overflow="fold"), padding=(0, 2, 0, 0))
    inner = {name: value for name, value in answer.items() if _is_list_of_objects(value)}
    for name, value in answer.items():
        if name not in inner and value not in (None, "", [], {}):
            grid.add_row(name, _cell(value))
    console = Console(highlight=False)
    console.print(grid)
    for name, rows in inner.items():
        columns = [each for each in rows[0] if not _is_long(rows, each) and each not in _SELDOM]
        console.print(Text(f"\n{name}", style="bold"))
        table(rows, *columns)


def qr_code(uri: str) -> None:
    """`uri` as a QR code on stderr, where that is a terminal."""
    if sys.stderr.isatty():
        segno.make(uri, error="l").terminal(out=sys.stderr, compact=True)


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _is_long(rows: list[dict[str, Any]], name: str) -> bool:
    """Whether a member is too long for a table, such as a public key in PEM."""
    return any("\n" in str(row.get(name, "")) for row in rows)


def plain(text: str) -> str:
    """`text` without the characters that steer a terminal: names and descriptions are others' words."""
    return _CONTROLS.sub("�", text)


def is_terminal() -> bool:
    """Whether people read the output as it is written."""
    return sys.stdout.isatty()


def content(given: bytes) -> None:
    """Print what others wrote: byte by byte for programs, without what steers a terminal for people."""
    if not is_terminal():
        click.echo(given, nl=False)
        return
    click.echo(plain_lines(given.decode(errors="replace")), nl=False)


def plain_lines(text: str) -> str:
    """As `plain`, and newlines stay."""
    return "\n".join(map(plain, text.split("\n")))


def plain_value(value: Any) -> str:
    """A value as tables show it, without what steers a terminal."""
    return _cell(value).plain


def _cell(value: Any) -> Text:
    text = _text(value)
    text.plain = plain(text.plain)
    return text


def _text(value: Any) -> Text:
    if value is None:
        return Text("")
    if isinstance(value, str) and (time := _TIME.fullmatch(value)):
        return Text(f"{time['day']} {time['minute']}Z")
    if isinstance(value, Mapping):
        return Text(" ".join(f"{name}={each}" for name, each in value.items()))
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, list):
        return Text(" ".join(str(each) for each in value))
    return Text(str(value), style=_STATES.get(str(value), ""))
