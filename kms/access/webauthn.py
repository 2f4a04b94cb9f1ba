"""What authenticators answer (Web Authentication Level 3), in the JSON forms of browsers: read and verified.

The forms are RegistrationResponseJSON and AuthenticationResponseJSON (section 5.1); bytes are base64url without
padding. Their members that are not here decide nothing and are passed over.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from kms.access import cbor
from kms.access.cbor import MalformedCbor
from kms.access.verification_key import public_key_from_pem
from kms.crypto import pkcs8
from kms.errors import ValidationFailed

T = TypeVar("T")

CREATE, GET = "webauthn.create", "webauthn.get"
_ES256, _EDDSA, _RS256 = -7, -8, -257
ALGORITHMS = (_ES256, _EDDSA, _RS256)
"""The COSE algorithms of passkeys, the preferred first: ES256, EdDSA (with Ed25519), RS256."""
TRANSPORTS = frozenset({"usb", "nfc", "ble", "smart-card", "hybrid", "internal"})
_FLAGS_AT, _SHORTEST_DATA, _AAGUID_BYTES = 32, 37, 16  # section 6.1
_ATTESTED, _EXTENSIONS = 0x40, 0x80
_SHORTEST_ID, _LONGEST_ID = 16, 1023  # in bytes; section 4, "credential ID"


Base64Url = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]+\Z", max_length=32_768)]
"""Bytes in base64url without padding."""


class _Form(msgspec.Struct, rename="camel", kw_only=True):
    """A form of browsers. Their newer members are passed over, as section 5.1 wants it."""


class AttestationResponse(_Form):
    """AuthenticatorAttestationResponseJSON."""

    client_data_json: Base64Url = msgspec.field(name="clientDataJSON")
    attestation_object: Base64Url
    transports: Annotated[list[Annotated[str, msgspec.Meta(max_length=32)]], msgspec.Meta(max_length=16)] = []


class AssertionResponse(_Form):
    """AuthenticatorAssertionResponseJSON."""

    client_data_json: Base64Url = msgspec.field(name="clientDataJSON")
    authenticator_data: Base64Url
    signature: Base64Url
    user_handle: Base64Url | None = None


class RegistrationResponse(_Form):
    """RegistrationResponseJSON: what `navigator.credentials.create()` gives, by its `toJSON()`."""

    id: Base64Url
    raw_id: Base64Url
    response: AttestationResponse
    type: Literal["public-key"]


class AuthenticationResponse(_Form):
    """AuthenticationResponseJSON: what `navigator.credentials.get()` gives, by its `toJSON()`."""

    id: Base64Url
    raw_id: Base64Url
    response: AssertionResponse
    type: Literal["public-key"]


class NotForUs(Exception):
    """The browser made an answer for somebody or something else. It says why, which is no secret."""


class NotVerified(Exception):
    """The answer of an authenticator does not verify."""


@dataclass(frozen=True)
class RelyingParty:
    """This service, as browsers and authenticators know it."""

    id: str
    origin: str


@dataclass(frozen=True)
class Registered:
    """A new credential. `public_key` is a COSE key of one of the `ALGORITHMS`."""

    credential_id: bytes
    public_key: bytes
    sign_count: int
    backup_eligible: bool
    transports: frozenset[str]


@dataclass(frozen=True)
class Asserted:
    """What an authenticator has signed, beside that it has the private key."""

    user_verified: bool
    sign_count: int
    backup_eligible: bool


class _ClientData(msgspec.Struct):
    """CollectedClientData (section 5.8.1)."""

    type: str
    challenge: Base64Url
    origin: str
    cross_origin: bool = msgspec.field(name="crossOrigin", default=False)


def decoded(text: str) -> bytes:
    """The bytes of base64url without padding. Raises ValidationFailed for what is not canonical."""
    try:
        value = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        value = b""
    if encoded(value) != text:
        raise ValidationFailed("A member of the response is not base64url without padding.")
    return value


def encoded(value: bytes) -> str:
    """`value` in base64url without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def challenge_in(client_data_json: str, kind: str, party: RelyingParty) -> bytes:
    """The challenge that a browser had signed, in a ceremony of that `kind` on a page of this service itself.

    Raises NotForUs, and ValidationFailed where it cannot be read. Nothing is proven by this yet.
    """
    try:
        data = msgspec.json.decode(decoded(client_data_json), type=_ClientData)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValidationFailed("response.clientDataJSON: not the client data of WebAuthn.") from None
    if data.type != kind:
        raise NotForUs(f"This is not an answer to navigator.credentials.{kind.rpartition('.')[2]}().")
    if data.origin != party.origin or data.cross_origin:
        raise NotForUs(f"The passkey was used on another page than those of {party.origin} (KMS_PUBLIC_URL).")
    return decoded(data.challenge)


