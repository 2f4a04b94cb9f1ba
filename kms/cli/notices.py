"""`notice`: who is told of what happens to keys and to the service."""

from __future__ import annotations

from typing import Any

import click

from kms.cli import remote, show

_PATH = ("api", "v1", "notices")


@click.group()
def notice() -> None:
    """Be told before keys expire, and when something happens to them or to the service."""


@notice.command()
@click.argument("target")
@click.argument("events", nargs=-1, required=True, metavar="EVENT...")
@click.option("--key", "key_pattern", help="Only of this key, or of keys that begin so: orders-*.")
def create(target: str, events: tuple[str, ...], key_pattern: str | None) -> None:
    """Send each EVENT to TARGET: an https:// URL that takes webhooks, or an e-mail address.

    The secret that verifies the signatures of webhooks is shown once. The service sends only where its settings
    allow. The events are in docs/reference/notices.md.

    \b
    For example:
      kms notice create ops@example.org key.expiring login.locked
      kms notice create https://hooks.example.org/kms key.expiring --key 'orders-*'
    """
    body: dict[str, Any] = {"url" if target.startswith("https://") else "email": target, "events": list(events)}
    if key_pattern is not None:
        body["key_pattern"] = key_pattern
    show.document(remote.call("POST", *_PATH, body=body))


@notice.command("list")
def list_() -> None:
    """List your notices; administrators see everybody's.

    \b
    For example:
      kms notice list
    """
    columns = "notice_id", "client_id", "events", "key_pattern", "status", "url", "email"
    show.table(remote.pages(*_PATH), *columns)


@notice.command()
@click.argument("notice_id")
def delete(notice_id: str) -> None:
    """End a notice. What was still to be sent to it is forgotten.

    \b
    For example:
      kms notice delete $NOTICE_ID
    """
    show.document(remote.call("DELETE", *_PATH, notice_id))


@notice.command()
@click.argument("notice_id")
def test(notice_id: str) -> None:
    """Send a test now, and say how that ended.

    \b
    For example:
      kms notice test $NOTICE_ID
    """
    show.document(remote.call("POST", *_PATH, notice_id, "test"))


@notice.command()
@click.argument("notice_id")
@click.option("--state", help="Only what is waiting, delivered or dead.")
def deliveries(notice_id: str, state: str | None) -> None:
    """List what waits to be sent, what was given up, and what was delivered in the last days.

    \b
    For example:
      kms notice deliveries $NOTICE_ID --state dead
    """
    found = remote.pages(*_PATH, notice_id, "deliveries", state=state)
    show.table(found, "delivery_id", "event", "state", "attempts", "created_at", "next_attempt_at", "last_fault")


@notice.command()
@click.argument("notice_id")
@click.argument("delivery_id")
def retry(notice_id: str, delivery_id: str) -> None:
    """Try a delivery again that was given up.

    \b
    For example:
      kms notice retry $NOTICE_ID $DELIVERY_ID
    """
    show.document(remote.call("POST", *_PATH, notice_id, "deliveries", delivery_id, "retry"))
