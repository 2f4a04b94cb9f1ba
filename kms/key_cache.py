"""Keys and unwrapped key versions in memory, and what was decided about them; never written anywhere.

`authorize` is the one question that every use of a key asks: may this caller do this with this version of this key
now? Its answer is remembered until the key or the caller is named by a change, or a date that it rests on has come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from kms.access.circumstances import Circumstances
from kms.access.decision import Decision, decide, denial, no_such_key
from kms.access.model import Caller
from kms.access.policy import Permission
from kms.crypto.mac import code_key
from kms.crypto.primitives import PRIMITIVES, Mac
from kms.crypto.registry import key_type
from kms.errors import NotFound, OperationNotSupported, Refusal
from kms.keys.lifecycle import in_force_until, require_in_force, require_in_range, require_usage
from kms.keys.model import Key, KeyState, KeyVersion, Usage
from kms.revocation.in_force import RevocationsInForce
from kms.vault import names
from kms.vault.memory import Cache, Memory, Names
from kms.vault.rows import Mount
from kms.vault.store import Vault
from kms.vault.transaction import unwrapped

T = TypeVar("T")

_KEYS_CACHED = 20_000
_VERSIONS_CACHED = 20_000
_AUTHORIZATIONS_CACHED = 20_000
_CODE_KEYS_CACHED = 1000
_MOUNTS_CACHED = 1000
_READS_AT_MOST = 5
_FOR_EVER = datetime.max.replace(tzinfo=UTC)
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """A key version, and the object that computes with its material, or with its public key if that is all there is.

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
class Authorization:
    """That a caller may use a key, and with which version. It was decided at `since`, and is valid before `until`.

    If it `is_limited`, only messages that `decision` admits are allowed. `loaded` is the version to use; if that
    cannot be used it is None, and `refusal` says why. Without a usage both are None.
    """

    key: Key
    version: int
    decision: Decision
    is_limited: bool = False
    loaded: LoadedVersion | None = None
    refusal: Refusal | None = None
    until: datetime = _FOR_EVER
    since: datetime = _LONG_AGO


