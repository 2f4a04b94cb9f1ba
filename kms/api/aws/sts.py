"""The operations of AWS's Security Token Service that are here: who calls, and access keys that end soon.

Every access key that is given has a session token, is no stronger than what it was given for, and ends no later.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Annotated, Any, TypeVar

from msgspec import Meta

from kms.access import access_keys, callers
from kms.access import scope as access_scope
from kms.access.access_keys import AccessKey, Minted
from kms.access.authentication import SigningCaller
from kms.access.issuers import Issuer, IssuerRole
from kms.access.model import Caller
from kms.access.ratelimit import RateClass
from kms.api.admission import Admission
from kms.api.aws.faults import Fault, Violation, violated
from kms.api.aws.names import Names
from kms.api.aws.shapes import Input
from kms.errors import AuthenticationFailed
from kms.operations import Call, Service

F = TypeVar("F", bound=Callable[..., Any])

Arn = Annotated[str, Meta(min_length=20, max_length=2048)]
SessionName = Annotated[str, Meta(min_length=2, max_length=64, pattern=r"^[a-zA-Z0-9_+=,.@-]*\Z")]
SerialNumber = Annotated[str, Meta(min_length=9, max_length=256, pattern=r"^[a-zA-Z0-9_+=/:,.@-]*\Z")]
TokenCode = Annotated[str, Meta(min_length=6, max_length=6, pattern=r"^[0-9]*\Z")]
RoleSeconds = Annotated[int, Meta(ge=900, le=43_200)]
SessionSeconds = Annotated[int, Meta(ge=900, le=129_600)]
_ROLE_ARN = re.compile(r"arn:aws:iam::(?P<account>[0-9]{12}):role/(?P<role>[a-zA-Z0-9_+=,.@-]{1,64})")
_ROLE_DEFAULT, _SESSION_DEFAULT = timedelta(hours=1), timedelta(hours=12)
_BOTH = "MultiFactorAuthentication failed, must provide both MFA serial number and one time pass code."
_WRONG_CODE = "MultiFactorAuthentication failed with invalid MFA one time pass code."
_WRONG_SERIAL = (
    "MultiFactorAuthentication failed, unable to validate MFA code. "
    "Please verify your MFA serial number is valid and associated with this user."
)
_FROM_SESSION = "Cannot call {} with session credentials"
_TOO_LONG = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."


class CallerIdentityInput(Input, kw_only=True):
    """GetCallerIdentity has no members."""


class AccessKeyInfoInput(Input, kw_only=True):
    """GetAccessKeyInfo."""

    access_key_id: Annotated[str, Meta(min_length=16, max_length=128, pattern=r"^[a-zA-Z0-9_]*\Z")]


class WebIdentityInput(Input, kw_only=True):
    """AssumeRoleWithWebIdentity."""

    role_arn: Arn
    role_session_name: SessionName
    web_identity_token: Annotated[str, Meta(min_length=4, max_length=20_000)]
    duration_seconds: RoleSeconds | None = None


class SessionTokenInput(Input, kw_only=True):
    """GetSessionToken."""

    duration_seconds: SessionSeconds | None = None
    serial_number: SerialNumber | None = None
    token_code: TokenCode | None = None


class AssumeRoleInput(Input, kw_only=True):
    """AssumeRole."""

    role_arn: Arn
    role_session_name: SessionName
    duration_seconds: RoleSeconds | None = None
    serial_number: SerialNumber | None = None
    token_code: TokenCode | None = None


@dataclass
class StsRequest:
    """One request: its call, who signed it (nobody where that is not asked for), and its session token."""

    service: Service
    call: Call
    admission: Admission
    names: Names
    signer: SigningCaller | None
    session_token: str

    @property
    def known_signer(self) -> SigningCaller:
        """Who signed a request that must be signed."""
        assert self.signer is not None
        return self.signer

    @property
    def operation(self) -> str:
        """The operation, as policies name it."""
        return self.call.operation


@dataclass(frozen=True)
class StsAction:
    """One operation: what it takes, what carries it out, whether it must be signed, and what it counts against."""

    name: str
    input: type[Input]
    function: Callable[[StsRequest, Any], Mapping[str, Any]]
    is_signed: bool
    rate_class: RateClass
    gives_keys: bool


STS_ACTIONS: dict[str, StsAction] = {}
"""Every operation of STS here, by name."""


def _action(name: str, input_: type[Input], *, is_signed: bool = True, gives_keys: bool = False) -> Callable[[F], F]:
    rate_class = RateClass.AUTHENTICATE if gives_keys else RateClass.MANAGE

    def declare(function: F) -> F:
        STS_ACTIONS[name] = StsAction(name, input_, function, is_signed, rate_class, gives_keys)
        return function

    return declare


@_action("GetCallerIdentity", CallerIdentityInput)
def get_caller_identity(sts: StsRequest, given: CallerIdentityInput) -> Mapping[str, Any]:
    """Say who signed."""
    user_id, arn = _identity(sts)
    sts.service.record(sts.call)
    return {"UserId": user_id, "Account": sts.names.account, "Arn": arn}


@_action("GetAccessKeyInfo", AccessKeyInfoInput)
def get_access_key_info(sts: StsRequest, given: AccessKeyInfoInput) -> Mapping[str, Any]:
    """Name the account of an access key, which is the only one: whether there is such a key is not told."""
    sts.service.record(sts.call)
    return {"Account": sts.names.account}


@_action("AssumeRoleWithWebIdentity", WebIdentityInput, is_signed=False, gives_keys=True)
def assume_role_with_web_identity(sts: StsRequest, given: WebIdentityInput) -> Mapping[str, Any]:
    """Give an access key for a token of a platform, as the client of an issuer role."""
    role = _role_named(sts, given.role_arn)
    service, call = sts.service, sts.call
    if role is None:
        raise _not_authorized(sts)
    try:
        call.caller = service.counted(
            lambda: service.programs.by_platform_token(given.web_identity_token, role, call.source)
        )
    except AuthenticationFailed as refusal:
        raise _rejected(sts, refusal) from None
    caller = call.known_caller
    issuer, _, subject = caller.subject.partition(" ")
    with sts.admission.working(caller.client_id), service.vault.read() as snapshot:
        known = snapshot.find(IssuerRole, role)
        audience = snapshot.find(Issuer, known.issuer_id) if known is not None else None
    words = caller.scope.words if caller.scope is not None else frozenset[str]()
    minted = _mint(sts, caller, words, given.duration_seconds, _ROLE_DEFAULT, f"{role}/{given.role_session_name}")
    return {
        "Credentials": _credentials(minted),
        "SubjectFromWebIdentityToken": subject,
        "AssumedRoleUser": _assumed(sts, role, given.role_session_name),
        "Provider": issuer,
        "Audience": audience.audience if audience is not None else "",
    }


@_action("GetSessionToken", SessionTokenInput, gives_keys=True)
def get_session_token(sts: StsRequest, given: SessionTokenInput) -> Mapping[str, Any]:
    """Give an access key that ends soon for one that lives longer, with a second factor or without."""
    caller = _with_second_factor(sts, given.serial_number, given.token_code)
    minted = _mint(sts, caller, sts.known_signer.key.scope, given.duration_seconds, _SESSION_DEFAULT, "")
    return {"Credentials": _credentials(minted)}


@_action("AssumeRole", AssumeRoleInput, gives_keys=True)
def assume_role(sts: StsRequest, given: AssumeRoleInput) -> Mapping[str, Any]:
    """As `get_session_token`, under the name of a role that is the client's own."""
    role = _role_named(sts, given.role_arn)
    signer = sts.known_signer.caller
    # Under another name the client would have more than that says, or it would be somebody else.
    if role is None or (role != signer.client_id and frozenset({role}) != signer.roles):
        user = sts.names.client_arn(signer.client_id)
        raise _denied(
            f"User: {user} is not authorized to perform: {sts.operation} on resource: {given.role_arn[:512]}"
        )
    caller = _with_second_factor(sts, given.serial_number, given.token_code)
    bears = f"{role}/{given.role_session_name}"
    minted = _mint(sts, caller, sts.known_signer.key.scope, given.duration_seconds, _ROLE_DEFAULT, bears)
    return {
        "Credentials": _credentials(minted),
        "AssumedRoleUser": _assumed(sts, role, given.role_session_name),
    }


