"""What proves a client at the token endpoint in the body of a request (RFC 6749, section 3.2), not in its headers."""

from __future__ import annotations

import msgspec
from flask import Request as HttpRequest

from kms.access.model import Caller
from kms.access.webauthn import AuthenticationResponse
from kms.api import requests
from kms.api.origin import presented_certificate
from kms.errors import AuthenticationFailed, ValidationFailed
from kms.operations import Call, Service
from kms.operations.accounts.second_factor import passkey_proof
from kms.operations.accounts.sessions import CLIENT_CREDENTIALS, JWT_BEARER, PASSKEY, TokenRequest

LONGEST_BODY = 49_152
"""How many bytes are taken before anything is proven: a token of a platform and what goes with it, as a form."""


def require_proof_in_headers(request: TokenRequest) -> TokenRequest:
    """`request`, whose headers proved the client, if it does not bring another proof. Raises ValidationFailed."""
    if request.grant_type != CLIENT_CREDENTIALS:
        raise ValidationFailed(f"grant_type: {CLIENT_CREDENTIALS} goes with the header Authorization: Basic.")
    for member in ("client_assertion", "assertion", "role", "subject_token", "passkey"):
        if getattr(request, member) is not None:
            raise ValidationFailed(f"{member}: not together with the header Authorization: Basic.")
    return request


def proven_in_body(service: Service, http: HttpRequest, request: TokenRequest, call: Call) -> Caller:
    """Whom the request proves. Raises AuthenticationFailed, RateLimited, ValidationFailed, Unavailable."""
    source = call.source
    if request.grant_type == PASSKEY:
        return proven_by_passkey(service, request, call)
    if request.grant_type == JWT_BEARER:
        token, role = _given(request, "assertion"), _given(request, "role")
        return service.counted(lambda: service.programs.by_platform_token(token, role, source))
    if request.grant_type != CLIENT_CREDENTIALS:
        return service.authenticator.session(_presented_token(http, request))
    assertion = request.client_assertion
    if assertion is not None:
        if request.client_assertion_type is None:
            raise ValidationFailed("client_assertion_type: this member is needed and is not there.")
        caller = service.counted(lambda: service.programs.by_client_assertion(assertion, source))
        if request.client_id not in (None, caller.client_id):
            raise AuthenticationFailed("client_id is not the client that signed the assertion.")
        return caller
    certificate = presented_certificate(http.environ)
    if certificate is None:
        raise AuthenticationFailed(requests.NO_CREDENTIALS)
    client_id = _given(request, "client_id")
    leaf, chain = certificate
    return service.counted(lambda: service.programs.by_certificate(client_id, leaf, chain, source))


def proven_by_passkey(service: Service, request: TokenRequest, call: Call) -> Caller:
    """Whom the passkey in the request proves. Raises as `proven_in_body`."""
    response = request.passkey
    if isinstance(response, str):  # in a form
        try:
            response = msgspec.json.decode(response, type=AuthenticationResponse)
        except msgspec.DecodeError:
            raise ValidationFailed("passkey: send what navigator.credentials.get() gave, as JSON.") from None
    if response is None:
        raise ValidationFailed("passkey: this member is needed and is not there.")
    proof = response
    caller = passkey_proof(service, call, lambda: service.passkeys.authenticate(proof, call.source))
    if request.client_id not in (None, caller.client_id):
        raise AuthenticationFailed("client_id is not the client whose passkey this is.")
    return caller


def _presented_token(http: HttpRequest, request: TokenRequest) -> str:
    """The token of the session that makes a narrower one of itself. Raises ValidationFailed."""
    in_header = requests.bearer_token(http)
    in_body = request.subject_token
    if in_body is not None and request.subject_token_type is None:
        raise ValidationFailed("subject_token_type: this member is needed and is not there.")
    if in_header and in_body is not None and in_header != in_body:
        raise ValidationFailed("subject_token: not together with another token in the headers.")
    token = in_body or in_header
    if not token:
        raise ValidationFailed("subject_token: this member is needed and is not there.")
    return token


def _given(request: TokenRequest, member: str) -> str:
    value: str | None = getattr(request, member)
    if not value:
        raise ValidationFailed(f"{member}: this member is needed and is not there.")
    return value
