"""The entry point of AWS's Security Token Service: `POST /` with a form, answers in XML (AWS's query protocol).

An operation that gives keys for a platform's token is not signed; all others are, as those of KMS are.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from msgspec import inspect

from kms import errors
from kms.access.authentication import SigningCaller
from kms.access.lockout import network_of
from kms.access.ratelimit import RateClass, identity
from kms.api import requests
from kms.api.admission import Admission
from kms.api.aws.faults import Fault
from kms.api.aws.names import Names
from kms.api.aws.proof import Proofs
from kms.api.aws.shapes import Input, converted
from kms.api.aws.sts import STS_ACTIONS, StsAction, StsRequest, needs_second_factor
from kms.api.fast_path import Environ, StartResponse, WsgiApp
from kms.api.faults import long_request_id, recorded_fault
from kms.api.headers import request_headers, security_headers
from kms.api.token_endpoint import LONGEST_BODY
from kms.operations import Call, Service

FORM = "application/x-www-form-urlencoded"
_VERSION = "2011-06-15"
_NAMESPACE = f"https://sts.amazonaws.com/doc/{_VERSION}/"
_MOST_MEMBERS = 64
_NUMBER = re.compile(r"-?[0-9]{1,18}")
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CODES = {
    "MissingAuthenticationTokenException": ("MissingAuthenticationToken", 403),
    "IncompleteSignatureException": ("IncompleteSignature", 403),
    "InvalidSignatureException": ("SignatureDoesNotMatch", 403),
    "ExpiredTokenException": ("ExpiredToken", 403),
    "UnrecognizedClientException": ("InvalidClientTokenId", 403),
}
"""What the faults of a signature are called here."""
_REFUSALS: dict[type[errors.Refusal], tuple[str, int]] = {
    errors.RateLimited: ("Throttling", 400),
    errors.AuthenticationFailed: ("InvalidClientTokenId", 403),
    errors.PermissionDenied: ("AccessDenied", 403),
    errors.ValidationFailed: ("ValidationError", 400),
    errors.MalformedRequest: ("MalformedInput", 400),
    errors.LengthRequired: ("MissingContentLength", 411),
    errors.TooLarge: ("RequestEntityTooLarge", 413),
    errors.Unavailable: ("ServiceUnavailable", 503),
}
_WORDS = {"ValidationException": "ValidationError", "SerializationException": "MalformedInput"}


@dataclass
class StsMiddleware:
    """A WSGI application in front of another, which gets everything that is not of this service."""

    next_app: WsgiApp
    service: Service
    admission: Admission

    def __post_init__(self) -> None:
        self._proofs = Proofs(self.service, self.admission, "sts")
        self._names = Names(self.service, self.service.settings.aws_region)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve the request here, or have it served behind."""
        kind = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
        if environ["PATH_INFO"] != "/" or environ["REQUEST_METHOD"] != "POST" or kind != FORM:
            return self.next_app(environ, start_response)
        began = time.perf_counter()
        call = Call("sts", environ.get("REMOTE_ADDR") or "unknown", long_request_id())
        status, outcome = HTTPStatus.OK.value, "success"
        try:
            body = self._answer(call, environ)
        except Exception as error:  # noqa: BLE001  # every failure has its answer
            fault = recorded_fault(error, Fault, _fault_of, self.service, call)
            status, outcome = fault.status, fault.problem
            body = _refusal(fault, call.request_id)
        self.service.metrics.count(call.operation, outcome, time.perf_counter() - began)
        start_response(
            f"{status} {HTTPStatus(status).phrase}",
            [
                *security_headers(environ.get("HTTP_HOST", "")),
                ("Content-Type", "text/xml"),
                ("Content-Length", str(len(body))),
                *request_headers(call, "x-amzn-RequestId"),
            ],
        )
        return [body]

    def _answer(self, call: Call, environ: Environ) -> bytes:
        signer, body = self._signer(call, environ) if "HTTP_AUTHORIZATION" in environ else (None, None)
        try:
            members = _members(self._unsigned_body(call, environ) if body is None else body)
            action = _action(members)
            call.operation = f"sts:{action.name}"
            if action.is_signed and signer is None:
                told = "Request is missing Authentication Token"
                raise _signature_fault("MissingAuthenticationTokenException", told)
        except (Fault, errors.Refusal):
            self.service.rate_limits.hit(RateClass.PUBLIC, identity(None, call.source))
            raise
        call.caller = signer.caller if signer is not None and action.is_signed else None
        counted = None if action.rate_class is RateClass.AUTHENTICATE else call.caller
        self.service.rate_limits.hit(action.rate_class, identity(counted, call.source))
        if signer is not None and action.is_signed and signer.key.needs_second_factor and not action.gives_keys:
            fault = needs_second_factor(self._names, signer.key)
            raise Fault("AccessDenied", fault.message, status=403, problem=fault.problem)
        call.at = self.service.clock()
        if call.caller is not None:
            call.caller = self.service.authenticator.revalidate(call.caller, call.at)
        token = environ.get("HTTP_X_AMZ_SECURITY_TOKEN", "")
        sts = StsRequest(self.service, call, self.admission, self._names, signer, token)
        try:
            answer = action.function(sts, _input(action.input, members))
        except Fault as fault:
            fault.code = _WORDS.get(fault.code, fault.code)
            raise
        return _document(action.name, answer, call.request_id)

    def _signer(self, call: Call, environ: Environ) -> tuple[SigningCaller, bytes]:
        try:
            signer, _, body = self._proofs.proven(call, environ)
        except Fault as fault:
            raise _signature_fault(fault.code, fault.message) from None
        return signer, body

    def _unsigned_body(self, call: Call, environ: Environ) -> bytes:
        length = requests.body_length(environ, LONGEST_BODY)
        network = network_of(call.source)
        return requests.read_unproven(self.admission, network, environ["wsgi.input"], length, LONGEST_BODY)