def needs_second_factor(names: Names, key: AccessKey) -> Fault:
    """The fault of everything but these two operations under an access key that needs a second factor."""
    return _denied(
        "This access key needs a second factor: call GetSessionToken or AssumeRole of STS with the SerialNumber "
        f"{names.mfa_arn(key.client_id)} and a code of the authenticator app as TokenCode, and use the keys that it "
        "gives.",
        code="AccessDeniedException",
    )


def _with_second_factor(sts: StsRequest, serial_number: str | None, code: str | None) -> Caller:
    """Who signed, with the second factor of the request where it has one. Raises Fault, RateLimited, Unavailable."""
    signer = sts.known_signer
    if signer.key.session_token_hash is not None:
        raise _denied(_FROM_SESSION.format(sts.call.operation.removeprefix("sts:")))
    if (serial_number is None) != (code is None):
        raise _denied(_BOTH)
    if code is None:
        if signer.key.needs_second_factor:
            raise _denied(needs_second_factor(sts.names, signer.key).message)
        return signer.caller
    if serial_number != sts.names.mfa_arn(signer.caller.client_id):
        raise _denied(_WRONG_SERIAL)
    service = sts.service
    try:
        return service.counted(lambda: service.authenticator.confirm(signer.caller, code, sts.call.source))
    except AuthenticationFailed as refusal:
        hint = refusal.detail if refusal.retry_after is not None else ""  # the signature has proven who asks
        raise _denied(f"{_WRONG_CODE} {hint}".strip()) from None


