"""Who signed a request of the AWS dialect: what must be signed, by whom it may be, and whether it is.

Programs send many requests that differ in nothing that is signed but the body. What was found good once is remembered
by all that it was found from, so what is remembered can be no other answer than the one that the careful way gives.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from kms import errors, sigv4
from kms.access.authentication import SigningCaller
from kms.access.ratelimit import RateClass, identity
from kms.api import requests
from kms.api.admission import Admission
from kms.api.aws.faults import Fault, unknown_token
from kms.api.fast_path import Environ
from kms.operations import Call, Service
from kms.sigv4 import Prepared, Signed

K = TypeVar("K")
V = TypeVar("V")

_WRONG = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)
_SCOPES_REMEMBERED = 16
_REMEMBERED = 1024
_LONGEST_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a statement says, of requests in which everything is signed that must be; and where the signed values are.

    It is good for every request with this statement and headers of these names, whatever they say.
    """

    signed: Signed
    variables: tuple[str, ...]


@dataclass(slots=True)
class _Request:
    """A request whose signature is still to be checked; `prepared` where one like it was found good before."""

    statement: str
    signature: str
    names: tuple[str, ...]
    shape: _Shape
    signer: SigningCaller
    amz_date: str
    values: tuple[str | None, ...]
    prepared: Prepared | None


class Proofs:
    """Finds out who signed requests to a service of AWS's, which is `kms` or another here."""

    def __init__(self, service: Service, admission: Admission, service_name: str) -> None:
        self._service = service
        self._admission = admission
        self._service_name = service_name
        self._shapes: dict[tuple[str, tuple[str, ...]], _Shape] = {}
        self._prepared: dict[tuple[str, str, tuple[str | None, ...]], tuple[SigningCaller, Prepared]] = {}

    def proven(self, call: Call, environ: Environ) -> tuple[SigningCaller, Signed, bytes]:
        """Who signed the request, and its body, which is read for those only who name an access key that there is.

        Raises Fault and Refusal.
        """
        limit = self._service.settings.max_body_bytes
        length = requests.body_length(environ, limit)
        try:
            request = self._presented(environ)
        except (Fault, errors.AuthenticationFailed):
            self._service.rate_limits.hit(RateClass.PUBLIC, identity(None, call.source))
            raise
        signer, signed = request.signer, request.shape.signed
        # Whoever knows the id of an access key but not its secret can keep this client's signed requests waiting, and
        # none of the other doors.
        body = requests.read_unproven(self._admission, signer.caller.client_id, environ["wsgi.input"], length, limit)
        prepared = request.prepared or Prepared(
            signed, _signing_key(signer, signed), "POST", "/", request.values, request.amz_date
        )
        if not hmac.compare_digest(prepared.signature(body), request.signature):
            self._service.rate_limits.hit(RateClass.PUBLIC, identity(None, call.source))
            raise Fault("InvalidSignatureException", _WRONG, problem="authentication-failed")
        if request.prepared is None:
            self._remember(request, prepared)
        return signer, signed, body

    def _presented(self, environ: Environ) -> _Request:
        authorization, amz_date = environ.get("HTTP_AUTHORIZATION", ""), environ.get("HTTP_X_AMZ_DATE", "")
        statement, signature = sigv4.split(authorization)
        names = tuple(environ)
        shape = self._shapes.get((statement, names)) if signature else None
        if shape is None:
            shape = self._shape(environ, authorization)
        signed = shape.signed
        if environ.get("QUERY_STRING"):
            raise _incomplete("Requests have no query.")
        now = self._service.clock()
        if not sigv4.is_timely(signed, amz_date, now):
            raise Fault(
                "InvalidSignatureException", _untimely(signed, amz_date, now), problem="authentication-failed"
            )
        values = tuple(map(environ.get, shape.variables))
        token = environ.get("HTTP_X_AMZ_SECURITY_TOKEN")
        signer = self._signer(signed, token)
        # Under the same statement and values everything is the same that is signed besides the body, the session
        # token too; that it was good holds as long as this is the same signer, who is read anew after every change.
        found = self._prepared.get((statement, amz_date, values))
        prepared = found[1] if found is not None and found[0] is signer else None
        if prepared is None and not self._service.authenticator.is_session_token(signer, token):
            raise unknown_token()
        return _Request(statement, signature, names, shape, signer, amz_date, values, prepared)

    def _shape(self, environ: Environ, authorization: str) -> _Shape:
        """What a request says of its signature, looked at with care. Raises Fault."""
        if not authorization:
            raise Fault(
                "MissingAuthenticationTokenException", "Missing Authentication Token", problem="authentication-failed"
            )
        statement, signature = sigv4.split(authorization)
        signed = sigv4.parse(statement) if signature else None
        if signed is None:
            raise _incomplete("Authorization header is not of the form of AWS4-HMAC-SHA256.")
        if unsigned := _unsigned(environ, signed):
            raise _incomplete(f"These headers must be signed: {', '.join(unsigned)}.")
        if signed.service != self._service_name:
            raise Fault(
                "InvalidSignatureException",
                f"Credential should be scoped to correct service: '{self._service_name}'.",
                problem="authentication-failed",
            )
        return _Shape(signed, tuple(_variable(name) for name in signed.headers))

    def _signer(self, signed: Signed, token: str | None) -> SigningCaller:
        """Who has the access key. Raises Fault, Unavailable."""
        authenticator = self._service.authenticator
        try:
            return authenticator.access_key(signed.access_key_id)
        except errors.AuthenticationFailed:
            if authenticator.is_over(signed.access_key_id, token):
                raise Fault(
                    "ExpiredTokenException",
                    "The security token included in the request is expired",
                    problem="authentication-failed",
                ) from None
            raise unknown_token() from None

    def _remember(self, request: _Request, prepared: Prepared) -> None:
        """Remember what was found good. What is longer than programs send is not: it would fill memory."""
        if sum(map(len, (request.statement, *request.names))) <= _LONGEST_REMEMBERED:
            _put(self._shapes, (request.statement, request.names), request.shape)
        if sum(len(value or "") for value in request.values) <= _LONGEST_REMEMBERED:
            key = request.statement, request.amz_date, request.values
            _put(self._prepared, key, (request.signer, prepared))


