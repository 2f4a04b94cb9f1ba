"""Encryption in the AWS dialect: ciphertexts are those of every other dialect, or RSA's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta

from kms.access.ratelimit import RateClass
from kms.api.aws import specs
from kms.api.aws.faults import Fault, missing
from kms.api.aws.request import AwsRequest, action, refuse_recipient
from kms.api.aws.shapes import Ciphertext, EncryptionContext, GrantTokens, Input, KeyName, Plaintext
from kms.crypto.pkcs8 import der_of_pem
from kms.encryption_context import associated_data_of
from kms.errors import DecryptionFailed
from kms.keys.model import Key, Usage
from kms.operations.use.data_keys import DataKeyPairRequest, DataKeyRequest
from kms.operations.use.encrypting import DecryptAnswer, DecryptRequest, EncryptAnswer, EncryptRequest
from kms.operations.use.random_and_hash import RandomRequest

EncryptionAlgorithm = Literal["SYMMETRIC_DEFAULT", "RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256", "SM2PKE"]
PairSpec = Literal[
    "RSA_2048", "RSA_3072", "RSA_4096", "ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521", "ECC_SECG_P256K1", "SM2",
    "ECC_NIST_EDWARDS25519", "ML_KEM_512", "ML_KEM_768", "ML_KEM_1024",
]  # fmt: skip
Length = Annotated[int, Meta(ge=1, le=1024)]


class EncryptInput(Input, kw_only=True):
    """Encrypt."""

    key_id: KeyName
    plaintext: Plaintext
    encryption_context: EncryptionContext | None = None
    grant_tokens: GrantTokens | None = None
    encryption_algorithm: EncryptionAlgorithm | None = None
    dry_run: bool | None = None


class DecryptInput(Input, kw_only=True):
    """Decrypt; a symmetric ciphertext names its key itself."""

    ciphertext_blob: Ciphertext | None = None
    encryption_context: EncryptionContext | None = None
    grant_tokens: GrantTokens | None = None
    key_id: KeyName | None = None
    encryption_algorithm: EncryptionAlgorithm | None = None
    recipient: dict[str, Any] | None = None
    dry_run: bool | None = None


class ReEncryptInput(Input, kw_only=True):
    """Decrypt and encrypt anew."""

    ciphertext_blob: Ciphertext | None = None
    source_encryption_context: EncryptionContext | None = None
    source_key_id: KeyName | None = None
    destination_key_id: KeyName
    destination_encryption_context: EncryptionContext | None = None
    source_encryption_algorithm: EncryptionAlgorithm | None = None
    destination_encryption_algorithm: EncryptionAlgorithm | None = None
    grant_tokens: GrantTokens | None = None
    dry_run: bool | None = None


class DataKeyInput(Input, kw_only=True):
    """GenerateDataKey, with and without the plaintext."""

    key_id: KeyName
    encryption_context: EncryptionContext | None = None
    number_of_bytes: Length | None = None
    key_spec: Literal["AES_256", "AES_128"] | None = None
    grant_tokens: GrantTokens | None = None
    recipient: dict[str, Any] | None = None
    dry_run: bool | None = None


class DataKeyPairInput(Input, kw_only=True):
    """GenerateDataKeyPair, with and without the plaintext."""

    key_id: KeyName
    key_pair_spec: PairSpec
    encryption_context: EncryptionContext | None = None
    grant_tokens: GrantTokens | None = None
    recipient: dict[str, Any] | None = None
    dry_run: bool | None = None


class RandomInput(Input, kw_only=True):
    """GenerateRandom."""

    number_of_bytes: Length | None = None
    custom_key_store_id: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    recipient: dict[str, Any] | None = None


@action("Encrypt", EncryptInput, RateClass.USE)
def encrypt(aws: AwsRequest, given: EncryptInput) -> Mapping[str, Any]:
    """Encrypt under a key."""
    key = aws.key(given.key_id)
    algorithm = given.encryption_algorithm or specs.SYMMETRIC
    sealed = _encrypt(aws, key, given.plaintext, given.encryption_context, algorithm, given.dry_run)
    return {
        "CiphertextBlob": sealed.ciphertext,
        "KeyId": aws.names.key_arn(key.key_id),
        "EncryptionAlgorithm": algorithm,
    }


@action("Decrypt", DecryptInput, RateClass.USE)
def decrypt(aws: AwsRequest, given: DecryptInput) -> Mapping[str, Any]:
    """Decrypt what `Encrypt` or a data key call gave."""
    refuse_recipient(given.recipient)
    algorithm = given.encryption_algorithm or specs.SYMMETRIC
    ciphertext = _ciphertext(given.ciphertext_blob)
    key = _source(aws, given.key_id, ciphertext, algorithm)
    opened = _decrypt(aws, key, ciphertext, given.encryption_context, algorithm, given.dry_run)
    return {
        "Plaintext": opened.plaintext,
        "KeyId": aws.names.key_arn(key.key_id),
        "EncryptionAlgorithm": algorithm,
        **aws.material(key, opened.version),
    }


@action("ReEncrypt", ReEncryptInput, RateClass.USE)
def re_encrypt(aws: AwsRequest, given: ReEncryptInput) -> Mapping[str, Any]:
    """Decrypt and encrypt anew under another key, or with another context."""
    source_algorithm = given.source_encryption_algorithm or specs.SYMMETRIC
    target_algorithm = given.destination_encryption_algorithm or specs.SYMMETRIC
    ciphertext = _ciphertext(given.ciphertext_blob)
    source = _source(aws, given.source_key_id, ciphertext, source_algorithm)
    target = aws.key(given.destination_key_id)
    opened = _decrypt(aws, source, ciphertext, given.source_encryption_context, source_algorithm)
    sealed = _encrypt(
        aws, target, opened.plaintext, given.destination_encryption_context, target_algorithm, given.dry_run
    )
    return {
        "CiphertextBlob": sealed.ciphertext,
        "SourceKeyId": aws.names.key_arn(source.key_id),
        "KeyId": aws.names.key_arn(target.key_id),
        "SourceEncryptionAlgorithm": source_algorithm,
        "DestinationEncryptionAlgorithm": target_algorithm,
        **aws.material(source, opened.version, "SourceKeyMaterialId"),
        **aws.material(target, sealed.version, "DestinationKeyMaterialId"),
    }


@action("GenerateDataKey", DataKeyInput, RateClass.USE)
def generate_data_key(aws: AwsRequest, given: DataKeyInput) -> Mapping[str, Any]:
    """Make a data key, in plaintext and encrypted."""
    return _data_key(aws, given, with_plaintext=True)


@action("GenerateDataKeyWithoutPlaintext", DataKeyInput, RateClass.USE)
def generate_data_key_without_plaintext(aws: AwsRequest, given: DataKeyInput) -> Mapping[str, Any]:
    """Make a data key for later, only encrypted."""
    return _data_key(aws, given, with_plaintext=False)


@action("GenerateDataKeyPair", DataKeyPairInput, RateClass.GENERATE)
def generate_data_key_pair(aws: AwsRequest, given: DataKeyPairInput) -> Mapping[str, Any]:
    """Make a key pair for use outside, its private key in plaintext and encrypted."""
    return _data_key_pair(aws, given, with_plaintext=True)


@action("GenerateDataKeyPairWithoutPlaintext", DataKeyPairInput, RateClass.GENERATE)
def generate_data_key_pair_without_plaintext(aws: AwsRequest, given: DataKeyPairInput) -> Mapping[str, Any]:
    """Make a key pair for use outside, its private key only encrypted."""
    return _data_key_pair(aws, given, with_plaintext=False)


@action("GenerateRandom", RandomInput, RateClass.USE)
def generate_random(aws: AwsRequest, given: RandomInput) -> Mapping[str, Any]:
    """Give random bytes."""
    refuse_recipient(given.recipient)
    if given.custom_key_store_id is not None:
        raise Fault(
            "CustomKeyStoreNotFoundException",
            f"There is no custom key store {given.custom_key_store_id}.",
            problem="not-found",
        )
    if given.number_of_bytes is None:
        raise Fault("ValidationException", "NumberOfBytes is required.")
    return {"Plaintext": aws.run("random", RandomRequest(length=given.number_of_bytes)).random}


def _encrypt(
    aws: AwsRequest,
    key: Key,
    plaintext: bytes,
    context: EncryptionContext | None,
    algorithm: str,
    dry_run: bool | None = None,
) -> EncryptAnswer:
    _require_algorithm(aws, key, Usage.ENCRYPT, algorithm, context)
    if algorithm == specs.SYMMETRIC:
        request = EncryptRequest(plaintext=plaintext, associated_data=associated_data_of(context))
    else:
        most = specs.most_octets(key.type, algorithm)
        if len(plaintext) > most:
            spec = specs.spec_of(key.type)
            raise Fault(
                "ValidationException",
                f"Algorithm {algorithm} and key spec {spec} cannot encrypt data larger than {most} bytes.",
            )
        request = EncryptRequest(plaintext=plaintext, format=specs.OAEP[algorithm])
    answer: EncryptAnswer = aws.use("encrypt", key, request, dry_run=dry_run)
    return answer


def _decrypt(
    aws: AwsRequest,
    key: Key,
    ciphertext: bytes,
    context: EncryptionContext | None,
    algorithm: str,
    dry_run: bool | None = None,
) -> DecryptAnswer:
    _require_algorithm(aws, key, Usage.DECRYPT, algorithm, context)
    if algorithm == specs.SYMMETRIC:
        request = DecryptRequest(ciphertext=ciphertext, associated_data=associated_data_of(context))
    else:
        request = DecryptRequest(ciphertext=ciphertext, format=specs.OAEP[algorithm])
    answer: DecryptAnswer = aws.use("decrypt", key, request, dry_run=dry_run)
    return answer


def _require_algorithm(
    aws: AwsRequest, key: Key, usage: Usage, algorithm: str, context: EncryptionContext | None
) -> None:
    if usage not in key.usages:
        aws.require_usage(key, usage, str(usage).capitalize())
    is_rsa = key.type.startswith("rsa")
    if (algorithm in specs.OAEP) != is_rsa or algorithm == "SM2PKE":
        raise aws.incompatible(key, algorithm)
    if is_rsa and context:
        raise Fault(
            "ValidationException", "The encryption context is only for symmetric keys, and this one is asymmetric."
        )


def _source(aws: AwsRequest, given: str | None, ciphertext: bytes, algorithm: str) -> Key:
    """The key that made a ciphertext: the one that is named, or the one that the ciphertext names."""
    if given is not None:
        key = aws.key(given)
        if algorithm == specs.SYMMETRIC and aws.names.uid_in(ciphertext) not in (None, key.uid):
            raise Fault(
                "IncorrectKeyException",
                "The key ID in the request does not identify a CMK that can perform this operation.",
                problem="decryption-failed",
            )
        return key
    if algorithm != specs.SYMMETRIC:
        raise Fault("ValidationException", "KeyId is required for asymmetric keys.")
    uid = aws.names.uid_in(ciphertext)
    if uid is None:
        raise DecryptionFailed
    found = aws.names.key_of_uid(uid, aws.call)
    if found is None:
        raise Fault(
            "AccessDeniedException",
            "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or "
            "you are not allowed to access.",
            problem="permission-denied",
        )
    return found


def _ciphertext(given: bytes | None) -> bytes:
    if given is None:
        raise missing("ciphertextBlob")
    return given


def _data_key(aws: AwsRequest, given: DataKeyInput, *, with_plaintext: bool) -> Mapping[str, Any]:
    refuse_recipient(given.recipient)
    if (given.number_of_bytes is None) == (given.key_spec is None):
        raise Fault("ValidationException", "Please specify either number of bytes or key spec.")
    key = aws.key(given.key_id)
    _require_algorithm(aws, key, Usage.ENCRYPT, specs.SYMMETRIC, given.encryption_context)
    length = given.number_of_bytes or {"AES_256": 32, "AES_128": 16}[given.key_spec or "AES_256"]
    request = DataKeyRequest(
        bits=length * 8,
        with_plaintext=with_plaintext,
        associated_data=associated_data_of(given.encryption_context),
    )
    answer = aws.use("data_key", key, request, dry_run=given.dry_run)
    shown = {"Plaintext": answer.plaintext} if with_plaintext else {}
    return {
        **shown,
        "CiphertextBlob": answer.ciphertext,
        "KeyId": aws.names.key_arn(key.key_id),
        **aws.material(key, answer.version),
    }


def _data_key_pair(aws: AwsRequest, given: DataKeyPairInput, *, with_plaintext: bool) -> Mapping[str, Any]:
    refuse_recipient(given.recipient)
    native = specs.TYPES.get(given.key_pair_spec)
    if native is None:
        raise Fault("UnsupportedOperationException", f"KeySpec {given.key_pair_spec} is not supported")
    key = aws.key(given.key_id)
    _require_algorithm(aws, key, Usage.ENCRYPT, specs.SYMMETRIC, given.encryption_context)
    request = DataKeyPairRequest(
        type=native, with_plaintext=with_plaintext, associated_data=associated_data_of(given.encryption_context)
    )
    answer = aws.use("data_key_pair", key, request, dry_run=given.dry_run)
    shown = {"PrivateKeyPlaintext": answer.plaintext} if with_plaintext else {}
    return {
        **shown,
        "PrivateKeyCiphertextBlob": answer.ciphertext,
        "PublicKey": der_of_pem(answer.public_key, "public_key"),
        "KeyId": aws.names.key_arn(key.key_id),
        "KeyPairSpec": given.key_pair_spec,
        **aws.material(key, answer.version),
    }
