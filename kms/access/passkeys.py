"""The passkeys by which people prove themselves: WebAuthn credentials, whose private half an authenticator keeps."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from kms.access import sessions
from kms.access.model import PASSKEY
from kms.vault import names, tables
from kms.vault.change import Change
from kms.vault.records import stored_in
from kms.vault.sealing import DerivedKeys


@stored_in(tables.passkeys)
@dataclass(frozen=True, slots=True)
class Passkey:
    """A passkey of a client, under a `name` that its person chose.

    `public_key` is a COSE key (RFC 9052); `sign_count` the newest count of its authenticator, 0 for one that does not
    count; `backup_eligible` whether it may be on several devices. By `passkey_id` it is listed and ended.
    """

    passkey_id: str
    client_id: str
    credential_id: bytes
    public_key: bytes
    sign_count: int
    backup_eligible: bool
    transports: frozenset[str]
    name: str
    created_at: datetime
    last_used_at: datetime | None


names.bears(Passkey, lambda key: names.of_passkey(key.passkey_id), but=("sign_count", "name", "last_used_at"))


def id_of(credential_id: bytes) -> str:
    """The `passkey_id` of a WebAuthn credential: the first 128 bits of its SHA-256 in hexadecimal."""
    return sha256(credential_id).hexdigest()[:32]


def credential_of(passkey_id: str) -> str:
    """What sessions have as their credential that a passkey has proven."""
    return PASSKEY + passkey_id


def user_handle(keys: DerivedKeys, client_id: str) -> bytes:
    """By what authenticators tell clients apart (`user.id`): 32 bytes that say nothing of the client."""
    return keys.credential_hash("passkey user", client_id.encode())


def end(change: Change, passkey: Passkey) -> None:
    """Take a passkey away, and end what was proven with it."""
    sessions.end_made_with(change, credential_of(passkey.passkey_id), passkey.client_id)
    change.delete(passkey)
