"""What commands on the service's own host have in common: its settings, and its vault beside the running service."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from kms.config import load
from kms.errors import StartError

if TYPE_CHECKING:
    from kms.vault.store import Vault


def of_the_service(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: with those options of the service that say where its vault is."""
    for option in ("--seal", "--database-url", "--data-dir"):
        command = click.option(option, help="As for `python app.py`.")(command)
    return command


def opened(flags: dict[str, Any], say: Callable[[str], object] = click.echo) -> Vault:
    """`say` which database the settings name, and open its vault. Raises StartError."""
    from kms.vault.database import shown
    from kms.vault.opening import open_vault
    from kms.vault.served import served_from

    settings = load({name: value for name, value in flags.items() if value is not None})
    database, running_on = shown(settings.database), served_from(settings.run_dir / "lock")
    if running_on and running_on != database:
        # Opened beside the running service, a database with an older state of its vault would be taken for its own.
        raise StartError(
            f"The service on {settings.data_dir} runs on {running_on}, and these settings name {database}. Give this "
            "command the settings of the service; for another database name another --data-dir."
        )
    nobody = "" if running_on is not None else f" (no service runs on the data directory {settings.data_dir} now)"
    say(f"Database: {database}{nobody}")
    return open_vault(settings, create=False)
