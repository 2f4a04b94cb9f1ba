"""Private keys in files, whose passphrase is asked for."""

from __future__ import annotations

from pathlib import Path

import click
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from kms.client.logins import read_private_key


def private_key(file: Path) -> PrivateKeyTypes:
    """The private key in a file of PEM; asks for the passphrase of an encrypted one. Raises NotLoggedIn."""
    try:
        return read_private_key(file)
    except TypeError:  # so the library says that it is encrypted
        passphrase = click.prompt(f"Passphrase of {file} (it is not shown)", hide_input=True)
        return read_private_key(file, passphrase.encode())
