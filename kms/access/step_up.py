"""What asks for a second factor that a person gave not long ago (RFC 9470)."""

from __future__ import annotations

from datetime import datetime, timedelta

from kms.access.model import Caller, Token, is_of_person
from kms.errors import InsufficientUserAuthentication, PermissionDenied

CLOCKS_DIFFER_BY = timedelta(minutes=5)
"""How far the clocks of the workers may lie apart: what one of them has just noted counts for all."""
_TO_LET_IN = timedelta(minutes=5)


def is_fresh(caller: Caller, within: timedelta, now: datetime) -> bool:
    """Whether a person gave a second factor for `caller` no longer than `within` ago.

    One that was given well in the future was given by a clock that was ahead, and does not count.
    """
    given_at, begins = caller.second_factor_at, counts_from(caller)
    return given_at is not None and begins is not None and begins <= now < given_at + within


def counts_from(caller: Caller) -> datetime | None:
    """From when the second factor of `caller` counts; None without one."""
    return caller.second_factor_at - CLOCKS_DIFFER_BY if caller.second_factor_at is not None else None


def require(caller: Caller, within: timedelta, now: datetime) -> None:
    """Raise InsufficientUserAuthentication unless it `is_fresh`."""
    if not is_fresh(caller, within, now):
        raise InsufficientUserAuthentication(within)


def require_unnarrowed(caller: Caller) -> None:
    """Raise PermissionDenied for a narrowed session, before it lets somebody in as its client."""
    if caller.scope is not None:
        raise PermissionDenied("A narrowed session lets nobody in: that would be more than it may itself.")


def require_to_let_in(caller: Caller, client_id: str, now: datetime) -> None:
    """Return if `caller` may add a credential for `client_id`; checks only a caller that does it for itself.

    Raises PermissionDenied for a narrowed session, which would get more than it may, and
    InsufficientUserAuthentication for a program without a person who confirms it.
    """
    if client_id != caller.client_id:
        return
    require_unnarrowed(caller)
    if not is_of_person(caller.credential):
        require(caller, _TO_LET_IN, now)


def session_of_person(caller: Caller) -> Token:
    """The session of `caller`, if it may take another second factor. Raises PermissionDenied.

    One that another session has made may not: it was handed on with what its maker had then, to a program perhaps,
    and whoever holds it must not get more by asking the person for a code.
    """
    if caller.token is None:
        raise PermissionDenied("This is for a session: send its token (Authorization: Bearer …).")
    if caller.token.parent is not None:
        raise PermissionDenied(
            "This session was made by another one. Confirm that one, and let it make a new session."
        )
    if not is_of_person(caller.credential):
        raise PermissionDenied("A program began this session; a second factor is for sessions that a person began.")
    return caller.token
