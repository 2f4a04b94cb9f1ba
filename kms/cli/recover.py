"""`client recover`: new credentials for a client whose person has lost theirs, on the host of the service."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from kms.cli.failing import Failure
from kms.cli.on_host import of_the_service

_NO_PACKAGES = "`client recover` runs on the host of the service, and only the packages of the client are installed."


@click.command()
@click.argument("client_id")
@click.option("--to", type=click.Path(path_type=Path), help="Write the credentials to this new file (JSON, 0600).")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--enable/--no-enable", default=None, help="Whether a disabled client is enabled.  [default: asked]")
@click.option("--keep-passkeys", is_flag=True, help="The passkeys of the client stay good.")
@click.option("--keep-programs", is_flag=True, help="The public keys and issuer roles of the client stay good.")
@of_the_service
def recover(
    client_id: str,
    to: Path | None,
    *,
    yes: bool,
    enable: bool | None,
    keep_passkeys: bool,
    keep_programs: bool,
    **flags: Any,
) -> None:
    """Give a client new credentials, ON THE HOST of the service, for a person who has lost theirs.

    Unlike the other `client` commands this one needs no log-in and does not call the service: run it on a host of
    the service, as the user and with the settings of the service, whether or not that runs. It is in the audit log,
    and those who subscribed to `client.recovered` are told.

    The client gets a new secret, TOTP secret and recovery codes. The old ones, its sessions, access keys and
    passkeys, and the public keys and issuer roles of its programs, no longer let anybody in, because a thief may have
    added some of them. Its keys, grants and groups stay. Every lock after failed log-ins is lifted.

    \b
    For example:
      kms client recover admin --data-dir /var/lib/kms
    """
    if to is not None and to.exists():
        raise click.UsageError(f"--to {to}: there is such a file already.")
    if to is None and not sys.stderr.isatty():
        raise click.UsageError("Credentials are shown on a terminal only; have them written to a new file with --to.")
    try:
        from kms.cli import recovering  # here: it needs the packages of the service, and the other commands do not
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("kms"):
            raise
        raise Failure(_NO_PACKAGES) from None
    recovering.recover_client(client_id, to, keep_passkeys, keep_programs, enable=enable, yes=yes, flags=flags)
