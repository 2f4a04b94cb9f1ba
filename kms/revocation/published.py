"""The published list: readable JSON with the same as a JWS (RFC 7515), to be checked offline.

The signing key is an Ed25519 key of the service, sealed in the vault, its public half at
`/.well-known/jwks.json`. All workers and nodes give the same bytes: the times in the list depend on the hour
and the newest entries only, and Ed25519 signatures are deterministic. Where the clocks of nodes differ, they do so
except while the hour has changed for some of them only (see `times`, also for clocks that are wrong by more).
"""

from __future__ import annotations

import threading
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache, partial
from hashlib import sha256

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc import jws
from joserfc.jwk import OKPKey

from kms.clock import rfc3339
from kms.crypto.pkcs8 import load_private, private_der
from kms.errors import IntegrityFailure
from kms.keys.model import RevocationReason
from kms.revocation import times
from kms.revocation.in_force import RevocationsInForce
from kms.revocation.leaves import KnownLeaves
from kms.revocation.model import Revocation
from kms.revocation.references import KeyReferences
from kms.vault import service_keys
from kms.vault.change import Change
from kms.vault.memory import Memory
from kms.vault.store import Vault
from kms.vault.transaction import Snapshot

_NAME = "revocation list"
_MEDIA_TYPE = "kms-revocation-list+jws"
_ALGORITHM = "Ed25519"
_ENTRIES_REMEMBERED = 50_000  # a list that grows is made anew for each entry


class RevokedKey(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry: every version of the key up to `up_to_version` is revoked.

    `key_reference` names the key to the vault itself, also under another id (see `references`). `audit_leaf` is the
    leaf hash of the audit entry that made it, in base64; what an older release has revoked has none.
    """

    serial: int
    key_id: str
    up_to_version: int
    reason: str
    revoked_at: str
    compromised_at: str | None
    key_reference: str
    audit_leaf: str | None = None


class _Signed(msgspec.Struct, frozen=True):
    """`no_longer_in_force` are all other entries: holds that ended, and those that lifted them."""

    issued_at: str
    next_update: str
    revoked_keys: list[RevokedKey]
    no_longer_in_force: list[RevokedKey]


class RevocationList(_Signed, frozen=True):
    """The list; `jws` signs everything else in it."""

    jws: str


@dataclass(frozen=True)
class PublishedList:
    """The list as JSON, and a strong entity tag (RFC 9110, section 8.8.3) without its quotes."""

    body: bytes
    etag: str
    made_from: tuple[datetime, datetime, int] = field(repr=False, compare=False)


class Publisher:
    """Makes the signed list, once for each new entry or hour."""

    def __init__(self, vault: Vault, memory: Memory, revocations: RevocationsInForce, leaves: KnownLeaves) -> None:
        self._memory = memory
        self._revocations = revocations
        with vault.read() as snapshot:
            self._key = signing_key(snapshot)
        self._shown = lru_cache(_ENTRIES_REMEMBERED)(partial(_shown, KeyReferences(self._key), leaves))
        self._making = threading.Lock()
        self._made: PublishedList | None = None

    def current(self, now: datetime) -> PublishedList:
        """The list as it is now. Raises Unavailable without a lease."""
        self._memory.require()
        with self._making:
            of_now = times.last_hour(now), times.issued_at(self._revocations.newest, now), len(self._revocations)
            if self._made is None or self._made.made_from != of_now:
                self._made = self._sign(now, self._revocations.entries)
            return self._made

    def jwks(self) -> dict[str, object]:
        """The public key as a JWK set (RFC 7517, section 5)."""
        return jwks_of(self._key)

    def _sign(self, now: datetime, entries: list[Revocation]) -> PublishedList:
        shown = in_force(entries)
        serials = {each.serial for each in shown}
        hour, issued_at = times.last_hour(now), times.issued_at(entries[-times.NEWEST :], now)
        signed = _Signed(
            issued_at=rfc3339(issued_at),
            next_update=rfc3339(hour + 2 * times.PERIOD),
            revoked_keys=[self._shown(entry) for entry in shown],
            no_longer_in_force=[self._shown(entry) for entry in entries if entry.serial not in serials],
        )
        header = {"alg": _ALGORITHM, "kid": self._key.thumbprint(), "typ": _MEDIA_TYPE}
        signature = jws.serialize_compact(header, msgspec.json.encode(signed), self._key, algorithms=[_ALGORITHM])
        content = RevocationList(**msgspec.structs.asdict(signed), jws=signature)
        etag = sha256(signature.encode()).hexdigest()[:32]
        return PublishedList(msgspec.json.encode(content) + b"\n", etag, (hour, issued_at, len(entries)))


def in_force(entries: Sequence[Revocation]) -> list[Revocation]:
    """`entries` in order, without holds that were lifted and those that a later revocation replaced."""
    newest: dict[bytes, Revocation] = {}
    found = []
    for entry in reversed(entries):
        last = newest.setdefault(entry.key_uid, entry)
        passing = {
            RevocationReason.CERTIFICATE_HOLD: last is not entry and not _is_copy(last, entry),
            RevocationReason.REMOVE_FROM_CRL: True,
        }
        if not passing.get(entry.reason, False):
            found.append(entry)
    return found[::-1]


def _is_copy(entry: Revocation, of: Revocation) -> bool:
    """Whether two entries of a key are one revocation, listed under two ids."""
    return entry.key_id != of.key_id and replace(entry, serial=of.serial, key_id=of.key_id) == of


def has_signing_key(snapshot: Snapshot) -> bool:
    """Whether the service has its signing key."""
    return service_keys.has(snapshot, _NAME)


def ensure_signing_key(change: Change, now: datetime) -> None:
    """Make the service's signing key where there is none yet."""
    if not has_signing_key(change):
        service_keys.keep(change, _NAME, private_der(Ed25519PrivateKey.generate()), now)


def signing_key(snapshot: Snapshot) -> OKPKey:
    """The key pair that signs the list. Raises IntegrityFailure."""
    der = service_keys.material_of(snapshot, _NAME)
    if der is None:
        raise IntegrityFailure("The service's signing key was removed from the vault.")
    key = OKPKey.import_key(load_private(der, Ed25519PrivateKey))
    return OKPKey.import_key({**key.as_dict(private=True), "kid": key.thumbprint()})


def jwks_of(key: OKPKey) -> dict[str, object]:
    """The public half of the signing key as a JWK set (RFC 7517, section 5)."""
    return {"keys": [{**key.as_dict(private=False), "use": "sig", "alg": _ALGORITHM}]}


def _shown(references: KeyReferences, leaves: KnownLeaves, entry: Revocation) -> RevokedKey:
    leaf = leaves.of(entry.serial)
    return RevokedKey(
        serial=entry.serial,
        key_id=entry.key_id,
        up_to_version=entry.up_to_version,
        reason=entry.reason,
        revoked_at=rfc3339(entry.revoked_at),
        compromised_at=rfc3339(entry.compromised_at) if entry.compromised_at else None,
        key_reference=references.of(entry.serial, entry.key_uid),
        audit_leaf=b64encode(leaf).decode() if leaf is not None else None,
    )
