"""Unwrapped key versions in memory, used under the lease and never written anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from kms.access.policy import no_such_key
from kms.crypto.registry import key_type
from kms.errors import NotFound
from kms.keys.lifecycle import require_in_force, require_in_range
from kms.keys.model import Key, KeyState, KeyVersion, Usage
from kms.vault.lease import Lease, LeasedCache
from kms.vault.store import Vault

_KEYS_CACHED = 20_000
_VERSIONS_CACHED = 10_000


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """A key version and the object that computes with its material."""

    version: KeyVersion
    primitive: object = field(repr=False)


class Keyring:
    """Keys by id and their loaded versions, read through from the vault."""

    def __init__(self, vault: Vault, lease: Lease) -> None:
        self._vault = vault
        self._keys: LeasedCache[str, Key] = LeasedCache(lease, _KEYS_CACHED)
        self._versions: LeasedCache[tuple[bytes, int], LoadedVersion] = LeasedCache(lease, _VERSIONS_CACHED)

    def key(self, key_id: str) -> Key:
        """The key of that id or alias. Raises NotFound, and Unavailable without a lease."""
        return self._keys.get(key_id, lambda: self._load_key(key_id))

    def usable(
        self, key: Key, version: int, usage: Usage, now: datetime, *, recovering: bool = False
    ) -> LoadedVersion:
        """A version of `key` for `usage`. Raises as `require_in_range` and `require_in_force` do."""
        require_in_range(key, version, usage)  # before it is looked for
        loaded = self._version(key, version)
        latest = loaded if version == key.latest_version else self._version(key, key.latest_version)
        require_in_force(key, loaded.version, latest.version, usage, now, recovering=recovering)
        return loaded

    def _version(self, key: Key, version: int) -> LoadedVersion:
        return self._versions.get((key.uid, version), lambda: self._load_version(key, version))

    def _load_key(self, key_id: str) -> Key:
        with self._vault.read() as snapshot:
            key = snapshot.key_named(key_id)
        if key is None:
            raise no_such_key(key_id)
        return key

    def _load_version(self, key: Key, version: int) -> LoadedVersion:
        with self._vault.read() as snapshot:
            found = snapshot.find(KeyVersion, key.uid, version)
            if found is None:
                raise NotFound(f"{key.key_id} has no version {version}.")
            kind = key_type(found.type)
            if found.material is not None:
                return LoadedVersion(found, kind.load(snapshot.material(key, found)))
        is_public = found.public_key is not None and found.state is not KeyState.DESTROYED
        return LoadedVersion(found, kind.load_public(found.public_key or b"") if is_public else None)
