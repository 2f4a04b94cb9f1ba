"""The domain's values: a key, its versions, and the words for what they may do."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from kms.enums import TextEnum


class KeyState(TextEnum):
    """The states of SP 800-57 part 1 rev. 5, section 7."""

    PRE_ACTIVATION = "pre-activation"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DEACTIVATED = "deactivated"
    COMPROMISED = "compromised"
    DESTROYED = "destroyed"


class ShownState(TextEnum):
    """The state in which a key is shown: one of KeyState, or `pending-deletion`, in which it cannot be used."""

    PRE_ACTIVATION = "pre-activation"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DEACTIVATED = "deactivated"
    COMPROMISED = "compromised"
    DESTROYED = "destroyed"
    PENDING_DELETION = "pending-deletion"


class Usage(TextEnum):
    """What a key was made for. Each usage either protects data or processes what was protected."""

    ENCRYPT = "encrypt"
    DECRYPT = "decrypt"
    SIGN = "sign"
    VERIFY = "verify"
    MAC = "mac"
    VERIFY_MAC = "verify-mac"
    WRAP = "wrap"
    UNWRAP = "unwrap"
    DERIVE = "derive"
    AGREE = "agree"
    ENCAPSULATE = "encapsulate"
    DECAPSULATE = "decapsulate"
    SEAL = "seal"
    OPEN = "open"

    @property
    def protects(self) -> bool:
        """Whether this applies protection (SP 800-57: originator usage) rather than processing it.

        Deriving a key again is what recipients do (the same, section 5.3.6, item 10), so it only processes.
        """
        return self in _PROTECTING

    @property
    def needs_private(self) -> bool:
        """Whether this needs the private key of a pair, and cannot be done with the public key alone."""
        return self not in {Usage.ENCRYPT, Usage.VERIFY, Usage.ENCAPSULATE, Usage.SEAL}


_PROTECTING = frozenset(
    {Usage.ENCRYPT, Usage.SIGN, Usage.MAC, Usage.WRAP, Usage.AGREE, Usage.ENCAPSULATE, Usage.SEAL}
)


class Origin(TextEnum):
    """Where the material of a key came from."""

    GENERATED = "generated"
    IMPORTED = "imported"
    AGREED = "agreed"
    DERIVED = "derived"

    @property
    def is_renewable(self) -> bool:
        """Whether the service can make the next version itself; not of agreed or derived keys, which others have."""
        return self in {Origin.GENERATED, Origin.IMPORTED}


class ExternalMaterial(TextEnum):
    """Whether external material is here: not imported yet, present, or removed or expired after an import."""

    AWAITED = "awaited"
    PRESENT = "present"
    GONE = "gone"


class RevocationReason(TextEnum):
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

        `unspecified` counts as a compromise: without a reason the worst case is assumed.
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
    """A named key: what all its versions have in common. `type` is that of the latest version, and of the next one.

    Versions below `oldest_version` were trimmed; those below `min_protect_version` cannot encrypt or sign, and those
    below `min_process_version` cannot be used at all. `deletion_at` is when the key will be deleted, None if no
    deletion is scheduled. `region` is the AWS region of the key, empty for the one in the settings; `replicas` are
    further regions, each with a description and labels of its own. `policy` is an AWS key policy, empty if ownership
    and grants alone decide. `former_id` is the id that a key about to be deleted had before its name was released; it
    is empty for all others, and its material stays bound to that id. `exportable_later` says that the owner may make
    the key exportable later, as with Vault.
    """

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
    description: str = ""
    origin: Origin = Origin.GENERATED
    oldest_version: int = 1
    min_protect_version: int = 1
    min_process_version: int = 1
    deletion_at: datetime | None = None
    region: str = ""
    replicas: frozenset[str] = frozenset()
    replica_descriptions: dict[str, str] = field(default_factory=dict)
    replica_labels: dict[str, dict[str, str]] = field(default_factory=dict)
    policy: str = ""
    former_id: str = ""
    exportable_later: bool = False

    @property
    def sealed_as(self) -> str:
        """The key id to which the sealed material is bound; it never changes."""
        return self.former_id or self.key_id


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """One version of a key. A version beyond the latest is external material that waits for the next rotation.

    `material` is sealed by the vault; it is None if it was destroyed or is missing, or if only a public key was
    imported. `public_key` is DER SubjectPublicKeyInfo. The originator-usage period (protecting) ends at `expires_at`,
    the recipient-usage period (processing) at `process_until`. For external material `fingerprint` is a keyed hash,
    by which it is recognised when it is imported again, and `material_until` is when it expires.
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
    fingerprint: bytes | None = field(default=None, repr=False)
    material_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Alias:
    """Another name of a key, which can be pointed to another key; `updated_at` is when it last was, None: never."""

    alias: str
    key_uid: bytes
    created_at: datetime
    updated_at: datetime | None = None
