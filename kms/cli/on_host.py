"""Commands that run on the host of the service: they unseal its vault with the service's own settings."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import click

from kms.config import Settings, load
from kms.errors import Refusal, StartError

if TYPE_CHECKING:
    from kms.vault.seals import Seals
    from kms.vault.store import Vault


def of_the_service(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the flags of the service that name its vault; every other setting comes from KMS_* variables.

    What the service's own code refuses becomes the command's message.
    """

    @wraps(command)
    def carried_out(**given: Any) -> None:
        try:
            command(**given)
        except (StartError, Refusal) as error:
            raise click.ClickException(str(error)) from None

    decorated: Callable[..., None] = carried_out
    for option in ("--seal", "--database-url", "--data-dir"):
        decorated = click.option(option, help="As for `python app.py`.")(decorated)
    about = "A file with a share, where the seal is shamir; repeatable. Without it, shares are asked for."
    return click.option("--share-file", multiple=True, help=about)(decorated)


def settings_of(flags: dict[str, Any]) -> Settings:
    """The settings of the service. Raises StartError."""
    given = {name: value for name, value in flags.items() if value is not None}
    share_files = given.pop("share_file", ())
    if share_files:
        given["seal_share_files"] = ",".join(share_files)
    return load(given)


def opened(flags: dict[str, Any], seals: Seals | None = None) -> Vault:
    """Print which database the settings name, and open its vault. Raises StartError."""
    import structlog  # here, as all of the service's packages: the other commands do without them

    from kms.vault.opening import open_vault

    if not structlog.is_configured():
        # Not to stdout, which others may read as an answer.
        structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    settings = settings_of(flags)
    require_own_database(settings)
    vault = open_vault(settings, create=False, seals=seals)
    context = click.get_current_context(silent=True)
    if context is not None and not is_served(settings):
        context.call_on_close(partial(_leave_one_file, vault))
    return vault


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


def _leave_one_file(vault: Vault) -> None:
    with suppress(Refusal):  # another program has it open
        vault.checkpoint()