def _put(remembered: dict[K, V], key: K, value: V) -> None:
    if len(remembered) >= _REMEMBERED:
        remembered.clear()
    remembered[key] = value


def _signing_key(signer: SigningCaller, signed: Signed) -> bytes:
    key = signer.signing_keys.get(signed.scope)
    if key is None:
        key = sigv4.signing_key(signer.secret, signed)
        if len(signer.signing_keys) < _SCOPES_REMEMBERED:
            signer.signing_keys[signed.scope] = key
    return key


def _unsigned(environ: Environ, signed: Signed) -> list[str]:
    """The headers that the signature must cover and does not: where it goes, and everything of AWS's own.

    Each of these must be sent, and named once.
    """
    sent = {name[5:].replace("_", "-").lower() for name in environ if name.startswith("HTTP_X_AMZ_")}
    own = {name for name in signed.headers if name.startswith("x-amz-")}
    if missing := sorted({"host", *sent} - set(signed.headers)):
        return missing
    is_plain = own == sent and len(set(signed.headers)) == len(signed.headers)
    return [] if is_plain else ["what is not sent cannot be signed"]


def _variable(name: str) -> str:
    """The variable of a request that has the value of a header."""
    variable = name.upper().replace("-", "_")
    return variable if variable in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{variable}"


def _untimely(signed: Signed, amz_date: str, now: datetime) -> str:
    """What AWS says of a request that was not signed just now."""
    at = sigv4.moment(amz_date)
    if at is None:
        return "Date must be in ISO-8601 'basic format'."
    if not amz_date.startswith(signed.date):
        return (
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
            f"'{signed.date}' != '{amz_date[:8]}', from '{amz_date}'."
        )
    minutes = sigv4.SKEW // timedelta(minutes=1)
    is_late = at < now
    bound, ours = (
        f"{each.astimezone(UTC):{sigv4.TIME}}" for each in (now + sigv4.SKEW * (-1 if is_late else 1), now)
    )
    if is_late:
        return f"Signature expired: {amz_date} is now earlier than {bound} ({ours} - {minutes} min.)"
    return f"Signature not yet current: {amz_date} is still later than {bound} ({ours} + {minutes} min.)"


def _incomplete(sentence: str) -> Fault:
    return Fault("IncompleteSignatureException", sentence, problem="authentication-failed")
