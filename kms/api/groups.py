"""The operations in the groups and in the order in which people use them.

The examples work one after the other: what one needs from an earlier answer comes before it, and what ends something
comes after all that need it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kms.operations import OPERATIONS, Operation


@dataclass(frozen=True)
class Group:
    """Operations that belong together for who uses them; `about` is a sentence or two on them."""

    title: str
    about: str
    names: tuple[str, ...]

    @property
    def anchor(self) -> str:
        """Its name in a link."""
        return "to-" + self.title.lower().replace(" ", "-").replace(",", "")

    @property
    def operations(self) -> list[Operation]:
        """Its operations, in order."""
        return [OPERATIONS[name] for name in self.names]


def _group(title: str, about: str, names: str) -> Group:
    return Group(title, about, tuple(names.split()))


_CHOSEN = (
    _group(
        "First keys",
        "Four kinds of keys with names of their own, `{client_id}_symmetric`, `_rsa`, `_ecc` and `_dh`; the quickest "
        "way to begin. Generating again makes the next version.",
        "generate_symmetric_key generate_rsa_key generate_ecc_key generate_dh_key rotate_key revoke_key "
        "revocation_list",
    ),
    _group(
        "Make and find keys",
        "Keys of any type, under any name, with what they may do.",
        "create_key list_keys summarize_keys get_key list_versions update_key get_public_key get_last_use set_alias "
        "list_aliases delete_alias set_regions",
    ),
    _group(
        "Encrypt",
        "Messages, keys for much data, and keys of others.",
        "encrypt decrypt rewrap data_key data_key_pair wrap unwrap",
    ),
    _group(
        "Sign",
        "Signatures, authentication codes, and requests for certificates.",
        "sign verify certificate_request mac verify_mac",
    ),
    _group(
        "Agree and derive",
        "Shared secrets and keys made of other keys.",
        "derive agree encapsulate decapsulate seal open_sealed",
    ),
    _group("Without a key", "Randomness and digests.", "random hash_message"),
    _group(
        "Move keys",
        "Bring keys of your own, take exportable ones out, back up and restore.",
        "create_wrapping_key get_standing_wrapping_key export_key create_external_key import_material "
        "delete_material import_key import_version backup_key restore_key",
    ),
    _group(
        "Rotate, suspend, revoke, delete",
        "The life of a key. Once a call has answered no worker on any node does what was allowed before.",
        "rotate_key_version rotate_named_key suspend_key resume_key destroy_version trim_key revoke_key_versions "
        "revoke_named_key delete_key cancel_deletion",
    ),
    _group(
        "Clients and grants",
        "Who may call, and who may use whose keys. Clients are for administrators; owners give grants on their keys.",
        "create_client list_clients get_client create_grant list_grants explain_policy simulate_policy delete_grant "
        "put_group list_groups get_group add_group_member remove_group_member delete_group disable_client "
        "enable_client reset_client_totp rotate_client_secret",
    ),
    _group(
        "Passkeys",
        "People log in with a passkey in place of secret and code. The forms are those of browsers (WebAuthn).",
        "passkey_creation_options add_passkey list_passkeys delete_passkey",
    ),
    _group(
        "Let programs in",
        "A program proves itself by a key of its own or by a token of its platform, and its sessions end with that.",
        "add_public_key list_public_keys add_issuer list_issuers update_issuer add_issuer_role list_issuer_roles "
        "list_sessions list_credentials delete_public_key end_certificate delete_issuer_role delete_issuer "
        "end_one_session end_every_session end_every_credential delete_client",
    ),
    _group(
        "Programs of AWS and Vault",
        "Access keys, with which AWS clients sign, and mounts for Vault clients.",
        "create_access_key list_access_keys delete_access_key create_mount list_mounts delete_mount",
    ),
    _group(
        "Approvals",
        "Calls that are carried out only after other people have approved them.",
        "create_approval_rule list_approval_rules update_approval_rule list_approvals get_approval approve_call "
        "reject_call delete_approval_rule",
    ),
    _group(
        "Be told",
        "Webhooks and mails about what happens to keys, and to the service.",
        "create_notice list_notices get_notice update_notice rotate_notice_secret test_notice "
        "list_deliveries retry_delivery delete_notice",
    ),
    _group(
        "Look after the service",
        "For administrators and auditors; the inventory shows others the keys that they may see.",
        "get_status get_inventory list_inventory get_blast_radius audit_entries get_users_of_key get_novelties "
        "audit_checkpoint audit_checkpoint_cosigned audit_tile audit_proof metrics",
    ),
    _group(
        "Sessions",
        "Log in and out without the command line.",
        "passkey_request_options issue_token confirm_second_factor end_session",
    ),
)


def groups() -> Iterable[Group]:
    """Every operation in its group; what is in none comes last."""
    yield from _CHOSEN
    rest = OPERATIONS.keys() - {name for group in _CHOSEN for name in group.names}
    if rest:
        yield Group("More", "", tuple(name for name in OPERATIONS if name in rest))


def title_of(operation: Operation) -> str:
    """The title of the group of an operation."""
    return next(group.title for group in groups() if operation.name in group.names)
