"""Opening a vault: schema, seal, root keys. A wrong root key is refused and nothing is written."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, insert, inspect, select, update
from sqlalchemy.exc import DBAPIError

from kms.clock import utc_now
from kms.config import Settings
from kms.errors import IntegrityFailure, Refusal, StartError
from kms.files import private_directory
from kms.vault import first_release, keyslots, new_root_keys, tables, upgrading
from kms.vault.change import Change
from kms.vault.database import connect, place_of
from kms.vault.head import Head, TableDigest
from kms.vault.history import timeline_of
from kms.vault.host import Host
from kms.vault.keyset import Keyset
from kms.vault.keyslots import SealRecord
from kms.vault.lost import require_file, require_none_lost
from kms.vault.postgresql import end_silent_holder
from kms.vault.records import from_values, microseconds
from kms.vault.rows import Keyslot, NewRootKey
from kms.vault.schema import lock, lock_changes, migrate, own_schema, require_usable
from kms.vault.sealed_schema import Schema, check_context, read_schema, schema_in, write_schema
from kms.vault.sealing import DerivedKeys, SealBroken
from kms.vault.seals import KeySeal, Seals
from kms.vault.store import Vault
from kms.vault.unsealed import Unsealed

Unseal = Callable[[list[Keyslot], bytes], Keyset]
"""Gives the keyset of a vault, from its keyslots and its id. Raises StartError."""


@dataclass(frozen=True)
class Stored:
    """What anybody can read of a vault that is there: its id, and its keyslots, whose codes nobody has checked."""

    vault_id: bytes
    slots: list[Keyslot]


@dataclass(frozen=True)
class _Found:
    """A vault that is there, and the schema that it was at when it was found.

    `slot` is the keyslot that opened it; None where another process had opened it.
    """

    derived_keys: DerivedKeys
    schema: Schema
    slot: Keyslot | None


def open_vault(
    settings: Settings,
    unsealed: Unsealed | None = None,
    *,
    create: bool = True,
    seals: Seals | None = None,
    unseal: Unseal | None = None,
) -> Vault:
    """Open the vault that `settings` name, making it where the database is empty and `create` allows it.

    `unsealed` is given where the process that started this one has unsealed the vault already, and `unseal` where
    something else than the seal gives the keyset. `seals` is given where they will be needed again.

    Raises StartError with the reason. An existing vault is unsealed before anything is written, migrations
    included.
    """
    private_directory(settings.data_dir)
    if create:
        require_file(settings)
    engine = connect(settings.database, pool_size=settings.threads + 4)
    try:
        found = _Opening(seals or Seals(settings), unsealed, unseal).found(engine, create=create)
    except DBAPIError as error:
        end_silent_holder(engine, error)
        engine.dispose()
        raise StartError(f"The database cannot be used: {error.orig}") from None
    except Refusal as refusal:
        engine.dispose()
        raise StartError(refusal.detail) from None
    except BaseException:
        engine.dispose()
        raise
    derived_keys = found.derived_keys
    vault = Vault(engine, derived_keys, settings.lease, Host(settings.data_dir, derived_keys.vault_id))
    vault.host.opened_at(place_of(settings.database, settings.data_dir))
    vault.unsealed = unsealed or Unsealed(derived_keys.keyset)
    vault.opened_by = found.slot
    vault.glances = engine.dialect.name == "postgresql"
    vault.before_joining = _require_usable_schema
    derived_keys.learned = vault.unsealed.learn
    vault.unsealed.learn(derived_keys.keyset)
    try:
        vault.require_newest()
    except IntegrityFailure as failure:
        vault.stop_trusting(failure.detail)
    except Refusal as refusal:
        vault.close()
        raise StartError(refusal.detail) from None
    return vault


def unsealed_by(
    settings: Settings,
    row: Mapping[Any, Any],
    slots: list[Keyslot],
    root_keys: list[NewRootKey],
    unseal: Unseal | None = None,
) -> tuple[DerivedKeys, str]:
    """The keys of the vault with this `row` of its own, these keyslots and new root keys, and its schema's revision.

    Raises StartError.
    """
    learned = partial(new_root_keys.learned_from, [(each.number, each.wrapped) for each in root_keys])
    found = _Opening(Seals(settings), None, unseal).opened(row, slots, learned)
    return found.derived_keys, found.schema.revision


class _Opening:
    """One attempt to open a vault."""

    def __init__(self, seals: Seals, unsealed: Unsealed | None, unseal: Unseal | None) -> None:
        self._settings = seals.settings
        self._seals = seals
        self._unsealed = unsealed
        self._unseal = unseal

    def found(self, engine: Engine, *, create: bool) -> _Found:
        """The vault in the database of `engine`, made where there is none and `create` allows it."""
        reading = {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}
        with engine.connect().execution_options(**reading) as connection, connection.begin():
            existing = self._existing(connection)
        if existing is None and not create:
            raise StartError("There is no vault in this database.")
        own = own_schema()
        silent = self._silent_older_nodes(engine, existing, own)
        with engine.connect().execution_options(kms_writes=True) as connection, connection.begin():
            lock(connection)
            before = set(inspect(connection).get_table_names())
            # Another process may have made or migrated the vault while this one waited for the lock.
            found = existing or self._existing(connection)
            if found is None:
                require_none_lost(self._settings)
            sealed = _schema(connection, found) if found else None
            if found and sealed and sealed != own and sealed.revision <= own.revision:
                lock_changes(connection)
                upgrading.forget(connection, sealed, own, self._node_id(found), silent)
            schema = migrate(connection, sealed)
            if found is None:
                return self._new(connection, schema)
            if sealed != schema:
                make_head(connection, found.derived_keys, before)
                self._add_keyslot(connection, found.derived_keys)
                write_schema(connection, found.derived_keys, schema)
            return found

    def _silent_older_nodes(self, engine: Engine, existing: _Found | None, own: Schema) -> dict[str, int]:
        """What must be gone before a migration."""
        if existing is None or existing.schema.revision >= own.revision:
            return {}
        return upgrading.silent_older_nodes(engine, existing.schema, own, self._node_id(existing))

    def _node_id(self, found: _Found) -> str:
        host = Host(self._settings.data_dir, found.derived_keys.vault_id)
        try:
            return host.node_id
        finally:
            host.close()

    def _existing(self, connection: Connection) -> _Found | None:
        """The vault that is there, and the revision that its schema had when it was last sealed."""
        if not inspect(connection).has_table("vault"):
            return None
        row = connection.execute(select(tables.vault)).mappings().first()
        if row is None:
            return None
        return self.opened(row, stored_keyslots(connection), partial(new_root_keys.learned, connection))

    def opened(
        self, row: Mapping[Any, Any], slots: list[Keyslot], learned: Callable[[DerivedKeys, int], Keyset]
    ) -> _Found:
        """The vault of that row and of these keyslots; `learned` finds root keys that are not in them.

        Raises StartError.
        """
        vault_id = bytes(row["vault_id"])
        record = SealRecord.decoded(row["seal"])
        keyset, slot = self._keyset(slots, record, vault_id)
        derived_keys = DerivedKeys(keyset, vault_id)
        derived_keys.find_missing = partial(learned, derived_keys)
        try:
            return _Found(derived_keys, schema_in(row, derived_keys), slot)
        except SealBroken:
            raise StartError(keyslots.wrong_key(record.name)) from None

    def _keyset(self, slots: list[Keyslot], record: SealRecord, vault_id: bytes) -> tuple[Keyset, Keyslot | None]:
        if self._unsealed is not None:
            return self._unsealed.keyset(), None
        if self._unseal is not None:
            return self._unseal(slots, vault_id), None
        if slots:
            return keyslots.opened(slots, self._seals, vault_id)
        keyslots.require_named(self._settings, record.name)
        seal = self._seals.named(record.name)
        if not isinstance(seal, KeySeal):
            raise StartError("The keyslots of the vault were removed outside the service.")
        return Keyset.of_one_root_key(seal.seal_key(record.parameters), vault_id), None

    def _new(self, connection: Connection, schema: Schema) -> _Found:
        seal = self._seals.named(self._settings.seal)
        record = SealRecord(self._settings.seal, seal.create()).encoded()
        vault_id = new_vault_id()
        derived_keys = DerivedKeys(Keyset.new(), vault_id)
        created_at = microseconds(utc_now())
        check_value = derived_keys.seal(schema.sealed_as, check_context(record, created_at))
        row = {"id": 1, "vault_id": vault_id, "seal": record, "created_at": created_at, "check_value": check_value}
        connection.execute(insert(tables.vault).values(row))
        make_head(connection, derived_keys, set())
        slot = keyslots.wrapped(keyslots.SEAL, seal, record, derived_keys.keyset, vault_id)
        _write_in_head(connection, derived_keys, slot)
        return _Found(derived_keys, schema, slot)

    def _add_keyslot(self, connection: Connection, derived_keys: DerivedKeys) -> None:
        """Give a vault from before there were keyslots its first."""
        if stored_keyslots(connection):
            return
        record = connection.execute(select(tables.vault.c.seal)).scalar_one()
        seal = self._seals.named(SealRecord.decoded(record).name)
        slot = keyslots.wrapped(keyslots.SEAL, seal, record, derived_keys.keyset, derived_keys.vault_id)
        _write_in_head(connection, derived_keys, slot)


def _require_usable_schema(change: Change) -> None:
    require_usable(read_schema(change.connection, change.derived_keys))


def _schema(connection: Connection, found: _Found) -> Schema:
    found.derived_keys.find_missing = partial(new_root_keys.learned, connection, found.derived_keys)
    try:
        return read_schema(connection, found.derived_keys)
    except SealBroken:  # it opened a moment ago
        raise StartError("The vault was changed while this process opened it. Start it again.") from None


def stored_vault(settings: Settings) -> Stored | None:
    """The vault in the database of `settings`, without opening it; None where there is none. Raises StartError."""
    private_directory(settings.data_dir)
    engine = connect(settings.database)
    try:
        with engine.connect() as connection, connection.begin():
            if not inspect(connection).has_table("vault"):
                return None
            vault_id = connection.execute(select(tables.vault.c.vault_id)).scalar()
            return None if vault_id is None else Stored(bytes(vault_id), stored_keyslots(connection))
    except DBAPIError as error:
        raise StartError(f"The database cannot be used: {error.orig}") from None
    finally:
        engine.dispose()


def new_vault_id() -> bytes:
    """16 random bytes."""
    return secrets.token_bytes(16)


def stored_keyslots(connection: Connection) -> list[Keyslot]:
    """The keyslots, whose codes nobody can check before the vault is open: what they wrap is authentic or not."""
    if not inspect(connection).has_table("keyslots"):
        return []
    return [from_values(Keyslot, tuple(row)) for row in connection.execute(select(tables.keyslots))]


def sealed_again(connection: Connection, derived_keys: DerivedKeys, seal: str | None = None) -> None:
    """Write the vault's own row under the newest root key, with another stored form of its `seal` where given."""
    write_schema(connection, derived_keys, read_schema(connection, derived_keys), seal)


