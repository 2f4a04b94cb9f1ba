"""What `client recover` does: shows what there is, asks, and hands the new credentials over once."""

from __future__ import annotations

from pathlib import Path
from socket import gethostname
from typing import Any

import click

from kms.access import clients, recovery
from kms.access.clients import Enrolment
from kms.access.model import Client, ClientStatus
from kms.access.recovery import Recovery, WaysIn
from kms.cli import show
from kms.cli.on_host import local_entry, opened
from kms.clock import rfc3339, utc_now
from kms.errors import StartError
from kms.files import appearing
from kms.operations.core import shown_once
from kms.vault.store import Vault


def recover_client(
    client_id: str,
    to: Path | None,
    keep_passkeys: bool,
    keep_programs: bool,
    *,
    enable: bool | None,
    yes: bool,
    flags: dict[str, Any],
) -> None:
    """Recover a client in the vault that `flags` and the environment name; `to` None stands for the terminal.

    Raises StartError, Refusal and click's exceptions; then nothing was changed.
    """
    vault = opened(flags)
    try:
        _require_trusted(vault)
        with vault.read() as snapshot:
            client = clients.get(snapshot, client_id)
            found = recovery.ways_in(snapshot, client_id, utc_now())
        if client.status is ClientStatus.DISABLED and enable is None:
            if yes:
                raise click.UsageError(f"{client_id} is disabled: add --enable, or --no-enable.")
            enable = click.confirm(f"{client_id} is disabled. Enable it?", err=True)
        how = Recovery(keep_passkeys, keep_programs, enable=bool(enable))
        _tell(client, found, how)
        if not yes:
            click.confirm(f"Give {client_id} new credentials?", abort=True, err=True)
        made = _carried_out(vault, client_id, how, to)
    finally:
        vault.close()
    click.echo(f"AN OPERATOR ON THE HOST GAVE A CLIENT NEW CREDENTIALS: {client_id}", err=True)
    if to is None:
        shown_once.show(made)
    else:
        click.echo(f"Wrote the credentials to {to}. Log in: kms login --credentials {to}", err=True)


def _require_trusted(vault: Vault) -> None:
    if vault.host.distrust is not None:
        raise StartError(
            f"{vault.host.distrust} Nothing is changed in a database that is not trusted: look at it with `kms vault "
            "verify`, and accept it with `kms vault accept` if that is right."
        )


def _carried_out(vault: Vault, client_id: str, how: Recovery, to: Path | None) -> Enrolment:
    """Change the client together with the audit entry. A file is written before the commit, or else not at all."""
    is_written = False
    try:
        with vault.change() as change:
            now = utc_now()
            _require_trusted(vault)  # what another process may have found while this one asked
            made = recovery.recover(change, clients.get(change, client_id), how, gethostname(), now)
            change.record(local_entry("recover_client", client_id))
            if to is not None:
                with appearing(to, replace=False) as file:
                    file.write(shown_once.as_json(made))
                is_written = True
    except BaseException:
        if to is not None and is_written:
            to.unlink(missing_ok=True)
        raise
    return made


def _tell(client: Client, found: WaysIn, how: Recovery) -> None:
    """Say on stderr what will be done."""
    new = "secret, TOTP secret and recovery codes; the old ones no longer work"
    status = (
        "disabled, and will be enabled" if how.enable and client.status is ClientStatus.DISABLED else client.status
    )
    _line("client", f"{client.client_id} ({', '.join(sorted(client.roles))}), {status}")
    _line("new", new)
    _line("end now", f"{found.sessions} sessions, {len(found.access_keys)} access keys")
    passkeys = [f"passkey {each.name!r} of {rfc3339(each.created_at)}" for each in found.passkeys]
    programs = [f"public key {each.kid} of {rfc3339(each.created_at)}" for each in found.public_keys]
    programs += [f"issuer role {each.role} of {rfc3339(each.created_at)}" for each in found.issuer_roles]
    for ways, is_kept in ((passkeys, how.keep_passkeys), (programs, how.keep_programs)):
        for way in ways:
            _line("STAYS GOOD" if is_kept else "removed", way)
    _line("stay", "keys, grants, groups, and certificates of the client CA that name this client")


def _line(title: str, text: str) -> None:
    click.echo(f"  {title:<12}{show.plain(text)}", err=True)
