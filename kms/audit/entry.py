"""An audit entry: an allow-list of fields, none of which can hold a secret.

Its encoding is fixed when it is written: one line of JSON with the members in the order below. These bytes
are what a Merkle tree over the log will hash as leaves.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

SUCCESS = "success"


class AuditEntry(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Who did what to what, from where, and how it ended.

    `time`, RFC 3339 in UTC with microseconds, is when a change was made or the body of another request was read.
    `outcome` is `success` or the problem type of the refusal; `target` names what was acted on where that is not a
    key, such as another client. Of a batch there are `items` and how many of them were `refused`. `recovery` marks
    the use of a version revoked for compromise. Of a log-in, and of a request signed with an access key, `credential`
    says what proved the client, and `subject` whom a platform's token named.
    """

    v: int
    time: str
    request_id: str
    operation: str
    outcome: str
    source: str
    client_id: str | None = None
    key_id: str | None = None
    version: int | None = None
    target: str | None = None
    items: int | None = None
    refused: int | None = None
    recovery: bool | None = None
    credential: str | None = None
    subject: str | None = None

    def line(self) -> bytes:
        """The entry as it is written, without the newline."""
        return _encoder.encode(self)


def timestamp(now: datetime) -> str:
    """How an entry writes a time."""
    global _second
    begins, ends, text = _second
    if not begins <= now < ends:
        begins = now.replace(microsecond=0)
        text = begins.strftime("%Y-%m-%dT%H:%M:%S.")
        _second = begins, begins + timedelta(seconds=1), text
    return f"{text}{now.microsecond:06d}Z"


_never = datetime.min.replace(tzinfo=UTC)
_second = (_never, _never, "")  # the last second that was asked for, and how it is written
_encoder = msgspec.json.Encoder()
