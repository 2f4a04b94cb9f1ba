"""`approval-rules`: which calls are carried out only after other people have approved them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from kms.cli import remote, show
from kms.cli.failing import Failure
from kms.cli.on_host import of_the_service

_PATH = ("api", "v1", "approval-rules")
_NO_PACKAGES = (
    "`approval-rules break-glass` runs on the host of the service, and only the packages of the client are installed."
)


def _with_members(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--expires-in", help="For how long a call waits, such as PT8H.  [default for new ones: P1D]"),
        click.option("--approver", "approvers", multiple=True, help="A client, role:NAME or group:NAME; repeatable."),
        click.option("--approvals", type=int, help="How many of them must approve.  [default for new ones: 2]"),
        click.option("--key", "key_pattern", help="A key id, or the beginning of key ids followed by *."),
        click.option("--operation", "operations", multiple=True, help="Only this operation; repeatable."),
        click.option("--permission", "permissions", multiple=True, help="Calls that ask for it; repeatable."),
    ):
        command = option(command)
    return command


@click.group("approval-rules")
def approval_rules() -> None:
    """Make, change and remove the rules for approvals; a rule covers its own change and removal."""


@approval_rules.command()
@click.argument("name")
@_with_members
def add(name: str, **members: Any) -> None:
    """Make a rule: calls that it covers wait for the approval of others.

    \b
    For example:
      kms approval-rules add destroy --operation delete_key --operation destroy_version --approver role:admin
    """
    show.document(remote.call("POST", *_PATH, body={"name": name, **_given(members)}))


@approval_rules.command("list")
def list_() -> None:
    """List the rules.

    \b
    For example:
      kms approval-rules list
    """
    columns = (
        "name",
        "permissions",
        "operations",
        "key_pattern",
        "approvals",
        "approvers",
        "expires_in",
        "lifted_until",
    )
    show.table(remote.pages(*_PATH), *columns)


@approval_rules.command()
@click.argument("name")
@_with_members
def change(name: str, **members: Any) -> None:
    """Change a rule, which needs the approvals that it asks for so far; what is not given stays as it is.

    \b
    For example:
      kms approval-rules change destroy --approvals 3
    """
    show.document(remote.call("PATCH", *_PATH, name, body=_given(members)))


@approval_rules.command()
@click.argument("name")
def remove(name: str) -> None:
    """Remove a rule, which needs the approvals that it asks for.

    \b
    For example:
      kms approval-rules remove destroy
    """
    show.document(remote.call("DELETE", *_PATH, name))


@approval_rules.command("break-glass")
@click.argument("name")
@click.option("--for", "minutes", type=click.IntRange(1, 1440), help="Lift it for so many minutes.  [default: 15]")
@click.option("--remove", is_flag=True, help="Remove it for good.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@of_the_service
def break_glass(name: str, minutes: int | None, *, remove: bool, yes: bool, **flags: Any) -> None:
    """Take a rule out of force WITHOUT APPROVALS, ON THE HOST of the service, for an emergency.

    Unlike the other commands this one needs no log-in and does not call the service: run it on a host of the service,
    as the user and with the settings of the service, whether or not that runs. It is in the log and in the audit log,
    and those who subscribed to `approval.rule_lifted` are told. While the rule is lifted, calls that it covers are
    carried out at once, its change and its removal too; after that it is in force again by itself.

    \b
    For example:
      kms approval-rules break-glass destroy --for 15 --data-dir /var/lib/kms
    """
    if remove and minutes is not None:
        raise click.UsageError("--for or --remove.")
    try:
        from kms.cli import breaking_glass  # here: it needs the packages of the service
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("kms"):
            raise
        raise Failure(_NO_PACKAGES) from None
    breaking_glass.lift(name, None if remove else minutes or 15, yes=yes, flags=flags)


def _given(members: dict[str, Any]) -> dict[str, Any]:
    found = {name: list(value) if isinstance(value, tuple) else value for name, value in members.items()}
    return {name: value for name, value in found.items() if value not in (None, [])}
