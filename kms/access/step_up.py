"""What asks for a second factor that a person gave not long ago (RFC 9470)."""

from __future__ import annotations

from datetime import datetime, timedelta

from kms.access.model import Caller
from kms.errors import InsufficientUserAuthentication

_CLOCKS_DIFFER_BY = timedelta(minutes=5)


def is_fresh(caller: Caller, within: timedelta, now: datetime) -> bool:
    """Whether a person gave a second factor for `caller` no longer than `within` ago.

    One that was given well in the future was given by a clock that was ahead, and does not count.
    """
    given_at, begins = caller.second_factor_at, counts_from(caller)
    return given_at is not None and begins is not None and begins <= now < given_at + within


def counts_from(caller: Caller) -> datetime | None:
    """From when the second factor of `caller` counts; None without one."""
    return caller.second_factor_at - _CLOCKS_DIFFER_BY if caller.second_factor_at is not None else None


def require(caller: Caller, within: timedelta, now: datetime) -> None:
    """Raise InsufficientUserAuthentication unless it `is_fresh`."""
    if not is_fresh(caller, within, now):
        raise InsufficientUserAuthentication(within)
