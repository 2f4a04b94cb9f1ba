"""Refusals as AWS words them: `__type` and `message`, and the class that an AWS client raises for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kms import errors
from kms.api.faults import DialectFault


class Fault(DialectFault):
    """An error of the AWS dialect; by its `code` clients choose the exception that they raise.

    As with AWS, one whose code says all has no message.
    """

    def __init__(self, code: str, message: str, *, status: int = 400, problem: str = "validation-failed") -> None:
        super().__init__(message, status=status, problem=problem)
        self.code = code


_CODES: dict[type[errors.Refusal], tuple[str, int]] = {
    errors.NotFound: ("NotFoundException", 400),
    errors.PermissionDenied: ("AccessDeniedException", 400),
    errors.ApprovalPending: ("AccessDeniedException", 400),
    errors.KeyRevoked: ("KMSInvalidStateException", 400),
    errors.KeyStateConflict: ("KMSInvalidStateException", 400),
    errors.KeyExpired: ("KMSInvalidStateException", 400),
    errors.Conflict: ("UnsupportedOperationException", 400),
    errors.OperationNotSupported: ("InvalidKeyUsageException", 400),
    errors.DecryptionFailed: ("InvalidCiphertextException", 400),
    errors.ValidationFailed: ("ValidationException", 400),
    errors.MalformedRequest: ("SerializationException", 400),
    errors.AlreadyExists: ("AlreadyExistsException", 400),
    errors.RateLimited: ("ThrottlingException", 400),
    errors.LengthRequired: ("MissingContentLength", 411),
    errors.TooLarge: ("RequestEntityTooLargeException", 413),
    errors.Unavailable: ("DependencyTimeoutException", 503),
}

_SENTENCES: dict[type[errors.Refusal], str] = {
    errors.DecryptionFailed: "",
    errors.RateLimited: "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.",
}
"""What AWS says for refusals that it words always the same."""


def fault_of(refusal: errors.Refusal) -> Fault:
    """The fault that stands for a refusal."""
    if isinstance(refusal, errors.AuthenticationFailed):
        return unknown_token()
    code, status = _CODES.get(type(refusal), ("KMSInternalException", 500))
    message = _SENTENCES.get(type(refusal), refusal.detail)
    return Fault(code, message, status=status, problem=refusal.problem)


def unknown_token() -> Fault:
    """The fault of an access key that is not there, or not any more."""
    return Fault(
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
        problem="authentication-failed",
    )


@dataclass(frozen=True)
class Violation:
    """A constraint that is not met; `shown` is what was sent, as far as it is repeated, None for nothing."""

    path: str
    shown: str | None
    constraint: str


def violated(violations: Sequence[Violation]) -> Fault:
    """The fault of constraints that are not met, in the words of AWS's services."""
    told = []
    for each in violations:
        value = "Value null" if each.shown is None else f"Value {each.shown}".strip()
        told.append(f"{value} at '{each.path}' failed to satisfy constraint: {each.constraint}")
    count = "1 validation error" if len(told) == 1 else f"{len(told)} validation errors"
    return Fault("ValidationException", f"{count} detected: {'; '.join(told)}")


def missing(path: str) -> Fault:
    """The fault of a member that must be there."""
    return violated([Violation(path, None, "Member must not be null")])
