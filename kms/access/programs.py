"""How programs prove who they are, without a person: by their own key, their platform's token, or an access key.

Each proof becomes a caller, whose session is made by the same function as a person's. Why a proof is refused is told
once its signature was found right: before that, whoever asks learns nothing, in the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509 import Certificate, load_der_x509_certificate

from kms.access import access_keys, callers, certificates, claims, issuers, jwt, lockout, public_keys, scope
from kms.access.access_keys import AccessKey
from kms.access.issuers import Issuer, IssuerRole
from kms.access.model import Caller, UsedAssertion
from kms.access.public_keys import EndedCertificate, PublicKey
from kms.access.verification_key import VerificationKey, public_key_from_jwk, public_key_from_pem
from kms.clock import Clock
from kms.crypto import pkcs8
from kms.errors import AuthenticationFailed, ValidationFailed
from kms.keys.ids import is_client_id
from kms.vault.memory import Memory
from kms.vault.sealing import DerivedKeys
from kms.vault.store import Vault
from kms.vault.transaction import Snapshot

_LEEWAY = timedelta(seconds=60)
_LONGEST_ASSERTION = timedelta(minutes=5)
_LONGEST_SUBJECT = 512
FAILED = "The credentials are not valid."


class _NotProven(Exception):
    """The proof fails, and nobody may know why; it is counted."""


class Programs:
    """Proves programs against the vault. `audiences` are the names of this service that an assertion may be for."""

    def __init__(
        self,
        vault: Vault,
        memory: Memory,
        clock: Clock,
        audiences: frozenset[str],
        fetch: issuers.Fetch,
        roots: Callable[[], Sequence[Certificate]],
        locked_out: lockout.LockedOut,
    ) -> None:
        self._locked_out = locked_out
        self._roots = roots
        self._vault = vault
        self._fetch = fetch
        self._memory = memory
        self._clock = clock
        self._audiences = audiences

    def by_client_assertion(self, assertion: str, source: str) -> Caller:
        """The client that has signed a JWT with a key that is registered for it (RFC 7523, section 3).

        Raises AuthenticationFailed, RateLimited while locked out, Unavailable.
        """
        header = _peek(assertion)
        client_id = header.claimed_subject or ""
        is_name = is_client_id(client_id)

        def prove(snapshot: Snapshot, now: datetime) -> Caller:
            if header.x5c is not None:
                keys = {"": _key_in(header.x5c[0])}
            else:
                keys = _keys_of(snapshot, client_id, header.kid, now) if is_name else {}
            given = _verified(header, keys.values(), jwt.CLIENT_ALGORITHMS)
            if not given.claims.issuer == given.claims.subject == client_id:
                raise AuthenticationFailed("iss and sub must both be the client id.")
            ends_at = jwt.require_times(given.claims, now, _LONGEST_ASSERTION, _LEEWAY)
            _require_audience(given.claims, self._audiences)
            credential = public_keys.credential_of(given.key.kid)
            if header.x5c is not None:
                credential = self._certified(snapshot, client_id, header.x5c[0], header.x5c[1:], now)
                expires_at: datetime | None = certificates.ends_at(header.x5c[0])
            else:
                registered = snapshot.find(PublicKey, client_id, given.key.kid)
                expires_at = registered.expires_at if registered is not None else now
            return replace(
                callers.enabled(snapshot, client_id),
                credential=credential,
                expires_at=expires_at,
                consumes=_once(snapshot.derived_keys, client_id, given.claims.token_id, ends_at + 2 * _LEEWAY),
            )

        return self._proven(client_id, source, prove)

    def by_certificate(self, client_id: str | None, leaf: bytes, chain: Sequence[bytes], source: str) -> Caller:
        """The client that a certificate names, whose key TLS has proven; it must be `client_id`, where that is given.

        `leaf` and `chain` are in DER (RFC 8705, section 2.1). Raises AuthenticationFailed, RateLimited, Unavailable.
        """

        def prove(snapshot: Snapshot, now: datetime) -> Caller:
            named = self._client_of(leaf, chain, now)
            if client_id not in (None, named):
                raise AuthenticationFailed("The certificate names another client.")
            credential = self._certified(snapshot, named, leaf, chain, now)
            return replace(
                callers.enabled(snapshot, named), credential=credential, expires_at=certificates.ends_at(leaf)
            )

        return self._proven(client_id or certificates.thumbprint(leaf), source, prove)

    def _certified(
        self, snapshot: Snapshot, client_id: str, leaf: bytes, chain: Sequence[bytes], now: datetime
    ) -> str:
        """The credential that a certificate of the client is. Raises AuthenticationFailed for any other."""
        if self._client_of(leaf, chain, now) != client_id:
            raise AuthenticationFailed("The certificate names another client.")
        try:
            forms = certificates.thumbprints(leaf)
        except certificates.NotAccepted as refused:
            raise AuthenticationFailed(str(refused)) from None
        if any(snapshot.find(EndedCertificate, client_id, each) is not None for each in forms):
            raise AuthenticationFailed("This certificate was ended.")
        return public_keys.CERTIFICATE + certificates.thumbprint(leaf)

    def _client_of(self, leaf: bytes, chain: Sequence[bytes], now: datetime) -> str:
        try:
            return certificates.client_of(leaf, chain, self._roots(), now)
        except certificates.NotAccepted as refused:
            raise AuthenticationFailed(str(refused)) from None

    def by_platform_token(self, token: str, role_name: str, source: str) -> Caller:
        """The client for which a role takes tokens of an issuer that say what the role asks for.

        Raises AuthenticationFailed, RateLimited while locked out, Unavailable.
        """
        header = _peek(token)
        is_name = is_client_id(role_name)
        if is_name:
            self._learn_key(role_name, header)

        def prove(snapshot: Snapshot, now: datetime) -> Caller:
            role = snapshot.find(IssuerRole, role_name) if is_name else None
            issuer = snapshot.find(Issuer, role.issuer_id) if role is not None else None
            given = _verified(header, issuers.keys_for(issuer, header), jwt.ALGORITHMS)
            assert role is not None
            assert issuer is not None  # without them there is no key, and nothing is verified
            if given.claims.issuer != issuer.issuer:
                raise AuthenticationFailed(f"iss is not {issuer.issuer}.", claim="iss")
            jwt.require_times(given.claims, now, None, _LEEWAY)
            _require_audience(given.claims, frozenset({issuer.audience}))
            claims.bound_claims(role.claims).require(given.claims)
            subject = f"{given.claims.issuer} {given.claims.members.get('sub', '')}"
            return replace(
                callers.enabled(snapshot, role.client_id),
                credential=issuers.credential_of(role.role),
                issuer_role=role.role,
                subject=subject[:_LONGEST_SUBJECT],
                scope=scope.of(role.scope),
                token_lifetime=role.token_lifetime,
            )

        return self._proven(issuers.credential_of(role_name), source, prove)

    def _learn_key(self, role_name: str, header: jwt.Header) -> None:
        """Fetch the keys of a role's issuer again, where they are fetched and have none as the token names."""
        now = self._clock()
        with self._vault.read() as snapshot:
            role = snapshot.find(IssuerRole, role_name)
            issuer = snapshot.find(Issuer, role.issuer_id) if role is not None else None
        if issuer is None or not issuer.jwks_uri or issuers.is_fresh(issuer, now):
            return
        if header.claimed_issuer == issuer.issuer and not issuers.keys_for(issuer, header):
            issuers.refresh(self._vault, issuer.issuer_id, now, self._fetch)

    def by_access_key(self, access_key_id: str, secret: str, source: str) -> Caller:
        """The client behind an access key and its secret. Raises AuthenticationFailed, RateLimited, Unavailable."""

        def prove(snapshot: Snapshot, now: datetime) -> Caller:
            found = snapshot.find(AccessKey, access_key_id) if access_keys.is_access_key_id(access_key_id) else None
            right = access_keys.secret_of(snapshot.derived_keys, found) if found is not None else None
            if not access_keys.is_secret(right, secret) or found is None:
                raise _NotProven
            if found.needs_second_factor or found.session_token_hash is not None:
                raise AuthenticationFailed("This access key does not log in: it is for requests signed as AWS's are.")
            caller = callers.by_access_key(callers.enabled(snapshot, found.client_id), found)
            caller = replace(caller, second_factor_at=None)  # the person gave it to make the key, and is not here
            callers.require_in_time(caller, now)
            return caller

        return self._proven(access_key_id, source, prove)

    def _proven(self, subject: str, source: str, prove: Callable[[Snapshot, datetime], Caller]) -> Caller:
        """What `prove` gives, unless `subject` is locked for `source`; that it was not proven is counted."""
        epoch, now = self._memory.epoch, self._clock()
        with self._vault.read() as snapshot:
            lockout.require_not_locked(snapshot, subject, source, now)
            try:
                return callers.standing(self._memory, prove(snapshot, now), epoch)
            except jwt.Refused as refused:
                raise AuthenticationFailed(refused.reason, claim=refused.claim) from None
            except _NotProven:
                pass
        with self._vault.change() as change:
            until = lockout.count_failure(change, subject, source, now)
        if until is not None:
            self._locked_out(subject, source, until)
        raise AuthenticationFailed(FAILED)


