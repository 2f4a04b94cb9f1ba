"""Cache invalidation by name: which cached values a change outdates.

A worker caches what it has read and decided. Each cached value depends on named things: a key, a client, a session,
an alias … A change lists the names of what it removes or alters, and workers drop the values that depend on those
names, and no others. A change that only adds rows lists no names, because the absence of a row is never cached.

The names follow from the rows that are written, so that no operation can forget them. `bears` declares for a stored
class which name its rows belong to, and which columns do not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

EVERYTHING = "everything"
"""Whatever rests on anything."""


def of_key(uid: bytes) -> str:
    """A key with its versions."""
    return f"key {uid.hex()}"


def of_alias(alias: str) -> str:
    """Another name of a key."""
    return f"alias {alias}"


def of_client(client_id: str) -> str:
    """A client; also the subject of grants to it."""
    return f"client:{client_id}"


def of_role(role: str) -> str:
    """A role as the subject of grants."""
    return f"role:{role}"


def of_group(group: str) -> str:
    """A group of clients as the subject of grants."""
    return f"group:{group}"


def of_session(token_hash: bytes) -> str:
    """A session token."""
    return f"session {token_hash.hex()}"


def of_access_key(access_key_id: str) -> str:
    """An access key."""
    return f"access key {access_key_id}"


def of_public_key(client_id: str, kid: str) -> str:
    """A public key by which a client proves itself."""
    return f"public key {client_id} {kid}"


def of_passkey(passkey_id: str) -> str:
    """A passkey by which a person proves a client."""
    return f"passkey {passkey_id}"


def of_certificate(client_id: str, thumbprint: str) -> str:
    """A certificate by which a client proves itself."""
    return f"certificate {client_id} {thumbprint}"


def of_issuer(issuer_id: str) -> str:
    """An issuer of tokens."""
    return f"issuer {issuer_id}"


def of_issuer_role(role: str) -> str:
    """A role that tokens of an issuer give."""
    return f"issuer role {role}"


APPROVAL_RULES = "approval rules"
"""All rules of approvals together, for they are known together."""


def of_mount(mount: str) -> str:
    """A further mount of the Vault dialect."""
    return f"mount {mount}"


@dataclass(frozen=True)
class _Bearing:
    """On which name a row of a class bears: when it comes, when a deciding column changes, when it goes."""

    name: Callable[[Any], str]
    when_added: bool
    decides: Callable[[Any], Any]


_BEARINGS: dict[type, _Bearing] = {}


def bears(cls: type, name: Callable[[Any], str], *, when_added: bool = False, but: Iterable[str] = ()) -> None:
    """Declare that a changed or removed row of `cls` outdates `name(row)`, unless only columns in `but` change.

    A new row outdates the name only with `when_added`.
    """
    deciding = [field.name for field in fields(cls) if field.name not in set(but)]
    _BEARINGS[cls] = _Bearing(name, when_added, attrgetter(*deciding))


def outdated_by_adding(row: object) -> tuple[str, ...]:
    """The names that a new row outdates."""
    bearing = _BEARINGS.get(type(row))
    return (bearing.name(row),) if bearing is not None and bearing.when_added else ()


def outdated_by_replacing(old: object, new: object) -> tuple[str, ...]:
    """The names that putting `new` in the place of `old` outdates."""
    bearing = _BEARINGS.get(type(old))
    if bearing is None or bearing.decides(old) == bearing.decides(new):
        return ()
    return (bearing.name(old), bearing.name(new))


def outdated_by_removing(row: object) -> tuple[str, ...]:
    """The names that the end of a row outdates."""
    bearing = _BEARINGS.get(type(row))
    return (bearing.name(row),) if bearing is not None else ()
