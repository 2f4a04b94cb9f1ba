"""The door of the AWS dialect: `POST /` with X-Amz-Target, signed with Signature Version 4.

It stands in front of Flask, as the dispatch does: the signature covers the body, and AWS clients use every operation
as often as others use encryption.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http import HTTPStatus

import msgspec

from kms import errors
from kms.access import sigv4
from kms.access.authentication import SigningCaller
from kms.access.ratelimit import RateClass, identity
from kms.access.sigv4 import Signed
from kms.api import requests
from kms.api.admission import Admission
from kms.api.aws import (  # noqa: F401  # they fill the table
    encrypting,
    granting,
    importing,
    managing,
    naming,
    policies,
    regions,
    rotating,
    signing,
    tagging,
)
from kms.api.aws.faults import Fault, fault_of, unknown_token
from kms.api.aws.names import Names
from kms.api.aws.request import ACTIONS, Action, AwsRequest
from kms.api.aws.shapes import decoded
from kms.api.fast_path import Environ, StartResponse, WsgiApp
from kms.api.faults import long_request_id, recorded_fault
from kms.api.headers import security_headers
from kms.operations import Call, Service

MEDIA_TYPE = "application/x-amz-json-1.1"
_TARGET = "TrentService."
_KEY_STORES = re.compile(r"CustomKeyStores?$")
_SERVICE = "kms"
_WRONG = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)


@dataclass
class AwsMiddleware:
    """A WSGI application in front of another, which gets everything that is not of this dialect."""

    next_app: WsgiApp
    service: Service
    admission: Admission

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve the request here, or have it served behind."""
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        if not target.startswith(_TARGET) or environ["PATH_INFO"] != "/" or environ["REQUEST_METHOD"] != "POST":
            return self.next_app(environ, start_response)
        began = time.perf_counter()
        action = ACTIONS.get(target.removeprefix(_TARGET))
        call = Call(
            f"aws:{action.name}" if action else "aws", environ.get("REMOTE_ADDR") or "unknown", long_request_id()
        )
        status, outcome = HTTPStatus.OK.value, "success"
        extra: list[tuple[str, str]] = []
        try:
            body = self._answer(action, call, environ)
        except Exception as error:  # noqa: BLE001  # every failure has its answer
            fault = recorded_fault(error, Fault, fault_of, self.service, call)
            status, outcome = fault.status, fault.problem
            told = {"message": fault.message} if fault.message else {}
            body = msgspec.json.encode({"__type": fault.code, **told})
            extra = [("x-amzn-ErrorType", fault.code)]
        self.service.metrics.count(call.operation, outcome, time.perf_counter() - began)
        start_response(
            f"{status} {HTTPStatus(status).phrase}",
            [
                *security_headers(environ.get("HTTP_HOST", "")),
                *extra,
                ("Content-Type", MEDIA_TYPE),
                ("Content-Length", str(len(body))),
                ("x-amzn-RequestId", call.request_id),
            ],
        )
        return [body]

    def _answer(self, action: Action | None, call: Call, environ: Environ) -> bytes:
        signer, signed, body = self._proven(call, environ)
        call.caller = signer.caller
        if action is None:
            if _KEY_STORES.search(environ["HTTP_X_AMZ_TARGET"]):
                raise Fault("UnsupportedOperationException", "There are no custom key stores here.")
            raise Fault("UnknownOperationException", "", problem="not-found")
        self.service.rate_limits.hit(action.rate_class, identity(call.caller, call.source))
        aws = AwsRequest(self.service, call, self.admission, Names(self.service, signed.region))
        request = decoded(action.input, body)
        if tokens := getattr(request, "grant_tokens", None):
            granting.require_tokens(tokens)
        if action.rate_class is RateClass.USE:
            answer = action.function(aws, request)
        else:
            with self.admission.working(call.caller.client_id):
                answer = action.function(aws, request)
        return msgspec.json.encode(answer) if answer is not None else b""

    def _proven(self, call: Call, environ: Environ) -> tuple[SigningCaller, Signed, bytes]:
        """Who signed the request, and its body, which is read for those only who name an access key that there is."""
        limit = self.service.settings.max_body_bytes
        length = requests.body_length(environ, limit)
        try:
            signer, signed, amz_date = self._presented(environ)
        except (Fault, errors.AuthenticationFailed):
            self.service.rate_limits.hit(RateClass.PUBLIC, identity(None, call.source))
            raise
        # Whoever knows the id of an access key but not its secret can keep this client's signed requests waiting, and
        # none of the other doors.
        with self.admission.unproven(signer.caller.client_id):
            body = requests.read(environ["wsgi.input"], length, limit)
        headers = {name: _header(environ, name) for name in signed.headers}
        key = signer.signing_keys.get(signed.scope)
        if key is None:
            key = sigv4.signing_key(signer.secret, signed)
            if len(signer.signing_keys) < _SCOPES_REMEMBERED:
                signer.signing_keys[signed.scope] = key
        digest = sha256(body).hexdigest()
        if not sigv4.verify(signed, key, "POST", "/", headers, amz_date, digest):
            self.service.rate_limits.hit(RateClass.PUBLIC, identity(None, call.source))
            raise Fault("InvalidSignatureException", _WRONG, problem="authentication-failed")
        return signer, signed, body

    def _presented(self, environ: Environ) -> tuple[SigningCaller, Signed, str]:
        authorization, amz_date = environ.get("HTTP_AUTHORIZATION", ""), environ.get("HTTP_X_AMZ_DATE", "")
        if not authorization:
            raise Fault(
                "MissingAuthenticationTokenException", "Missing Authentication Token", problem="authentication-failed"
            )
        signed = sigv4.parse(authorization)
        if signed is None:
            raise _incomplete("Authorization header is not of the form of AWS4-HMAC-SHA256.")
        if environ.get("QUERY_STRING"):
            raise _incomplete("Requests have no query.")
        if unsigned := _unsigned(environ, signed):
            raise _incomplete(f"These headers must be signed: {', '.join(unsigned)}.")
        if signed.service != _SERVICE:
            raise Fault(
                "InvalidSignatureException",
                f"Credential should be scoped to correct service: '{_SERVICE}'.",
                problem="authentication-failed",
            )
        if not sigv4.is_timely(signed, amz_date, self.service.clock()):
            raise Fault(
                "InvalidSignatureException",
                _untimely(signed, amz_date, self.service.clock()),
                problem="authentication-failed",
            )
        token = environ.get("HTTP_X_AMZ_SECURITY_TOKEN")
        try:
            signer = self.service.authenticator.access_key(signed.access_key_id)
        except errors.AuthenticationFailed:
            if self.service.authenticator.is_over(signed.access_key_id, token):
                raise Fault(
                    "ExpiredTokenException",
                    "The security token included in the request is expired",
                    problem="authentication-failed",
                ) from None
            raise unknown_token() from None
        if not self.service.authenticator.is_session_token(signer, token):
            raise unknown_token()
        return signer, signed, amz_date


_SCOPES_REMEMBERED = 16


def _unsigned(environ: Environ, signed: Signed) -> list[str]:
    """The headers that the signature must cover and does not: where it goes, and everything of AWS's own."""
    own = sum(name.startswith("x-amz-") for name in signed.headers)
    # Quicker than a look at every variable: as many of AWS's own are signed as there are, and each of them is there.
    if "host" in signed.headers and own == " ".join(environ).count("HTTP_X_AMZ_") and _all_sent(environ, signed):
        return []
    sent = {name[5:].replace("_", "-").lower() for name in environ if name.startswith("HTTP_X_AMZ_")}
    return sorted({"host", *sent} - set(signed.headers)) or ["what is not sent cannot be signed"]


def _all_sent(environ: Environ, signed: Signed) -> bool:
    return len(set(signed.headers)) == len(signed.headers) and all(
        f"HTTP_{name.upper().replace('-', '_')}" in environ for name in signed.headers if name.startswith("x-amz-")
    )


def _header(environ: Environ, name: str) -> str:
    variable = name.upper().replace("-", "_")
    return str(environ.get(variable if variable in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{variable}", ""))


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
