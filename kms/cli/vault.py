"""`vault`: checks on the vault itself, run on the host with the service's own settings."""

from __future__ import annotations

import sys
from typing import Any

import click
import structlog

from kms.cli.on_host import local_entry, of_the_service, opened
from kms.cli.vault_backup import backup, check_backup, restore
from kms.cli.vault_recovery import recovery_key
from kms.cli.vault_reseal import reseal
from kms.cli.vault_root_key import rotate_root_key


@click.group()
def vault() -> None:
    """Look after the vault; for operators on the host."""


for _command in (backup, check_backup, restore, reseal, recovery_key, rotate_root_key):
    vault.add_command(_command)


@vault.command()
@of_the_service
def verify(**flags: Any) -> None:
    """Check that every row of the database is as the service wrote it. The exit code is 1 if one is not.

    Run it with the settings of the service, as variables or flags. It prints which database it checks, and refuses
    if the service that runs on this data directory uses another one.

    \b
    For example:
      kms vault verify --data-dir /var/lib/kms
    """
    from kms.vault.checking import altered_rows, wrong_tables  # here: the other commands do without a database

    found = opened(flags)
    altered, tables, distrust = list(altered_rows(found)), wrong_tables(found), found.host.distrust
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
@of_the_service
def accept_command(*, yes: bool, **flags: Any) -> None:
    """Trust the database as it is, after the service stopped using keys because someone else changed it.

    Do this after you restored a database backup yourself; otherwise only when you know what happened. Revocations
    that are missing in this database are no longer in force.

    \b
    For example:
      kms vault accept
    """
    from kms.vault.accepting import accept

    found = opened(flags)
    click.echo(f"Found: {found.host.distrust or 'nothing that keeps keys from being used'}")
    if not yes:
        click.confirm("Trust this database as it is, and use its keys again?", abort=True)
    accept(found, local_entry("accept_vault"))
    structlog.get_logger().critical("an operator accepted the database as it is")
    click.echo("Accepted. The service uses keys again within a second.")