@dataclass(frozen=True)
class _Verified:
    """The claims of a token, and the key that signed it."""

    claims: jwt.Claims
    key: VerificationKey


def _peek(token: str) -> jwt.Header:
    """What a token says before it is verified. Raises AuthenticationFailed; its form is no secret."""
    try:
        return jwt.peek(token)
    except jwt.Refused as refused:
        raise AuthenticationFailed(refused.reason) from None


def _verified(header: jwt.Header, keys: Iterable[VerificationKey], algorithms: Collection[str]) -> _Verified:
    """The claims, if one of the keys signed the token. Raises _NotProven after the same work if there is none."""
    for key in [each for each in keys if header.alg in each.algorithms] or [_nobody(header.alg)]:
        with suppress(jwt.Refused):
            return _Verified(jwt.verify(header, key, algorithms), key)
    raise _NotProven


@cache
def _nobody(alg: str) -> VerificationKey:
    """A key for that algorithm whose private half nobody has."""
    private: Any
    if alg.startswith(("PS", "RS")):
        private = rsa.generate_private_key(65537, 2048)
    elif alg.startswith("ES"):
        curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
        private = ec.generate_private_key(curves[alg])
    else:
        private = ed25519.Ed25519PrivateKey.generate()
    return public_key_from_pem(pkcs8.public_pem(pkcs8.public_der(private.public_key())))


