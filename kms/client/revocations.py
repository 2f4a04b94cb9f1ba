"""The list of revoked keys, checked offline: a signature (RFC 7515) by the service over every entry."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import GuestProtocol, Key, KeySet
from joserfc.jws import JWSRegistry

from kms.client.errors import KmsError, NotAuthentic

_TYPE = "kms-revocation-list+jws"
_ALGORITHMS = ["Ed25519"]
_LEAF_BYTES = 32
_MOST_BYTES = 1 << 30  # joserfc's own limit of 128,000 is that of some hundred entries
_LEAVE_IT_PROCESSING = {"superseded", "cessationOfOperation", "affiliationChanged", "privilegeWithdrawn"}
_KEY_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_HOLD, _LIFTED = "certificateHold", "removeFromCRL"


class Undecided(KmsError):
    """The list does not tell whether the key is revoked, or was at that time; the message says why."""


class Revocation(msgspec.Struct, frozen=True, kw_only=True):
    """An entry: every version of the key up to `up_to_version` is revoked, for a reason of RFC 5280.

    `key_reference` says something to the service only, which finds the key again by it. Older lists have none.
    `audit_leaf` is the leaf hash of the audit entry that made the revocation, in base64; what was revoked by an older
    release has none.
    """

    serial: int
    key_id: str
    up_to_version: int
    reason: str
    revoked_at: datetime
    compromised_at: datetime | None = None
    key_reference: str | None = None
    audit_leaf: str | None = None

    @property
    def leaf(self) -> bytes | None:
        """The leaf hash of the audit entry, 32 bytes. Raises NotAuthentic if it is not one."""
        if self.audit_leaf is None:
            return None
        try:
            leaf = b64decode(self.audit_leaf, validate=True)
        except ValueError:
            leaf = b""
        if len(leaf) != _LEAF_BYTES:
            raise NotAuthentic(f"Entry {self.serial} of the revocation list has no leaf hash of 32 bytes.")
        return leaf

    @property
    def may_still_process(self) -> bool:
        """Whether the versions still decrypt and verify what they protected before."""
        return self.reason in _LEAVE_IT_PROCESSING


class _Signed(msgspec.Struct, frozen=True):
    issued_at: datetime
    next_update: datetime
    revoked_keys: list[Revocation]
    no_longer_in_force: list[Revocation] | None = None


class _Document(msgspec.Struct):
    jws: str


@dataclass(frozen=True)
class RevocationList:
    """A list whose signature was found good. After `next_update` there is a newer one.

    `no_longer_in_force` are holds that ended, and the entries that lifted them; None in lists of older releases,
    which leave them out. `signed_by` is the thumbprint (RFC 7638, SHA-256) of the key that signed the list.
    """

    issued_at: datetime
    next_update: datetime
    revoked_keys: tuple[Revocation, ...]
    no_longer_in_force: tuple[Revocation, ...] | None = None
    signed_by: str = ""

    @classmethod
    def checked(cls, document: bytes, jwks: bytes) -> RevocationList:
        """The list in `document`, as `GET /revocation_list` gives it, if a key of the set `jwks` signed it.

        What counts is what is signed, not what stands beside it. Raises NotAuthentic.
        """
        used: list[Key] = []

        def chosen(signature: GuestProtocol) -> Key:
            used.append(keys.get_by_kid(signature.headers().get("kid"), {"alg": _ALGORITHMS[0]}))
            return used[-1]

        try:
            keys = KeySet.import_key_set(msgspec.json.decode(jwks))
            compact = msgspec.json.decode(document, type=_Document).jws
            found = jws.deserialize_compact(compact, chosen, registry=_registry())
            if found.headers().get("typ") != _TYPE:
                raise NotAuthentic("The signature is of something that is not a revocation list.")
            signed = msgspec.json.decode(found.payload, type=_Signed)
        except (JoseError, msgspec.DecodeError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise NotAuthentic(f"The revocation list is not signed by the service: {error}.") from None
        ended = None if signed.no_longer_in_force is None else tuple(signed.no_longer_in_force)
        in_force = tuple(signed.revoked_keys)
        # Of the key itself: what the set calls it may be anything.
        return cls(signed.issued_at, signed.next_update, in_force, ended, used[-1].thumbprint())

    def revocation_of(self, key_id: str, version: int | None = None) -> Revocation | None:
        """The newest entry on the key, and on that version of it if one is named; None where it is not revoked.

        The list knows key ids, as they are written, and no aliases. Raises Undecided for what can be no key id.
        """
        _require_key_id(key_id)
        on_it = (each for each in reversed(self.revoked_keys) if each.key_id == key_id)
        return next((each for each in on_it if version is None or version <= each.up_to_version), None)

    def revocation_at(self, key_id: str, at: datetime, version: int | None = None) -> Revocation | None:
        """The entry by which the key, or that version of it, was revoked at the time `at`; None where it was not.

        A hold lasts until the next entry on the same key id, or if there is none for as long as the list can tell.
        Raises Undecided where the list does not tell, and for what can be no key id.
        """
        _require_key_id(key_id)
        found = next(self._covering(key_id, at, version), None)
        if found is not None and (found.reason != _HOLD or at <= self.issued_at):
            return found
        if at > self.issued_at:
            raise Undecided(
                f"The list was made before that time, at {self.issued_at:%Y-%m-%dT%H:%M:%SZ}. Take a newer one."
            )
        self._require_complete()
        ahead = next((each for each in self._on(key_id, version) if each.revoked_at > self.issued_at), None)
        if ahead is not None:
            raise Undecided(
                f"Entry {ahead.serial} of the list revokes the key at {ahead.revoked_at:%Y-%m-%dT%H:%M:%SZ}, after "
                "the list was made. A clock of the service was wrong, so nothing tells since when."
            )
        return None

    def _covering(self, key_id: str, at: datetime, version: int | None) -> Iterator[Revocation]:
        """The entries by which the key was revoked at `at`, the newest first."""
        on_it = self._on(key_id)
        in_force = {each.serial for each in self.revoked_keys}
        ends: datetime | None = None
        for entry in reversed(on_it):
            is_over = entry.serial not in in_force and ends is not None and ends <= at
            is_on_version = version is None or version <= entry.up_to_version
            if entry.revoked_at <= at and entry.reason != _LIFTED and is_on_version and not is_over:
                yield entry
            ends = entry.revoked_at

    def _on(self, key_id: str, version: int | None = None) -> list[Revocation]:
        """All entries on the key, and on that version of it if one is named, in their order."""
        every = (*self.revoked_keys, *(self.no_longer_in_force or ()))
        found = [each for each in every if each.key_id == key_id and (version or 0) <= each.up_to_version]
        return sorted(found, key=lambda each: each.serial)

    def _require_complete(self) -> None:
        """Raise Undecided unless every entry up to the newest is in the list."""
        if self.no_longer_in_force is None:
            raise Undecided(
                "The list is of an older release, which leaves out holds that were lifted. It proves what is "
                "revoked, and what is not at the time when it was made, but not what was not before."
            )
        serials = {each.serial for each in (*self.revoked_keys, *self.no_longer_in_force)}
        missing = next((serial for serial in range(1, max(serials, default=0)) if serial not in serials), None)
        if missing is not None:
            raise Undecided(f"Entry {missing} is not in the list, so it does not prove that a key was not revoked.")

    def is_current(self, now: datetime) -> bool:
        """Whether there is no newer list yet, as far as can be known offline."""
        return now < self.next_update


def _require_key_id(name: str) -> None:
    if not _KEY_ID.fullmatch(name):
        raise Undecided(f"{name!r} is not a key id. The list names keys by their ids only: no alias, no ARN.")


def _registry() -> JWSRegistry:
    registry = JWSRegistry(algorithms=_ALGORITHMS)
    registry.max_payload_length = _MOST_BYTES
    return registry
