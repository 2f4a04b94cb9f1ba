"""`unseal`: gives a share to a sealed service, on its host."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Any

import click

from kms.cli.on_host import settings_of
from kms.errors import StartError
from kms.files import private_bytes


@click.command()
@click.option("--data-dir", help="As for `python app.py`.")
@click.option("--share-file", help="A file with the share, or - for stdin, instead of being asked for it.")
@click.option("--reset", is_flag=True, help="Have the shares forgotten that were given so far.")
@click.option("--show", is_flag=True, help="Only show how many were given.")
def unseal(*, share_file: str | None, reset: bool, show: bool, **flags: Any) -> None:
    """Give one share to a service that is sealed; run it on its host, as its user or as root.

    Each person who holds a share does this once after every start of the service. The order does not matter.

    \b
    For example:
      kms unseal --data-dir /var/lib/kms
    """
    from kms.unseal_socket import Question

    directory = settings_of(flags).run_dir
    if reset:
        click.echo(_asked(directory, Question(reset=True)))
        return
    progress = _asked(directory, Question())  # before somebody types a share for nothing
    if not show:
        click.echo(progress, err=True)
        progress = _asked(directory, Question(share=_share(share_file)))
    click.echo(progress)


def _asked(directory: Path, question: Any) -> str:
    """The progress after what was asked for. Raises StartError with the reason where it was refused."""
    from kms.unseal_socket import ask
    from kms.vault.served import served_from

    try:
        answer = ask(directory, question)
    except PermissionError:
        raise StartError(
            f"{directory} is of another user. Run this as the user of the service, or as root."
        ) from None
    except (FileNotFoundError, ConnectionError):
        if served_from(directory / "lock") is None:
            raise StartError(f"No service runs on the data directory {directory.parent}.") from None
        raise StartError(
            "The service does not wait for shares: it is unsealed, has another seal, or is only starting."
        ) from None
    if answer.refused is not None:
        raise StartError(f"{answer.refused}\n{answer.progress}".strip())
    return answer.progress


def _share(file: str | None) -> str:
    if file == "-":
        return sys.stdin.read(4096)
    if file is not None:
        return private_bytes(Path(file)).decode("utf-8", "replace")
    if not sys.stdin.isatty():
        raise StartError(
            "There is no terminal to ask on: give a share with --share-file, or --share-file - for stdin."
        )
    return getpass.getpass("Share: ")