def _members(body: bytes) -> dict[str, str]:
    """The members of a form. Raises Fault."""
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=_MOST_MEMBERS)
    except ValueError:
        raise Fault("MalformedInput", "The body is not a form.", problem="malformed-request") from None
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Fault("MalformedInput", "Each member may be there once.", problem="malformed-request")
    return members


def _action(members: dict[str, str]) -> StsAction:
    """The operation that a form asks for, whose name and version are taken out of it. Raises Fault."""
    name, version = members.pop("Action", ""), members.pop("Version", "")
    if not name:
        raise Fault("MissingAction", "There is no Action in the form.", problem="not-found")
    action = STS_ACTIONS.get(name) if version == _VERSION else None
    if action is None:
        told = f"Could not find operation {name[:128]} for version {version[:32] or 'NO_VERSION_SPECIFIED'}"
        raise Fault("InvalidAction", told, problem="not-found")
    return action


def _input(kind: type[Input], members: Mapping[str, str]) -> Any:
    """The typed request. Raises Fault, for members too that would be passed over: they would mean to narrow it."""
    shape = inspect.type_info(kind)
    assert isinstance(shape, inspect.StructType)
    types = {field.encode_name: field.type for field in shape.fields}
    for name in members:
        if name not in types:
            raise Fault("ValidationError", f"{name[:128]} is not supported here, and would not be enforced.")
    given = {name: int(text) if _is_number(types[name], text) else text for name, text in members.items()}
    return converted(kind, given)


def _is_number(kind: inspect.Type, text: str) -> bool:
    alternatives = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    return any(isinstance(each, inspect.IntType) for each in alternatives) and _NUMBER.fullmatch(text) is not None


def _fault_of(refusal: errors.Refusal) -> Fault:
    code, status = _REFUSALS.get(type(refusal), ("InternalFailure", 500))
    message = "Rate exceeded" if code == "Throttling" else refusal.detail
    return Fault(code, message, status=status, problem=refusal.problem)


def _signature_fault(code: str, message: str) -> Fault:
    told, status = _CODES[code]
    return Fault(told, message, status=status, problem="authentication-failed")


def _document(action: str, answer: Mapping[str, Any], request_id: str) -> bytes:
    content = {f"{action}Result": answer, "ResponseMetadata": {"RequestId": request_id}}
    return f'<{action}Response xmlns="{_NAMESPACE}">{_xml(content)}</{action}Response>\n'.encode()


def _refusal(fault: Fault, request_id: str) -> bytes:
    side = "Receiver" if fault.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "Sender"
    content = {"Error": {"Type": side, "Code": fault.code, "Message": fault.message}, "RequestId": request_id}
    return f'<ErrorResponse xmlns="{_NAMESPACE}">{_xml(content)}</ErrorResponse>\n'.encode()


def _xml(content: Mapping[str, Any]) -> str:
    """Elements with texts or elements in them; what XML has no way to write becomes a question mark."""
    return "".join(
        f"<{name}>{_xml(value) if isinstance(value, Mapping) else escape(_NO_XML.sub('?', value))}</{name}>"
        for name, value in content.items()
    )
