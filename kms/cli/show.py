"""Answers as tables for people, or as JSON for programs."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
import segno
from rich.console import Console
from rich.table import Column, Table

json_option = click.option("--json", "as_json", is_flag=True, help="A JSON object on each line, as in a pipe.")
"""For commands that show a `table`."""


def table(rows: list[dict[str, Any]], *columns: str, as_json: bool) -> None:
    """The chosen members of `rows` as a table; whole, as JSON lines, where `as_json` or in a pipe."""
    if as_json or not sys.stdout.isatty():
        for row in rows:
            click.echo(json.dumps(row))
        return
    shown = Table(*(Column(name, overflow="fold") for name in columns), box=None, pad_edge=False)
    for row in rows:
        shown.add_row(*(_cell(row.get(column)) for column in columns))
    Console(markup=False, highlight=False).print(shown)


def document(answer: Any) -> None:
    """One answer as JSON."""
    click.echo(json.dumps(answer, indent=2))


def qr_code(uri: str) -> None:
    """`uri` as a QR code on stderr, where that is a terminal."""
    if sys.stderr.isatty():
        segno.make(uri, error="l").terminal(out=sys.stderr, compact=True)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return json.dumps(value)
    return " ".join(value) if isinstance(value, list) else str(value)
