"""`approvals`: calls that wait for the approval of others, and the answer of those who are asked."""

from __future__ import annotations

import click

from kms.cli import remote, show

_PATH = ("api", "v1", "approvals")
_STATES = ("pending", "approved", "done", "failed", "rejected", "expired")


@click.group()
def approvals() -> None:
    """See calls that wait for approval; approve or reject those of others, and withdraw your own."""


@approvals.command("list")
@click.option("--state", type=click.Choice(_STATES), help="Only those in this state.")
def list_(state: str | None) -> None:
    """List the calls that you made or may approve; administrators and auditors see all.

    \b
    For example:
      kms approvals list --state pending
    """
    columns = "approval_id", "state", "operation", "key_id", "requester", "given", "needed", "expires_at"
    show.table(remote.pages(*_PATH, state=state), *columns)


@approvals.command("show")
@click.argument("approval_id")
def show_(approval_id: str) -> None:
    """Show what is asked for and by whom, how far it is and, if you asked for it, its result.

    \b
    For example:
      kms approvals show $APPROVAL_ID
    """
    show.document(remote.call("GET", *_PATH, approval_id))


@approvals.command()
@click.argument("approval_id")
def approve(approval_id: str) -> None:
    """Approve a call of somebody else; the last approval that it needs carries it out.

    Look at it first: `kms approvals show`. It needs a second factor that you gave at most five minutes ago.

    \b
    For example:
      kms approvals approve $APPROVAL_ID
    """
    answer = remote.call("POST", *_PATH, approval_id, "approve", body={})
    show.document(answer)
    if answer["state"] == "failed":
        raise click.ClickException(f"Approved, and not carried out: {answer['failure']['detail']}")


@approvals.command()
@click.argument("approval_id")
@click.option("--reason", default="", help="For who asked, and for the approvers.")
def reject(approval_id: str, reason: str) -> None:
    """Reject a call of somebody else, or withdraw one of your own; it is then never carried out.

    \b
    For example:
      kms approvals reject $APPROVAL_ID --reason 'this key is still used'
    """
    show.document(remote.call("POST", *_PATH, approval_id, "reject", body={"reason": reason}))
