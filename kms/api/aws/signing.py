"""Signatures, codes, public keys and shared secrets in the AWS dialect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta

from kms.access.ratelimit import RateClass
from kms.api.aws import specs
from kms.api.aws.faults import Fault
from kms.api.aws.request import AwsRequest, action, refuse_recipient
from kms.api.aws.shapes import Ciphertext, GrantTokens, Input, KeyName, Plaintext, PublicKey
from kms.crypto.pkcs8 import der_of_pem, public_pem
from kms.errors import ValidationFailed
from kms.keys.model import Key, Usage
from kms.operations.core.declare import EmptyRequest
from kms.operations.keys.public_keys import PublicKeyRequest
from kms.operations.use.deriving import AgreeRequest, DecapsulateRequest
from kms.operations.use.signing import MacRequest, SignRequest, VerifyMacRequest, VerifyRequest

SigningAlgorithm = Literal[
    "RSASSA_PSS_SHA_256", "RSASSA_PSS_SHA_384", "RSASSA_PSS_SHA_512", "RSASSA_PKCS1_V1_5_SHA_256",
    "RSASSA_PKCS1_V1_5_SHA_384", "RSASSA_PKCS1_V1_5_SHA_512", "ECDSA_SHA_256", "ECDSA_SHA_384", "ECDSA_SHA_512",
    "SM2DSA", "ML_DSA_SHAKE_256", "ED25519_SHA_512", "ED25519_PH_SHA_512",
]  # fmt: skip
MacAlgorithm = Literal["HMAC_SHA_224", "HMAC_SHA_256", "HMAC_SHA_384", "HMAC_SHA_512"]


class SignInput(Input, kw_only=True):
    """Sign."""

    key_id: KeyName
    message: Plaintext
    message_type: Literal["RAW", "DIGEST", "EXTERNAL_MU"] = "RAW"
    signing_algorithm: SigningAlgorithm
    grant_tokens: GrantTokens | None = None
    dry_run: bool | None = None


class VerifyInput(SignInput, kw_only=True):
    """Verify."""

    signature: Ciphertext


class GenerateMacInput(Input, kw_only=True):
    """GenerateMac."""

    message: Plaintext
    key_id: KeyName
    mac_algorithm: MacAlgorithm
    grant_tokens: GrantTokens | None = None
    dry_run: bool | None = None


class VerifyMacInput(GenerateMacInput, kw_only=True):
    """VerifyMac."""

    mac: Ciphertext


class GetPublicKeyInput(Input, kw_only=True):
    """GetPublicKey."""

    key_id: KeyName
    grant_tokens: GrantTokens | None = None


class DeriveSharedSecretInput(Input, kw_only=True):
    """DeriveSharedSecret."""

    key_id: KeyName
    key_agreement_algorithm: Literal["ECDH"]
    public_key: PublicKey
    grant_tokens: GrantTokens | None = None
    dry_run: bool | None = None
    recipient: dict[str, Any] | None = None


class EncapsulateInput(Input, kw_only=True):
    """Encapsulate."""

    key_id: KeyName
    encapsulation_algorithm: Literal["ML_KEM"]
    grant_tokens: GrantTokens | None = None
    dry_run: bool | None = None


class DecapsulateInput(EncapsulateInput, kw_only=True):
    """Decapsulate."""

    shared_secret_ciphertext_blob: Annotated[bytes, Meta(min_length=1, max_length=6144)]


@action("Sign", SignInput, RateClass.USE)
def sign(aws: AwsRequest, given: SignInput) -> Mapping[str, Any]:
    """Sign a message or its digest."""
    key = aws.key(given.key_id)
    algorithm = _algorithm(aws, key, given)
    message, digest = _message(key, given)
    request = SignRequest(message=message, digest=digest, algorithm=algorithm, signature_format=_form(key))
    answer = aws.use("sign", key, request, dry_run=given.dry_run)
    return {
        "KeyId": aws.names.key_arn(key.key_id),
        "Signature": answer.signature,
        "SigningAlgorithm": given.signing_algorithm,
    }


@action("Verify", VerifyInput, RateClass.USE)
def verify(aws: AwsRequest, given: VerifyInput) -> Mapping[str, Any]:
    """Verify a signature; one that is not valid is an error, as with AWS."""
    key = aws.key(given.key_id)
    algorithm = _algorithm(aws, key, given)
    message, digest = _message(key, given)
    request = VerifyRequest(
        message=message,
        digest=digest,
        algorithm=algorithm,
        signature=given.signature,
        signature_format=_form(key),
    )
    if not aws.use("verify", key, request, dry_run=given.dry_run).valid:
        raise Fault("KMSInvalidSignatureException", "", problem="signature-invalid")
    return {
        "KeyId": aws.names.key_arn(key.key_id),
        "SignatureValid": True,
        "SigningAlgorithm": given.signing_algorithm,
    }


@action("GenerateMac", GenerateMacInput, RateClass.USE)
def generate_mac(aws: AwsRequest, given: GenerateMacInput) -> Mapping[str, Any]:
    """Make a message authentication code."""
    key = aws.key(given.key_id)
    _require_mac(aws, key, given.mac_algorithm, "GenerateMac")
    answer = aws.use("mac", key, MacRequest(message=given.message), dry_run=given.dry_run)
    return {"Mac": answer.mac, "MacAlgorithm": given.mac_algorithm, "KeyId": aws.names.key_arn(key.key_id)}


@action("VerifyMac", VerifyMacInput, RateClass.USE)
def verify_mac(aws: AwsRequest, given: VerifyMacInput) -> Mapping[str, Any]:
    """Verify a code; one that is not valid is an error, as with AWS."""
    key = aws.key(given.key_id)
    _require_mac(aws, key, given.mac_algorithm, "VerifyMac")
    request = VerifyMacRequest(message=given.message, mac=given.mac)
    if not aws.use("verify_mac", key, request, dry_run=given.dry_run).valid:
        raise Fault("KMSInvalidMacException", "", problem="mac-invalid")
    return {"MacValid": True, "MacAlgorithm": given.mac_algorithm, "KeyId": aws.names.key_arn(key.key_id)}


@action("GetPublicKey", GetPublicKeyInput)
def get_public_key(aws: AwsRequest, given: GetPublicKeyInput) -> Mapping[str, Any]:
    """Show the public half of a key pair."""
    key = aws.key_to_show(given.key_id)
    arn = aws.names.key_arn(key.key_id)
    if key.type.startswith(("hmac", "aes", "xaes", "chacha")):
        raise Fault("UnsupportedOperationException", "", problem="operation-not-supported")
    shown = aws.use("get_public_key", key, PublicKeyRequest())
    spec = specs.spec_of(key.type)
    return {
        "KeyId": arn,
        "PublicKey": der_of_pem(shown.public_key, "public_key"),
        "CustomerMasterKeySpec": spec,
        "KeySpec": spec,
        "KeyUsage": specs.usage_of(key),
        **specs.algorithms(key),
    }


@action("DeriveSharedSecret", DeriveSharedSecretInput, RateClass.USE)
def derive_shared_secret(aws: AwsRequest, given: DeriveSharedSecretInput) -> Mapping[str, Any]:
    """Agree on the raw secret Z with the holder of another key of the same curve."""
    refuse_recipient(given.recipient)
    key = aws.key(given.key_id)
    aws.require_usage(key, Usage.AGREE, "DeriveSharedSecret")
    request = AgreeRequest(peer_public_key=public_pem(given.public_key), kdf="none")
    try:
        answer = aws.use("agree", key, request, dry_run=given.dry_run)
    except ValidationFailed as refusal:  # a public key that is none, or of another curve
        raise Fault("ValidationException", "", problem=refusal.problem) from None
    return {
        "KeyId": aws.names.key_arn(key.key_id),
        "SharedSecret": answer.derived_key,
        "KeyAgreementAlgorithm": "ECDH",
        "KeyOrigin": "EXTERNAL" if key.origin == "imported" else "AWS_KMS",
    }


@action("Encapsulate", EncapsulateInput, RateClass.USE)
def encapsulate(aws: AwsRequest, given: EncapsulateInput) -> Mapping[str, Any]:
    """Make a shared secret for the holder of a key."""
    key = aws.key(given.key_id)
    aws.require_usage(key, Usage.ENCAPSULATE, "Encapsulate")
    answer = aws.use("encapsulate", key, EmptyRequest(), dry_run=given.dry_run)
    return {
        "KeyId": aws.names.key_arn(key.key_id),
        "SharedSecret": answer.shared_secret,
        "SharedSecretCiphertextBlob": answer.ciphertext,
        "EncapsulationAlgorithm": "ML_KEM",
    }


@action("Decapsulate", DecapsulateInput, RateClass.USE)
def decapsulate(aws: AwsRequest, given: DecapsulateInput) -> Mapping[str, Any]:
    """Get the shared secret out of a ciphertext."""
    key = aws.key(given.key_id)
    aws.require_usage(key, Usage.DECAPSULATE, "Decapsulate")
    request = DecapsulateRequest(ciphertext=given.shared_secret_ciphertext_blob)
    answer = aws.use("decapsulate", key, request, dry_run=given.dry_run)
    return {
        "KeyId": aws.names.key_arn(key.key_id),
        "SharedSecret": answer.shared_secret,
        "EncapsulationAlgorithm": "ML_KEM",
    }


def _message(key: Key, given: SignInput) -> tuple[bytes | None, bytes | None]:
    """What is signed, as a message or as its digest."""
    if given.message_type == "EXTERNAL_MU" and not key.type.startswith("ml-dsa"):
        raise Fault("ValidationException", "MessageType EXTERNAL_MU is only for ML-DSA keys.")
    if given.message_type == "DIGEST" and key.type.startswith(("ml-dsa", "ed")):
        raise Fault("ValidationException", f"MessageType DIGEST is not for {given.signing_algorithm}.")
    if given.message_type == "RAW":
        return given.message, None
    if len(given.message) != specs.digest_octets(given.signing_algorithm):
        raise Fault("ValidationException", f"Digest is invalid length for algorithm {given.signing_algorithm}.")
    return None, given.message


def _algorithm(aws: AwsRequest, key: Key, given: SignInput) -> str:
    aws.require_usage(key, Usage.SIGN if type(given) is SignInput else Usage.VERIFY, type(given).__name__[:-5])
    native = specs.signing_algorithms(key.type).get(given.signing_algorithm)
    if native is None:
        raise aws.incompatible(key, given.signing_algorithm)
    return native


def _form(key: Key) -> Literal["der", "p1363"]:
    return "der" if key.type.startswith("ec-") else "p1363"


def _require_mac(aws: AwsRequest, key: Key, algorithm: str, operation: str) -> None:
    aws.require_usage(key, Usage.MAC if operation == "GenerateMac" else Usage.VERIFY_MAC, operation)
    if specs.mac_algorithm(key.type) != algorithm:
        raise aws.incompatible(key, algorithm)
