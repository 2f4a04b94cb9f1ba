"""Opening a vault: schema, seal, root key. A wrong root key is refused and nothing is written."""

from __future__ import annotations

import secrets

import msgspec
import structlog
from sqlalchemy import Connection, Engine, insert, inspect, select, update
from sqlalchemy.exc import DBAPIError

from kms.clock import utc_now
from kms.config import Settings
from kms.errors import StartError
from kms.files import private_directory
from kms.secret import Secret
from kms.vault import tables
from kms.vault.database import connect
from kms.vault.integrity import Tally
from kms.vault.records import microseconds
from kms.vault.rows import Epoch
from kms.vault.schema import migrate
from kms.vault.sealing import Bound, RootKeyring, SealBroken
from kms.vault.seals import Parameters, seal_named
from kms.vault.store import Change, Vault

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
        keyring = _open(engine, settings, root_key, create=create)
    except DBAPIError as error:
        engine.dispose()
        raise StartError(f"The database cannot be used: {error.orig}") from None
    except BaseException:
        engine.dispose()
        raise
    vault = Vault(engine, keyring, settings.lease)
    if root_key is None and (wrong := vault.check_tallies()):  # once for all workers
        structlog.get_logger().critical(
            "the database was changed outside the service; `python -m kms vault verify` shows where",
            tables=wrong,
        )
    return vault


def _open(engine: Engine, settings: Settings, root_key: Secret | None, *, create: bool) -> RootKeyring:
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
        keyring, sealed_revision = found
        if sealed_revision != revision:
            _begin_tallies(connection, keyring, before)
            _seal_revision(connection, keyring, revision)
        return keyring


def _unseal(connection: Connection, settings: Settings, root_key: Secret | None) -> tuple[RootKeyring, str] | None:
    """The keyring and the revision that the schema had when it was last sealed; None where there is no vault."""
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
    keyring = RootKeyring(root_key, bytes(row["vault_id"]))
    try:
        revision = keyring.open(bytes(row["check_value"]), _check(row["seal"], row["created_at"])).decode()
    except SealBroken:
        raise StartError(
            f"The {record.name} seal gives another root key than the one this vault was made with, or the row of "
            "the vault was altered. Nothing was written; give it the right one."
        ) from None
    return keyring, revision or _FIRST_REVISION


def _seal_revision(connection: Connection, keyring: RootKeyring, revision: str) -> None:
    """Remember the revision of the schema where nobody can set it back unseen."""
    row = connection.execute(select(tables.vault)).mappings().one()
    check_value = keyring.seal(revision.encode(), _check(row["seal"], row["created_at"]))
    connection.execute(update(tables.vault).values(check_value=check_value))


def _create(connection: Connection, settings: Settings, revision: str) -> RootKeyring:
    root_key, parameters = seal_named(settings.seal, settings).create()
    vault_id = secrets.token_bytes(16)
    keyring = RootKeyring(root_key, vault_id)
    seal = msgspec.json.encode(_SealRecord(settings.seal, parameters)).decode()
    created_at = microseconds(utc_now())
    check_value = keyring.seal(revision.encode(), _check(seal, created_at))
    row = {"id": 1, "vault_id": vault_id, "seal": seal, "created_at": created_at, "check_value": check_value}
    connection.execute(insert(tables.vault).values(row))
    _begin_tallies(connection, keyring, set())
    change = Change(connection, keyring)
    change.insert(Epoch(1, 1))
    change.flush_tallies()
    return keyring


def _begin_tallies(connection: Connection, keyring: RootKeyring, before: set[str]) -> None:
    """Give each table that was not there `before` an empty tally; one that is missing otherwise stays missing."""
    have = set(connection.execute(select(tables.tallies.c.table_name)).scalars())
    for name in (str(table.name) for table in tables.authenticated_tables()):
        if name not in before | have:
            connection.execute(insert(tables.tallies).values(table_name=name, sealed=Tally().sealed(keyring, name)))


def _check(seal: str, created_at: int) -> Bound:
    """What the check value of the vault's own row is bound to: the rest of the row."""
    return ("vault check", seal, created_at)
