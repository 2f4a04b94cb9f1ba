"""Verifier keys in arguments: the key itself, or the name of a file with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from kms.audit.cosignature import CosignatureKey
from kms.audit.note import Ed25519Key
from kms.audit.tree import Unverified
from kms.cli import show
from kms.files import fault_of

K = TypeVar("K")
_MOST_BYTES = 65_536
_LIKE_A_KEY = re.compile(r"[^+]+\+[0-9a-fA-F]{8}\+[A-Za-z0-9+/=]+")


def log_key_in(given: str) -> Ed25519Key:
    """The verifier key of a log that an argument is or names. Raises click.ClickException."""
    return _key_in(given, Ed25519Key.parse, "The key")


def witness_key_in(given: str) -> CosignatureKey:
    """The verifier key of a witness that an argument is or names. Raises click.ClickException."""
    return _key_in(given, CosignatureKey.parse, "The key of a witness")


def log_key_of(text: str) -> Ed25519Key:
    """The verifier key of a log in a text, which is never the name of a file. Raises click.ClickException."""
    return _parsed(text, Ed25519Key.parse, "The key")


def _key_in(given: str, parse: Callable[[str], K], called: str) -> K:
    # A key has slashes: whoever makes a copy of a log could put a file where such a path leads, with a key of theirs.
    # So what has the form of a key is one, be there a file of that name or not.
    if _LIKE_A_KEY.fullmatch(given.strip()):
        return _parsed(given, parse, called)
    try:
        is_there = "\0" not in given and Path(given).is_file()
    except OSError:  # a name that is too long
        is_there = False
    if not is_there:
        return _parsed(given, parse, called)
    try:
        with Path(given).open("rb") as file:
            text = file.read(_MOST_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = fault_of(error) if isinstance(error, OSError) else "it is not UTF-8"
        raise click.ClickException(f"Cannot read {given}: {reason}.") from None
    return _parsed(text, parse, called)


def _parsed(text: str, parse: Callable[[str], K], called: str) -> K:
    try:
        return parse(text.strip())
    except Unverified as unverified:
        raise click.ClickException(f"{called} cannot be read. {show.plain(str(unverified))}") from None