def _key_in(certificate: bytes) -> VerificationKey:
    """The public key in a certificate, DER. Raises AuthenticationFailed; its form is no secret."""
    try:
        public: Any = load_der_x509_certificate(certificate).public_key()
        return public_key_from_pem(pkcs8.public_pem(pkcs8.public_der(public)))
    except (ValueError, UnsupportedAlgorithm, ValidationFailed):
        raise AuthenticationFailed("x5c: the first certificate does not have a key that signs assertions.") from None


def _keys_of(snapshot: Snapshot, client_id: str, kid: str | None, now: datetime) -> dict[str, VerificationKey]:
    """The public keys of a client that are not over, or that of them which the token names."""
    found = snapshot.matching(PublicKey, client_id=client_id)
    return {
        each.kid: public_key_from_jwk(each.jwk)
        for each in found
        if kid in (None, each.kid) and (each.expires_at is None or now < each.expires_at)
    }


def _once(keys: DerivedKeys, client_id: str, token_id: str, until: datetime) -> UsedAssertion:
    """What is remembered of an assertion until it is over, with what clocks may differ by."""
    return UsedAssertion(keys.credential_hash("assertion", client_id.encode(), token_id.encode()), until)


def _require_audience(given: jwt.Claims, wanted: frozenset[str]) -> None:
    if not jwt.audiences(given) & wanted:
        raise AuthenticationFailed(f"aud must be {' or '.join(sorted(wanted))}, or have it in it.", claim="aud")
