"""Where newer revocations than those of a backup can come from. Each source is one function that gives Evidence.

Nothing is believed that is not authentic: the list must be signed by the service's key in the backup, and each row of
a database must carry its code.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import msgspec
from sqlalchemy import Connection, create_engine, select
from sqlalchemy.exc import DBAPIError

from kms.client.errors import NotAuthentic
from kms.client.revocations import Revocation as Listed
from kms.client.revocations import RevocationList
from kms.clock import rfc3339
from kms.config import Settings
from kms.errors import IntegrityFailure, Refusal, StartError, Unavailable
from kms.keys.model import RevocationReason
from kms.revocation.again import Evidence, stand_in_uid
from kms.revocation.model import Revocation
from kms.revocation.published import jwks_of, signing_key
from kms.revocation.references import KeyReferences
from kms.vault import tables
from kms.vault.database import connect, shown
from kms.vault.head import Head
from kms.vault.integrity import check_row
from kms.vault.opening import Unseal, stored_keyslots, unsealed_by
from kms.vault.records import from_values
from kms.vault.rows import NewRootKey
from kms.vault.sealing import DerivedKeys, number_of_code
from kms.vault.transaction import Snapshot


def of_signed_list(snapshot: Snapshot, document: bytes) -> Evidence:
    """What the revocation list in `document` proves, as the service publishes it.

    The key that must have signed it is the one in `snapshot`. Raises StartError.
    """
    key = signing_key(snapshot)
    try:
        signed = RevocationList.checked(document, msgspec.json.encode(jwks_of(key)))
        references = KeyReferences(key)
        uids = {each.serial: references.uid(each.serial, each.key_reference) for each in signed.revoked_keys}
        entries = tuple(_entry(each, uids[each.serial]) for each in signed.revoked_keys)
    except (NotAuthentic, ValueError):
        raise StartError(
            "The revocation list is not one that the vault of this backup signed. Give the file as the service "
            "published it, such as the one that `kms revocations fetch` keeps."
        ) from None
    remarks = [f"It was made at {rfc3339(signed.issued_at)}: what was revoked after that is not in it."]
    by_id = frozenset(serial for serial, uid in uids.items() if uid is None)
    if by_id:
        remarks.append(
            f"{len(by_id)} of its entries name their key by its id alone, as older releases did. A key that had "
            "another id when the backup was made is not found by them: is one `deleted-…`, revoke it by hand."
        )
    return Evidence("the revocation list", entries, by_id, remarks=tuple(remarks))


def of_database(keys: DerivedKeys, settings: Settings, place: str, unseal: Unseal | None = None) -> Evidence:
    """What the database at the URL or path `place` proves, which may be damaged and is only read.

    `keys` are those of the backup. If the root key was changed since, the database is unsealed as `settings` say, or
    by `unseal` where something else than the seal gives the keyset. Raises StartError.
    """
    url = place if "://" in place else f"sqlite:///{place}"
    named = shown(url)
    engine = create_engine(_read_only(url)) if url.startswith("sqlite") else connect(url, pool_size=1)
    entries: list[Revocation] = []
    remarks: list[str] = []
    head = Head(0, 0, 0)
    try:
        with engine.connect() as connection:
            try:
                keys = _keys_of(connection, keys, settings, unseal)
                head = _head(connection, keys)
            except (DBAPIError, Refusal):
                remarks.append("Its head cannot be read, so nothing says how new it is.")
            try:
                for entry in _authentic(connection, keys, remarks):
                    entries.append(entry)
            except DBAPIError as error:
                remarks.append(f"Its revocations cannot be read to their end: {error.orig}.")
    except DBAPIError as error:
        raise StartError(f"{named} cannot be read: {error.orig}.") from None
    finally:
        engine.dispose()
    digest = head.digest(tables.revocations)
    if digest is not None and digest.count > len(entries):
        remarks.append(f"It had {digest.count} entries of the revocation list, and {len(entries)} can be read.")
    return Evidence(named, tuple(entries), frozenset(), head.counter, head.epoch, tuple(remarks))


def _read_only(url: str) -> str:
    path = Path(url.removeprefix("sqlite:///"))
    if not path.is_file():
        raise StartError(f"{path} is not there.")
    return f"sqlite:///file:{quote(str(path.absolute()))}?mode=ro&uri=true"


def _keys_of(
    connection: Connection, of_backup: DerivedKeys, settings: Settings, unseal: Unseal | None
) -> DerivedKeys:
    """Keys that open the head, or where that cannot be read the newest entries; or those of the backup."""
    keys = DerivedKeys(of_backup.keyset, of_backup.vault_id)  # a newer head would have the backup's own keys retired
    try:
        _head(connection, keys)
    except Unavailable:  # it is under a root key that the backup has not got
        return _own_keys(connection, keys, settings, unseal)
    except (DBAPIError, IntegrityFailure):
        if _newest_code(connection) > keys.keyset.newest:
            return _own_keys(connection, keys, settings, unseal)
    return keys


def _own_keys(
    connection: Connection, of_backup: DerivedKeys, settings: Settings, unseal: Unseal | None
) -> DerivedKeys:
    """The keys that the database is unsealed to; those of the backup if it is of another vault."""
    vault = connection.execute(select(tables.vault)).mappings().one()
    new_root_keys = [from_values(NewRootKey, row) for row in connection.execute(select(tables.root_keys))]
    newer, _ = unsealed_by(settings, vault, stored_keyslots(connection), new_root_keys, unseal)
    return newer if newer.vault_id == of_backup.vault_id else of_backup


def _newest_code(connection: Connection) -> int:
    """The number of the newest root key under which an entry is, as it says; 0 if none can be read."""
    newest = 0
    with suppress(DBAPIError):
        for (code,) in connection.execute(select(tables.revocations.c.mac)):
            newest = max(newest, number_of_code(bytes(code)))
    return newest


def _head(connection: Connection, keys: DerivedKeys) -> Head:
    sealed = connection.execute(select(tables.head.c.sealed)).scalar()
    if sealed is None:
        raise IntegrityFailure("There is no head.")
    return Head.unsealed(keys, bytes(sealed))


def _authentic(connection: Connection, keys: DerivedKeys, remarks: list[str]) -> Iterator[Revocation]:
    """The entries whose code is right, in their order; how many others there are becomes a remark."""
    table, altered = tables.revocations, 0
    for row in connection.execution_options(yield_per=1).execute(select(table).order_by(table.c.serial)):
        try:
            check_row(keys, table, row)
        except IntegrityFailure:
            altered += 1
        else:
            yield from_values(Revocation, row)
    if altered:
        remarks.append(f"{altered} entries of its revocation list are not ones that the service wrote.")


def _entry(listed: Listed, key_uid: bytes | None) -> Revocation:
    return Revocation(
        serial=listed.serial,
        key_uid=key_uid or stand_in_uid(listed.key_id),
        key_id=listed.key_id,
        up_to_version=listed.up_to_version,
        reason=RevocationReason(listed.reason),
        revoked_at=listed.revoked_at,
        compromised_at=listed.compromised_at,
    )
