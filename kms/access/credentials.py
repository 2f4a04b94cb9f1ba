"""Client secrets, passphrases, tokens and recovery codes: how they are made and how they are stored."""

from __future__ import annotations

import base64
import hmac
import os
import re
import secrets

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from kms.vault.sealing import DerivedKeys

_SECRET_PREFIX = "kms-secret-"  # noqa: S105  # marks what scanners for leaked secrets should look for
_TOKEN_PREFIX = "kms-token-"  # noqa: S105
_RANDOM_PART = r"[A-Za-z0-9_-]{43}"
RECOVERY_CODES = 10
_DASHED = re.compile("(....)(?=.)", re.DOTALL)

# OWASP's second choice for Argon2id: 19 MiB, two passes; a login takes some 20 ms.
_ITERATIONS, _LANES, _MEMORY_KIB = 2, 1, 19 * 1024


def new_client_secret() -> str:
    """256 random bits, marked as a client secret."""
    return _SECRET_PREFIX + secrets.token_urlsafe(32)


def new_token() -> str:
    """256 random bits, marked as a session token."""
    return _TOKEN_PREFIX + secrets.token_urlsafe(32)


def new_recovery_codes() -> list[str]:
    """Ten codes of 80 random bits each, in base32 with dashes."""
    return ["-".join(re.findall("....", base64.b32encode(os.urandom(10)).decode())) for _ in range(RECOVERY_CODES)]


def token_hash(derived_keys: DerivedKeys, token: str) -> bytes:
    """What is stored of a token."""
    return derived_keys.credential_hash("token", token.encode("utf-8", "surrogateescape"))


def recovery_code_hash(derived_keys: DerivedKeys, client_id: str, code: str) -> bytes:
    """What is stored of a recovery code. People type it in lower case, too, and with or without its dashes."""
    written = _DASHED.sub(r"\1-", code.replace("-", "").upper())
    return derived_keys.credential_hash("recovery", client_id.encode(), written.encode("utf-8", "surrogateescape"))


def hash_secret(derived_keys: DerivedKeys, client_id: str, secret: str) -> str:
    """What is stored of a client secret: a keyed hash of a generated one, Argon2id of a person's passphrase."""
    if is_generated_secret(secret):
        return _keyed(derived_keys, client_id, secret)
    kdf = Argon2id(salt=os.urandom(16), length=32, iterations=_ITERATIONS, lanes=_LANES, memory_cost=_MEMORY_KIB)
    return kdf.derive_phc_encoded(secret.encode())


def is_generated_secret(secret: str) -> bool:
    """Whether this has the form of a secret made here, and not of a passphrase."""
    return re.fullmatch(_SECRET_PREFIX + _RANDOM_PART, secret, re.ASCII) is not None


class SecretVerifier:
    """Compares a presented secret with a stored hash.

    The work depends on the form of what was presented only: a client that does not exist, and one whose
    secret is of the other form, cost the same.
    """

    def __init__(self, derived_keys: DerivedKeys) -> None:
        self._keyring = derived_keys
        self._nobody = hash_secret(derived_keys, "", "nobody knows " + secrets.token_urlsafe(32))

    def matches(self, client_id: str, presented: str, stored: str | None) -> bool:
        """Whether `presented` is the secret behind `stored`; `stored` is None for an unknown client."""
        if is_generated_secret(presented):
            expected = _keyed(self._keyring, client_id, presented)
            return hmac.compare_digest(expected, stored if stored and stored.startswith("hmac$") else "")
        is_passphrase = stored is not None and stored.startswith("$argon2id$")
        try:
            Argon2id.verify_phc_encoded(
                presented.encode("utf-8", "surrogateescape"),
                stored if is_passphrase and stored else self._nobody,
            )
        except InvalidKey:
            return False
        return is_passphrase


def _keyed(derived_keys: DerivedKeys, client_id: str, secret: str) -> str:
    digest = derived_keys.credential_hash("secret", client_id.encode(), secret.encode())
    return "hmac$" + base64.b64encode(digest).decode()
