"""Step-up (RFC 9470): a person gives the second factor again, and the session in use counts as just confirmed."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Annotated

import msgspec

from kms.access import step_up
from kms.access.model import Token
from kms.access.policy import Permission
from kms.access.ratelimit import RateClass
from kms.operations.core.declare import Answer, Request, operation
from kms.operations.core.service import Call, Service


class ConfirmSecondFactorRequest(Request):
    """`code`: the six digits of the authenticator app."""

    code: Annotated[str, msgspec.Meta(max_length=64)]


class ConfirmedSession(Answer):
    """The session, its end as before; `second_factor_at` is when this was confirmed."""

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
    """Make the second factor of the session in use fresh, on every worker, before this answers.

    For sessions that a person began by logging in; not for those that other sessions have made. A code works once,
    and wrong ones are counted as at log-in. The session ends no later by this, and sessions that it has made stay as
    they are.
    """
    session = step_up.session_of_person(call.known_caller)
    confirmed = service.counted(lambda: service.authenticator.confirm(call.known_caller, request.code, call.source))
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
