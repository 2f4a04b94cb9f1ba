"""What `approval-rules break-glass` does: takes a rule out of force on the host, and says so wherever it can."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import timedelta
from socket import gethostname
from typing import Any

import click
import structlog

from kms.approvals.model import ApprovalRule
from kms.cli.on_host import local_entry, opened
from kms.clock import rfc3339, utc_now
from kms.errors import NotFound, StartError
from kms.notices import events, outbox
from kms.operations.accounts.approval_rules import end_waiting
from kms.vault.store import Vault
from kms.vault.transaction import Snapshot


def lift(name: str, minutes: int | None, *, yes: bool, flags: dict[str, Any]) -> None:
    """Lift a rule for so many minutes, or with None remove it, in the vault that `flags` and the environment name.

    Raises StartError, Refusal and click's exceptions; then nothing was changed.
    """
    vault = opened(flags)
    try:
        _require_trusted(vault)
        with vault.read() as snapshot:
            rule = _rule(snapshot, name)
        how = "removed" if minutes is None else f"lifted for {minutes} minutes"
        covered = ", ".join(sorted(rule.permissions | rule.operations))
        click.echo(f"  rule        {rule.name}: {rule.approvals} of {', '.join(sorted(rule.approvers))}", err=True)
        click.echo(f"  covers      {covered} on {rule.key_pattern}", err=True)
        click.echo(f"  will be     {how}; calls that it covers need no approval then", err=True)
        if not yes:
            click.confirm(f"Take {name} out of force without any approval?", abort=True, err=True)
        with vault.change() as change:
            _require_trusted(vault)  # what another process may have found while this one asked
            now, found = utc_now(), _rule(change, name)
            if minutes is None:
                change.delete(found)
            else:
                until = now + timedelta(minutes=minutes)
                change.replace(found, replace(found, lifted_until=until, revision=secrets.token_hex(16)))
            end_waiting(change, name, now)  # who makes such a call again now would have it carried out twice
            change.record(local_entry("break_glass", f"{name} {how}"))
            outbox.emit(change, events.approval_rule_lifted(name, gethostname(), how, now))
    finally:
        vault.close()
    structlog.get_logger().critical("AN APPROVAL RULE WAS TAKEN OUT OF FORCE ON THE HOST", rule=name, how=how)
    until_then = "" if minutes is None else f", until {rfc3339(now + timedelta(minutes=minutes))}"
    click.echo(f"AN OPERATOR ON THE HOST TOOK AN APPROVAL RULE OUT OF FORCE: {name}, {how}{until_then}", err=True)


def _rule(snapshot: Snapshot, name: str) -> ApprovalRule:
    found = {rule.name: rule for rule in snapshot.matching(ApprovalRule)}
    if name not in found:
        raise NotFound(f"There is no approval rule {name[:64]}. There are: {', '.join(sorted(found)) or 'none'}.")
    return found[name]


def _require_trusted(vault: Vault) -> None:
    if vault.host.distrust is not None:
        raise StartError(
            f"{vault.host.distrust} Nothing is changed in a database that is not trusted: look at it with `kms vault "
            "verify`, and accept it with `kms vault accept` if that is right."
        )
