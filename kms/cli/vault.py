"""`vault`: checks on the vault itself, run on the host with the service's own settings."""

from __future__ import annotations

import sys
from typing import Any

import click

from kms.config import load
from kms.errors import Refusal, StartError
from kms.vault.opening import open_vault


@click.group()
def vault() -> None:
    """Check the vault; for operators on the host."""


@vault.command()
@click.option("--data-dir", help="As for `python app.py`.")
@click.option("--database-url", help="As for `python app.py`.")
@click.option("--seal", help="As for `python app.py`.")
def verify(**flags: Any) -> None:
    """Check every row of the database against what the service wrote. Exits with 1 where one is wrong."""
    try:
        opened = open_vault(load({name: value for name, value in flags.items() if value is not None}), create=False)
        altered = list(opened.altered_rows())
        tables = opened.check_tallies()
    except (StartError, Refusal) as error:
        raise click.ClickException(str(error)) from None
    for row in altered:
        click.echo(f"altered: {row}")
    for table in tables:
        click.echo(f"rows were altered, added, removed or put back in: {table}")
    if altered or tables:
        sys.exit(1)
    click.echo("Every row is as the service wrote it.")
