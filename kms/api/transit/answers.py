"""Answers as Vault words them: an envelope around the data, or a list of errors."""

from __future__ import annotations

from typing import Any

from kms import errors


class Fault(Exception):
    """An error of the Vault dialect; `problem` is the problem type that metrics and audit entries name it by."""

    def __init__(self, message: str, *, status: int = 400, problem: str = "validation-failed") -> None:
        super().__init__(message)
        self.message, self.status, self.problem = message, status, problem


_STATUS: dict[type[errors.Refusal], int] = {
    errors.AuthenticationFailed: 403,
    errors.MfaRequired: 400,
    errors.PermissionDenied: 403,
    errors.NotFound: 404,
    errors.TooLarge: 413,
    errors.RateLimited: 429,
    errors.Unavailable: 503,
    errors.IntegrityFailure: 500,
    errors.InternalError: 500,
}


def fault_of(refusal: errors.Refusal) -> Fault:
    """The fault that stands for a refusal."""
    words = {
        errors.AuthenticationFailed: "permission denied",
        errors.PermissionDenied: "permission denied",
        errors.DecryptionFailed: "cipher: message authentication failed",
    }
    message = words.get(type(refusal), refusal.detail)
    return Fault(message, status=_STATUS.get(type(refusal), 400), problem=refusal.problem)


def envelope(request_id: str, data: Any, auth: Any = None, warnings: list[str] | None = None) -> dict[str, Any]:
    """What Vault puts around every answer."""
    return {
        "request_id": request_id,
        "lease_id": "",
        "renewable": False,
        "lease_duration": 0,
        "data": data,
        "wrap_info": None,
        "warnings": warnings,
        "auth": auth,
    }