def _mint(
    sts: StsRequest,
    caller: Caller,
    words: frozenset[str],
    seconds: int | None,
    default: timedelta,
    bears: str,
) -> Minted:
    """An access key for `caller`, within the scope of these words. Raises Fault for one that would live too long."""
    service, call = sts.service, sts.call
    longest = service.authenticator.lifetimes.longest(caller, access_scope.of(words))
    lifetime = min(default, longest) if seconds is None else timedelta(seconds=seconds)
    if lifetime > longest:
        if bears:
            raise Fault("ValidationError", _TOO_LONG)
        most = f"Member must have value less than or equal to {longest // timedelta(seconds=1)}"
        raise violated([Violation("durationSeconds", f"'{seconds}'", most)])
    call.caller, call.credential, call.subject = caller, caller.credential, caller.subject or None
    with sts.admission.working(caller.client_id), service.change(call) as change:
        now = service.clock()
        ends: datetime = now + lifetime
        if caller.expires_at is not None:
            ends = min(ends, caller.expires_at)
        minted = access_keys.mint(change, caller, now, ends, scope=words, with_session_token=True, bears=bears)
        call.target = minted.record.access_key_id
    return minted


def _credentials(minted: Minted) -> Mapping[str, Any]:
    return {
        "AccessKeyId": minted.record.access_key_id,
        "SecretAccessKey": minted.secret,
        "SessionToken": minted.session_token,
        "Expiration": f"{minted.record.expires_at:%Y-%m-%dT%H:%M:%SZ}",
    }


def _identity(sts: StsRequest) -> tuple[str, str]:
    """The user id and the ARN of who signed."""
    role, _, session_name = access_keys.borne_by(sts.session_token).partition("/")
    if role:
        assumed = _assumed(sts, role, session_name)
        return assumed["AssumedRoleId"], assumed["Arn"]
    client_id = sts.known_signer.caller.client_id
    return _id_of("AIDA", client_id), sts.names.client_arn(client_id)


def _assumed(sts: StsRequest, role: str, session_name: str) -> dict[str, str]:
    arn = f"arn:aws:sts::{sts.names.account}:assumed-role/{role}/{session_name}"
    return {"AssumedRoleId": f"{_id_of('AROA', role)}:{session_name}", "Arn": arn}


def _id_of(prefix: str, name: str) -> str:
    """An id as AWS's are: always the same for a name, and it says nothing of it."""
    return prefix + base64.b32encode(sha256(f"{prefix} {name}".encode()).digest())[:17].decode()


def _role_named(sts: StsRequest, arn: str) -> str | None:
    """The role that an ARN names; None for one of another account. Raises Fault for what is no ARN of a role."""
    found = _ROLE_ARN.fullmatch(arn)
    if found is None:
        raise Fault("ValidationError", f"{arn[:512]} is invalid")
    return found["role"] if found["account"] == sts.names.account else None


def _rejected(sts: StsRequest, refusal: AuthenticationFailed) -> Fault:
    """Why a platform's token is refused, which is told once its signature was found right."""
    if refusal.detail == callers.FAILED:  # the client of the role is disabled
        return _not_authorized(sts)
    match refusal.claim:
        case "":
            return _token_fault("InvalidIdentityToken", refusal.detail)
        case "exp":
            return _token_fault("ExpiredTokenException", f"Token expired: {refusal.detail}")
        case "aud":
            return _token_fault("InvalidIdentityToken", f"Incorrect token audience: {refusal.detail}")
        case "iss" | "nbf" | "iat":
            return _token_fault("IDPRejectedClaim", refusal.detail, status=403)
        case _:
            return _denied(f"Not authorized to perform {sts.operation}: {refusal.detail}")


def _token_fault(code: str, message: str, *, status: int = 400) -> Fault:
    return Fault(code, message, status=status, problem="authentication-failed")


def _not_authorized(sts: StsRequest) -> Fault:
    return _denied(f"Not authorized to perform {sts.operation}")


def _denied(message: str, code: str = "AccessDenied") -> Fault:
    return Fault(code, message, status=400 if code.endswith("Exception") else 403, problem="permission-denied")
