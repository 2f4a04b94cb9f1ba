"""Access keys: what a program signs its requests with (AWS Signature Version 4), for a client, until a moment.

Unlike tokens they are kept sealed and not hashed: whoever checks a signature needs the secret itself.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime

from kms.access.model import SECRET, Caller
from kms.secret import Secret
from kms.vault import names, sealed_columns, tables
from kms.vault.change import Change
from kms.vault.records import microseconds, stored_in
from kms.vault.sealing import DerivedKeys, SealBroken
from kms.vault.transaction import Snapshot

_MOST_SHOWN = 1000
_FORM = re.compile(r"[A-Z0-9]{20}")


@stored_in(tables.access_keys)
@dataclass(frozen=True, slots=True)
class AccessKey:
    """One access key; `secret` is sealed. With `session_token_hash` requests must carry that token too.

    `scope`, `credential`, `subject` and `second_factor_at` are those of the caller who made it. One that
    `needs_second_factor` does nothing but give, with a code, access keys that end soon.
    """

    access_key_id: str
    client_id: str
    secret: bytes = field(repr=False)
    session_token_hash: bytes | None
    created_at: datetime
    expires_at: datetime
    scope: frozenset[str] = frozenset()
    credential: str = SECRET
    subject: str = ""
    second_factor_at: datetime | None = None
    needs_second_factor: bool = False


names.bears(AccessKey, lambda key: names.of_access_key(key.access_key_id))


@dataclass(frozen=True)
class Minted:
    """A new access key, told once."""

    record: AccessKey
    secret: str = field(repr=False)
    session_token: str | None = field(repr=False)


def mint(
    change: Change,
    caller: Caller,
    now: datetime,
    expires_at: datetime,
    *,
    scope: frozenset[str] = frozenset(),
    with_session_token: bool = False,
    needs_second_factor: bool = False,
    bears: str = "",
) -> Minted:
    """Make an access key for `caller`, as narrow as `scope` says; its session token has `bears` in it, to be read."""
    client_id = caller.client_id
    prefix = "ASIA" if with_session_token else "AKIA"  # by these, tools tell the two kinds apart
    access_key_id = prefix + base64.b32encode(os.urandom(10)).decode()
    secret = base64.b64encode(os.urandom(30)).decode()  # 40 characters, as many tools expect
    session_token = f"{secrets.token_urlsafe(32)}{'.' if bears else ''}{bears}" if with_session_token else None
    record = AccessKey(
        access_key_id=access_key_id,
        client_id=client_id,
        secret=change.derived_keys.seal(secret.encode(), sealed_columns.access_key_secret(access_key_id, client_id)),
        session_token_hash=session_token_hash(change.derived_keys, session_token) if session_token else None,
        created_at=now,
        expires_at=expires_at,
        scope=scope,
        credential=caller.credential,
        subject=caller.subject,
        second_factor_at=caller.second_factor_at,
        needs_second_factor=needs_second_factor,
    )
    change.insert(record)
    return Minted(record, secret, session_token)


def in_force(snapshot: Snapshot, client_id: str, now: datetime) -> list[AccessKey]:
    """The access keys of a client that have not expired, the oldest first; of very many the newest thousand."""
    column = tables.access_keys.c
    own, good = column.client_id == client_id, column.expires_at > microseconds(now)
    found = snapshot.select(AccessKey, own, good, order_by=column.created_at.desc(), limit=_MOST_SHOWN)
    return found[::-1]


def lasting(change: Change, client_id: str, most: int) -> int:
    """How many access keys without a session token a client has, counted up to `most`."""
    column = tables.access_keys.c
    return len(
        change.select(AccessKey, column.client_id == client_id, column.session_token_hash.is_(None), limit=most)
    )


def borne_by(session_token: str) -> str:
    """The text that `mint` put into a session token (`bears`), empty if none. The token must have been verified."""
    return session_token.partition(".")[2]


def is_access_key_id(text: str) -> bool:
    """Whether `text` has the form of the id of an access key."""
    return _FORM.fullmatch(text) is not None


def secret_of(derived_keys: DerivedKeys, key: AccessKey) -> Secret | None:
    """The unsealed secret, None where it was altered."""
    try:
        return Secret(
            derived_keys.open(key.secret, sealed_columns.access_key_secret(key.access_key_id, key.client_id))
        )
    except SealBroken:
        return None


def is_secret(right: Secret | None, given: str) -> bool:
    """Whether `given` is the secret of an access key; None stands for one that is not there."""
    expected = right if right is not None else Secret(os.urandom(40))
    return expected == Secret(given.encode("utf-8", "surrogateescape")) and right is not None


def session_token_hash(derived_keys: DerivedKeys, token: str) -> bytes:
    """What is stored of a session token."""
    return derived_keys.credential_hash("session token", token.encode("utf-8", "surrogateescape"))
