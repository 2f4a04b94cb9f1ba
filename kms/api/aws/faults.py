"""Refusals as AWS words them: `__type` and `message`, and the class that an AWS client raises for each."""

from __future__ import annotations

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
    errors.TooLarge: ("RequestEntityTooLargeException", 413),
    errors.Unavailable: ("DependencyTimeoutException", 503),
}


def fault_of(refusal: errors.Refusal) -> Fault:
    """The fault that stands for a refusal."""
    if isinstance(refusal, errors.AuthenticationFailed):
        return unknown_token()
    code, status = _CODES.get(type(refusal), ("KMSInternalException", 500))
    message = "" if isinstance(refusal, errors.DecryptionFailed) else refusal.detail
    return Fault(code, message, status=status, problem=refusal.problem)


def unknown_token() -> Fault:
    """The fault of an access key that is not there, or not any more."""
    return Fault(
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
        problem="authentication-failed",
    )


def invalid(member: str, value: object, constraint: str) -> Fault:
    """A member that does not meet its constraint, in the words of AWS's services."""
    shown = "null" if value is None else f"'{value}'"
    return Fault(
        "ValidationException",
        f"1 validation error detected: Value {shown} at '{member[:1].lower()}{member[1:]}' "
        f"failed to satisfy constraint: {constraint}",
    )
