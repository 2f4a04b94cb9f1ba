"""The domain's values: a key, its versions, and the words for what they may do."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum


class KeyState(StrEnum):
    """The states of SP 800-57 part 1 rev. 5, section 7."""

    PRE_ACTIVATION = "pre-activation"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DEACTIVATED = "deactivated"
    COMPROMISED = "compromised"
    DESTROYED = "destroyed"


class Usage(StrEnum):
    """What a key was made for. Each usage either protects data or processes what was protected."""

    ENCRYPT = "encrypt"
    DECRYPT = "decrypt"
    SIGN = "sign"
    VERIFY = "verify"
    AGREE = "agree"

    @property
    def protects(self) -> bool:
        """Whether this applies protection (SP 800-57: originator usage) rather than processing it."""
        return self in {Usage.ENCRYPT, Usage.SIGN, Usage.AGREE}


class RevocationReason(StrEnum):
    """RFC 5280, section 5.3.1."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    CA_COMPROMISE = "cACompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"
    CERTIFICATE_HOLD = "certificateHold"
    REMOVE_FROM_CRL = "removeFromCRL"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"
    AA_COMPROMISE = "aACompromise"

    @property
    def leads_to(self) -> KeyState:
        """The state that a revocation for this reason puts a version in.

        `unspecified` counts as a compromise: where nobody says why, the safe reading is the worse one.
        """
        if self is RevocationReason.CERTIFICATE_HOLD:
            return KeyState.SUSPENDED
        if self is RevocationReason.REMOVE_FROM_CRL:
            return KeyState.ACTIVE
        if self in {
            RevocationReason.SUPERSEDED,
            RevocationReason.CESSATION_OF_OPERATION,
            RevocationReason.AFFILIATION_CHANGED,
            RevocationReason.PRIVILEGE_WITHDRAWN,
        }:
            return KeyState.DEACTIVATED
        return KeyState.COMPROMISED


@dataclass(frozen=True, slots=True)
class Key:
    """A named key: what all its versions have in common. `type` is that of the latest version and the next."""

    uid: bytes
    key_id: str
    type: str
    owner: str
    usages: frozenset[Usage]
    exportable: bool
    cryptoperiod: timedelta
    rotation_period: timedelta | None
    next_rotation_at: datetime | None
    latest_version: int
    created_at: datetime
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """One version of a key.

    `material` is sealed by the vault and None once destroyed; `public_key` is DER SubjectPublicKeyInfo.
    `expires_at` ends the originator-usage period (protecting), `process_until` the recipient-usage period.
    """

    key_uid: bytes
    version: int
    type: str
    state: KeyState
    created_at: datetime
    activate_at: datetime
    expires_at: datetime
    process_until: datetime
    material: bytes | None = field(repr=False)
    public_key: bytes | None = None
    revocation_reason: RevocationReason | None = None
    changed_at: datetime | None = None
