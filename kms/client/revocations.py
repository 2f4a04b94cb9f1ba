"""The list of revoked keys, checked offline: a signature (RFC 7515) by the service over every entry."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from kms.client.errors import NotAuthentic

_TYPE = "kms-revocation-list+jws"
_ALGORITHMS = ["Ed25519"]
_MOST_BYTES = 1 << 30  # joserfc's own limit of 128,000 is that of some hundred entries
_LEAVE_IT_PROCESSING = {"superseded", "cessationOfOperation", "affiliationChanged", "privilegeWithdrawn"}


class Revocation(msgspec.Struct, frozen=True, kw_only=True):
    """An entry: every version of the key up to `up_to_version` is revoked, for a reason of RFC 5280.

    `key_reference` says something to the service only, which finds the key again by it. Older lists have none.
    """

    serial: int
    key_id: str
    up_to_version: int
    reason: str
    revoked_at: datetime
    compromised_at: datetime | None = None
    key_reference: str | None = None

    @property
    def may_still_process(self) -> bool:
        """Whether the versions still decrypt and verify what they protected before."""
        return self.reason in _LEAVE_IT_PROCESSING


class _Signed(msgspec.Struct, frozen=True):
    issued_at: datetime
    next_update: datetime
    revoked_keys: list[Revocation]


class _Document(msgspec.Struct):
    jws: str


@dataclass(frozen=True)
class RevocationList:
    """A list whose signature was found good. After `next_update` there is a newer one."""

    issued_at: datetime
    next_update: datetime
    revoked_keys: tuple[Revocation, ...]

    @classmethod
    def checked(cls, document: bytes, jwks: bytes) -> RevocationList:
        """The list in `document`, as `GET /revocation_list` gives it, if a key of the set `jwks` signed it.

        What counts is what is signed, not what stands beside it. Raises NotAuthentic.
        """
        try:
            keys = KeySet.import_key_set(msgspec.json.decode(jwks))
            compact = msgspec.json.decode(document, type=_Document).jws
            found = jws.deserialize_compact(compact, keys, registry=_registry())
            if found.headers().get("typ") != _TYPE:
                raise NotAuthentic("The signature is of something that is not a revocation list.")
            signed = msgspec.json.decode(found.payload, type=_Signed)
        except (JoseError, msgspec.DecodeError, ValueError, TypeError, KeyError) as error:
            raise NotAuthentic(f"The revocation list is not signed by the service: {error}.") from None
        return cls(signed.issued_at, signed.next_update, tuple(signed.revoked_keys))

    def revocation_of(self, key_id: str, version: int | None = None) -> Revocation | None:
        """The newest entry on the key, and on that version of it if one is named; None where it is not revoked."""
        on_it = (each for each in reversed(self.revoked_keys) if each.key_id == key_id)
        return next((each for each in on_it if version is None or version <= each.up_to_version), None)

    def is_current(self, now: datetime) -> bool:
        """Whether there is no newer list yet, as far as can be known offline."""
        return now < self.next_update


def _registry() -> JWSRegistry:
    registry = JWSRegistry(algorithms=_ALGORITHMS)
    registry.max_payload_length = _MOST_BYTES
    return registry
