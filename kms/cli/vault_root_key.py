"""`vault rotate-root-key`: another root key, while the service runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click
import structlog

from kms.cli import show
from kms.cli.on_host import is_served, local_entry, of_the_service, opened, settings_of
from kms.cli.progress import progress
from kms.errors import StartError
from kms.pacing import Pace

if TYPE_CHECKING:
    from kms.config import Settings
    from kms.vault.nodes import Node
    from kms.vault.root_keys import Progress
    from kms.vault.seals import Seals
    from kms.vault.store import Vault

_SHARE, _FAST_SHARE = 10, 2
_LOOK_SECONDS = 1.0


@click.command("rotate-root-key")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--offline", is_flag=True, help="The service is stopped everywhere: keep the new root key from the old one."
)
@click.option("--fast", is_flag=True, help="Work half of the time instead of a tenth, which users of keys notice.")
@of_the_service
def rotate_root_key(*, yes: bool, offline: bool, fast: bool, **flags: Any) -> None:
    """Make a new root key and bring the whole vault under it, while the service runs.

    Run it with the settings of the service, and the seal at hand: it wraps the new root key too. If it is
    interrupted, the service goes on by itself; the same command shows how far it is and helps. If others may know
    what the seal needs, change that first: `kms vault reseal`. If they may know the root key and read the database,
    stop the service and use --offline: otherwise they could read the new root key with the old one.

    \b
    For example:
      kms vault rotate-root-key
    """
    from kms.vault.seals import Seals

    seals = Seals(settings_of(flags))
    vault = opened(flags, seals)
    _begin_or_join(vault, seals, yes=yes, offline=offline)
    left = _carry_through(vault, Pace(_FAST_SHARE if fast else _SHARE))
    if left:
        for row in left:
            click.echo(f"altered: {row}")
        raise click.ClickException(
            "These rows are not as the service wrote them, so they and the old root key stay as they are. "
            "Put back what was there, or remove these rows and run `kms vault accept`; then run this again."
        )
    click.echo(f"Done. Everything is under root key {vault.derived_keys.current}, and the one before opens nothing.")


def _begin_or_join(vault: Vault, seals: Seals, *, yes: bool, offline: bool) -> None:
    from kms.clock import utc_now
    from kms.vault import root_keys

    with vault.read() as snapshot:
        under_way = root_keys.is_under_way(snapshot)
        others = vault.nodes.others(vault.nodes.all(snapshot))
    number = vault.derived_keys.current
    if offline:
        _require_stopped(seals.settings, others)
    if under_way:
        click.echo(f"The vault is being brought under root key {number} already.")
        return
    if not yes:
        click.confirm(f"Root key {number} is in use. Make another one and bring everything under it?", abort=True)
    rewrap = root_keys.Rewrap(seals, vault.derived_keys.vault_id)
    number = root_keys.begin(
        vault, rewrap, utc_now(), local_entry("rotate_root_key", f"root key {number + 1}"), offline=offline
    )
    structlog.get_logger().critical(f"an operator made root key {number}; the vault is being brought under it")


def _require_stopped(settings: Settings, others: list[Node]) -> None:
    """Raise StartError where the service runs on this host, or another node may serve, as far as the database says.

    The row of this host is no sign of a service: it stays where that was killed, and the lock file tells instead.
    """
    if is_served(settings):
        raise StartError("The service runs on this host. Stop it here and everywhere, or leave out --offline.")
    if others:
        named = ", ".join(f"{show.plain(each.host)} (node {show.plain(each.node_id)})" for each in others)
        raise StartError(
            f"By the database other nodes serve this vault: {named}. Stop the service there, or leave out --offline. "
            "A node that was killed, or whose host was restarted or is gone, this one too, stays listed until others "
            "miss it: start the service here, wait about a minute, stop it, and run this again."
        )


def _carry_through(vault: Vault, pace: Pace) -> tuple[str, ...]:
    """Work, or watch others work, until it is done; returns the rows that could not be renewed."""
    from kms.clock import utc_now
    from kms.vault import root_keys

    with progress("Rows", root_keys.rows_in_all(vault), in_bytes=False) as advance:
        done = 0

        def show(now: Progress) -> None:
            nonlocal done
            advance(now.done - done)
            done = now.done

        while True:
            root_keys.go_on(vault)  # somebody may have put right what a worker has found altered
            left = root_keys.renew_rows(vault, utc_now, pace, progress=show)
            if left is not None:
                if not left.rows:
                    entry = local_entry("retire_root_key", f"root key {left.number - 1}")
                    root_keys.end(vault, left.number, entry)
                return left.rows
            with vault.read() as snapshot:
                if not root_keys.is_under_way(snapshot):
                    return ()
            if (others := root_keys.progress_of(vault)) is not None:
                show(others)
            time.sleep(_LOOK_SECONDS)