def registered(response: RegistrationResponse, challenge: bytes, party: RelyingParty) -> Registered:
    """The new credential in `response` to that challenge (section 7.1), whose user the authenticator has verified.

    No attestation is asked for, and none but a self attestation is looked at. Raises NotVerified, and
    ValidationFailed for a key that is weak.
    """
    from webauthn import verify_registration_response  # here: see `asserted`
    from webauthn.helpers.cose import COSEAlgorithmIdentifier
    from webauthn.helpers.structs import CredentialDeviceType

    credential_id = decoded(response.raw_id)
    attestation = decoded(response.response.attestation_object)
    if not _SHORTEST_ID <= len(credential_id) <= _LONGEST_ID:
        raise NotVerified
    _require_plain_attestation(attestation)
    verified = _carried_out(
        lambda: verify_registration_response(
            credential=_as_library(response),
            expected_challenge=challenge,
            expected_rp_id=party.id,
            expected_origin=party.origin,
            require_user_verification=True,
            supported_pub_key_algs=list(map(COSEAlgorithmIdentifier, ALGORITHMS)),
        )
    )
    if verified.credential_id != credential_id:
        raise NotVerified
    _require_good_key(verified.credential_public_key)
    return Registered(
        credential_id=credential_id,
        public_key=verified.credential_public_key,
        sign_count=verified.sign_count,
        backup_eligible=verified.credential_device_type is CredentialDeviceType.MULTI_DEVICE,
        transports=TRANSPORTS.intersection(response.response.transports),
    )


def asserted(
    response: AuthenticationResponse, challenge: bytes, party: RelyingParty, public_key: bytes | None
) -> Asserted:
    """What the authenticator of `public_key` (COSE) has signed over that challenge (section 7.2).

    None stands for a passkey that is not there: after the same work that is not verified either. Whether the user was
    verified, and what the count of signatures means, is for the caller to judge. Raises NotVerified.
    """
    from webauthn import verify_authentication_response  # here: where nobody has a passkey, no worker gives it 5 MiB
    from webauthn.helpers.structs import CredentialDeviceType

    _require_safe(decoded(response.response.authenticator_data))
    verified = _carried_out(
        lambda: verify_authentication_response(
            credential=_as_library(response),
            expected_challenge=challenge,
            expected_rp_id=party.id,
            expected_origin=party.origin,
            credential_public_key=public_key if public_key is not None else _nobody(),
            credential_current_sign_count=0,  # the library would refuse by it before it looks at the signature
            require_user_verification=False,  # the same
        )
    )
    return Asserted(
        user_verified=verified.user_verified,
        sign_count=verified.new_sign_count,
        backup_eligible=verified.credential_device_type is CredentialDeviceType.MULTI_DEVICE,
    )


def _carried_out(verify: Callable[[], T]) -> T:
    """What the library gives. Raises NotVerified for everything that it raises."""
    try:
        return verify()
    except Exception as fault:  # it raises whatever it trips over in what strangers send
        raise NotVerified from fault


def _as_library(response: RegistrationResponse | AuthenticationResponse) -> dict[str, Any]:
    members = msgspec.to_builtins(response)
    assert isinstance(members, dict)
    return members


def _require_plain_attestation(attestation_object: bytes) -> None:
    """Raise NotVerified unless an attestation is none or a self attestation, and all CBOR in it can be read safely.

    Others bring certificates, which nobody asked for.
    """
    try:
        attestation = cbor.decoded(attestation_object)
    except MalformedCbor:
        raise NotVerified from None
    members = attestation if isinstance(attestation, dict) else {}
    statement, data = members.get("attStmt"), members.get("authData")
    if not isinstance(statement, dict) or not isinstance(data, bytes):
        raise NotVerified
    is_own = members.get("fmt") == "packed" and "x5c" not in statement
    if not is_own and members.get("fmt") != "none":
        raise NotVerified
    _require_safe(data)


def _require_safe(authenticator_data: bytes) -> None:
    """Raise NotVerified unless all CBOR in authenticator data (section 6.1) can be read safely."""
    if len(authenticator_data) < _SHORTEST_DATA:
        raise NotVerified
    flags, at = authenticator_data[_FLAGS_AT], _SHORTEST_DATA
    try:
        if flags & _ATTESTED:
            length_at = at + _AAGUID_BYTES
            at = length_at + 2 + int.from_bytes(authenticator_data[length_at : length_at + 2])
            _, at = cbor.item(authenticator_data, at)
        if flags & _EXTENSIONS:
            _, at = cbor.item(authenticator_data, at)
    except MalformedCbor:
        raise NotVerified from None
    if at != len(authenticator_data):
        raise NotVerified


def _require_good_key(cose: bytes) -> None:
    """Raise NotVerified unless algorithm and type of a key belong together, ValidationFailed for one that is weak."""
    from webauthn.helpers import decode_credential_public_key, decoded_public_key_to_cryptography  # see `asserted`

    key = _carried_out(lambda: decode_credential_public_key(cose))
    public = _carried_out(lambda: decoded_public_key_to_cryptography(key))
    fits = {
        _ES256: isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1),
        _EDDSA: isinstance(public, ed25519.Ed25519PublicKey),
        _RS256: isinstance(public, rsa.RSAPublicKey),
    }
    if not fits.get(key.alg, False):
        raise NotVerified
    public_key_from_pem(pkcs8.public_pem(pkcs8.public_der(public)))


@cache
def _nobody() -> bytes:
    """The COSE key of a passkey that nobody has."""
    from webauthn.helpers import encode_cbor  # see `asserted`

    numbers = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    key = {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32), -3: numbers.y.to_bytes(32)}
    return encode_cbor(key)
