"""When a key was used last."""

from __future__ import annotations

from datetime import datetime

from msgspec import UNSET, UnsetType

from kms.access.policy import Permission
from kms.last_uses import BEGINNING
from kms.operations.core.declare import Answer, EmptyRequest, operation
from kms.operations.core.key_access import authorized_key
from kms.operations.core.service import Call, Service
from kms.vault.rows import LastUse


class LastUseAnswer(Answer):
    """The last successful use of a key. If `used_at` is missing, there was none since `tracked_since`.

    Uses in the last five minutes, or in the last minutes before a crash, may be missing.
    """

    key_id: str
    tracked_since: datetime
    used_at: datetime | UnsetType = UNSET
    operation: str | UnsetType = UNSET
    request_id: str | UnsetType = UNSET


@operation("GET", "/api/v1/keys/<key_id>/last-use", permission=Permission.KEYS_READ)
def get_last_use(service: Service, call: Call, request: EmptyRequest, key_id: str) -> LastUseAnswer:
    """Show when a key was last used, and by which operation."""
    with service.vault.read() as snapshot:
        key = authorized_key(service, snapshot, call, Permission.KEYS_READ, key_id)
        written, beginning = (snapshot.find(LastUse, uid) for uid in (key.uid, BEGINNING))
    uses = [(written.used_at, written.operation, written.request_id)] if written else []
    seen = service.last_uses.seen(key.key_id)
    if seen is not None and seen[0] >= key.created_at:
        uses.append(seen)
    began = beginning.used_at if beginning else service.last_uses.began
    answer = LastUseAnswer(key_id=key.key_id, tracked_since=max(key.created_at, began))
    if uses:
        answer.used_at, answer.operation, answer.request_id = max(uses)
    return answer
