"""Step-up (RFC 9470): a person gives the second factor again, and the session in use counts as just confirmed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Annotated

import msgspec

from kms.access import passkeys, step_up, webauthn
from kms.access.model import Caller, Token
from kms.access.policy import Permission
from kms.access.ratelimit import RateClass
from kms.access.webauthn import AuthenticationResponse
from kms.errors import PasskeyCloned, ValidationFailed
from kms.operations.core.declare import Answer, Request, operation
from kms.operations.core.service import Call, Service


class ConfirmSecondFactorRequest(Request):
    """Either `code`, the six digits of the authenticator app, or `passkey`.

    `passkey` is what the browser gave for the options of `POST /auth/passkey/options`.
    """

    code: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    passkey: AuthenticationResponse | None = None


class ConfirmedSession(Answer):
    """The session. `second_factor_at` is the time of this confirmation; `expires_at` is the same as before."""

    session_id: str
    client_id: str
    second_factor_at: datetime
    expires_at: datetime


@operation(
    "POST",
    "/auth/second-factor",
    permission=Permission.SESSIONS_MANAGE,
    rate_class=RateClass.AUTHENTICATE,
    request=ConfirmSecondFactorRequest,
)
def confirm_second_factor(service: Service, call: Call, request: ConfirmSecondFactorRequest) -> ConfirmedSession:
    """Confirm the current session with a second factor again (step-up); every worker knows it once this answers.

    Only for sessions that a person opened by logging in, not for those made from other sessions. A code works once,
    and wrong codes count as failed log-ins. The session does not last longer than before, and sessions made from it
    are not confirmed.
    """
    session = step_up.session_of_person(call.known_caller)
    confirmed = _confirmed(service, call, request)
    assert confirmed.second_factor_at is not None
    with service.change(call) as change:  # which refuses a session that has ended meanwhile
        call.target = session.session_id
        before = change.find(Token, session.token_hash)
        assert before is not None
        after = change.replace(before, replace(before, second_factor_at=confirmed.second_factor_at))
    return ConfirmedSession(
        session_id=after.session_id,
        client_id=after.client_id,
        second_factor_at=confirmed.second_factor_at,
        expires_at=after.expires_at,
    )


def passkey_proof(service: Service, call: Call, prove: Callable[[], Caller]) -> Caller:
    """What `prove` gives, counted among the log-ins; which passkey was copied is for the audit entry."""
    try:
        return service.counted(prove)
    except PasskeyCloned as refusal:
        call.credential = refusal.credential
        raise


def _confirmed(service: Service, call: Call, request: ConfirmSecondFactorRequest) -> Caller:
    caller, code, passkey = call.known_caller, request.code, request.passkey
    if code is not None and passkey is None:
        return service.counted(lambda: service.authenticator.confirm(caller, code, call.source))
    if passkey is not None and code is None:
        confirmed = passkey_proof(service, call, lambda: service.passkeys.confirm(caller, passkey, call.source))
        call.credential = passkeys.credential_of(passkeys.id_of(webauthn.decoded(passkey.raw_id)))
        return confirmed
    raise ValidationFailed("code, passkey: give one of them.")
