"""`inventory`: what keys and algorithms are held, what is due of them, and what quantum computers will break."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from kms.cli import remote, show
from kms.files import appearing

_PATH = ("api", "v1", "inventory")
_PAGE = 500
_OUT = click.Path(path_type=Path, dir_okay=False)
_DUE = ("key_id", "version", "owner", "period", "ends_at", "advice")
_HELD = ("key_id", "version", "type", "owner", "state", "nist_category", "key_last_used_at", "used_by")


@click.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "cyclonedx"]),
    default="table",
    show_default=True,
    help="A list, or one CycloneDX document (CBOM).",
)
@click.option("--due", is_flag=True, help="Only versions with a period that is over, or soon will be.")
@click.option("--within", default="P30D", show_default=True, help="What soon is, with --due.")
@click.option("--not-post-quantum-safe", is_flag=True, help="Only versions that quantum computers will break.")
@click.option("-o", "--output", type=_OUT, help="Where the document goes, for you alone to read.  [default: stdout]")
def inventory(*, form: str, due: bool, within: str, not_post_quantum_safe: bool, output: Path | None) -> None:
    """List the versions of the keys that you may see, how strong they are, and who uses them.

    \b
    For example:
      kms inventory --format cyclonedx -o cbom.json
      kms inventory --due --within P90D
      kms inventory --not-post-quantum-safe
    """
    query = {"due": due, "not_post_quantum_safe": not_post_quantum_safe, "within": within}
    if form == "cyclonedx":
        _write(_document(page["bom"] for page in _pages(*_PATH, **query)), output)
        return
    if output is not None:
        raise click.UsageError("--output is for --format cyclonedx.")
    items = [item for page in _pages(*_PATH, "versions", **query) for item in page["items"]]
    if show.as_json():
        show.table(items)
    elif due:
        show.table([{**item, **each} for item in items for each in item["due"]], *_DUE)
    else:
        show.table([{**item, "used_by": _names(item)} for item in items], *_HELD)


def _write(pieces: Iterable[str], output: Path | None) -> None:
    """To stdout as they come, or to a file that is there only once it is whole."""
    if output is None:
        for piece in pieces:
            click.echo(piece, nl=False)
        return
    with appearing(output, replace=True) as file:
        file.writelines(piece.encode() for piece in pieces)


def _pages(*segments: str, **query: Any) -> Iterator[dict[str, Any]]:
    """Every page, each asked for when the one before is done with."""
    cursor = None
    while True:
        page = remote.call("GET", *segments, limit=_PAGE, cursor=cursor, **query)
        yield page
        cursor = page["next_cursor"]
        if cursor is None:
            return


def _names(item: dict[str, Any]) -> list[str]:
    users = [each["subject"] for each in item.get("users", [])]
    return [*users, *(["(key policy)"] if item["has_key_policy"] else [])]


def _document(pages: Iterable[dict[str, Any]]) -> Iterator[str]:
    """One document of those of all pages, in pieces: all components at once can be a hundred megabytes."""
    seen: set[str] = set()
    depends_on: dict[str, list[str]] = {}
    for page in pages:
        components, dependencies = page.pop("components"), page.pop("dependencies")
        if not seen:
            yield json.dumps(page)[:-1] + ', "components": ['
        for component in components:
            if component["bom-ref"] not in seen:
                yield (",\n" if seen else "\n") + json.dumps(component)
                seen.add(component["bom-ref"])
        for each in dependencies:
            known = depends_on.setdefault(each["ref"], [])
            known += [ref for ref in each.get("dependsOn", ()) if ref not in known]
    listed = ({"ref": ref, "dependsOn": on} if on else {"ref": ref} for ref, on in depends_on.items())
    yield '],\n"dependencies": [' + ",\n".join(map(json.dumps, listed)) + "]}\n"
