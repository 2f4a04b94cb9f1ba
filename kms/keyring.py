"""Unwrapped key versions in memory, used under the lease and never written anywhere.

Memory holds what was decided about them too: that a caller may do something with a key, that a version may be used
for something and until when. The epoch moves on with every change of what such a decision rests on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kms.access import policy
from kms.access.model import Caller
from kms.access.policy import Permission, no_such_key
from kms.crypto.primitives import PRIMITIVES
from kms.crypto.registry import key_type
from kms.errors import NotFound, OperationNotSupported, PermissionDenied, Refusal
from kms.keys.lifecycle import in_force_until, require_in_force, require_in_range, require_usage
from kms.keys.model import Key, KeyState, KeyVersion, Usage
from kms.vault.lease import Lease, LeasedCache
from kms.vault.rows import Mount
from kms.vault.store import Vault, unwrapped

_KEYS_CACHED = 20_000
_VERSIONS_CACHED = 20_000
_MOUNTS_CACHED = 1000


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """A key version and the object that computes with its material, or of a pair with the public half alone.

    `message_limit` is how many messages it may protect (None: no practical limit).
    """

    version: KeyVersion
    primitive: object = field(repr=False)
    message_limit: int | None = None

    @property
    def is_public(self) -> bool:
        """Whether only the public half is here."""
        return self.version.material is None and self.version.public_key is not None


@dataclass(frozen=True, slots=True)
class _Checked:
    """A version that may be used for something until a moment, unless something changes."""

    loaded: LoadedVersion
    until: datetime


@dataclass(frozen=True, slots=True)
class Ready:
    """The latest version of a key, which somebody may use for something until a moment, unless something changes."""

    key: Key
    loaded: LoadedVersion
    until: datetime


class Keyring:
    """Keys by id and their loaded versions, read through from the vault."""

    def __init__(self, vault: Vault, lease: Lease) -> None:
        self._vault = vault
        self._uids: LeasedCache[bytes, Key | None] = LeasedCache(lease, _KEYS_CACHED)
        self._keys: LeasedCache[str, tuple[Key, KeyVersion]] = LeasedCache(lease, _KEYS_CACHED)
        self._versions: LeasedCache[tuple[bytes, int], LoadedVersion] = LeasedCache(lease, _VERSIONS_CACHED)
        self._mounts: LeasedCache[str, bool] = LeasedCache(lease, _MOUNTS_CACHED)
        self._permitted: LeasedCache[tuple[Caller, Permission, str], Key] = LeasedCache(lease, _KEYS_CACHED)
        self._checked: LeasedCache[tuple[bytes, int, Usage], _Checked] = LeasedCache(lease, _VERSIONS_CACHED)
        self._ready: LeasedCache[tuple[Caller, Usage, str], Ready] = LeasedCache(lease, _KEYS_CACHED)

    def key(self, key_id: str) -> Key:
        """The key of that id or alias. Raises NotFound, and Unavailable without a lease."""
        return self._with_latest(key_id)[0]

    def find(self, key_id: str) -> Key | None:
        """As `key`, None where there is none."""
        try:
            return self.key(key_id)
        except NotFound:
            return None

    def key_of_uid(self, uid: bytes) -> Key | None:
        """The key that has this uid, as a ciphertext names it. Raises Unavailable without a lease."""
        return self._uids.get(uid, lambda: self._load_uid(uid))

    def is_mount(self, mount: str) -> bool:
        """Whether there is a further mount of the Vault dialect of that name. Raises Unavailable without a lease."""
        return self._mounts.get(mount, lambda: self._load_mount(mount))

    def permitted(self, caller: Caller, permission: Permission, key_id: str, bound: Sequence[Any] = ()) -> Key:
        """As `key`, if `caller` may do this with it, or at least with the `bound` messages and their associated data.

        Raises NotFound or PermissionDenied.
        """
        return self._permitted.find((caller, permission, key_id)) or self._permit(caller, permission, key_id, bound)

    def _permit(self, caller: Caller, permission: Permission, key_id: str, bound: Sequence[Any]) -> Key:
        def decide() -> Key:
            key = self.key(key_id)
            policy.require_on_key(caller, permission, key.owner, key.key_id, asked_as=key_id)
            return key

        try:
            return self._permitted.get((caller, permission, key_id), decide)
        except PermissionDenied:
            if not bound:
                raise
            key = self.key(key_id)
            for each in bound:
                if isinstance(each, Refusal):
                    continue  # a message that could not be read
                policy.require_on_key(caller, permission, key.owner, key.key_id, key_id, each.associated_data)
            return key

    def ready(self, caller: Caller, usage: Usage, key_id: str, now: datetime) -> Ready:
        """The latest version of a key, if `caller` may use it for `usage` whatever the message.

        Raises as `permitted` and `usable` do.
        """
        asked = caller, usage, key_id
        found = self._ready.find(asked)
        if found is None or now >= found.until:
            self._ready.forget(asked)
            found = self._ready.get(asked, lambda: self._prepare(caller, usage, key_id, now))
        return found

    def _prepare(self, caller: Caller, usage: Usage, key_id: str, now: datetime) -> Ready:
        key, latest = self._with_latest(key_id)
        policy.require_on_key(caller, policy.PERMISSION[usage], key.owner, key.key_id, asked_as=key_id)
        self._versions.get((key.uid, latest.version), lambda: self._loaded(key, latest))  # it need not be looked for
        checked = self._check(key, key.latest_version, usage, now)
        return Ready(key, checked.loaded, checked.until)

    def usable(
        self, key: Key, version: int, usage: Usage, now: datetime, *, recovering: bool = False
    ) -> LoadedVersion:
        """A version of `key` for `usage`, whose primitive is one of those of the usage.

        Raises as `require_usage`, `require_in_range` and `require_in_force` do.
        """
        if recovering:
            return self._check_anew(key, version, usage, now, recovering=True).loaded
        name = key.uid, version, usage
        checked = self._checked.find(name)
        if checked is None or now >= checked.until:
            self._checked.forget(name)
            checked = self._load_checked(name, key, now)
        return checked.loaded

    def _load_checked(self, name: tuple[bytes, int, Usage], key: Key, now: datetime) -> _Checked:
        _, version, usage = name
        return self._checked.get(name, lambda: self._check_anew(key, version, usage, now))

    def _check_anew(
        self, seen: Key, version: int, usage: Usage, now: datetime, *, recovering: bool = False
    ) -> _Checked:
        # What is decided is remembered for everybody, so it is decided on the key as it is now: `seen` may be from
        # before a change that its holder has not noticed yet.
        key = self.key_of_uid(seen.uid)
        if key is None:
            raise no_such_key(seen.key_id)
        return self._check(key, version, usage, now, recovering=recovering)

    def _check(self, key: Key, version: int, usage: Usage, now: datetime, *, recovering: bool = False) -> _Checked:
        require_usage(key, usage)
        require_in_range(key, version, usage)  # before it is looked for
        loaded = self._version(key, version)
        latest = loaded if version == key.latest_version else self._version(key, key.latest_version)
        require_in_force(key, loaded.version, latest.version, usage, now, recovering=recovering)
        if not isinstance(loaded.primitive, PRIMITIVES[usage]) or (loaded.is_public and usage.needs_private):
            kind = f"{loaded.version.type}{', of which only the public half is here' if loaded.is_public else ''}"
            raise OperationNotSupported(f"Version {version} of {key.key_id} is of type {kind}; it does not {usage}.")
        return _Checked(loaded, in_force_until(loaded.version, now))

    def _version(self, key: Key, version: int) -> LoadedVersion:
        return self._versions.get((key.uid, version), lambda: self._load_version(key, version))

    def _with_latest(self, key_id: str) -> tuple[Key, KeyVersion]:
        return self._keys.get(key_id, lambda: self._load_key(key_id))

    def _load_key(self, key_id: str) -> tuple[Key, KeyVersion]:
        with self._vault.read() as snapshot:
            found = snapshot.key_with_latest(key_id)
        if found is None:
            raise no_such_key(key_id)
        return found

    def _load_mount(self, mount: str) -> bool:
        with self._vault.read() as snapshot:
            return snapshot.find(Mount, mount) is not None

    def _load_uid(self, uid: bytes) -> Key | None:
        with self._vault.read() as snapshot:
            return snapshot.find(Key, uid)

    def _load_version(self, key: Key, version: int) -> LoadedVersion:
        with self._vault.read() as snapshot:
            found = snapshot.find(KeyVersion, key.uid, version)
        if found is None:
            raise NotFound(f"{key.key_id} has no version {version}.")
        return self._loaded(key, found)

    def _loaded(self, key: Key, found: KeyVersion) -> LoadedVersion:
        kind = key_type(found.type)
        if found.material is not None:
            return LoadedVersion(found, kind.load(unwrapped(self._vault.keyring, key, found)), kind.message_limit)
        is_public = found.public_key is not None and found.state is not KeyState.DESTROYED
        return LoadedVersion(found, kind.load_public(found.public_key or b"") if is_public else None, None)
