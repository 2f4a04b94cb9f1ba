"""The errors of the client library: one class for each way in which a program can react."""

from __future__ import annotations

from typing import Any


class KmsError(Exception):
    """The base of all errors of this library."""


class NotLoggedIn(KmsError):
    """There are no credentials to log in with; the message says what to do."""


class Unreachable(KmsError):
    """No answer came, and nothing was changed: the call can be made again."""


class OutcomeUnknown(KmsError):
    """The request for a change was sent and no answer came: look whether it was carried out before you ask again."""


class NotAnEnvelope(KmsError):
    """The bytes are not of the envelope format, or were cut off in the header."""


class NotAuthentic(KmsError):
    """Something that was signed or encrypted was altered, cut off, or is not what it should be."""


class ApprovalPending(KmsError):
    """The call was not carried out yet: it waits for the approval of others. Do not repeat it.

    `approval_id` names it; `Client.call("get_approval", approval_id=…)` shows how far it is, and its result.
    """

    def __init__(self, approval_id: str, detail: str) -> None:
        super().__init__(detail)
        self.approval_id = approval_id


class Refused(KmsError):
    """The service said no.

    `problem` is the name of the kind of refusal (such as `key-revoked`), `status` that of HTTP, `detail` the sentence
    of the service, `retry_after` in seconds where it said when to come again, `request_id` what its logs call it.
    """

    def __init__(
        self, detail: str, *, problem: str = "", status: int = 0, retry_after: int | None = None, request_id: str = ""
    ) -> None:
        super().__init__(detail)
        self.detail, self.problem, self.status = detail, problem, status
        self.retry_after, self.request_id = retry_after, request_id


class AuthenticationFailed(Refused):
    """The token, or what should prove the client, is not accepted."""


class FreshSecondFactorNeeded(Refused):
    """This asks for a second factor that a person gave a short while ago."""


class PermissionDenied(Refused):
    """The caller may not do this."""


class KeyRevoked(Refused):
    """The key was revoked."""


class KeyExpired(Refused):
    """The cryptoperiod of the key has ended."""


class NotFound(Refused):
    """There is nothing with that name, or the caller may not see it."""


class AlreadyExists(Refused):
    """The name is taken."""


class StateConflict(Refused):
    """What is there does not allow this, such as a suspended key."""


class DecryptionFailed(Refused):
    """The ciphertext was altered, or made by another key or with other associated data."""


class InvalidRequest(Refused):
    """The request is not of the form that the service takes; the message names the member."""


class RateLimited(Refused):
    """Too many requests, for longer than this client waits."""


class Unavailable(Refused):
    """The service cannot answer safely now. Nothing was changed, unless the detail says so."""


_KINDS: dict[str, type[Refused]] = {
    "authentication-failed": AuthenticationFailed,
    "mfa-required": AuthenticationFailed,
    "insufficient-user-authentication": FreshSecondFactorNeeded,
    "permission-denied": PermissionDenied,
    "key-revoked": KeyRevoked,
    "key-expired": KeyExpired,
    "not-found": NotFound,
    "already-exists": AlreadyExists,
    "key-state": StateConflict,
    "conflict": StateConflict,
    "decryption-failed": DecryptionFailed,
    "malformed-request": InvalidRequest,
    "too-large": InvalidRequest,
    "validation-failed": InvalidRequest,
    "rate-limited": RateLimited,
    "unavailable": Unavailable,
    "integrity-failure": Unavailable,
    "sealed": Unavailable,
}


def refusal_of(problem: dict[str, Any], status: int = 0, retry_after: int | None = None) -> Refused:
    """The error for a problem document (RFC 9457)."""
    name = str(problem.get("type", "")).removeprefix("/problems/")
    detail = str(problem.get("detail") or problem.get("title") or f"The service answered {status}.")
    request_id = str(problem.get("request_id", ""))
    found = problem["status"] if isinstance(problem.get("status"), int) else status
    kind = _KINDS.get(name, Refused)
    return kind(detail, problem=name, status=found, retry_after=retry_after, request_id=request_id)
