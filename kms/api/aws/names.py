"""Key ids, aliases and ARNs of the AWS dialect, and the keys that they name here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256

from kms.access.decision import may_see_key
from kms.api.aws.faults import Fault
from kms.crypto import envelope
from kms.keys.ids import is_key_id
from kms.keys.model import Key, Origin
from kms.operations import Call, Service
from kms.operations.keys.views import KeyView

ALIAS = "alias/"
INVALID_ARN = "InvalidArnException"
_ARN = re.compile(r"arn:aws:kms:(?P<region>[a-z0-9-]+):(?P<account>[0-9]{12}):(?P<resource>.+)", re.DOTALL)

_KEY_ID = re.compile("(?:mrk-[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.IGNORECASE)


@dataclass(frozen=True)
class Names:
    """Names as they are in one region of the service's account."""

    service: Service
    region: str

    @property
    def account(self) -> str:
        """The account id of the settings."""
        return self.service.settings.aws_account_id

    @property
    def account_arn(self) -> str:
        """The ARN that stands for everybody in the account."""
        return f"arn:aws:iam::{self.account}:root"

    def client_arn(self, client_id: str) -> str:
        """The ARN of a client, as a user of the account."""
        return f"arn:aws:iam::{self.account}:user/{client_id}"

    def mfa_arn(self, client_id: str) -> str:
        """The ARN of the second factor of a client: AWS's serial number of it."""
        return f"arn:aws:iam::{self.account}:mfa/{client_id}"

    def role_arn(self, role: str) -> str:
        """The ARN of a role, which stands for every client that has it."""
        return f"arn:aws:iam::{self.account}:role/{role}"

    def key_arn(self, key_id: str) -> str:
        """The ARN of a key."""
        return f"arn:aws:kms:{self.region}:{self.account}:key/{key_id}"

    def alias_arn(self, alias: str) -> str:
        """The ARN of an alias, which begins with `alias/`."""
        return f"arn:aws:kms:{self.region}:{self.account}:{alias}"

    def stored_alias(self, alias: str) -> str:
        """The name under which the vault keeps an alias of this region."""
        return f"{self.region}:{alias}"

    def shown_alias(self, stored: str) -> str | None:
        """The alias of this region that is kept as `stored`: one made here, or in the default region one of ours."""
        if stored.startswith(f"{self.region}:{ALIAS}"):
            return stored.removeprefix(f"{self.region}:")
        return ALIAS + stored if self._is_default and is_key_id(stored) else None

    def key(self, given: str, call: Call) -> Key:
        """The key of an id, an alias name or an ARN of either, in this region, if the caller may know of it.

        Raises Fault.
        """
        resource = self._resource(given)
        is_alias = resource.startswith(ALIAS)
        key = self._by_alias(resource) if is_alias else self.service.key_cache.find(resource)
        if key is not None and not is_alias and key.key_id != resource:
            key = None  # a name that only looks like a key id here
        if key is None or not self._is_visible(key, call):
            raise self._not_found(given, resource)
        return key

    def key_without_alias(self, given: str, call: Call) -> Key:
        """As `key`, for operations that take no alias."""
        if self._resource(given).startswith(ALIAS):
            raise Fault(INVALID_ARN, "Key Aliases are not supported for this operation.")
        return self.key(given, call)

    def material_id(self, key: Key, version: int) -> str:
        """The name of the material of one version: 64 hexadecimal digits that say nothing of it.

        Of material that is kept elsewhere it is always the same for a key, whatever version it is.
        """
        known_by = self.service.key_cache.fingerprint(key, version) if key.origin is Origin.IMPORTED else None
        return sha256(known_by or key.uid + version.to_bytes(4)).hexdigest()

    def primary_region(self, region: str) -> str:
        """The region of a key; keys of none are in that of the settings."""
        return region or self.service.settings.aws_region

    def described(self, key: Key | KeyView) -> tuple[str, dict[str, str]]:
        """The description and the labels of a key in this region: each replica has its own."""
        if self.primary_region(key.region) == self.region:
            return key.description, key.labels
        return key.replica_descriptions.get(self.region, ""), key.replica_labels.get(self.region, {})

    def is_here(self, key: Key) -> bool:
        """Whether a key is shown in this region."""
        return self.primary_region(key.region) == self.region or self.region in key.replicas

    def uid_in(self, ciphertext: bytes) -> bytes | None:
        """The uid of the key that a ciphertext of ours names, None for what is no such ciphertext."""
        parts = envelope.parse_or_none(ciphertext, envelope.ENCRYPTED)
        return parts.key_uid if parts else None

    def key_of_uid(self, uid: bytes, call: Call) -> Key | None:
        """The key that has this uid, if it is shown in this region and the caller may know of it."""
        key = self.service.key_cache.key_of_uid(uid)
        return key if key and self._is_visible(key, call) else None

    def _is_visible(self, key: Key, call: Call) -> bool:
        return self.is_here(key) and may_see_key(call.known_caller, key, self.service.circumstances(call))

    def _resource(self, given: str) -> str:
        """What an ARN names, or a name that is no ARN."""
        if not given.startswith("arn:"):
            return given
        found = _ARN.fullmatch(given)
        if found is None:
            raise Fault(INVALID_ARN, f"Invalid arn {given[:256]}")
        if found["region"] != self.region:
            raise Fault("NotFoundException", f"Invalid arn {found['region']}", problem="not-found")
        if found["account"] != self.account:
            raise no_such_key(given[:512])
        resource = found["resource"]
        if resource.startswith("key/"):
            return resource.removeprefix("key/")
        if not resource.startswith(ALIAS):
            raise Fault(INVALID_ARN, f"Invalid arn {given[:256]}")
        return resource

    def _not_found(self, given: str, resource: str) -> Fault:
        """The fault of a name that is none of a key that the caller may know of: by its form alone."""
        if resource.startswith(ALIAS):
            return no_such_alias(self.alias_arn(resource[:512]))
        if given.startswith("arn:") or _KEY_ID.fullmatch(resource):
            return no_such_key(self.key_arn(resource[:512]))
        return invalid_key_id(given)

    def _by_alias(self, alias: str) -> Key | None:
        key = self.service.key_cache.find(self.stored_alias(alias))
        if key is None and self._is_default:
            ours = alias.removeprefix(ALIAS)
            found = self.service.key_cache.find(ours)
            key = found if found and found.key_id != ours else None
        return key

    @property
    def _is_default(self) -> bool:
        return self.region == self.service.settings.aws_region


def no_such_key(arn: str) -> Fault:
    """The fault of an ARN that is none of a key that the caller may know of."""
    return Fault("NotFoundException", f"Key '{arn}' does not exist", problem="not-found")


def no_such_alias(arn: str) -> Fault:
    """The fault of an ARN that is none of an alias whose key the caller may know of."""
    return Fault("NotFoundException", f"Alias {arn} is not found.", problem="not-found")


def invalid_key_id(given: str) -> Fault:
    """The fault of what has not the form of AWS's key ids."""
    return Fault("NotFoundException", f"Invalid keyId '{given[:256]}'", problem="not-found")
