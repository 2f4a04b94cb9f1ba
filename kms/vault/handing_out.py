"""Shares and recovery keys go to people once: on a terminal, or each in a file of mode 0600. Never into a log."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from kms.errors import StartError
from kms.files import appearing, fault_of


def require_place(directory: Path | None, otherwise: str) -> None:
    """Raise StartError unless there is a terminal or a directory; `otherwise` says how to name one."""
    if directory is None:
        if not sys.stderr.isatty():
            raise StartError(f"This shows secrets once, and there is no terminal. {otherwise}")
        return
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"Cannot make the directory {directory}: {fault_of(error)}.") from error


def hand_out(texts: Mapping[str, str], directory: Path | None, about: str) -> None:
    """Show `texts` by their names on the terminal, or write each to a file of its name. `about` is for people.

    Raises StartError, also where such a file is there already. Files are on the disk when this returns.
    """
    if directory is not None:
        for name, text in texts.items():
            _write(directory / name, text)
        return
    out = sys.stderr
    print(f"\nThis is shown once. {about}\n", file=out)
    for name, text in texts.items():
        print(f"  {name}", file=out)
        words = text.split("-")
        lines = ["-".join(words[:6]), *("-".join(words[at : at + 7]) for at in range(6, len(words), 7))]
        print("".join(f"    {line}\n" for line in lines), file=out)
    out.flush()


def _write(path: Path, text: str) -> None:
    try:
        with appearing(path, replace=False) as file:
            file.write(text.encode() + b"\n")
    except FileExistsError:
        raise StartError(f"{path} is there already, and may be all that opens a vault. Name another place.") from None
    except OSError as error:
        raise StartError(f"Cannot write {path}: {fault_of(error)}.") from error
