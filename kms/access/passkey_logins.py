"""How people prove who they are with a passkey: the challenges that they sign, new passkeys, and log-ins.

A passkey counts as two factors: the authenticator is one, and what it verifies its user by (a PIN, a fingerprint) the
other; so an answer without user verification is refused. The service does not ask who logs in before that is proven:
passkeys are discoverable, and the authenticator offers those that it has.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, replace

import structlog

from kms.access import callers, challenges, lockout, passkeys, webauthn
from kms.access.lockout import LockedOut
from kms.access.model import Caller, Client, ClientStatus
from kms.access.passkeys import Passkey
from kms.access.webauthn import Asserted, AuthenticationResponse, Registered, RegistrationResponse, RelyingParty
from kms.clock import Clock
from kms.errors import AlreadyExists, AuthenticationFailed, PasskeyCloned, Refusal, ValidationFailed
from kms.vault.change import Change
from kms.vault.memory import Memory
from kms.vault.store import Vault

_LOG_IN = "passkey log-in"
_CREATION = "passkey of "
_NO_CHALLENGE = "The challenge is not one of this service, or is older than five minutes. Get other options."
_USED_CHALLENGE = "This challenge was used already; each works once. Get other options."
_NOT_VERIFIED = (
    "response: it does not verify. It must answer options of this service, from an authenticator that has verified "
    "its user and signs with ES256, EdDSA or RS256."
)


@dataclass(frozen=True)
class VerifiedPasskey:
    """A new credential that was verified, for a client; its challenge is not used up yet."""

    registered: Registered
    challenge: bytes
    client_id: str


@dataclass(frozen=True)
class _Presented:
    """An assertion whose challenge is one of this service; nothing else of it is proven."""

    response: AuthenticationResponse
    challenge: bytes
    passkey_id: str


class PasskeyLogins:
    """Proves people by passkeys, for pages of the service that is the relying party `party`."""

    def __init__(
        self, vault: Vault, memory: Memory, clock: Clock, party: RelyingParty, locked_out: LockedOut
    ) -> None:
        self.party = party
        self._locked_out = locked_out
        self._vault = vault
        self._memory = memory
        self._clock = clock

    def login_challenge(self) -> bytes:
        """A challenge for who logs in or confirms a session, whoever that is."""
        return challenges.new(self._vault.derived_keys, _LOG_IN, self._clock())

    def creation_challenge(self, client_id: str) -> bytes:
        """A challenge for a new passkey of that client."""
        return challenges.new(self._vault.derived_keys, _CREATION + client_id, self._clock())

    def verified(self, client_id: str, response: RegistrationResponse) -> VerifiedPasskey:
        """What an authenticator has made for a client, for `add`. Raises ValidationFailed unless it verifies."""
        try:
            challenge = webauthn.challenge_in(response.response.client_data_json, webauthn.CREATE, self.party)
            if not challenges.is_good(self._vault.derived_keys, challenge, _CREATION + client_id, self._clock()):
                raise ValidationFailed(f"response: {_NO_CHALLENGE}")
            return VerifiedPasskey(webauthn.registered(response, challenge, self.party), challenge, client_id)
        except webauthn.NotForUs as told:
            raise ValidationFailed(f"response: {told}") from None
        except webauthn.NotVerified:
            raise ValidationFailed(_NOT_VERIFIED) from None

    def add(self, change: Change, made_for: VerifiedPasskey, name: str) -> Passkey:
        """Store a new passkey under that name.

        Raises ValidationFailed for a challenge that was used, AlreadyExists for a passkey that is known.
        """
        made, now = made_for.registered, self._clock()
        if not challenges.use_up(change, made_for.challenge):
            raise ValidationFailed(f"response: {_USED_CHALLENGE}")
        passkey = Passkey(
            passkey_id=passkeys.id_of(made.credential_id),
            client_id=made_for.client_id,
            credential_id=made.credential_id,
            public_key=made.public_key,
            sign_count=made.sign_count,
            backup_eligible=made.backup_eligible,
            transports=made.transports,
            name=name,
            created_at=now,
            last_used_at=None,
        )
        if change.find(Passkey, passkey.passkey_id) is not None:
            raise AlreadyExists("This passkey is in use here already.")
        change.insert(passkey)
        return passkey

    def authenticate(self, response: AuthenticationResponse, source: str) -> Caller:
        """The client whose passkey has signed a challenge of this service, each of which works once over all nodes.

        Raises AuthenticationFailed, RateLimited while locked out, PasskeyCloned, Unavailable. A passkey that is not
        there, and one of a disabled client, are refused in the same words after the same work.
        """
        return self._prove(response, source, None)

    def confirm(self, caller: Caller, response: AuthenticationResponse, source: str) -> Caller:
        """`caller`, in a session, with the second factor of a person who signs with a passkey of the client now.

        Raises as `authenticate`.
        """
        proven = self._prove(response, source, caller.client_id)
        return replace(caller, second_factor_at=proven.second_factor_at)

    def _prove(self, response: AuthenticationResponse, source: str, client_id: str | None) -> Caller:
        presented, epoch = self._presented(response), self._memory.epoch
        with self._vault.change() as change:
            # Attempts come here one after the other, so that neither a count nor a challenge can be overtaken.
            outcome = self._attempt(change, presented, source, client_id)
        if isinstance(outcome, Refusal):  # after the change, which keeps the count
            raise outcome
        return callers.standing(self._memory, outcome, epoch)

    def _presented(self, response: AuthenticationResponse) -> _Presented:
        """The assertion, once its challenge is known to be good. Raises AuthenticationFailed; that is no secret."""
        try:
            challenge = webauthn.challenge_in(response.response.client_data_json, webauthn.GET, self.party)
        except webauthn.NotForUs as told:
            raise AuthenticationFailed(str(told)) from None
        if not challenges.is_good(self._vault.derived_keys, challenge, _LOG_IN, self._clock()):
            raise AuthenticationFailed(_NO_CHALLENGE)
        return _Presented(response, challenge, passkeys.id_of(webauthn.decoded(response.raw_id)))

    def _attempt(self, change: Change, presented: _Presented, source: str, client_id: str | None) -> Caller | Refusal:
        """Use up the challenge; return the caller, or the refusal of an attempt that counts as a failed log-in.

        Raises what is told to whoever has the private key; that is not counted.
        """
        now = self._clock()
        passkey = change.find(Passkey, presented.passkey_id)
        if passkey is not None and client_id not in (None, passkey.client_id):
            passkey = None
        # No client id has a colon. What is not there is counted too, so that it takes the same work.
        subject = client_id or (passkey.client_id if passkey is not None else f"passkey:{presented.passkey_id}")
        locked = lockout.require_unlocked(change, subject, source, now)
        if locked is not None:
            return locked
        client = change.find(Client, subject)
        asserted = self._asserted(presented, passkey)
        if passkey is None or asserted is None or not self._is_of(change, passkey, client, presented):
            until = lockout.count_failure(change, subject, source, now)
            if until is not None:
                self._locked_out(subject, source, until)
            return AuthenticationFailed(callers.FAILED)
        assert client is not None
        if not challenges.use_up(change, presented.challenge):  # first: a replay must not look like a copy
            raise AuthenticationFailed(_USED_CHALLENGE)
        _require_trustworthy(passkey, asserted)
        change.replace(passkey, replace(passkey, sign_count=asserted.sign_count, last_used_at=now))
        lockout.forgive(change, client.client_id, source)
        return replace(
            callers.of(change, client),
            credential=passkeys.credential_of(passkey.passkey_id),
            second_factor_at=now,
        )

    def _asserted(self, presented: _Presented, passkey: Passkey | None) -> Asserted | None:
        public_key = passkey.public_key if passkey is not None else None
        try:
            return webauthn.asserted(presented.response, presented.challenge, self.party, public_key)
        except webauthn.NotVerified:
            return None

    def _is_of(self, change: Change, passkey: Passkey, client: Client | None, presented: _Presented) -> bool:
        """Whether the passkey is of `client`, which may log in, and the authenticator has it for that client."""
        if client is None or client.status is not ClientStatus.ENABLED:
            return False
        given = webauthn.decoded(presented.response.response.user_handle or "")
        return hmac.compare_digest(given, passkeys.user_handle(change.derived_keys, passkey.client_id))


def _require_trustworthy(passkey: Passkey, asserted: Asserted) -> None:
    """Raise what is to be told to whoever has the private key (section 7.2, from step 17 on).

    AuthenticationFailed where the user was not verified; PasskeyCloned where the count went back, or a credential of
    one device says that it may be on several.
    """
    if not asserted.user_verified:
        raise AuthenticationFailed("The authenticator did not verify its user, by a PIN or a fingerprint. It must.")
    counts = asserted.sign_count > 0 or passkey.sign_count > 0
    is_behind = counts and asserted.sign_count <= passkey.sign_count
    if is_behind or asserted.backup_eligible != passkey.backup_eligible:
        structlog.get_logger().warning(
            "a passkey may have been copied: its counter went back, or it is of another kind now",
            client_id=passkey.client_id,
            passkey_id=passkey.passkey_id,
        )
        raise PasskeyCloned(passkeys.credential_of(passkey.passkey_id))
