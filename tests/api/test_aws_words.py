"""Refusals of the AWS dialect in AWS's own words: what AWS is recorded to answer, exception and sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from helpers.support import World, b64
from helpers.wsgi import answer_of, signed

ACCOUNT = "000000000000"
ARN = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
INVALID = "1 validation error detected: Value "
Asked = tuple[str, dict[str, Any]]


class Client:
    """Signs requests of one client as an AWS client does."""

    def __init__(self, world: World, client_id: str) -> None:
        self.world = world
        self.access = world.user(client_id).post("/api/v1/access-keys", {}).json

    def answer(self, action: str, region: str = "us-east-1", **given: Any) -> dict[str, Any]:
        """The JSON of an answer, with the status of a refusal in it as `status`."""
        body = json.dumps(given).encode()
        environ = signed(self.access, self.world.service.clock, action, body, region)
        status, content = answer_of(self.world, environ, body)
        told = json.loads(content) if content else {}
        return told if status == 200 else {**told, "status": status}

    def key(self, **given: Any) -> str:
        """The id of a new key."""
        return str(self.answer("CreateKey", **given)["KeyMetadata"]["KeyId"])


@pytest.fixture(scope="module")
def amy(shared_world: World) -> Client:
    return Client(shared_world, "amy")


@pytest.fixture(scope="module")
def keys(amy: Client) -> dict[str, str]:
    """Keys of several kinds by what they are; `gone` awaits its deletion."""
    made = {
        "symmetric": amy.key(),
        "rsa": amy.key(KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT"),
        "sign": amy.key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY"),
        "mldsa": amy.key(KeySpec="ML_DSA_44", KeyUsage="SIGN_VERIFY"),
        "agree": amy.key(KeySpec="ECC_NIST_P256", KeyUsage="KEY_AGREEMENT"),
        "mac": amy.key(KeySpec="HMAC_224", KeyUsage="GENERATE_VERIFY_MAC"),
        "external": amy.key(Origin="EXTERNAL"),
        "disabled": amy.key(),
        "gone": amy.key(),
    }
    amy.answer("DisableKey", KeyId=made["disabled"])
    amy.answer("ScheduleKeyDeletion", KeyId=made["gone"])
    amy.answer("CreateAlias", AliasName="alias/taken", TargetKeyId=made["symmetric"])
    return made


def enum(values: str) -> str:
    return f"failed to satisfy constraint: Member must satisfy enum value set: [{values}]"


TAG = {"TagKey": "a", "TagValue": "1"}
X = b64(b"x")
MACS = "HMAC_SHA_224, HMAC_SHA_256, HMAC_SHA_384, HMAC_SHA_512"
PREFIX = (
    'Alias must start with the prefix "alias/". '
    "Please see https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html"
)
CASES: list[tuple[str, dict[str, Any], str, str | None]] = [
    # names
    ("DescribeKey", {"KeyId": UNKNOWN}, "NotFoundException", f"Key '{ARN}{UNKNOWN}' does not exist"),
    ("DescribeKey", {"KeyId": ARN + UNKNOWN}, "NotFoundException", f"Key '{ARN}{UNKNOWN}' does not exist"),
    ("DescribeKey", {"KeyId": "mrk-" + "0" * 32}, "NotFoundException", f"Key '{ARN}mrk-{'0' * 32}' does not exist"),
    ("DescribeKey", {"KeyId": "fake-key-id"}, "NotFoundException", "Invalid keyId 'fake-key-id'"),
    ("DescribeKey", {"KeyId": "mrk-fake-key-id"}, "NotFoundException", "Invalid keyId 'mrk-fake-key-id'"),
    ("DescribeKey", {"KeyId": "0" * 32}, "NotFoundException", f"Invalid keyId '{'0' * 32}'"),
    ("DescribeKey", {"KeyId": f"arn:aws:kms:us-west-2:{ACCOUNT}:key/{UNKNOWN}"}, "NotFoundException",
     "Invalid arn us-west-2"),
    ("DescribeKey", {"KeyId": "alias/nothing"}, "NotFoundException",
     f"Alias {ARN[:-4]}alias/nothing is not found."),
    ("EnableKeyRotation", {"KeyId": "alias/taken"}, "InvalidArnException",
     "Key Aliases are not supported for this operation."),
    ("RotateKeyOnDemand", {"KeyId": UNKNOWN}, "NotFoundException", f"Key '{ARN}{UNKNOWN}' does not exist"),
    ("GenerateMac", {"KeyId": "key_id", "Message": X, "MacAlgorithm": "HMAC_SHA_256"}, "NotFoundException",
     "Invalid keyId 'key_id'"),
    # members
    ("GenerateRandom", {}, "ValidationException", "NumberOfBytes is required."),
    ("GenerateRandom", {"NumberOfBytes": None}, "ValidationException", "NumberOfBytes is required."),
    ("GenerateRandom", {"NumberOfBytes": 0}, "ValidationException", INVALID
     + "'0' at 'numberOfBytes' failed to satisfy constraint: Member must have value greater than or equal to 1"),
    ("GenerateRandom", {"NumberOfBytes": 1025}, "ValidationException", INVALID
     + "'1025' at 'numberOfBytes' failed to satisfy constraint: Member must have value less than or equal to 1024"),
    ("Encrypt", {"KeyId": "symmetric", "Plaintext": b64(b"x" * 4097)}, "ValidationException", INVALID
     + "at 'plaintext' failed to satisfy constraint: Member must have length less than or equal to 4096"),
    ("Encrypt", {"KeyId": None, "Plaintext": X}, "ValidationException", INVALID
     + "null at 'keyId' failed to satisfy constraint: Member must not be null"),
    ("Encrypt", {}, "ValidationException", "2 validation errors detected: "
     "Value null at 'keyId' failed to satisfy constraint: Member must not be null; "
     "Value null at 'plaintext' failed to satisfy constraint: Member must not be null"),
    ("CreateKey", {"KeyUsage": "RANDOM"}, "ValidationException", INVALID + "'RANDOM' at 'keyUsage' "
     + enum("ENCAPSULATE_DECAPSULATE, ENCRYPT_DECRYPT, GENERATE_VERIFY_MAC, KEY_AGREEMENT, SIGN_VERIFY")),
    ("GenerateMac", {"KeyId": "mac", "Message": X, "MacAlgorithm": "INVALID"}, "ValidationException",
     INVALID + "'INVALID' at 'macAlgorithm' " + enum(MACS)),
    ("DeriveSharedSecret", {"KeyId": "agree", "KeyAgreementAlgorithm": "INVALID", "PublicKey": X},
     "ValidationException", INVALID + "'INVALID' at 'keyAgreementAlgorithm' " + enum("ECDH")),
    ("CreateAlias", {"AliasName": "alias/x!", "TargetKeyId": "symmetric"}, "ValidationException", INVALID
     + "'alias/x!' at 'aliasName' failed to satisfy constraint: "
     "Member must satisfy regular expression pattern: ^[a-zA-Z0-9:/_-]+$"),
    ("CreateKey", {"Tags": [{"TagKey": "a" * 129, "TagValue": ""}]}, "ValidationException", INVALID
     + f"'{'a' * 129}' at 'tags.1.member.tagKey' failed to satisfy constraint: "
     "Member must have length less than or equal to 128"),
    ("CreateKey", {"Tags": [TAG, {"TagKey": "b", "TagValue": "v" * 257}]}, "ValidationException", INVALID
     + f"'{'v' * 257}' at 'tags.2.member.tagValue' failed to satisfy constraint: "
     "Member must have length less than or equal to 256"),
    ("UntagResource", {"KeyId": "symmetric", "TagKeys": ["a", ""]}, "ValidationException", INVALID
     + "'[a, ]' at 'tagKeys' failed to satisfy constraint: Member must satisfy constraint: "
     "[Member must have length less than or equal to 128, Member must have length greater than or equal to 1]"),
    ("ScheduleKeyDeletion", {"KeyId": "symmetric", "PendingWindowInDays": 6}, "ValidationException",
     "PendingWindowInDays must be between 7 and 30"),
    # keys
    ("CreateKey", {"KeySpec": "HMAC_256"}, "ValidationException",
     "You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys."),
    ("CreateKey", {"KeySpec": "RSA_2048", "KeyUsage": "KEY_AGREEMENT"}, "ValidationException",
     "KeyUsage KEY_AGREEMENT is not compatible with KeySpec RSA_2048"),
    ("CreateKey", {"KeySpec": "SM2", "KeyUsage": "SIGN_VERIFY"}, "UnsupportedOperationException",
     "KeySpec SM2 is not supported"),
    ("CreateKey", {"Tags": [TAG, TAG]}, "TagException", "Duplicate tag keys"),
    ("CreateKey", {"Tags": [{"TagKey": str(n), "TagValue": ""} for n in range(51)]}, "TagException", "Too many tags"),
    ("TagResource", {"KeyId": "symmetric", "Tags": [{"TagKey": "AWS:x", "TagValue": ""}]}, "TagException",
     "Tags beginning with aws: are reserved"),
    ("GetParametersForImport",
     {"KeyId": "symmetric", "WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_2048"},
     "UnsupportedOperationException", "{symmetric} origin is AWS_KMS which is not valid for this operation."),
    ("ImportKeyMaterial", {"KeyId": "external", "ImportToken": X, "EncryptedKeyMaterial": X}, "ValidationException",
     "A validTo date must be set if the ExpirationModel is KEY_MATERIAL_EXPIRES"),
    ("EnableKeyRotation", {"KeyId": "external"}, "UnsupportedOperationException",
     "{external} origin is EXTERNAL which is not valid for this operation."),
    ("RotateKeyOnDemand", {"KeyId": "external"}, "KMSInvalidStateException", "{external} is pending import."),
    ("RotateKeyOnDemand", {"KeyId": "sign"}, "UnsupportedOperationException", None),
    ("RotateKeyOnDemand", {"KeyId": "disabled"}, "DisabledException", "{disabled} is disabled."),
    ("ReplicateKey", {"KeyId": "symmetric", "ReplicaRegion": "eu-central-1"}, "UnsupportedOperationException",
     "{symmetric} is not a multi-region primary key."),
    ("CreateKey", {"Policy": "{" + " " * 32_768}, "LimitExceededException",
     "A key policy has at most 32768 characters."),
    ("RevokeGrant", {"KeyId": "symmetric", "GrantId": "abc"}, "NotFoundException", "Grant ID abc not found"),
    ("ListAliases", {"KeyId": "alias/taken"}, "InvalidArnException",
     "Key Aliases are not supported for this operation."),
    ("GetKeyPolicy", {"KeyId": "symmetric", "PolicyName": "x"}, "NotFoundException", "No such policy exists"),
    # aliases
    ("CreateAlias", {"AliasName": "orders", "TargetKeyId": "symmetric"}, "ValidationException", PREFIX),
    ("CreateAlias", {"AliasName": "alias/aws/x", "TargetKeyId": "symmetric"}, "NotAuthorizedException", None),
    ("CreateAlias", {"AliasName": "alias/a:b", "TargetKeyId": "symmetric"}, "ValidationException",
     "alias/a:b contains invalid characters for an alias"),
    ("CreateAlias", {"AliasName": "alias/x", "TargetKeyId": "alias/taken"}, "ValidationException",
     "Aliases must refer to keys. Not aliases"),
    ("CreateAlias", {"AliasName": "alias/taken", "TargetKeyId": "symmetric"}, "AlreadyExistsException",
     f"An alias with the name {ARN[:-4]}alias/taken already exists"),
    # uses
    *(
        ("Encrypt", {"KeyId": "rsa", "Plaintext": b64(b"x" * (most + 1)), "EncryptionAlgorithm": algorithm},
         "ValidationException",
         f"Algorithm {algorithm} and key spec RSA_2048 cannot encrypt data larger than {most} bytes.")
        for algorithm, most in (("RSAES_OAEP_SHA_1", 214), ("RSAES_OAEP_SHA_256", 190))
    ),
    ("Encrypt", {"KeyId": "rsa", "Plaintext": X}, "InvalidKeyUsageException",
     "Algorithm SYMMETRIC_DEFAULT is incompatible with key spec RSA_2048."),
    ("Encrypt", {"KeyId": "sign", "Plaintext": X}, "InvalidKeyUsageException",
     "{sign} key usage is SIGN_VERIFY which is not valid for Encrypt."),
    ("Encrypt", {"KeyId": "external", "Plaintext": X}, "KMSInvalidStateException", "{external} is pending import."),
    ("Encrypt", {"KeyId": "gone", "Plaintext": X}, "KMSInvalidStateException", "{gone} is pending deletion."),
    ("Encrypt", {"KeyId": "disabled", "Plaintext": X}, "DisabledException", "{disabled} is disabled."),
    ("Encrypt", {"KeyId": "symmetric", "Plaintext": X, "DryRun": True}, "DryRunOperationException",
     "The request would have succeeded, but the DryRun option is set."),
    ("Decrypt", {"CiphertextBlob": X}, "InvalidCiphertextException", None),
    ("GenerateDataKey", {"KeyId": "symmetric"}, "ValidationException",
     "Please specify either number of bytes or key spec."),
    ("Sign", {"KeyId": "mac", "Message": X, "SigningAlgorithm": "ECDSA_SHA_256"}, "InvalidKeyUsageException",
     "{mac} key usage is GENERATE_VERIFY_MAC which is not valid for Sign."),
    ("Verify", {"KeyId": "symmetric", "Message": X, "SigningAlgorithm": "ECDSA_SHA_256", "Signature": X},
     "InvalidKeyUsageException", "{symmetric} key usage is ENCRYPT_DECRYPT which is not valid for Verify."),
    ("Verify", {"KeyId": "sign", "Message": X, "SigningAlgorithm": "ECDSA_SHA_256", "Signature": X},
     "KMSInvalidSignatureException", None),
    ("Sign", {"KeyId": "sign", "Message": X, "SigningAlgorithm": "ECDSA_SHA_256", "MessageType": "DIGEST"},
     "ValidationException", "Digest is invalid length for algorithm ECDSA_SHA_256."),
    ("Sign", {"KeyId": "mldsa", "Message": X, "SigningAlgorithm": "ML_DSA_SHAKE_256", "MessageType": "EXTERNAL_MU"},
     "ValidationException", "Digest is invalid length for algorithm ML_DSA_SHAKE_256."),
    ("GenerateMac", {"KeyId": "symmetric", "Message": X, "MacAlgorithm": "HMAC_SHA_256"}, "InvalidKeyUsageException",
     "{symmetric} key usage is ENCRYPT_DECRYPT which is not valid for GenerateMac."),
    ("VerifyMac", {"KeyId": "symmetric", "Message": X, "Mac": X, "MacAlgorithm": "HMAC_SHA_256"},
     "InvalidKeyUsageException", "{symmetric} key usage is ENCRYPT_DECRYPT which is not valid for VerifyMac."),
    ("GenerateMac", {"KeyId": "mac", "Message": X, "MacAlgorithm": "HMAC_SHA_256"}, "InvalidKeyUsageException",
     "Algorithm HMAC_SHA_256 is incompatible with key spec HMAC_224."),
    ("VerifyMac", {"KeyId": "mac", "Message": X, "MacAlgorithm": "HMAC_SHA_224", "Mac": X}, "KMSInvalidMacException",
     None),
    ("DeriveSharedSecret", {"KeyId": "symmetric", "KeyAgreementAlgorithm": "ECDH", "PublicKey": X},
     "InvalidKeyUsageException",
     "{symmetric} key usage is ENCRYPT_DECRYPT which is not valid for DeriveSharedSecret."),
    ("DeriveSharedSecret", {"KeyId": "agree", "KeyAgreementAlgorithm": "ECDH", "PublicKey": X}, "ValidationException",
     None),
    ("DescribeCustomKeyStores", {}, "UnsupportedOperationException", "There are no custom key stores here."),
    ("Nothing", {}, "UnknownOperationException", None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("action", "given", "code", "sentence"), CASES, ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)]
)
def test_what_aws_says(
    amy: Client, keys: dict[str, str], action: str, given: dict[str, Any], code: str, sentence: str | None
) -> None:
    named = {name: keys.get(str(value), value) if "KeyId" in name else value for name, value in given.items()}
    told = {} if sentence is None else {"message": sentence.replace("{", "{0[").replace("}", "]}")}
    if told and "{0[" in told["message"]:
        told["message"] = told["message"].format({name: ARN + key for name, key in keys.items()})
    assert amy.answer(action, **named) == {"status": 400, "__type": code, **told}


def test_a_ciphertext_whose_key_is_not_here(shared_world: World, amy: Client, keys: dict[str, str]) -> None:
    sealed = amy.answer("Encrypt", KeyId=keys["symmetric"], Plaintext=X)["CiphertextBlob"]
    refused = {
        "status": 400,
        "__type": "AccessDeniedException",
        "message": "The ciphertext refers to a customer master key that does not exist, "
        "does not exist in this region, or you are not allowed to access.",
    }
    assert amy.answer("Decrypt", "eu-central-1", CiphertextBlob=sealed) == refused
    stranger = Client(shared_world, "stranger")
    assert stranger.answer("Decrypt", CiphertextBlob=sealed) == refused
    own = stranger.key()
    assert stranger.answer("ReEncrypt", CiphertextBlob=sealed, DestinationKeyId=own) == refused
    for client, key in ((stranger, own), (amy, amy.key()), (amy, keys["sign"]), (amy, keys["mac"])):
        wrong = client.answer("Decrypt", CiphertextBlob=sealed, KeyId=key)
        assert (wrong["__type"], wrong["message"]) == (
            "IncorrectKeyException",
            "The key ID in the request does not identify a CMK that can perform this operation.",
        )


def test_what_a_grant_does_not_permit(shared_world: World, amy: Client) -> None:
    bob, key = Client(shared_world, "bob"), amy.key()
    user = f"arn:aws:iam::{ACCOUNT}:user/bob"
    amy.answer("CreateGrant", KeyId=key, GranteePrincipal=user, Operations=["Encrypt"])
    assert bob.answer("Encrypt", KeyId=key, Plaintext=X)["KeyId"] == ARN + key
    assert bob.answer("DisableKey", KeyId=key) == {
        "status": 400,
        "__type": "AccessDeniedException",
        "message": f"User: {user} is not authorized to perform: kms:DisableKey on resource: {ARN}{key} "
        "because no resource-based policy allows the kms:DisableKey action",
    }
    passed_on = bob.answer("CreateGrant", KeyId=key, GranteePrincipal=user, Operations=["Encrypt"])
    assert (passed_on["__type"], "kms:CreateGrant" in passed_on["message"]) == ("AccessDeniedException", True)


def test_whose_keys_are_listed(amy: Client, keys: dict[str, str]) -> None:
    others = "OTHER_ACCOUNTS_VIA_RAM"
    for owners in (None, ["SELF"], [others, "SELF"]):
        assert amy.answer("ListKeys", ResourceOwners=owners)["Keys"]
    assert amy.answer("ListKeys", ResourceOwners=[others]) == {"Keys": [], "Truncated": False}


def test_null_is_absent(amy: Client, keys: dict[str, str]) -> None:
    made = amy.answer("CreateKey", Description=None, Tags=None, Origin=None, MultiRegion=None, KeySpec=None)
    key = made["KeyMetadata"]["KeyId"]
    sealed = amy.answer("Encrypt", KeyId=key, Plaintext=X, EncryptionContext=None, GrantTokens=None, DryRun=None)
    assert amy.answer("Decrypt", CiphertextBlob=sealed["CiphertextBlob"], KeyId=None)["Plaintext"] == X
    assert amy.answer("ListKeys", Limit=None, Marker=None)["Keys"]
    signed_ = {"KeyId": keys["sign"], "Message": X, "SigningAlgorithm": "ECDSA_SHA_256", "MessageType": None}
    assert amy.answer("Sign", **signed_)["Signature"]
    assert amy.answer("ScheduleKeyDeletion", KeyId=key, PendingWindowInDays=None)["PendingWindowInDays"] == 30
    # What stands in a map was sent, and must not be left out of what is authenticated.
    refused = amy.answer("Encrypt", KeyId=keys["symmetric"], Plaintext=X, EncryptionContext={"a": None})
    assert refused["__type"] == "SerializationException"


def test_no_refusal_repeats_what_is_secret(amy: Client, keys: dict[str, str]) -> None:
    secret = b64(os.urandom(4098))
    given: dict[str, Callable[[], dict[str, Any]]] = {
        "Encrypt": lambda: {"KeyId": keys["symmetric"], "Plaintext": secret},
        "Sign": lambda: {"KeyId": keys["sign"], "Message": secret, "SigningAlgorithm": "ECDSA_SHA_256"},
        "GenerateMac": lambda: {"KeyId": keys["mac"], "Message": secret, "MacAlgorithm": "HMAC_SHA_224"},
        "Decrypt": lambda: {"CiphertextBlob": secret * 2},
    }
    for action, asked in given.items():
        refused = amy.answer(action, **asked())
        assert refused["status"] == 400
        assert secret[:8] not in json.dumps(refused)
