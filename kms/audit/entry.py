"""An audit entry: an allow-list of fields, none of which can hold a secret.

Its encoding is fixed when it is written: one line of JSON with the members in the order below. These bytes
are what a Merkle tree over the log will hash as leaves.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

SUCCESS = "success"
OF_FOLDING = "fold"
"""The `request_id` of entries of the log about itself."""
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # the last where it nests too deep


class AuditEntry(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Who did what to what, from where, and how it ended.

    `time` is RFC 3339 in UTC with microseconds: for a change when it was made, for other requests when their body was
    read. `outcome` is `success` or the problem type of the refusal. `target` names an object that is not a key, such
    as another client. For a batch `items` is the number of its items, `refused` how many of them were refused, and
    `versions` are those that it used where they are several; `version` is the only one.
    `recovery` is true if a version that was revoked as compromised was used. For a log-in, and for a request signed
    with an access key, `credential` names the credential, and `subject` is the `sub` of a platform token. `session`
    is the public id of the session that asked; that of one that a log-in opens is the `target` of its entry.
    `approval` is the id of the approval that it is about: of a call that waits, of each decision, and of the call as
    it was carried out, where it is also the `target` unless the call has one of its own.
    `source` is what `disclosure` shows of the caller's address, and `associated_data` a keyed hash of the message's.
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
    session: str | None = None
    approval: str | None = None
    associated_data: str | None = None
    versions: tuple[int, ...] | None = None

    @property
    def used_versions(self) -> tuple[int, ...]:
        """The versions of the key that it is about, as far as it says."""
        return self.versions or (() if self.version is None else (self.version,))

    def line(self) -> bytes:
        """The entry as a line of JSON in UTF-8, without the newline at its end."""
        return _encoder.encode(self)


def about_itself(operation: str, target: str, now: datetime) -> bytes:
    """The line of an entry of the log about itself: what was done to it, or found."""
    return AuditEntry(1, timestamp(now), OF_FOLDING, operation, SUCCESS, "local", target=target).line()


def entry_of(line: bytes) -> AuditEntry | None:
    """The entry that a line is; None where it cannot be read, as after a power cut."""
    try:
        return _decode_entry(line)
    except _UNREADABLE:
        return None


def time_of(line: bytes) -> str:
    """The time of the entry that a line is; empty where that cannot be read."""
    try:
        return _decode_time(line).time
    except _UNREADABLE:
        return ""


class _Timed(msgspec.Struct):
    time: str = ""


def timestamp(now: datetime) -> str:
    """`now`, which must be in UTC, as entries write it: `2026-11-24T12:00:00.000000Z`."""
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
_decode_entry, _decode_time = msgspec.json.Decoder(AuditEntry).decode, msgspec.json.Decoder(_Timed).decode