def make_head(connection: Connection, derived_keys: DerivedKeys, before: set[str]) -> None:
    """Update the head for the current schema, or make it if there is none.

    Tables that did not exist `before` the migration get an empty digest. An older table without digest stays without.
    """
    new = {str(table.name): TableDigest() for table in tables.digested_tables() if table.name not in before}
    stored = connection.execute(select(tables.head.c.sealed)).scalar()
    if stored is not None:
        head = Head.unsealed(derived_keys, bytes(stored))
        head = head.found_on(timeline_of(connection))
        after = replace(head, counter=head.counter + 1, digests={**new, **head.digests})
        connection.execute(update(tables.head).values(sealed=after.sealed(derived_keys)))
        return
    head = first_release.head(connection, derived_keys) if "tallies" in before else Head(1, 1, 0)
    head = replace(head, digests={**new, **head.digests})
    connection.execute(insert(tables.head).values(id=1, sealed=head.sealed(derived_keys)))
    first_release.drop(connection)


def _write_in_head(connection: Connection, derived_keys: DerivedKeys, slot: Keyslot) -> None:
    """Insert a keyslot, and count it into the head."""
    change = Change(connection, derived_keys)
    change.insert(slot)
    head = change.head().found_on(timeline_of(connection))
    after = replace(head, counter=head.counter + 1, digests=head.digests_with(change.terms))
    connection.execute(update(tables.head).values(sealed=after.sealed(derived_keys)))
