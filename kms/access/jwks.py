"""The public keys of an issuer as a JWK set (RFC 7517, section 5), given by an operator or served by the issuer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from kms.access.jwt import Header
from kms.access.strict_json import NotStrict, json_object
from kms.access.verification_key import VerificationKey, algorithms_for, public_key_from_jwk, require_public
from kms.errors import Unavailable, ValidationFailed

Keys = Mapping[str, VerificationKey]
"""The keys by what tokens call them: the `kid` of the set, or the thumbprint of a key that has none there."""

LONGEST = 262_144
"""How many bytes a set that is served may have."""

_MOST_KEYS = 100
_LONGEST_KID = 512
_RETRY_AFTER = 60


def given(members: Mapping[str, Any]) -> Keys:
    """The keys in a JWK set that an operator gives.

    Keys for encryption, and of types and curves that sign nothing here, are passed over. Raises ValidationFailed for
    a private, symmetric, weak or damaged key, for a `kid` that comes twice, and where no key is left.
    """
    named = [(entry.get("kid"), public_key_from_jwk(entry)) for entry in _entries(members)]
    keys = {kid or key.kid: key for kid, key in named}
    if len(keys) < len(named):
        raise ValidationFailed("jwks: two keys have the same kid.")
    if not keys:
        raise ValidationFailed("jwks: there is no key that verifies signatures.")
    return keys


def served(document: bytes) -> Keys:
    """The keys in a JWK set that an issuer serves, JSON in UTF-8 of at most `LONGEST` bytes.

    As `given`, but a weak or damaged key is ignored, and so are all keys with the same `kid`, so that one mistake of
    the issuer does not lock out everybody. Raises Unavailable if it is not a JWK set, or has a private or symmetric
    key, because others could then sign.
    """
    try:
        named = [(entry.get("kid"), _usable(entry)) for entry in _entries(json_object(document))]
    except NotStrict as error:
        raise Unavailable(f"The issuer's key set is not acceptable JSON: {error}", retry_after=_RETRY_AFTER) from None
    except ValidationFailed as refusal:
        raise Unavailable(f"The issuer's key set is refused: {refusal.detail}", retry_after=_RETRY_AFTER) from None
    found = [(kid or (key.kid if key else ""), key) for kid, key in named]
    times = Counter(kid for kid, _ in found)
    return {kid: key for kid, key in found if key is not None and times[kid] == 1}


def find(keys: Keys, header: Header) -> VerificationKey | None:
    """The key that the token names; the only one of the set where it names none; None where there is none such."""
    if header.kid is None:
        return next(iter(keys.values())) if len(keys) == 1 else None
    return keys.get(header.kid)


def canonical(keys: Keys) -> dict[str, list[dict[str, str]]]:
    """A JWK set of `keys` with nothing else in it, which `given` reads back to the same keys."""
    return {"keys": [{**key.jwk, "kid": kid, **_own_algorithm(key)} for kid, key in keys.items()]}


def _own_algorithm(key: VerificationKey) -> dict[str, str]:
    every = algorithms_for(key.jwk)
    return {} if key.algorithms == every else {"alg": key.algorithms[0]}


def _entries(members: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries of a set that verify signatures. Raises ValidationFailed."""
    entries = members.get("keys")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValidationFailed('jwks: send an object with the member "keys", an array of JWK objects.')
    if len(entries) > _MOST_KEYS:
        raise ValidationFailed(f"jwks: a set has at most {_MOST_KEYS} keys.")
    for entry in entries:
        require_public(entry)
        kid = entry.get("kid", "-")
        if not isinstance(kid, str) or not 0 < len(kid) <= _LONGEST_KID:
            raise ValidationFailed(f"jwks: kid must be a string of 1 to {_LONGEST_KID} characters.")
    return [entry for entry in entries if algorithms_for(entry)]


def _usable(entry: dict[str, Any]) -> VerificationKey | None:
    try:
        return public_key_from_jwk(entry)
    except ValidationFailed:
        return None
