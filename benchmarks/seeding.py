"""A vault that is in use: many keys and many clients, put there before the service starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kms.access import clients
from kms.access.model import Role
from kms.config import Settings
from kms.crypto.keytype import KeyMaterial
from kms.crypto.registry import key_type
from kms.keys.cryptoperiod import Cryptoperiods
from kms.operations.keys.key_factory import KeySpec, new_key
from kms.vault.opening import open_vault

KEYS = 10_000
KEY_PATTERN = "seeded-%d"
CLIENTS = 400


@dataclass(frozen=True)
class Seeded:
    """What logs in: client id, secret and TOTP secret of each client."""

    credentials: list[tuple[str, str, str]]


def seed(folder: Path) -> Seeded:
    """Fill the vault of the stopped service in `folder`: `KEYS` keys of admin's and `CLIENTS` clients."""
    from kms.clock import utc_now

    vault = open_vault(Settings(data_dir=folder / "kms-data", log_level="error"))
    kind, now, made = key_type("xaes-256-gcm"), utc_now(), []
    with vault.change() as change:
        for number in range(1, KEYS + 1):
            template = KeySpec(kind, "admin", KEY_PATTERN % number)
            new_key(change, Cryptoperiods(), template, KeyMaterial.of(kind, kind.generate()), now)
        for number in range(CLIENTS):
            enrolled = clients.create(change, f"client-{number}", frozenset({Role.USER}), now)
            made.append((enrolled.client.client_id, enrolled.client_secret, enrolled.totp_secret))
    vault.engine.dispose()
    return Seeded(made)
