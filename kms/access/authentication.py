"""The one place where credentials become a caller: a secret with a second factor, or a session token."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from kms.access import access_keys, callers, clients, credentials, lockout, sessions, totp
from kms.access.access_keys import AccessKey
from kms.access.lockout import LockedOut
from kms.access.model import Caller, Client, ClientStatus, RecoveryCode, Token
from kms.access.sessions import Lifetimes
from kms.clock import Clock, steady_seconds
from kms.errors import AuthenticationFailed, MfaRequired, Refusal
from kms.secret import Secret
from kms.vault import sealed_columns
from kms.vault.change import Change
from kms.vault.host import EPOCH
from kms.vault.memory import Cache, Memory, Names
from kms.vault.sealing import SealBroken
from kms.vault.store import Vault
from kms.vault.transaction import Snapshot

_USED = "This code was used already. A code works once; the next one is there in {seconds} s."
_SESSIONS_CACHED = 10_000


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request presents: client id, secret, and one second factor."""

    client_id: str
    secret: str = field(repr=False)
    totp_code: str | None = field(default=None, repr=False)
    recovery_code: str | None = field(default=None, repr=False)

    @property
    def is_passphrase(self) -> bool:
        """Whether checking the secret takes long, because it is a person's."""
        return not credentials.is_generated_secret(self.secret)


@dataclass(frozen=True, slots=True)
class SigningCaller:
    """A caller who proves each request with a signature; the `signing_keys` so far, by their scope."""

    caller: Caller
    key: AccessKey
    secret: Secret
    signing_keys: dict[str, bytes] = field(default_factory=dict, repr=False)


