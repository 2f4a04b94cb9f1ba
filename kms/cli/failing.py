"""How commands fail: a sentence on stderr, and an exit code that scripts can act on."""

from __future__ import annotations

import click

from kms.cli import show
from kms.client import errors
from kms.errors import StartError

EXIT_CODES = (
    (0, "done", ()),
    (1, "any other failure", ()),
    (2, "the command was used wrongly", ()),
    (3, "log in: there is no session, or it has ended", (errors.NotLoggedIn, errors.AuthenticationFailed)),
    (3, "log in again: a recent second factor is needed", (errors.FreshSecondFactorNeeded,)),
    (4, "not allowed", (errors.PermissionDenied,)),
    (5, "not found", (errors.NotFound,)),
    (6, "conflict: the name is taken, or the state does not allow it", (errors.AlreadyExists, errors.StateConflict)),
    (7, "not now: try again", (errors.Unreachable, errors.RateLimited, errors.Unavailable)),
    (8, "not authentic: altered, cut off, or made by another key", (errors.NotAuthentic, errors.DecryptionFailed)),
    (8, "not authentic: not a file in the envelope format", (errors.NotAnEnvelope,)),
    (9, "the key was revoked, or its cryptoperiod has ended", (errors.KeyRevoked, errors.KeyExpired)),
    (10, "the call waits for the approval of others", (errors.ApprovalPending,)),
)
NOT_AUTHENTIC = 8
REVOKED = 9
_STEP_UP = (
    "This needs a second factor that was given a short while ago. Give it (`python -m kms confirm`), then run this "
    "command again."
)


class Failure(click.ClickException):
    """A command that failed, and how it ends."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self._ends_with = exit_code

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # a class variable there, one for each error here
        """The exit code of the process."""
        return self._ends_with


def failure_of(error: errors.KmsError | StartError) -> Failure:
    """The Failure for an error: the message that the command prints, and its exit code."""
    code = next((code for code, _, kinds in EXIT_CODES if isinstance(error, kinds)), 1)
    message = str(error)
    if isinstance(error, errors.FreshSecondFactorNeeded):
        message = _STEP_UP
    elif isinstance(error, errors.Refused) and error.retry_after is not None:
        wait = f"in {error.retry_after} s"
        message += "" if wait in message else f" Try again {wait}."
    # The sentences of a service are others' words, which are one line.
    shown = show.plain_lines(message) if isinstance(error, StartError) else show.plain(message)
    return Failure(shown, code)
