"""The `kms` command: a client of the service, for people."""

from __future__ import annotations

import click

from kms import __version__
from kms.cli.access_keys import access_key
from kms.cli.audit import audit
from kms.cli.clients import client
from kms.cli.grants import grant
from kms.cli.groups import group
from kms.cli.issuers import issuer
from kms.cli.keys import key
from kms.cli.policy import policy
from kms.cli.session import login, logout, whoami
from kms.cli.vault import vault


@click.group()
@click.version_option(__version__)
def main() -> None:
    """Manage keys and clients of a Key Management System.

    Log in first; the token is kept in a file that only you can read, and so is a configuration for curl.
    """


for command in (login, logout, whoami, client, group, issuer, key, grant, policy, access_key, audit, vault):
    main.add_command(command)

__all__ = ["main"]