class KeyCache:
    """Keys by id and their loaded versions, read through from the vault."""

    def __init__(self, vault: Vault, memory: Memory, revocations: RevocationsInForce, account: str) -> None:
        self._account = account
        self._vault = vault
        self._memory = memory
        self._revocations = revocations
        self._of_uid: Cache[bytes, Key] = Cache(memory, _KEYS_CACHED, "keys-by-uid")
        self._of_name: Cache[str, tuple[Key, KeyVersion]] = Cache(memory, _KEYS_CACHED, "keys-by-name")
        self._versions: Cache[tuple[bytes, int], LoadedVersion] = Cache(memory, _VERSIONS_CACHED, "versions")
        self._authorizations: Cache[Any, Authorization] = Cache(memory, _AUTHORIZATIONS_CACHED, "authorizations")
        self._code_keys: Cache[tuple[bytes, int], Mac] = Cache(memory, _CODE_KEYS_CACHED, "code-keys")
        self._mounts: Cache[str, bool] = Cache(memory, _MOUNTS_CACHED, "mounts")

    def authorize(
        self,
        caller: Caller,
        permission: Permission,
        name: str,
        now: datetime,
        usage: Usage | None = None,
        version: int | None = None,
        *,
        source: str,
        action: str,
    ) -> Authorization:
        """Decide whether `caller` may use the key with the id or alias `name`, and with which version.

        `source` is the address of the caller; `action` is the AWS action or the operation. `version` is by default
        the latest; without `usage` no version is looked at. If the version cannot be used, that is not raised but
        stands in `refusal`, so that the audit entry can name the key. The caller must have called `Memory.require`.
        Raises NotFound, PermissionDenied, InsufficientUserAuthentication, Unavailable, IntegrityFailure.
        """
        asked = caller, permission, name, usage, version, source, action
        found = self._authorizations.find(asked)
        if found is not None and found.since <= now < found.until:  # a clock can be set back
            return found
        self._authorizations.forget(asked)
        at = Circumstances(source, now, action, self._account)
        return self._authorizations.get(asked, lambda: self._decide(caller, permission, name, at, usage, version))

    def _decide(
        self,
        caller: Caller,
        permission: Permission,
        name: str,
        at: Circumstances,
        usage: Usage | None,
        version: int | None,
    ) -> tuple[Authorization, Names]:
        since = self._memory.epoch  # before the key is read: what is made of it must not outlive it
        key, latest = self._with_latest(name)
        made = decide(caller, permission, key, at)
        if not (made.allowed or made.allowing):
            raise denial(caller, permission, key, at, asked_as=name)
        is_limited, now = not made.is_for_any_message, at.now
        number = key.latest_version if version is None else version
        rests_on = (*_names_of(key, name), *caller.rests_on)
        if usage is None:
            return Authorization(key, number, made, is_limited, until=made.until, since=now), rests_on
        try:
            loaded = self._usable(key, latest, number, usage, now, since)
        except Refusal as refusal:
            return Authorization(key, number, made, is_limited, refusal=refusal, until=now), rests_on
        until = min(made.until, in_force_until(loaded.version, now))
        return Authorization(key, number, made, is_limited, loaded, until=until, since=now), rests_on

    def _usable(
        self,
        key: Key,
        latest: KeyVersion,
        number: int,
        usage: Usage,
        now: datetime,
        since: int,
        *,
        recovering: bool = False,
    ) -> LoadedVersion:
        """A version of `key` for `usage`, whose primitive is one of those of the usage; both were read after `since`.

        Raises as `require_usage`, `require_in_range` and `require_in_force` do.
        """
        require_usage(key, usage)
        require_in_range(key, number, usage)  # before it is looked for
        is_latest = number == latest.version
        loaded = self._loaded(key, latest, since) if is_latest else self._version(key, number, since)
        require_in_force(key, loaded.version, latest, usage, now, recovering=recovering)
        if not isinstance(loaded.primitive, PRIMITIVES[usage]) or (loaded.is_public and usage.needs_private):
            kind = f"{loaded.version.type}{', of which only the public half is here' if loaded.is_public else ''}"
            raise OperationNotSupported(f"Version {number} of {key.key_id} is of type {kind}; it does not {usage}.")
        return loaded

    def recoverable(self, name: str, number: int, usage: Usage, now: datetime) -> LoadedVersion:
        """The version `number` of a key for `usage`, even if it was revoked as compromised. Checks no permission.

        Raises the Refusal that says why the version cannot be used.
        """
        since = self._memory.epoch
        key, latest = self._with_latest(name)
        return self._usable(key, latest, number, usage, now, since, recovering=True)

    def key(self, name: str) -> Key:
        """The key of that id or alias. Raises NotFound, and Unavailable without a lease."""
        return self._with_latest(name)[0]

    def find(self, name: str) -> Key | None:
        """As `key`, None where there is none."""
        self._memory.require()
        if (known := self._of_name.find(name)) is not None:
            return known[0]
        try:
            return self.key(name)
        except NotFound:
            return None

    def key_of_uid(self, uid: bytes) -> Key | None:
        """The key that has this uid, as a ciphertext names it. Raises Unavailable without a lease."""
        try:
            return self._of_uid.get(uid, lambda: self._load_uid(uid))
        except NotFound:
            return None

    def code_key(self, key: Key, version: KeyVersion, since: int) -> Mac:
        """The key for codes that is derived from a version, which may be used now. Raises IntegrityFailure.

        The version was read after the epoch `since`.
        """

        def derived() -> tuple[Mac, Names]:
            return code_key(unwrapped(self._vault.derived_keys, key, version)), (names.of_key(key.uid),)

        return self._code_keys.get((key.uid, version.version), derived, since)

    def fingerprint(self, key: Key, number: int) -> bytes | None:
        """The fingerprint of the material of a version, if that is external material; None for all others.

        Raises NotFound, Unavailable, IntegrityFailure.
        """
        return self._version(key, number, self._memory.epoch).version.fingerprint

    def is_mount(self, mount: str) -> bool:
        """Whether there is a further mount of the Vault dialect of that name. Raises Unavailable without a lease."""
        try:
            return self._mounts.get(mount, lambda: self._load_mount(mount))
        except NotFound:
            return False

    def _with_latest(self, name: str) -> tuple[Key, KeyVersion]:
        return self._of_name.get(name, lambda: self._load_key(name))

    def _load_key(self, name: str) -> tuple[tuple[Key, KeyVersion], Names]:
        def read() -> tuple[Key, KeyVersion]:
            with self._vault.read() as snapshot:
                found = snapshot.key_with_latest(name)
            if found is None:
                raise no_such_key(name)
            return found

        found = self._as_revoked(read, lambda pair: pair[1])
        return found, _names_of(found[0], name)

    def _as_revoked(self, read: Callable[[], T], version_in: Callable[[T], KeyVersion]) -> T:
        """What `read` reads, if the revocation list allows the version in it. Raises IntegrityFailure."""
        for _ in range(_READS_AT_MOST):
            epoch = self._memory.epoch
            found = read()
            if self._revocations.allow(version_in(found)):
                return found
            self._memory.refresh()  # the list and the row may have been read at different moments
            if self._memory.epoch == epoch:  # nothing has come between: each revocation moves it
                break
        self._revocations.require_allowed(version_in(found))
        return found

    def _load_uid(self, uid: bytes) -> tuple[Key, Names]:
        with self._vault.read() as snapshot:
            found = snapshot.find(Key, uid)
        if found is None:
            raise NotFound("There is no such key.")
        return found, (names.of_key(uid),)

    def _load_mount(self, mount: str) -> tuple[bool, Names]:
        with self._vault.read() as snapshot:
            found = snapshot.find(Mount, mount)
        if found is None:
            raise NotFound("There is no such mount.")
        return True, (names.of_mount(mount),)

    def _version(self, key: Key, number: int, since: int) -> LoadedVersion:
        return self._versions.get((key.uid, number), lambda: self._load_version(key, number), since)

    def _load_version(self, key: Key, number: int) -> tuple[LoadedVersion, Names]:
        def read() -> KeyVersion:
            with self._vault.read() as snapshot:
                found = snapshot.find(KeyVersion, key.uid, number)
            if found is None:
                raise NotFound(f"{key.key_id} has no version {number}.")
            return found

        found = self._as_revoked(read, lambda version: version)
        return self._load(key, found), (names.of_key(key.uid),)

    def _loaded(self, key: Key, version: KeyVersion, since: int) -> LoadedVersion:
        """`version`, which was read already, after the epoch `since`."""
        asked = key.uid, version.version
        return self._versions.get(asked, lambda: (self._load(key, version), (names.of_key(key.uid),)), since)

    def _load(self, key: Key, version: KeyVersion) -> LoadedVersion:
        kind = key_type(version.type)
        if version.material is not None:
            return LoadedVersion(
                version, kind.load(unwrapped(self._vault.derived_keys, key, version)), kind.message_limit
            )
        is_public = version.public_key is not None and version.state is not KeyState.DESTROYED
        return LoadedVersion(version, kind.load_public(version.public_key or b"") if is_public else None, None)


def _names_of(key: Key, name: str) -> Names:
    """What knowing that `name` is `key` rests on."""
    own = names.of_key(key.uid)
    return (own,) if name == key.key_id else (own, names.of_alias(name))


def require_admitted(
    found: Authorization,
    caller: Caller,
    permission: Permission,
    items: Sequence[Any],
    circumstances: Callable[[], Circumstances],
) -> None:
    """Return if the decision in an authorization admits every message in `items`.

    Items that could not be read are refusals and are skipped. `circumstances` gives those of the request, which are
    needed only to make the refusal. Raises PermissionDenied, NotFound.
    """
    admits = found.decision.admits
    for item in items:
        if not isinstance(item, Refusal) and not admits(item.associated_data):
            raise denial(caller, permission, found.key, circumstances())
    if not items:
        raise denial(caller, permission, found.key, circumstances())
