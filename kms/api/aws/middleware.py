"""The entry point of the AWS dialect: `POST /` with X-Amz-Target, signed with Signature Version 4.

It stands in front of Flask, as the dispatch does: the signature covers the body, and AWS clients use every operation
as often as others use encryption.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from http import HTTPStatus

import msgspec

from kms.access.ratelimit import RateClass, identity
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
from kms.api.aws.faults import Fault, fault_of
from kms.api.aws.names import Names
from kms.api.aws.proof import Proofs
from kms.api.aws.request import ACTIONS, Action, AwsRequest
from kms.api.aws.shapes import decoded
from kms.api.aws.sts import needs_second_factor
from kms.api.fast_path import Environ, StartResponse, WsgiApp
from kms.api.faults import long_request_id, recorded_fault
from kms.api.headers import request_headers, security_headers
from kms.operations import Call, Service

MEDIA_TYPE = "application/x-amz-json-1.1"
_TARGET = "TrentService."
_STATUS = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
_OK = 200
_REGIONS_REMEMBERED = 64
_KEY_STORES = re.compile(r"CustomKeyStores?$")


@dataclass
class AwsMiddleware:
    """A WSGI application in front of another, which gets everything that is not of this dialect."""

    next_app: WsgiApp
    service: Service
    admission: Admission

    def __post_init__(self) -> None:
        self._proofs = Proofs(self.service, self.admission, "kms")
        self._names = lru_cache(maxsize=_REGIONS_REMEMBERED)(partial(Names, self.service))

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
        status, outcome = _OK, "success"
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
            _STATUS[status],
            [
                *security_headers(environ.get("HTTP_HOST", "")),
                *extra,
                ("Content-Type", MEDIA_TYPE),
                ("Content-Length", str(len(body))),
                *request_headers(call, "x-amzn-RequestId"),
            ],
        )
        return [body]

    def _answer(self, action: Action | None, call: Call, environ: Environ) -> bytes:
        signer, signed, body = self._proofs.proven(call, environ)
        call.caller = signer.caller
        call.action = action.name if action is not None else ""
        if signer.key.needs_second_factor:
            raise needs_second_factor(self._names(signed.region), signer.key)
        if action is None:
            if _KEY_STORES.search(environ["HTTP_X_AMZ_TARGET"]):
                raise Fault("UnsupportedOperationException", "There are no custom key stores here.")
            raise Fault("UnknownOperationException", "", problem="not-found")
        self.service.rate_limits.hit(action.rate_class, identity(call.caller, call.source))
        aws = AwsRequest(self.service, call, self.admission, self._names(signed.region))
        request = decoded(action.input, body)
        if tokens := getattr(request, "grant_tokens", None):
            granting.require_tokens(tokens)
        if action.rate_class is RateClass.USE:
            answer = action.function(aws, request)
        else:
            with self.admission.working(call.caller.client_id):
                answer = action.function(aws, request)
        return msgspec.json.encode(answer) if answer is not None else b""
