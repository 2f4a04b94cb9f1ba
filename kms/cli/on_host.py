"""Commands that run on the host of the service: they unseal its vault with the service's own settings."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from kms.errors import Refusal, StartError

if TYPE_CHECKING:
    from kms.vault.store import Vault


def of_the_service(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the flags of the service that name its vault; every other setting comes from KMS_* variables."""
    for option in ("--seal", "--database-url", "--data-dir"):
        command = click.option(option, help="As for `python app.py`.")(command)
    return command


def opened(flags: dict[str, Any]) -> Vault:
    """Print which database the settings name, and open its vault. Raises StartError."""
    import structlog

    from kms.config import load
    from kms.vault.database import shown
    from kms.vault.opening import open_vault
    from kms.vault.served import served_from

    if not structlog.is_configured():
        # Not to stdout, which others may read as an answer.
        structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    settings = load({name: value for name, value in flags.items() if value is not None})
    database, running_on = shown(settings.database), served_from(settings.run_dir / "lock")
    if running_on and running_on != database:
        # Opened beside the running service, a database with an older state of its vault would be taken for its own.
        raise StartError(
            f"The service on {settings.data_dir} runs on {running_on}, and these settings name {database}. Give this "
            "command the settings of the service; for another database name another --data-dir."
        )
    nobody = "" if running_on is not None else f" (no service runs on the data directory {settings.data_dir} now)"
    click.echo(f"Database: {database}{nobody}")
    vault = open_vault(settings, create=False)
    context = click.get_current_context(silent=True)
    if running_on is None and context is not None:
        context.call_on_close(partial(_leave_one_file, vault))
    return vault


def _leave_one_file(vault: Vault) -> None:
    with suppress(Refusal):  # another program has it open
        vault.checkpoint()
