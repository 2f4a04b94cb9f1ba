"""What commands on the host of the service have in common: they open its vault with its own settings."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from kms.config import Settings, load
from kms.errors import StartError

if TYPE_CHECKING:
    from kms.vault.seals import Seals
    from kms.vault.store import Vault


def of_the_service(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: the options that say where the vault is."""
    for option in ("--seal", "--database-url", "--data-dir"):
        command = click.option(option, help="As for `python app.py`.")(command)
    return command


def settings_of(flags: dict[str, Any]) -> Settings:
    """The settings of the service. Raises StartError."""
    return load({name: value for name, value in flags.items() if value is not None})


def opened(flags: dict[str, Any], seals: Seals | None = None) -> Vault:
    """Print which database the settings name, and open its vault. Raises StartError."""
    from kms.vault.opening import open_vault  # here: the other commands do without a database

    settings = settings_of(flags)
    require_own_database(settings)
    return open_vault(settings, create=False, seals=seals)


def is_served(settings: Settings) -> bool:
    """Whether a service runs on the data directory. Raises StartError."""
    from kms.vault.served import served_from

    return served_from(settings.run_dir / "lock") is not None


def require_own_database(settings: Settings, *, on_stderr: bool = False) -> None:
    """Print which database the settings name. Raises StartError if the service that runs has another."""
    from kms.vault.database import shown
    from kms.vault.served import served_from

    database, running_on = shown(settings.database), served_from(settings.run_dir / "lock")
    if running_on and running_on != database:
        # Opened beside the running service, a database with an older state of its vault would be taken for its own.
        raise StartError(
            f"The service on {settings.data_dir} runs on {running_on}, and these settings name {database}. Give this "
            "command the settings of the service; for another database name another --data-dir."
        )
    nobody = "" if running_on is not None else f" (no service runs on the data directory {settings.data_dir} now)"
    click.echo(f"Database: {database}{nobody}", err=on_stderr)


def local_entry(operation: str, target: str | None = None) -> str:
    """The audit entry of something that an operator did on the host."""
    from kms.audit.entry import SUCCESS, AuditEntry, timestamp
    from kms.clock import utc_now

    entry = AuditEntry(1, timestamp(utc_now()), secrets.token_hex(8), operation, SUCCESS, "local", target=target)
    return entry.line().decode()
