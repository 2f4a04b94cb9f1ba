"""AWS's actions on keys, and which of them our operations are."""

from __future__ import annotations

from collections.abc import Mapping

from kms.access.key_policy.malformed import Malformed
from kms.access.key_policy.patterns import like

_PREFIX = "kms:"

_OF_AWS = frozenset({
    "CancelKeyDeletion", "ConnectCustomKeyStore", "CreateAlias", "CreateCustomKeyStore", "CreateGrant",
    "CreateKey", "Decapsulate", "Decrypt", "DeleteAlias", "DeleteCustomKeyStore",
    "DeleteImportedKeyMaterial", "DeriveSharedSecret", "DescribeCustomKeyStores", "DescribeKey",
    "DisableKey", "DisableKeyRotation", "DisconnectCustomKeyStore", "EnableKey", "EnableKeyRotation",
    "Encapsulate", "Encrypt", "GenerateDataKey", "GenerateDataKeyPair",
    "GenerateDataKeyPairWithoutPlaintext", "GenerateDataKeyWithoutPlaintext", "GenerateMac",
    "GenerateRandom", "GetKeyLastUsage", "GetKeyPolicy", "GetKeyRotationStatus", "GetParametersForImport",
    "GetPublicKey", "ImportKeyMaterial", "ListAliases", "ListGrants", "ListKeyPolicies", "ListKeyRotations",
    "ListKeys", "ListResourceTags", "ListRetirableGrants", "PutKeyPolicy", "ReEncryptFrom", "ReEncryptTo",
    "ReplicateKey", "RetireGrant", "RevokeGrant", "RotateKeyOnDemand", "ScheduleKeyDeletion", "Sign",
    "SynchronizeMultiRegionKey", "TagResource", "UntagResource", "UpdateAlias", "UpdateCustomKeyStore",
    "UpdateKeyDescription", "UpdatePrimaryRegion", "Verify", "VerifyMac",
})  # fmt: skip
"""The actions that a policy of AWS's can name."""

OWNER_ONLY = frozenset({
    "Compromise", "Configure", "Derive", "Destroy", "Export", "ExportPlaintext", "Open", "Recover", "Seal", "Unwrap",
    "Wrap",
})  # fmt: skip
"""What AWS has no action for. Only wildcards mean it, and an Allow gives it to nobody but the owner of the key."""

EVERY = _OF_AWS | OWNER_ONLY

ACTIONS: Mapping[str, tuple[str, ...]] = {
    "keys:create": ("CreateKey",),
    "keys:read": ("DescribeKey",),
    "keys:rotate": ("RotateKeyOnDemand",),
    "keys:revoke": ("DisableKey",),
    "keys:update": ("UpdateKeyDescription",),
    "keys:delete": ("ScheduleKeyDeletion",),
    "keys:export": ("Export",),
    "keys:encrypt": ("Encrypt",),
    "keys:decrypt": ("Decrypt",),
    "keys:rewrap": ("ReEncryptFrom", "ReEncryptTo"),
    "keys:sign": ("Sign",),
    "keys:verify": ("Verify",),
    "keys:mac": ("GenerateMac",),
    "keys:verify-mac": ("VerifyMac",),
    "keys:wrap": ("Wrap",),
    "keys:unwrap": ("Unwrap",),
    "keys:derive": ("Derive",),
    "keys:agree": ("DeriveSharedSecret",),
    "keys:encapsulate": ("Encapsulate",),
    "keys:decapsulate": ("Decapsulate",),
    "keys:seal": ("Seal",),
    "keys:open": ("Open",),
    "keys:recover": ("Recover",),
    "keys:export-plaintext": ("ExportPlaintext",),
    "grants:manage": ("CreateGrant",),
}
"""Which actions each permission on a key is, where the operation does not say it better. Permissions that are about
no key are not here."""

_COMPROMISE = ("DisableKey", "Compromise")
_DESTROY = ("ScheduleKeyDeletion", "Destroy")
_OF_OPERATION: Mapping[str, tuple[str, ...]] = {
    "cancel_deletion": ("CancelKeyDeletion",),
    "data_key": ("GenerateDataKey",),
    "data_key_pair": ("GenerateDataKeyPair",),
    "delete_alias": ("DeleteAlias",),
    "delete_grant": ("RevokeGrant",),
    "delete_material": ("DeleteImportedKeyMaterial",),
    "get_last_use": ("GetKeyLastUsage",),
    "get_public_key": ("GetPublicKey",),
    "import_material": ("ImportKeyMaterial",),
    "import_version": ("ImportKeyMaterial",),
    "list_aliases": ("ListAliases",),
    "list_grants": ("ListGrants",),
    "list_versions": ("ListKeyRotations",),
    "destroy_version": _DESTROY,
    "resume_key": ("EnableKey",),
    "revoke_key": _COMPROMISE,
    "revoke_key_versions": _COMPROMISE,
    "revoke_named_key": _COMPROMISE,
    "set_alias": ("CreateAlias", "UpdateAlias"),
    "set_regions": (
        "ReplicateKey",
        "ScheduleKeyDeletion",
        "TagResource",
        "UntagResource",
        "UpdateKeyDescription",
        "UpdatePrimaryRegion",
    ),
    "trim_key": _DESTROY,
}
"""Operations that are other actions than their permission, each as many as it could be. What cannot be undone is more
than what AWS calls nearly so. A request of the AWS dialect is the action it names."""


def actions_for(operation: str, permission: str) -> tuple[str, ...]:
    """The actions that an operation over REST or Vault's dialect needs, all of them. Raises KeyError for a permission
    that is about no key."""
    return _OF_OPERATION.get(operation) or ACTIONS[permission]


def actions_like(pattern: str) -> frozenset[str]:
    """The actions that `kms:NAME` or a pattern stands for, in letters of either case.

    Raises Malformed for one that stands for no action: a misspelt one would be without effect, and nobody would know.
    """
    if pattern == "*":
        return EVERY
    found: frozenset[str] = frozenset()
    if pattern.lower().startswith(_PREFIX):
        wanted = pattern[len(_PREFIX) :].lower()
        is_pattern = "*" in wanted or "?" in wanted
        matches = like(wanted)
        found = frozenset(each for each in (EVERY if is_pattern else _OF_AWS) if matches(each.lower()))
    if not found:
        raise Malformed(f"{pattern[:128]!r} is no action on keys.")
    return found
