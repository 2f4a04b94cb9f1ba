"""Time-based one-time passwords (RFC 6238): SHA-1, six digits, 30 seconds, as authenticator apps have them."""

from __future__ import annotations

import hmac
import re
from datetime import datetime
from math import ceil

import pyotp

STEP_SECONDS = 30
SKEW_STEPS = 1
_ISSUER = "KMS"


def new_secret() -> str:
    """A new shared secret: 160 random bits in base32 (RFC 4226, section 4)."""
    return pyotp.random_base32(32)


def provisioning_uri(secret: str, client_id: str) -> str:
    """The `otpauth://` URI that authenticator apps read from a QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=client_id, issuer_name=_ISSUER)


def matching_step(secret: str, code: str, now: datetime) -> int | None:
    """The time step that `code` belongs to, within one step of `now`, or None.

    Only exactly six ASCII digits can match. The caller must still see to it that a step is accepted once.
    """
    well_formed = re.fullmatch(r"[0-9]{6}", code, re.ASCII) is not None
    totp = pyotp.TOTP(secret)
    current = step_at(now)
    found = None
    for step in range(current - SKEW_STEPS, current + SKEW_STEPS + 1):
        matches = hmac.compare_digest(totp.generate_otp(step).encode(), code.encode("utf-8", "replace"))
        if matches and well_formed:
            found = step
    return found


def step_at(now: datetime) -> int:
    """The time step of `now`."""
    return int(now.timestamp()) // STEP_SECONDS


def is_used(step: int, last_used: int, now: datetime) -> bool:
    """Whether `step` was accepted already, or one after it was, `last_used` being the last.

    A last step that could not be accepted yet is of a clock that was ahead, and says nothing.
    """
    return step <= last_used <= step_at(now) + SKEW_STEPS


def seconds_until_next(last_used: int, now: datetime) -> int:
    """In how many seconds authenticator apps show a code that was not used, at least one."""
    return max(1, ceil((last_used + 1) * STEP_SECONDS - now.timestamp()))