class Authenticator:
    """Proves callers against the vault."""

    def __init__(
        self, vault: Vault, memory: Memory, clock: Clock, lifetimes: Lifetimes, locked_out: LockedOut
    ) -> None:
        self._vault = vault
        self._memory = memory
        self._clock = clock
        self.lifetimes = lifetimes
        self._locked_out = locked_out
        self._secrets = credentials.SecretVerifier(vault.derived_keys)
        self._nobody = totp.new_secret()
        self._signers: Cache[str, SigningCaller] = Cache(memory, _SESSIONS_CACHED, "access-keys")
        self._sessions: Cache[str, Caller] = Cache(memory, _SESSIONS_CACHED, "sessions")

    def authenticate(self, presented: Credentials, source: str) -> Caller:
        """The caller behind a secret and a second factor, each code accepted once over all workers and nodes.

        Raises MfaRequired where no second factor is given, RateLimited while locked out, AuthenticationFailed
        for everything else, in the same words and after the same work whether or not the client exists.
        """
        if presented.totp_code is None and presented.recovery_code is None:
            raise MfaRequired("Add the header X-TOTP with the code of the authenticator app.")
        with self._vault.read() as snapshot:
            known = clients.find(snapshot, presented.client_id)
        known_hash = known.secret_hash if known else None
        secret_matches = self._secrets.matches(presented.client_id, presented.secret, known_hash)
        epoch = self._memory.epoch
        with self._vault.change() as change:
            # Attempts come here one after the other, so that a count cannot be overtaken.
            now = self._clock()
            outcome = lockout.require_unlocked(change, presented.client_id, source, now) or self._attempt(
                change, presented, source, known_hash if secret_matches else None, now
            )
        if isinstance(outcome, Refusal):  # after the change, which keeps the count
            raise outcome
        return callers.standing(self._memory, outcome, epoch)

    def confirm(self, caller: Caller, totp_code: str, source: str) -> Caller:
        """`caller`, in a session or with an access key, with the second factor of a person who gives this code now.

        As `authenticate`: the code is accepted once, failures count, and a lock holds. Raises AuthenticationFailed,
        RateLimited, Unavailable.
        """
        presented = Credentials(caller.client_id, "", totp_code=totp_code)
        with self._vault.change() as change:
            now = self._clock()
            known = clients.find(change, caller.client_id)
            known_hash = (
                known.secret_hash if known else None
            )  # token or signature have proven as much as the secret would
            outcome = lockout.require_unlocked(change, caller.client_id, source, now) or self._attempt(
                change, presented, source, known_hash, now
            )
        if isinstance(outcome, Refusal):  # after the change, which keeps the count
            raise outcome
        return replace(caller, second_factor_at=now)

    def _attempt(
        self, change: Change, presented: Credentials, source: str, proven_hash: str | None, now: datetime
    ) -> Caller | Refusal:
        """Use up the code or recovery code and return the caller; count a failed attempt and return its refusal.

        `proven_hash` is the stored hash of the secret, if the presented secret matched it. Raises
        AuthenticationFailed for a correct code that was used already; that is not counted.
        """
        client = clients.find(change, presented.client_id)
        consumed = self._second_factor(change, client, presented, now)
        if (
            client is not None
            and client.status is ClientStatus.ENABLED
            and client.secret_hash == proven_hash
            and consumed is not None
        ):
            if isinstance(consumed, RecoveryCode):
                change.delete(consumed)
            elif totp.is_used(consumed, client.last_totp_step, now):
                # Whoever has the secret and a code that was right learns nothing by that.
                seconds = totp.seconds_until_next(client.last_totp_step, now)
                raise AuthenticationFailed(_USED.format(seconds=seconds), retry_after=seconds)
            else:
                change.replace(client, replace(client, last_totp_step=consumed))
            lockout.forgive(change, client.client_id, source)
            proof = client.secret_hash, client.totp_secret
            return replace(callers.of(change, client), proven_by=proof, second_factor_at=now)
        until = lockout.count_failure(change, presented.client_id, source, now)
        if until is not None:
            self._locked_out(presented.client_id, source, until)
        return AuthenticationFailed(callers.FAILED)

    def session(self, token: str) -> Caller:
        """The caller behind a session token. Raises AuthenticationFailed, and Unavailable without a lease."""
        # By the token itself: hashing it would cost more than the rest, and memory holds it anyway.
        memory = self._memory
        if memory.words[EPOCH] > memory.epoch or steady_seconds() >= memory.ends:  # as `require`, at less cost
            memory.catch_up()
        caller = self._sessions.find(token) or self._sessions.get(token, lambda: self._load_session(token))
        callers.require_in_time(caller, self._clock())
        return caller

    def access_key(self, access_key_id: str) -> SigningCaller:
        """The caller who signs with that access key, and its secret. Raises AuthenticationFailed, Unavailable."""
        self._memory.require()
        found = self._signers.find(access_key_id)
        if found is None:
            found = self._signers.get(access_key_id, lambda: self._load_access_key(access_key_id))
        callers.require_in_time(found.caller, self._clock())
        return found

    def is_over(self, access_key_id: str, token: str | None) -> bool:
        """Whether that access key had a session token, which `token` is, and has ended. Raises Unavailable.

        Who holds the token may know, so that it gets another; it is known for a day after the end.
        """
        try:
            found = self._signers.get(access_key_id, lambda: self._load_access_key(access_key_id))
        except AuthenticationFailed:
            return False
        ended = found.key.session_token_hash is not None and found.key.expires_at <= self._clock()
        return ended and self.is_session_token(found, token)

    def is_session_token(self, found: SigningCaller, token: str | None) -> bool:
        """Whether a request under that access key carries the session token that it must: for most keys none."""
        if found.key.session_token_hash is None:
            return token is None
        given = access_keys.session_token_hash(self._vault.derived_keys, token or "")
        return hmac.compare_digest(given, found.key.session_token_hash)

    def revalidate(self, caller: Caller, now: datetime) -> Caller:
        """`caller` as it is now: a request may be a long time on its way after it was proven.

        Raises AuthenticationFailed where the session, the access key or the client is gone or over; Unavailable.
        """
        callers.require_in_time(caller, now)
        memory = self._memory
        if memory.words[EPOCH] > memory.epoch or steady_seconds() >= memory.ends:  # as `require`, at less cost
            memory.catch_up()
        epoch, standing = memory.epoch, caller.standing
        if standing is not None and (standing.epoch == epoch or standing.holds(epoch)):
            return caller
        with self._vault.read() as snapshot:
            again = callers.again(snapshot, caller)
        return callers.standing(self._memory, again, epoch)

    def still(self, change: Change, caller: Caller, now: datetime) -> Caller:
        """`caller` as it is in this change, which may have waited long for its turn. Raises AuthenticationFailed."""
        callers.require_in_time(caller, now)
        standing = caller.standing
        is_known = standing is not None and self._memory.epoch == change.epoch and standing.holds(change.epoch)
        if is_known and change.outdated_before.isdisjoint(caller.rests_on):
            return caller
        return replace(callers.again(change, caller), rests_on=caller.rests_on)

    def issue(
        self, change: Change, caller: Caller, words: frozenset[str] = frozenset(), lifetime: timedelta | None = None
    ) -> tuple[str, Token]:
        """As `sessions.issue`, now."""
        return sessions.issue(change, caller, self._clock(), self.lifetimes, words, lifetime)

    def _load_session(self, given: str) -> tuple[Caller, Names]:
        epoch = self._memory.epoch
        token_hash = credentials.token_hash(self._vault.derived_keys, given)
        with self._vault.read() as snapshot:
            token = snapshot.find(Token, token_hash)
            if token is None:
                raise AuthenticationFailed(callers.OVER)
            caller = callers.enabled(snapshot, token.client_id)
        caller = callers.standing(self._memory, callers.by_token(caller, token), epoch)
        return caller, caller.rests_on

    def _load_access_key(self, access_key_id: str) -> tuple[SigningCaller, Names]:
        epoch = self._memory.epoch
        with self._vault.read() as snapshot:
            key = snapshot.find(AccessKey, access_key_id) if access_keys.is_access_key_id(access_key_id) else None
            secret = access_keys.secret_of(snapshot.derived_keys, key) if key else None
            if key is None or secret is None:
                raise AuthenticationFailed(callers.FAILED)
            caller = callers.enabled(snapshot, key.client_id)
        caller = callers.standing(self._memory, callers.by_access_key(caller, key), epoch)
        return SigningCaller(caller, key, secret), caller.rests_on

    def _second_factor(
        self, change: Change, client: Client | None, presented: Credentials, now: datetime
    ) -> int | RecoveryCode | None:
        """The TOTP step, which may have been used before, or the recovery code that a success uses up; or None."""
        if presented.recovery_code is not None:
            code = credentials.recovery_code_hash(change.derived_keys, presented.client_id, presented.recovery_code)
            return change.find(RecoveryCode, presented.client_id, code) if client else None
        secret = totp_secret(change, client) if client else self._nobody
        step = totp.matching_step(secret, presented.totp_code or "", now)
        return step if client else None


def totp_secret(snapshot: Snapshot, client: Client) -> str:
    """The unsealed TOTP secret of `client`, in base32. Raises AuthenticationFailed where it was altered."""
    try:
        return snapshot.derived_keys.open(client.totp_secret, sealed_columns.totp_secret(client.client_id)).decode()
    except SealBroken:
        raise AuthenticationFailed(callers.FAILED) from None
