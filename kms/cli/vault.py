"""`vault`: checks on the vault itself, run on the host with the service's own settings."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
import structlog

from kms.audit.entry import SUCCESS, AuditEntry, timestamp
from kms.clock import utc_now
from kms.config import load
from kms.errors import Refusal, StartError

if TYPE_CHECKING:
    from kms.vault.store import Vault


def _of_the_service(command: Callable[..., None]) -> Callable[..., None]:
    for option in ("--seal", "--database-url", "--data-dir"):
        command = click.option(option, help="As for `python app.py`.")(command)
    return command


@click.group()
def vault() -> None:
    """Check the vault; for operators on the host."""


@vault.command()
@_of_the_service
def verify(**flags: Any) -> None:
    """Check that every row of the database is as the service wrote it. The exit code is 1 if one is not.

    Run it with the settings of the service, as variables or flags. It prints which database it checks, and refuses
    if the service that runs on this data directory uses another one.

    \b
    For example:
      kms vault verify --data-dir /var/lib/kms
    """
    from kms.vault.checking import altered_rows, wrong_tables  # here: the other commands do without a database

    try:
        opened = _opened(flags)
        altered, tables, distrust = list(altered_rows(opened)), wrong_tables(opened), opened.host.distrust
    except (StartError, Refusal) as error:
        raise click.ClickException(str(error)) from None
    for row in altered:
        click.echo(f"altered: {row}")
    for table in tables:
        click.echo(f"rows were altered, added, removed or put back in: {table}")
    if distrust:
        click.echo(f"not trusted until `vault accept`: {distrust}")
    if altered or tables or distrust:
        sys.exit(1)
    click.echo("Every row is as the service wrote it.")


@vault.command("accept")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_of_the_service
def accept_command(*, yes: bool, **flags: Any) -> None:
    """Trust the database as it is, after the service stopped using keys because someone else changed it.

    Do this after you restored a database backup yourself; otherwise only when you know what happened. Revocations
    that are missing in this database are no longer in force.

    \b
    For example:
      kms vault accept
    """
    from kms.vault.accepting import accept

    try:
        opened = _opened(flags)
        click.echo(f"Found: {opened.host.distrust or 'nothing that keeps keys from being used'}")
        if not yes:
            click.confirm("Trust this database as it is, and use its keys again?", abort=True)
        now = utc_now()
        entry = AuditEntry(1, timestamp(now), secrets.token_hex(8), "accept_vault", SUCCESS, "local")
        accept(opened, entry.line().decode())
    except (StartError, Refusal) as error:
        raise click.ClickException(str(error)) from None
    structlog.get_logger().critical("an operator accepted the database as it is")
    click.echo("Accepted. The service uses keys again within a second.")


def _opened(flags: dict[str, Any]) -> Vault:
    """Print which database the settings name, and open its vault. Raises StartError."""
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
    click.echo(f"Database: {database}{nobody}")
    return open_vault(settings, create=False)
