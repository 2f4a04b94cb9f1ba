"""Refusals: the errors that callers see, one class for each kind. Each interface translates them in one place.

Its `detail` is a sentence for people that says what to do next. It never contains a secret, and an
authentication failure never says which part was wrong. The docstring of each class is the text of the page
to which its problem `type` points (RFC 9457, section 3.1.1).
"""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar


class StartError(Exception):
    """The service cannot start; the message says why and what to do. `exit_code` is what its process ends with."""

    exit_code = 1


class StartAgainHarms(StartError):
    """The service cannot start, and a supervisor that starts it again by itself does damage.

    systemd is told by `RestartPreventExitStatus=`. The code is EX_CONFIG of sysexits.h.
    """

    exit_code = 78


class Refusal(Exception):
    """A request that is not carried out.

    `detail` is shown to the caller; `retry_after` is in seconds and becomes the `Retry-After` header. In a batch, a
    class that is `item_scoped` refuses only the item concerned; any other refuses the whole batch.
    """

    problem: ClassVar[str]
    status: ClassVar[int]
    title: ClassVar[str]
    item_scoped: ClassVar[bool] = False

    def __init__(self, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after


class MalformedRequest(Refusal):
    """The body is not a JSON object, or a part of the request cannot be read at all.

    Send one JSON object, encoded as UTF-8.
    """

    problem, status, title = "malformed-request", 400, "Malformed request"
    item_scoped = True


class OperationNotSupported(Refusal):
    """Keys of this type cannot do what was asked, or this key was not made for it.

    Use a key of another type; `GET /api/v1/keys/{key_id}` shows the usages of a key.
    """

    problem, status, title = "operation-not-supported", 400, "Operation not supported"


class DecryptionFailed(Refusal):
    """The ciphertext could not be decrypted.

    It was altered, made by another key, or made with other associated data. Which of these is never said,
    because that would help an attacker.
    """

    problem, status, title = "decryption-failed", 400, "Decryption failed"
    item_scoped = True

    def __init__(self) -> None:
        super().__init__("The ciphertext did not open.")


class AuthenticationFailed(Refusal):
    """The credentials are not valid: client id, secret, TOTP code, token or other proof.

    Which part was wrong is never said. A TOTP code works only once; wait for the next one.

    To get a session token, call `POST /auth/token` with client id and secret (`Authorization: Basic`) and the header
    `X-TOTP`. Send the token in the header `Authorization: Bearer …`. The command `python -m kms login` does the
    first step, and stores the token.
    """

    problem, status, title = "authentication-failed", 401, "Authentication failed"

    def __init__(self, detail: str, *, retry_after: int | None = None, claim: str = "") -> None:
        """`claim` names the claim that was refused, for a token whose signature was valid; otherwise it is empty."""
        super().__init__(detail, retry_after=retry_after)
        self.claim = claim


class MfaRequired(Refusal):
    """The request carries a client id and secret and no second factor.

    Add the header `X-TOTP` with the six digits of the authenticator app, or `X-Recovery-Code`.
    """

    problem, status, title = "mfa-required", 401, "Second factor required"


class PasskeyCloned(Refusal):
    """The signature of the passkey is valid, but its signature counter went back, or its backup flag changed.

    Another authenticator may therefore have a copy of its private key. Delete the passkey, which ends its sessions,
    and add another (`/api/v1/clients/{client_id}/passkeys`). This refusal is in the log and in the audit log.
    """

    problem, status, title = "passkey-cloned", 403, "Passkey may have been copied"

    def __init__(self, credential: str) -> None:
        """`credential`: which passkey, as the audit log has it."""
        self.credential = credential
        super().__init__(
            "The counter of this passkey went back, so somebody may have a copy of it. Log in by another way, delete "
            "it and make another."
        )


class InsufficientUserAuthentication(Refusal):
    """This needs a second factor that a person gave recently (RFC 9470).

    If a person opened the session, send the code of the authenticator app (`{"code": "123456"}`) or a passkey to
    `POST /auth/second-factor`; then send the request again with the same token. Without such a session log in again,
    or send this one request with `Authorization: Basic` and `X-TOTP`. The header `WWW-Authenticate` says how old the
    second factor may be, as `max_age` in seconds.
    """

    problem, status, title = "insufficient-user-authentication", 401, "Fresh second factor required"

    def __init__(self, within: timedelta) -> None:
        self.max_age = int(within.total_seconds())
        super().__init__(
            f"This needs a second factor that was given at most {self.max_age} s ago. Give it to POST "
            "/auth/second-factor and send this again, or log in again with a code (`python -m kms login`), or send "
            "this request with client id and secret (Basic) and X-TOTP."
        )


class PermissionDenied(Refusal):
    """The credentials are valid, but the caller is not allowed to do this.

    An administrator can change roles; the owner of a key can grant its use.
    """

    problem, status, title = "permission-denied", 403, "Permission denied"


class KeyRevoked(Refusal):
    """The key version was revoked.

    A version that was revoked as compromised, or without a reason, cannot be used at all. One that was revoked for
    another reason, such as `superseded`, can still decrypt and verify. Make a new version to go on.
    """

    problem, status, title = "key-revoked", 403, "Key revoked"
    item_scoped = True


class KeyExpired(Refusal):
    """The cryptoperiod of the key version has ended (SP 800-57 part 1, section 5.3).

    After the originator-usage period a version no longer protects; after the recipient-usage period it no
    longer processes either. Rotate the key.
    """

    problem, status, title = "key-expired", 403, "Key expired"
    item_scoped = True


class NotFound(Refusal):
    """There is nothing with that name, or the caller may not see it."""

    problem, status, title = "not-found", 404, "Not found"


class ApprovalPending(Refusal):
    """The call was not carried out yet: it waits until other people have approved it.

    Over REST this is no error: the answer has the status 202, the member `approval_id`, and a `Location` where
    `GET` shows how far it is, and once it is carried out its result. In the dialects of AWS and Vault it is a refusal
    whose message names the approval. Do not repeat the call: the last approval carries it out.
    """

    problem, status, title = "approval-pending", 202, "Approval pending"

    def __init__(self, approval_id: str, waiting: object) -> None:
        """`waiting` is the answer over REST."""
        self.approval_id, self.waiting = approval_id, waiting
        super().__init__(
            f"This needs the approval of others, and waits for it: approval {approval_id}. "
            f"GET /api/v1/approvals/{approval_id} shows how far it is."
        )


class MethodNotAllowed(Refusal):
    """There is such a path, but not with this HTTP method; the header `Allow` lists the methods that it has."""

    problem, status, title = "method-not-allowed", 405, "Method not allowed"


class KeyStateConflict(Refusal):
    """The key is in a state that does not allow this (SP 800-57 part 1, section 7).

    A suspended key can be resumed by its owner.
    """

    problem, status, title = "key-state", 409, "Key state does not allow this"
    item_scoped = True


class AlreadyExists(Refusal):
    """The name is taken already. The id of a deleted client can never be used again."""

    problem, status, title = "already-exists", 409, "Already exists"


class Conflict(Refusal):
    """The change contradicts the current state, such as removing the last administrator; the detail says how."""

    problem, status, title = "conflict", 409, "Conflict"


class LengthRequired(Refusal):
    """The body came in chunks (`Transfer-Encoding: chunked`) and is a form, or the server in use decodes no chunks.

    Send the body in one piece, with the header `Content-Length`.
    """

    problem, status, title = "length-required", 411, "Length required"


class TooLarge(Refusal):
    """The body is larger than the service accepts; for most operations `KMS_MAX_BODY_BYTES` is the limit."""

    problem, status, title = "too-large", 413, "Request too large"


class UnsupportedMediaType(Refusal):
    """The header `Content-Type` does not say that the body is JSON. Send `Content-Type: application/json`."""

    problem, status, title = "unsupported-media-type", 415, "Unsupported media type"


class ValidationFailed(Refusal):
    """A member of the request is missing, unknown or has an invalid value; the detail names it."""

    problem, status, title = "validation-failed", 422, "Validation failed"
    item_scoped = True


class RateLimited(Refusal):
    """Too many requests, or too many failed log-ins. `Retry-After` says in how many seconds to try again."""

    problem, status, title = "rate-limited", 429, "Too many requests"

    def __init__(self, detail: str, *, retry_after: int, limit: str = "", amount: int = 0, window: int = 0) -> None:
        super().__init__(detail, retry_after=retry_after)
        self.limit, self.amount, self.window = limit, amount, window


class InternalError(Refusal):
    """A fault of the service itself. Its log has the reason under the same request id."""

    problem, status, title = "internal-error", 500, "Internal error"


class Unavailable(Refusal):
    """The service cannot answer safely now: its database or audit log cannot be reached, or it is overloaded.

    The request changed nothing, unless the detail says so. Try again after the seconds in `Retry-After`.
    """

    problem, status, title = "unavailable", 503, "Unavailable"


class Sealed(Refusal):
    """The service has started, and the people who hold shares of its seal have not all given theirs yet.

    It answers nothing else until they have. Each of them runs `kms unseal` on the host of the service.
    """

    problem, status, title = "sealed", 503, "Sealed"


class IntegrityFailure(Refusal):
    """A row of the vault has a wrong authentication code: something other than the service wrote to the database.

    The row is not used; the others still work. `python -m kms vault verify` names every such row.
    """

    problem, status, title = "integrity-failure", 503, "Vault integrity failure"


def every_refusal() -> dict[str, type[Refusal]]:
    """Every class of refusal by its problem name, ordered by HTTP status."""
    return {kind.problem: kind for kind in sorted(Refusal.__subclasses__(), key=lambda kind: kind.status)}
