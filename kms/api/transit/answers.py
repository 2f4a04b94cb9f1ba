"""Answers as Vault words them: an envelope around the data, or a list of errors."""

from __future__ import annotations

from typing import Any

from kms import errors
from kms.api.faults import DialectFault


class Fault(DialectFault):
    """An error of the Vault dialect."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        problem: str = "validation-failed",
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message, status=status, problem=problem, retry_after=retry_after)


_STATUS: dict[type[errors.Refusal], int] = {
    errors.AuthenticationFailed: 403,
    errors.MfaRequired: 400,
    errors.PermissionDenied: 403,
    errors.ApprovalPending: 403,
    errors.NotFound: 404,
    errors.LengthRequired: 411,
    errors.TooLarge: 413,
    errors.RateLimited: 429,
    errors.Unavailable: 503,
    errors.IntegrityFailure: 500,
    errors.InternalError: 500,
}


_MEMBERS = {
    "digest": "input",
    "key_id": "name",
    "message": "input",
    "min_process_version": "min_decryption_version",
    "min_protect_version": "min_encryption_version",
    "oldest_version": "min_available_version",
    "rotation_period": "auto_rotate_period",
    "wrapped_key": "ciphertext",
}
"""Members of our requests, and those of Vault's that they are made of."""


def fault_of(refusal: errors.Refusal) -> Fault:
    """The fault that stands for a refusal."""
    words = {
        errors.AuthenticationFailed: "permission denied",
        errors.PermissionDenied: "permission denied",
        errors.DecryptionFailed: "cipher: message authentication failed",
    }
    # What says when to come back says why, too: that tells a stranger nothing.
    message = refusal.detail if refusal.retry_after is not None else words.get(type(refusal), refusal.detail)
    if isinstance(refusal, errors.ValidationFailed):
        member, colon, sentence = message.partition(":")
        message = _MEMBERS.get(member, member) + colon + sentence
    status = _STATUS.get(type(refusal), 400)
    return Fault(message, status=status, problem=refusal.problem, retry_after=refusal.retry_after)


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
