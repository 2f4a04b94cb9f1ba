"""Sessions: issued by one function, identified by an id that is not a secret, and ended with those made from them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from kms.access import credentials, scope
from kms.access.access_keys import AccessKey
from kms.access.model import Caller, Token, UsedAssertion
from kms.access.policy import Permission
from kms.access.scope import Scope
from kms.errors import AuthenticationFailed, PermissionDenied, ValidationFailed
from kms.vault import tables
from kms.vault.change import Change

ACCESS_KEY = "access-key:"
"""How the credential begins of what an access key has proven."""


@dataclass(frozen=True)
class Lifetimes:
    """How long sessions live at most: any, and those that only scrape metrics."""

    session: timedelta
    metrics: timedelta

    def longest(self, caller: Caller, narrowed: Scope | None) -> timedelta:
        """How long a session of `caller` with that scope may live.

        One by a platform's token never lives long: that token is short, and the program gets another.
        """
        longest = self.session
        if narrowed is not None and narrowed.is_metrics_only and not caller.issuer_role:
            longest = max(self.metrics, self.session)
        return min(caller.token_lifetime or longest, longest)


def issue(
    change: Change,
    caller: Caller,
    now: datetime,
    lifetimes: Lifetimes,
    words: frozenset[str] = frozenset(),
    lifetime: timedelta | None = None,
) -> tuple[str, Token]:
    """Open a session for `caller`, and return its token and its record. No other function makes sessions.

    Its expiry is set now, and is no later than that of the caller's own session or credential. `words` are its scope,
    by default that of the caller. Raises PermissionDenied for a scope that is wider than the caller's,
    ValidationFailed for a malformed scope and for a `lifetime` that is too long, and AuthenticationFailed for an
    assertion that was used.
    """
    narrowed = narrowed_scope(caller, words)
    longest = lifetimes.longest(caller, narrowed)
    if lifetime is not None and lifetime > longest:
        raise ValidationFailed(f"expires_in: at most {int(longest.total_seconds())} seconds.")
    expires_at = now + (lifetime or longest)
    if caller.expires_at is not None:
        expires_at = min(expires_at, caller.expires_at)
    if caller.consumes is not None:
        _consume(change, caller.consumes)
    token = credentials.new_token()
    hashed = credentials.token_hash(change.derived_keys, token)
    record = Token(
        token_hash=hashed,
        client_id=caller.client_id,
        issued_at=now,
        expires_at=expires_at,
        session_id=id_of(hashed),
        scope=narrowed.words if narrowed is not None else frozenset(),
        credential=caller.credential,
        subject=caller.subject,
        parent=caller.token.token_hash if caller.token is not None else None,
        second_factor_at=caller.second_factor_at,
    )
    change.insert(record)
    return token, record


def narrowed_scope(caller: Caller, words: frozenset[str]) -> Scope | None:
    """The scope of these words, or the caller's own where there are none.

    Raises ValidationFailed, and PermissionDenied for what is wider than the caller's.
    """
    if caller.scope is not None and not caller.scope.pairs:
        raise PermissionDenied("This access key only gives, with a code, keys that end soon (GetSessionToken).")
    if not words:
        return caller.scope
    wanted = _checked(words)
    if caller.scope is not None and not wanted.within(caller.scope):
        raise PermissionDenied("The scope goes beyond that of what proves the caller; ask for less.")
    return wanted


_PERMISSIONS = sorted(Permission)


def scope_words(text: str) -> frozenset[str]:
    """The words of a scope, which are separated by spaces. Raises ValidationFailed for one that means nothing."""
    words = frozenset(text.split())
    return _checked(words).words if words else words


def _checked(words: frozenset[str]) -> Scope:
    try:
        wanted = scope.parse(words)
    except ValueError as error:
        raise ValidationFailed(f"scope: {error}.") from None
    for permission, _ in wanted.pairs:
        if permission not in _PERMISSIONS:
            raise ValidationFailed(f"scope: {permission} is no permission; there are {', '.join(_PERMISSIONS)}.")
    return wanted


def _consume(change: Change, assertion: UsedAssertion) -> None:
    """Take an assertion that was never taken before, on any node. Raises AuthenticationFailed."""
    if change.find(UsedAssertion, assertion.assertion_hash) is not None:
        raise AuthenticationFailed("This assertion was used already: each needs a jti of its own.")
    change.insert(assertion)


def id_of(token_hash: bytes) -> str:
    """The public id of a session: 24 hexadecimal digits, from which the token cannot be computed."""
    return sha256(token_hash).hexdigest()[:24]


def end(change: Change, *tokens: Token) -> None:
    """End sessions and those that they made of themselves."""
    ending = {token.token_hash: token for token in tokens}
    made = list(tokens)
    while made:
        children = [child for token in made for child in change.matching(Token, parent=token.token_hash)]
        made = [child for child in children if child.token_hash not in ending]
        ending.update((child.token_hash, child) for child in made)
    change.delete(*ending.values())


def end_made_with(change: Change, credential: str, client_id: str) -> None:
    """End all sessions and access keys of a client that were obtained with `credential`, directly or indirectly."""
    waiting = [credential]
    while waiting:
        proven_by = waiting.pop()
        change.delete(*change.matching(Token, client_id=client_id, credential=proven_by))
        keys = change.matching(AccessKey, client_id=client_id, credential=proven_by)
        change.delete(*keys)
        waiting += map(credential_of, keys)


def end_access_key(change: Change, key: AccessKey) -> None:
    """End an access key, and what was proven with it."""
    change.delete(key)
    end_made_with(change, credential_of(key), key.client_id)


def credential_of(key: AccessKey) -> str:
    """What sessions and access keys have as their credential that an access key has proven."""
    return f"{ACCESS_KEY}{key.access_key_id}"


def end_all(change: Change, client_id: str) -> tuple[int, int]:
    """End every session and every access key of a client; gives how many of each there were."""
    tokens = change.matching(Token, client_id=client_id)
    keys = change.matching(AccessKey, client_id=client_id)
    change.delete(*tokens, *keys)
    return len(tokens), len(keys)


def of_id(change: Change, client_id: str, session_id: str) -> Token | None:
    """The session of a client that has that id."""
    own = tables.tokens.c.client_id == client_id
    return change.first(Token, own, tables.tokens.c.session_id == session_id)
