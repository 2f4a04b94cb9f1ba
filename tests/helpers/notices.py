"""Subscribing in tests, and looking at what comes of it."""

from __future__ import annotations

from typing import Any

from helpers.support import Api, World
from helpers.webhook_receiver import Received, Receiver
from kms.operations.system.expiring import announce_expiring_keys

KEY_EVENTS = ["key.expiring", "key.rotated", "key.revoked", "key.used_after_compromise"]


def subscribe(api: Api, receiver: Receiver, *events: str, **more: Any) -> dict[str, Any]:
    """A new subscription of `api`, to all events of keys unless some are named."""
    answer = api.post("/api/v1/notices", {"url": receiver.url(), "events": list(events) or KEY_EVENTS, **more})
    assert answer.status_code == 201, answer.json
    return dict(answer.json)


def send(world: World, receiver: Receiver) -> list[Received]:
    """Send what is due, and give what came of that."""
    before = len(receiver.received)
    world.service.deliveries.deliver_due(and_wait=True)
    return receiver.received[before:]


def announce(world: World) -> None:
    """Write what is to be told of keys that expire."""
    announce_expiring_keys(world.service, world.service.clock())


def deliveries(api: Api, notice: dict[str, Any], state: str = "") -> list[dict[str, Any]]:
    """What `api` is shown of the deliveries of its subscription."""
    query = f"?state={state}" if state else ""
    return list(api.get(f"/api/v1/notices/{notice['notice_id']}/deliveries{query}").json["items"])


def make(api: Api, key_id: str, period: str = "P365D") -> None:
    """Make a key."""
    assert api.post("/api/v1/keys", {"key_id": key_id, "cryptoperiod": period}).status_code == 201
