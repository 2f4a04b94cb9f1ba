"""Sessions: a token for credentials, and the end of it."""

from __future__ import annotations

from typing import Literal

from kms.access.policy import Permission
from kms.access.ratelimit import RateClass
from kms.operations.core.declare import Answer, EmptyRequest, Request, operation
from kms.operations.core.service import Call, Service


class TokenRequest(Request):
    """RFC 6749, section 4.4.2; everything that matters is in the headers."""

    grant_type: Literal["client_credentials"] = "client_credentials"


class TokenAnswer(Answer):
    """RFC 6749, section 5.1; `expires_in` in seconds."""

    access_token: str
    token_type: str
    expires_in: int


class LoggedOut(Answer):
    """A sentence."""

    message: str


@operation(
    "POST",
    "/auth/token",
    permission=Permission.SESSIONS_MANAGE,
    rate_class=RateClass.MANAGE,
    request=TokenRequest,
    checked_upfront=True,
    needs_fresh_factor=True,
)
def issue_token(service: Service, call: Call, request: TokenRequest) -> TokenAnswer:
    """Give out a session token for a secret and a second factor; its expiry is fixed now."""
    with service.change(call) as change:
        token, record = service.authenticator.issue(change, call.known_caller)
    lifetime = record.expires_at - record.issued_at
    return TokenAnswer(access_token=token, token_type="Bearer", expires_in=int(lifetime.total_seconds()))  # noqa: S106


@operation("POST", "/auth/logout", permission=Permission.SESSIONS_MANAGE, checked_upfront=True)
def end_session(service: Service, call: Call, request: EmptyRequest) -> LoggedOut:
    """End the session of the token that this call carries, on every worker, before this answers."""
    token = call.known_caller.token
    if token is not None:
        with service.change(call) as change:
            found = change.find(type(token), token.token_hash)
            if found is not None:
                change.delete(found)
    return LoggedOut(message="Logged out.")
