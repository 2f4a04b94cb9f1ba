"""Opening a vault: schema, seal, root key. A wrong root key is refused and nothing is written."""

from __future__ import annotations

import secrets
from dataclasses import replace

import msgspec
from sqlalchemy import Connection, Engine, insert, inspect, select, update
from sqlalchemy.exc import DBAPIError

from kms.clock import utc_now
from kms.config import Settings
from kms.errors import IntegrityFailure, StartError
from kms.files import private_directory
from kms.secret import Secret
from kms.vault import first_release, tables
from kms.vault.database import connect
from kms.vault.head import Head, TableDigest
from kms.vault.host import Host
from kms.vault.records import microseconds
from kms.vault.schema import migrate
from kms.vault.sealing import DerivedKeys, SealBroken, SealContext
from kms.vault.seals import Parameters, seal_named
from kms.vault.store import Vault

_FIRST_REVISION = "0001"  # what vaults are at whose check value says nothing


class _SealRecord(msgspec.Struct):
    name: str
    parameters: Parameters


def open_vault(settings: Settings, root_key: Secret | None = None, *, create: bool = True) -> Vault:
    """Open the vault that `settings` name, making it where the database is empty and `create` allows it.

    `root_key` is given where the process that started this one has unsealed the vault already.

    Raises StartError with the reason. An existing vault is unsealed before anything is written, migrations
    included.
    """
    private_directory(settings.data_dir)
    engine = connect(settings.database, pool_size=settings.threads + 4)
    try:
        derived_keys = _open(engine, settings, root_key, create=create)
    except DBAPIError as error:
        engine.dispose()
        raise StartError(f"The database cannot be used: {error.orig}") from None
    except BaseException:
        engine.dispose()
        raise
    vault = Vault(engine, derived_keys, settings.lease, Host(settings.data_dir, derived_keys.vault_id))
    try:
        vault.require_newest()
    except IntegrityFailure as failure:
        vault.stop_trusting(failure.detail)
    return vault


def _open(engine: Engine, settings: Settings, root_key: Secret | None, *, create: bool) -> DerivedKeys:
    with engine.connect() as connection:
        existing = _unseal(connection, settings, root_key) if inspect(connection).has_table("vault") else None
    if existing is None and not create:
        raise StartError("There is no vault in this database.")
    with engine.connect().execution_options(kms_writes=True) as connection, connection.begin():
        before = set(inspect(connection).get_table_names())
        revision = migrate(connection, existing[1] if existing else "")
        # Another process may have made the vault while this one waited for the lock.
        found = existing or _unseal(connection, settings, root_key)
        if found is None:
            return _create(connection, settings, revision)
        derived_keys, sealed_revision = found
        if sealed_revision != revision:
            _make_head(connection, derived_keys, before)
            _seal_revision(connection, derived_keys, revision)
        return derived_keys


def _unseal(connection: Connection, settings: Settings, root_key: Secret | None) -> tuple[DerivedKeys, str] | None:
    """The derived keys and the revision that the schema had when it was last sealed; None where there is no vault."""
    row = connection.execute(select(tables.vault)).mappings().first()
    if row is None:
        return None
    try:
        record = msgspec.json.decode(row["seal"], type=_SealRecord)
    except msgspec.DecodeError:
        raise StartError("The row of the vault was altered outside the service.") from None
    if record.name != settings.seal:
        raise StartError(f"The vault was sealed with `{record.name}`; start with KMS_SEAL={record.name}.")
    root_key = root_key or seal_named(record.name, settings).unseal(record.parameters)
    derived_keys = DerivedKeys(root_key, bytes(row["vault_id"]))
    try:
        revision = derived_keys.open(bytes(row["check_value"]), _check(row["seal"], row["created_at"])).decode()
    except SealBroken:
        raise StartError(
            f"The {record.name} seal gives another root key than the one this vault was made with, or the row of "
            "the vault was altered. Nothing was written; give it the right one."
        ) from None
    return derived_keys, revision or _FIRST_REVISION


def _seal_revision(connection: Connection, derived_keys: DerivedKeys, revision: str) -> None:
    """Store the schema revision in the sealed check value, so that setting it back is detected."""
    row = connection.execute(select(tables.vault)).mappings().one()
    check_value = derived_keys.seal(revision.encode(), _check(row["seal"], row["created_at"]))
    connection.execute(update(tables.vault).values(check_value=check_value))


def _create(connection: Connection, settings: Settings, revision: str) -> DerivedKeys:
    root_key, parameters = seal_named(settings.seal, settings).create()
    vault_id = secrets.token_bytes(16)
    derived_keys = DerivedKeys(root_key, vault_id)
    seal = msgspec.json.encode(_SealRecord(settings.seal, parameters)).decode()
    created_at = microseconds(utc_now())
    check_value = derived_keys.seal(revision.encode(), _check(seal, created_at))
    row = {"id": 1, "vault_id": vault_id, "seal": seal, "created_at": created_at, "check_value": check_value}
    connection.execute(insert(tables.vault).values(row))
    _make_head(connection, derived_keys, set())
    return derived_keys


def _make_head(connection: Connection, derived_keys: DerivedKeys, before: set[str]) -> None:
    """Update the head for the current schema, or make it if there is none.

    Tables that did not exist `before` the migration get an empty digest. An older table without digest stays without.
    """
    new = {str(table.name): TableDigest() for table in tables.digested_tables() if table.name not in before}
    stored = connection.execute(select(tables.head.c.sealed)).scalar()
    if stored is not None:
        head = Head.unsealed(derived_keys, bytes(stored))
        after = replace(head, counter=head.counter + 1, digests={**new, **head.digests})
        connection.execute(update(tables.head).values(sealed=after.sealed(derived_keys)))
        return
    head = first_release.head(connection, derived_keys) if "tallies" in before else Head(1, 1, 0)
    head = replace(head, digests={**new, **head.digests})
    connection.execute(insert(tables.head).values(id=1, sealed=head.sealed(derived_keys)))
    first_release.drop(connection)


def _check(seal: str, created_at: int) -> SealContext:
    """What the check value of the vault's own row is bound to: the rest of the row."""
    return ("vault check", seal, created_at)
