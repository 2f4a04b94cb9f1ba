"""Calls of the AWS KMS API, and what they need, for any service that has it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any

from botocore.exceptions import ClientError
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding

REGION, ACCOUNT = "us-east-1", "123456789012"  # moto's own account, so that ARNs are equal
UNKNOWN = "00000000-0000-4000-8000-000000000000"
KEY_ARN = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/"

Outcome = dict[str, Any]
Thing = Callable[["Kms"], Any]


@dataclass
class Kms:
    """One of the two services, and what the calls of the table need there, each made once."""

    client: Any
    made: dict[Thing, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda **given: getattr(self.client, name)(**self.real(given))

    def real(self, value: Any) -> Any:
        """A value with every thing in it as it is in this service."""
        if isinstance(value, dict):
            return {name: self.real(each) for name, each in value.items()}
        if not callable(value):
            return value
        if value not in self.made:
            self.made[value] = value(self)
        return self.made[value]

    def outcome(self, case: str) -> Outcome:
        """The members of the answer by their paths; for a refusal only its code, as `refused`."""
        operation, _, what = case.partition(": ")
        if callable(asked := CASES[operation][what]):
            return dict(asked(self))
        given = self.real(asked)
        try:
            answer = getattr(self.client, operation)(**given)
        except ClientError as error:
            return {"refused": error.response["Error"]["Code"]}
        answer.pop("ResponseMetadata")
        told = (*given.values(), *(answer[member] for member in sorted(answer)))
        ids = re.findall(UUID, repr([each for each in told if type(each) is not bytes]))
        return dict(members(answer, list(dict.fromkeys(ids)), operation))


UUID = "[0-9a-f]{8}-[0-9a-f-]{27}"
OF_ANY_LENGTH = {"CiphertextBlob", "PrivateKeyCiphertextBlob", "PrivateKeyPlaintext", "Signature"}


def members(value: Any, ids: list[str], path: str) -> Iterator[tuple[str, Any]]:
    """What is not random in an answer, each member with its path."""
    operation, _, inner = path.partition(".")
    name = inner.rpartition(".")[2]
    if isinstance(value, dict):
        for member, each in value.items():
            yield from members(each, ids, f"{path}.{member}")
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for number, each in enumerate(value):
            yield from members(each, ids, f"{path}[{number}]")
    elif isinstance(value, datetime):
        yield inner, "a time"
    elif isinstance(value, bytes) and operation != "decrypt":
        yield inner, "bytes" if name in OF_ANY_LENGTH else f"{len(value)} bytes"
    elif name == "Policy":
        (statement,) = json.loads(value)["Statement"]
        yield inner, [statement[each] for each in ("Effect", "Action", "Resource")]
    elif name.endswith("MaterialId"):
        yield inner, "a material"
    elif name == "NextMarker":
        yield inner, "a marker"
    elif isinstance(value, str):
        yield inner, re.sub(UUID, lambda found: f"key-{ids.index(found[0]) + 1}", value)
    else:
        yield inner, value


def key(spec: str, usage: str, *calls: Any, **more: Any) -> Thing:
    """A key, after calls that have it as their KeyId: names of operations, or a name and what else is given."""

    def make(kms: Kms) -> str:
        made = str(kms.create_key(KeySpec=spec, KeyUsage=usage, **more)["KeyMetadata"]["KeyId"])
        for call in calls:
            name, given = (call, {}) if isinstance(call, str) else call
            getattr(kms, name)(KeyId=made, **given)
        return made

    return make


def symmetric(*calls: Any) -> Thing:
    """A symmetric key, after calls that have it as their KeyId."""
    return key("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", *calls)


def after(*calls: Any, **more: Any) -> Thing:
    """A key of any kind, so of the one that moto makes the fastest."""
    return key("ECC_NIST_P256", "SIGN_VERIFY", *calls, **more)


def named(prefix: str, of: Thing) -> Thing:
    """The name of a thing with something before it."""
    return lambda kms: prefix + kms.real(of)


def alias(name: str, *targets: Thing, end: str = "") -> Thing:
    """An alias that was given to one key after the other, before a call that ends the last."""

    def make(kms: Kms) -> str:
        for number, target in enumerate(targets):
            (kms.update_alias if number else kms.create_alias)(AliasName=name, TargetKeyId=target)
        if end:
            getattr(kms, end)(KeyId=targets[-1])
        return name

    return make


def with_aliases(*names: str) -> Thing:
    """A key with these aliases."""

    def make(kms: Kms) -> str:
        made = after()(kms)
        for name in names:
            kms.create_alias(AliasName=name, TargetKeyId=made)
        return made

    return make


def made_before(ends: tuple[str, ...], of: Thing, operation: str, member: str, **given: Any) -> Thing:
    """What a call on a key gives, before calls that have the same key as their KeyId."""

    def make(kms: Kms) -> bytes:
        answer = getattr(kms, operation)(KeyId=of, **given)
        for call in ends:
            getattr(kms, call)(KeyId=of)
        return bytes(answer[member])

    return make


def sealed(of: Thing, *ends: str, **given: Any) -> Thing:
    """A ciphertext under a key, before calls that end the key."""
    return made_before(ends, of, "encrypt", "CiphertextBlob", Plaintext=b"secret", **given)


def signature(of: Thing, algorithm: str, *ends: str) -> Thing:
    """A signature by a key, before calls that end the key."""
    return made_before(ends, of, "sign", "Signature", Message=MESSAGE, SigningAlgorithm=algorithm)


def code(of: Thing, *ends: str) -> Thing:
    """An HMAC by a key, before calls that end the key."""
    return made_before(ends, of, "generate_mac", "Mac", Message=MESSAGE, MacAlgorithm="HMAC_SHA_256")


def altered(of: Thing) -> Thing:
    """The bytes of a thing with the last one changed."""
    return lambda kms: kms.real(of)[:-1] + bytes([kms.real(of)[-1] ^ 1])


def from_outside(of: Thing, digest: Any) -> Thing:
    """A ciphertext that was made with the public key."""

    def make(kms: Kms) -> bytes:
        public: Any = serialization.load_der_public_key(kms.get_public_key(KeyId=of)["PublicKey"])
        return bytes(public.encrypt(b"secret", padding.OAEP(padding.MGF1(digest), digest, None)))

    return make


def two_of_three(kms: Kms) -> int:
    """A limit of two where there are three keys at least."""
    return len({after()(kms) for _ in range(3)}) - 1


def salt(kms: Kms) -> Outcome:
    """Whether a PSS signature has a salt of the length of the digest."""
    public: Any = serialization.load_der_public_key(kms.get_public_key(KeyId=RSA_SIGN)["PublicKey"])
    try:
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size)
        public.verify(kms.sign(**PSS)["Signature"], MESSAGE, pss, hashes.SHA256())
    except InvalidSignature:
        return {"as long as the digest": False}
    return {"as long as the digest": True}


MESSAGE = b"message"
DIGEST = sha256(MESSAGE).digest()
CONTEXT = {"order": "42", "customer": "7"}
PEER = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
)
TAG = {"TagKey": "a", "TagValue": "1"}
TAGS = [{"TagKey": name, "TagValue": name * 2} for name in "abc"]
MANY = [{"TagKey": f"{number}", "TagValue": ""} for number in range(51)]
OTHERS_POLICY = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
                "Action": "kms:*",
                "Resource": "*",
            }
        ],
    }
)

PLAIN, OTHER, SCRATCH = symmetric(), symmetric(), symmetric()
DISABLED, PENDING = symmetric("disable_key"), symmetric("schedule_key_deletion")
RSA, RSA_SIGN = key("RSA_2048", "ENCRYPT_DECRYPT"), key("RSA_2048", "SIGN_VERIFY")
P256, P384, K256 = (key(f"ECC_{curve}", "SIGN_VERIFY") for curve in ("NIST_P256", "NIST_P384", "SECG_P256K1"))
MAC, AGREE = key("HMAC_256", "GENERATE_VERIFY_MAC"), key("ECC_NIST_P256", "KEY_AGREEMENT")
DISABLED_P256, PENDING_P256 = (
    key("ECC_NIST_P256", "SIGN_VERIFY", end) for end in ("disable_key", "schedule_key_deletion")
)
DISABLED_MAC, PENDING_MAC = (
    key("HMAC_256", "GENERATE_VERIFY_MAC", end) for end in ("disable_key", "schedule_key_deletion")
)
ALIAS, MOVED = alias("alias/orders", PLAIN), alias("alias/moved", PLAIN, OTHER)
SEALED, IN_CONTEXT = sealed(PLAIN), sealed(PLAIN, EncryptionContext=CONTEXT)
ROTATED = symmetric(*["rotate_key_on_demand"] * 3)
TAGGED = after(Tags=TAGS)
BY_RSA, BY_P256 = (signature(RSA_SIGN, "RSASSA_PKCS1_V1_5_SHA_256"), signature(P256, "ECDSA_SHA_256"))
PSS, PKCS1, ECDSA = (
    {"KeyId": of, "Message": MESSAGE, "SigningAlgorithm": algorithm}
    for of, algorithm in (
        (RSA_SIGN, "RSASSA_PSS_SHA_256"),
        (RSA_SIGN, "RSASSA_PKCS1_V1_5_SHA_256"),
        (P256, "ECDSA_SHA_256"),
    )
)
CODE = {"KeyId": MAC, "Message": MESSAGE, "MacAlgorithm": "HMAC_SHA_256"}
OAEP = {"KeyId": RSA, "EncryptionAlgorithm": "RSAES_OAEP_SHA_256"}

CASES: dict[str, dict[str, Any]] = {
    "create_key": {
        "of no spec": {},
        "with a description and tags": {"Description": "orders", "Tags": TAGS},
        **{
            f"{spec} for {usage}": {"KeySpec": spec, "KeyUsage": usage}
            for usage, specs in {
                "ENCRYPT_DECRYPT": ["SYMMETRIC_DEFAULT", "RSA_2048", "RSA_3072", "RSA_4096"],
                "SIGN_VERIFY": [
                    "RSA_2048", "ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521", "ECC_SECG_P256K1",
                    "ECC_NIST_EDWARDS25519", "ML_DSA_44", "ML_DSA_65", "ML_DSA_87",
                ],
                "GENERATE_VERIFY_MAC": ["HMAC_256", "HMAC_384", "HMAC_512"],
                "KEY_AGREEMENT": ["ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521"],
                "ENCAPSULATE_DECAPSULATE": ["ML_KEM_768", "ML_KEM_1024"],
            }.items()
            for spec in specs
        },
        "by the old name of the spec": {"CustomerMasterKeySpec": "RSA_2048", "KeyUsage": "SIGN_VERIFY"},
        "RSA_2048 for nothing said": {"KeySpec": "RSA_2048"},
        "HMAC_256 for nothing said": {"KeySpec": "HMAC_256"},
        "RSA_2048 for KEY_AGREEMENT": {"KeySpec": "RSA_2048", "KeyUsage": "KEY_AGREEMENT"},
        "HMAC_256 for SIGN_VERIFY": {"KeySpec": "HMAC_256", "KeyUsage": "SIGN_VERIFY"},
        "ECC_NIST_P256 for ENCRYPT_DECRYPT": {"KeySpec": "ECC_NIST_P256", "KeyUsage": "ENCRYPT_DECRYPT"},
        "SYMMETRIC_DEFAULT for SIGN_VERIFY": {"KeySpec": "SYMMETRIC_DEFAULT", "KeyUsage": "SIGN_VERIFY"},
        "of an unknown spec": {"KeySpec": "AES_256"},
        "for an unknown usage": {"KeyUsage": "TO_LOOK_AT"},
        "of an unknown origin": {"Origin": "SOMEWHERE"},
        "with a description of 8193": {"Description": "x" * 8193},
        "with a tag twice": {"Tags": [TAG, TAG]},
        "with a tag of AWS": {"Tags": [{"TagKey": "aws:x", "TagValue": ""}]},
        "with 51 tags": {"Tags": MANY},
        "with a policy": {"Policy": OTHERS_POLICY},
        "with a policy that is no JSON": {"Policy": "{"},
    },
    "describe_key": {
        "by its id": {"KeyId": PLAIN},
        "by its ARN": {"KeyId": named(KEY_ARN, PLAIN)},
        "by its alias": {"KeyId": ALIAS},
        "by the ARN of its alias": {"KeyId": named(f"arn:aws:kms:{REGION}:{ACCOUNT}:", ALIAS)},
        "by an alias that has moved": {"KeyId": MOVED},
        "that is disabled": {"KeyId": DISABLED},
        "that is enabled again": {"KeyId": after("disable_key", "disable_key", "enable_key", "enable_key")},
        "that is to be deleted": {"KeyId": PENDING},
        "that was to be deleted": {"KeyId": after("schedule_key_deletion", "cancel_key_deletion")},
        "of another description": {"KeyId": after(("update_key_description", {"Description": "new"}))},
        "unknown": {"KeyId": UNKNOWN},
        "by what is no id": {"KeyId": "nothing"},
        "by an unknown ARN": {"KeyId": KEY_ARN + UNKNOWN},
        "by an unknown alias": {"KeyId": "alias/nothing"},
        "by the ARN of an unknown alias": {"KeyId": f"arn:aws:kms:{REGION}:{ACCOUNT}:alias/nothing"},
        "by an ARN of another region": {"KeyId": named(f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/", PLAIN)},
        "by an ARN of another service": {"KeyId": "arn:aws:s3:::bucket"},
        "by an ARN of nothing": {"KeyId": "arn:aws:kms"},
        "by an ARN of another resource": {"KeyId": f"arn:aws:kms:{REGION}:{ACCOUNT}:grant/x"},
        "without an id": {},
        "by an empty id": {"KeyId": ""},
        "by an id of 2049": {"KeyId": "x" * 2049},
    },
    "list_keys": {
        "two of them": {"Limit": two_of_three},
        "none of them": {"Limit": 0},
        "1001 of them": {"Limit": 1001},
        "from a marker that is none": {"Marker": "not a marker"},
    },
    "update_key_description": {
        "of a key": {"KeyId": SCRATCH, "Description": "new"},
        "of a disabled key": {"KeyId": DISABLED, "Description": "new"},
        "of a key to be deleted": {"KeyId": after("schedule_key_deletion"), "Description": "new"},
        "of an unknown key": {"KeyId": UNKNOWN, "Description": "new"},
        "by an alias": {"KeyId": ALIAS, "Description": "new"},
        "to 8193": {"KeyId": SCRATCH, "Description": "x" * 8193},
        "to nothing said": {"KeyId": SCRATCH},
    },
    "enable_key": {
        "that is enabled": {"KeyId": after()},
        "that is disabled": {"KeyId": after("disable_key")},
        "that is to be deleted": {"KeyId": after("schedule_key_deletion")},
        "unknown": {"KeyId": UNKNOWN},
        "by an alias": {"KeyId": ALIAS},
    },
    "disable_key": {
        "that is enabled": {"KeyId": after()},
        "by its ARN": {"KeyId": named(KEY_ARN, after())},
        "that is disabled": {"KeyId": after("disable_key")},
        "that is to be deleted": {"KeyId": after("schedule_key_deletion")},
        "unknown": {"KeyId": UNKNOWN},
        "by an alias": {"KeyId": ALIAS},
    },
    "schedule_key_deletion": {
        "in 30 days": {"KeyId": after()},
        "by its ARN": {"KeyId": named(KEY_ARN, after())},
        "in a week": {"KeyId": after(), "PendingWindowInDays": 7},
        "in 6 days": {"KeyId": after(), "PendingWindowInDays": 6},
        "in 31 days": {"KeyId": after(), "PendingWindowInDays": 31},
        "that is disabled": {"KeyId": after("disable_key")},
        "twice": {"KeyId": after("schedule_key_deletion")},
        "unknown": {"KeyId": UNKNOWN},
        "by an alias": {"KeyId": ALIAS},
    },
    "cancel_key_deletion": {
        "of a key to be deleted": {"KeyId": after("schedule_key_deletion")},
        "twice": {"KeyId": after("schedule_key_deletion", "cancel_key_deletion")},
        "of a key that stays": {"KeyId": after()},
        "of an unknown key": {"KeyId": UNKNOWN},
    },
    "tag_resource": {
        "new": {"KeyId": SCRATCH, "Tags": TAGS},
        "of a disabled key": {"KeyId": DISABLED, "Tags": TAGS},
        "of a key to be deleted": {"KeyId": PENDING, "Tags": TAGS},
        "of an unknown key": {"KeyId": UNKNOWN, "Tags": TAGS},
        "by an alias": {"KeyId": ALIAS, "Tags": TAGS},
        "twice": {"KeyId": SCRATCH, "Tags": [TAG, TAG]},
        "of AWS": {"KeyId": SCRATCH, "Tags": [{"TagKey": "aws:x", "TagValue": ""}]},
        "51 of them": {"KeyId": SCRATCH, "Tags": MANY},
        "one too many": {"KeyId": after(Tags=MANY[:50]), "Tags": [TAG]},
        "without a name": {"KeyId": SCRATCH, "Tags": [{"TagKey": "", "TagValue": ""}]},
        "with a name of 129": {"KeyId": SCRATCH, "Tags": [{"TagKey": "x" * 129, "TagValue": ""}]},
        "with a value of 257": {"KeyId": SCRATCH, "Tags": [{"TagKey": "x", "TagValue": "x" * 257}]},
        "without a value": {"KeyId": SCRATCH, "Tags": [{"TagKey": "x"}]},
    },
    "untag_resource": {
        "one of them": {"KeyId": after(Tags=TAGS), "TagKeys": ["a"]},
        "one that is not there": {"KeyId": after(Tags=TAGS), "TagKeys": ["zzz"]},
        "of a key to be deleted": {"KeyId": PENDING, "TagKeys": ["a"]},
        "of an unknown key": {"KeyId": UNKNOWN, "TagKeys": ["a"]},
        "by an alias": {"KeyId": ALIAS, "TagKeys": ["a"]},
    },
    "list_resource_tags": {
        "of a key": {"KeyId": TAGGED},
        "of a key without any": {"KeyId": PLAIN},
        "of a dying key": {"KeyId": after("schedule_key_deletion", Tags=TAGS)},
        "with one more": {"KeyId": after(("tag_resource", {"Tags": TAGS}))},
        "with one changed": {
            "KeyId": after(("tag_resource", {"Tags": [{**TAG, "TagValue": "new"}]}), Tags=TAGS
            )
        },
        "with one taken": {
            "KeyId": after(("untag_resource", {"TagKeys": ["a"]}), Tags=TAGS)
        },
        "two of them": {"KeyId": TAGGED, "Limit": 2},
        "none of them": {"KeyId": TAGGED, "Limit": 0},
        "of an unknown key": {"KeyId": UNKNOWN},
        "by an alias": {"KeyId": ALIAS},
    },
    "get_key_policy": {
        "of a key": {"KeyId": PLAIN, "PolicyName": "default"},
        "of no name": {"KeyId": PLAIN},
        "of another name": {"KeyId": PLAIN, "PolicyName": "other"},
        "of an unknown key": {"KeyId": UNKNOWN, "PolicyName": "default"},
        "by an alias": {"KeyId": ALIAS, "PolicyName": "default"},
    },
    "put_key_policy": {
        "of the account": {"KeyId": SCRATCH, "PolicyName": "default", "Policy": OTHERS_POLICY},
        "of a key to be deleted": {"KeyId": PENDING, "PolicyName": "default", "Policy": OTHERS_POLICY},
        "of no name": {"KeyId": SCRATCH, "Policy": OTHERS_POLICY},
        "of another name": {"KeyId": SCRATCH, "PolicyName": "other", "Policy": OTHERS_POLICY},
        "that is no JSON": {"KeyId": SCRATCH, "PolicyName": "default", "Policy": "{"},
        "that is empty": {"KeyId": SCRATCH, "PolicyName": "default", "Policy": ""},
        "of an unknown key": {"KeyId": UNKNOWN, "PolicyName": "default", "Policy": OTHERS_POLICY},
    },
    "list_key_policies": {
        "of a key": {"KeyId": PLAIN},
        "of an unknown key": {"KeyId": UNKNOWN},
        "by an alias": {"KeyId": ALIAS},
    },
    "enable_key_rotation": {
        "of a key": {"KeyId": SCRATCH},
        "every 90 days": {"KeyId": SCRATCH, "RotationPeriodInDays": 90},
        "every 89 days": {"KeyId": SCRATCH, "RotationPeriodInDays": 89},
        "every 2561 days": {"KeyId": SCRATCH, "RotationPeriodInDays": 2561},
        "of a disabled key": {"KeyId": DISABLED},
        "of a key to be deleted": {"KeyId": PENDING},
        "of an RSA key": {"KeyId": RSA},
        "of an HMAC key": {"KeyId": MAC},
        "of an unknown key": {"KeyId": UNKNOWN},
        "by an alias": {"KeyId": ALIAS},
    },
    "disable_key_rotation": {
        "of a key": {"KeyId": symmetric("enable_key_rotation")},
        "of a key that does not rotate": {"KeyId": PLAIN},
        "of a disabled key": {"KeyId": DISABLED},
        "of a key to be deleted": {"KeyId": PENDING},
        "of an RSA key": {"KeyId": RSA},
        "of an unknown key": {"KeyId": UNKNOWN},
    },
    "get_key_rotation_status": {
        "of a key": {"KeyId": PLAIN},
        "of a key that rotates": {"KeyId": symmetric("enable_key_rotation")},
        "of a key that no longer rotates": {"KeyId": symmetric("enable_key_rotation", "disable_key_rotation")},
        "of a disabled key that rotates": {"KeyId": symmetric("enable_key_rotation", "disable_key")},
        "of a key that is to be deleted": {"KeyId": symmetric("enable_key_rotation", "schedule_key_deletion")},
        "of a key that was to be deleted": {
            "KeyId": symmetric("enable_key_rotation", "schedule_key_deletion", "cancel_key_deletion")
        },
        "of an RSA key": {"KeyId": RSA},
        "of an unknown key": {"KeyId": UNKNOWN},
        "by an alias": {"KeyId": ALIAS},
    },
    "rotate_key_on_demand": {
        "of a key": {"KeyId": SCRATCH},
        "of a disabled key": {"KeyId": DISABLED},
        "of a key to be deleted": {"KeyId": PENDING},
        "of an RSA key": {"KeyId": RSA},
        "of an unknown key": {"KeyId": UNKNOWN},
    },
    "list_key_rotations": {
        "of a key": {"KeyId": ROTATED},
        "of a key that never rotated": {"KeyId": PLAIN},
        "two of them": {"KeyId": ROTATED, "Limit": 2},
        "the rest": {
            "KeyId": ROTATED,
            "Limit": 2,
            "Marker": lambda kms: kms.list_key_rotations(KeyId=ROTATED, Limit=2)["NextMarker"],
        },
        "none of them": {"KeyId": ROTATED, "Limit": 0},
        "of an RSA key": {"KeyId": RSA},
        "of an unknown key": {"KeyId": UNKNOWN},
    },
    "create_alias": {
        "new": {"AliasName": "alias/new", "TargetKeyId": PLAIN},
        "with every character": {"AliasName": "alias/aZ09/_-", "TargetKeyId": PLAIN},
        "for an ARN": {"AliasName": "alias/for-arn", "TargetKeyId": named(KEY_ARN, PLAIN)},
        "twice": {"AliasName": ALIAS, "TargetKeyId": PLAIN},
        "twice for another key": {"AliasName": ALIAS, "TargetKeyId": OTHER},
        "of AWS": {"AliasName": "alias/aws/s3", "TargetKeyId": PLAIN},
        "that AWS could have": {"AliasName": "alias/aws/mine", "TargetKeyId": PLAIN},
        "without its prefix": {"AliasName": "orders", "TargetKeyId": PLAIN},
        "that is only the prefix": {"AliasName": "alias/", "TargetKeyId": PLAIN},
        "with a space": {"AliasName": "alias/a b", "TargetKeyId": PLAIN},
        "with a colon": {"AliasName": "alias/a:b", "TargetKeyId": PLAIN},
        "of 257": {"AliasName": "alias/" + "x" * 251, "TargetKeyId": PLAIN},
        "for an alias": {"AliasName": "alias/for-alias", "TargetKeyId": ALIAS},
        "for a disabled key": {"AliasName": "alias/for-disabled", "TargetKeyId": DISABLED},
        "for a key to be deleted": {"AliasName": "alias/for-pending", "TargetKeyId": PENDING},
        "for an unknown key": {"AliasName": "alias/for-unknown", "TargetKeyId": UNKNOWN},
        "for nothing": {"AliasName": "alias/for-nothing"},
    },
    "update_alias": {
        "to another key": {"AliasName": alias("alias/goes", PLAIN), "TargetKeyId": OTHER},
        "to its own key": {"AliasName": alias("alias/stays", PLAIN), "TargetKeyId": PLAIN},
        "to a key of another usage": {"AliasName": alias("alias/usage", RSA), "TargetKeyId": RSA_SIGN},
        "to a key of another type": {"AliasName": alias("alias/type", PLAIN), "TargetKeyId": RSA},
        "to another spec of its usage": {"AliasName": alias("alias/spec", RSA_SIGN), "TargetKeyId": P256},
        "to a key to be deleted": {"AliasName": alias("alias/dies", PLAIN), "TargetKeyId": PENDING},
        "away from a key to be deleted": {
            "AliasName": alias("alias/lives", after(), end="schedule_key_deletion"), "TargetKeyId": P256
        },
        "to an unknown key": {"AliasName": alias("alias/lost", PLAIN), "TargetKeyId": UNKNOWN},
        "that is not there": {"AliasName": "alias/nothing", "TargetKeyId": PLAIN},
        "without its prefix": {"AliasName": "nothing", "TargetKeyId": PLAIN},
    },
    "delete_alias": {
        "of a key": {"AliasName": alias("alias/short", PLAIN)},
        "of a disabled key": {"AliasName": alias("alias/disabled", DISABLED)},
        "of a key that is to be deleted": {"AliasName": alias("alias/dying", after(), end="schedule_key_deletion")},
        "that is not there": {"AliasName": "alias/nothing"},
        "without its prefix": {"AliasName": "nothing"},
    },
    "list_aliases": {
        "of a key": {"KeyId": with_aliases("alias/list/a", "alias/list/b", "alias/list/c")},
        "of a key without any": {"KeyId": TAGGED},
        "two of them": {"KeyId": with_aliases("alias/two/a", "alias/two/b", "alias/two/c"), "Limit": 2},
        "none of them": {"KeyId": PLAIN, "Limit": 0},
        "1001 of them": {"KeyId": PLAIN, "Limit": 1001},
        "from a marker that is none": {"Marker": "not a marker"},
        "of an unknown key": {"KeyId": UNKNOWN},
    },
    "encrypt": {
        "by id": {"KeyId": PLAIN, "Plaintext": b"x"},
        "by ARN": {"KeyId": named(KEY_ARN, PLAIN), "Plaintext": b"x"},
        "by alias": {"KeyId": ALIAS, "Plaintext": b"x"},
        "by an unknown alias": {"KeyId": "alias/nothing", "Plaintext": b"x"},
        "by a malformed ARN": {"KeyId": "arn:aws:kms:nowhere", "Plaintext": b"x"},
        "in a context": {"KeyId": PLAIN, "Plaintext": b"x", "EncryptionContext": CONTEXT},
        "4096": {"KeyId": PLAIN, "Plaintext": b"x" * 4096},
        "4097": {"KeyId": PLAIN, "Plaintext": b"x" * 4097},
        "nothing": {"KeyId": PLAIN, "Plaintext": b""},
        "what is missing": {"KeyId": PLAIN},
        "with a disabled key": {"KeyId": DISABLED, "Plaintext": b"x"},
        "with a key to be deleted": {"KeyId": PENDING, "Plaintext": b"x"},
        "with an unknown key": {"KeyId": UNKNOWN, "Plaintext": b"x"},
        "with an RSA key": {**OAEP, "Plaintext": b"x"},
        "with an RSA key, too much": {**OAEP, "Plaintext": b"x" * 191},
        "with an RSA key, symmetrically": {"KeyId": RSA, "Plaintext": b"x"},
        "with an RSA key, in a context": {**OAEP, "Plaintext": b"x", "EncryptionContext": CONTEXT},
        "with a symmetric key, asymmetrically": {**OAEP, "KeyId": PLAIN, "Plaintext": b"x"},
        "with a key to sign": {**OAEP, "KeyId": RSA_SIGN, "Plaintext": b"x"},
        "with an HMAC key": {"KeyId": MAC, "Plaintext": b"x"},
        "by an unknown algorithm": {"KeyId": PLAIN, "Plaintext": b"x", "EncryptionAlgorithm": "ROT13"},
        "not really": {"KeyId": PLAIN, "Plaintext": b"x", "DryRun": True},
    },
    "decrypt": {
        "what was encrypted": {"CiphertextBlob": SEALED},
        "with its key": {"CiphertextBlob": SEALED, "KeyId": PLAIN},
        "with its alias": {"CiphertextBlob": SEALED, "KeyId": ALIAS},
        "in its context": {"CiphertextBlob": IN_CONTEXT, "EncryptionContext": dict(reversed(CONTEXT.items()))},
        "without its context": {"CiphertextBlob": IN_CONTEXT},
        "in another context": {"CiphertextBlob": IN_CONTEXT, "EncryptionContext": {**CONTEXT, "order": "43"}},
        "in half of its context": {"CiphertextBlob": IN_CONTEXT, "EncryptionContext": {"order": "42"}},
        "in a context that runs together the same": {
            "CiphertextBlob": sealed(PLAIN, EncryptionContext={"ab": "c"}), "EncryptionContext": {"a": "bc"}
        },
        "in a context where there was none": {"CiphertextBlob": SEALED, "EncryptionContext": CONTEXT},
        "what was altered": {"CiphertextBlob": altered(SEALED)},
        "what was cut": {"CiphertextBlob": lambda kms: kms.real(SEALED)[:-1]},
        "garbage": {"CiphertextBlob": b"garbage"},
        "garbage with a key": {"CiphertextBlob": b"garbage", "KeyId": PLAIN},
        "with another key": {"CiphertextBlob": SEALED, "KeyId": OTHER},
        "with a key to sign": {"CiphertextBlob": SEALED, "KeyId": RSA_SIGN},
        "with an unknown key": {"CiphertextBlob": SEALED, "KeyId": UNKNOWN},
        "after its key was disabled": {"CiphertextBlob": sealed(symmetric(), "disable_key")},
        "after its key was enabled again": {"CiphertextBlob": sealed(symmetric(), "disable_key", "enable_key")},
        "while its key is to be deleted": {"CiphertextBlob": sealed(symmetric(), "schedule_key_deletion")},
        "after its key was rotated": {"CiphertextBlob": sealed(symmetric(), "rotate_key_on_demand")},
        "nothing": {"CiphertextBlob": b""},
        "what is missing": {},
        "RSA": {**OAEP, "CiphertextBlob": sealed(RSA, EncryptionAlgorithm="RSAES_OAEP_SHA_256")},
        "RSA from outside": {**OAEP, "CiphertextBlob": from_outside(RSA, hashes.SHA256())},
        "RSA from outside by SHA-1": {
            **OAEP, "EncryptionAlgorithm": "RSAES_OAEP_SHA_1", "CiphertextBlob": from_outside(RSA, hashes.SHA1())
        },
        "RSA by another algorithm": {
            **OAEP, "EncryptionAlgorithm": "RSAES_OAEP_SHA_1", "CiphertextBlob": from_outside(RSA, hashes.SHA256())
        },
        "RSA without a key": {
            "EncryptionAlgorithm": "RSAES_OAEP_SHA_256",
            "CiphertextBlob": sealed(RSA, EncryptionAlgorithm="RSAES_OAEP_SHA_256"),
        },
        "not really": {"CiphertextBlob": SEALED, "DryRun": True},
    },
    "re_encrypt": {
        "for another key": {"CiphertextBlob": SEALED, "DestinationKeyId": OTHER},
        "for its own key": {"CiphertextBlob": SEALED, "DestinationKeyId": PLAIN},
        "for an alias": {"CiphertextBlob": SEALED, "DestinationKeyId": ALIAS},
        "with its key": {"CiphertextBlob": SEALED, "SourceKeyId": PLAIN, "DestinationKeyId": OTHER},
        "with another key": {"CiphertextBlob": SEALED, "SourceKeyId": OTHER, "DestinationKeyId": OTHER},
        "from context to context": {
            "CiphertextBlob": IN_CONTEXT,
            "SourceEncryptionContext": CONTEXT,
            "DestinationEncryptionContext": {"new": "context"},
            "DestinationKeyId": OTHER,
        },
        "without its context": {"CiphertextBlob": IN_CONTEXT, "DestinationKeyId": OTHER},
        "for an RSA key": {
            "CiphertextBlob": SEALED,
            "DestinationKeyId": RSA,
            "DestinationEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
        },
        "for a key to sign": {"CiphertextBlob": SEALED, "DestinationKeyId": RSA_SIGN},
        "for a disabled key": {"CiphertextBlob": SEALED, "DestinationKeyId": DISABLED},
        "for a key to be deleted": {"CiphertextBlob": SEALED, "DestinationKeyId": PENDING},
        "from a disabled key": {"CiphertextBlob": sealed(symmetric(), "disable_key"), "DestinationKeyId": OTHER},
        "for an unknown key": {"CiphertextBlob": SEALED, "DestinationKeyId": UNKNOWN},
        "garbage": {"CiphertextBlob": b"garbage", "DestinationKeyId": OTHER},
        "for nobody": {"CiphertextBlob": SEALED},
    },
    **{
        operation: {
            "AES_256": {"KeyId": PLAIN, "KeySpec": "AES_256"},
            "AES_128": {"KeyId": ALIAS, "KeySpec": "AES_128"},
            "of 1024": {"KeyId": PLAIN, "NumberOfBytes": 1024, "EncryptionContext": CONTEXT},
            "of 0": {"KeyId": PLAIN, "NumberOfBytes": 0},
            "of 1025": {"KeyId": PLAIN, "NumberOfBytes": 1025},
            "of both": {"KeyId": PLAIN, "NumberOfBytes": 32, "KeySpec": "AES_256"},
            "of neither": {"KeyId": PLAIN},
            "of an unknown spec": {"KeyId": PLAIN, "KeySpec": "AES_512"},
            "under a disabled key": {"KeyId": DISABLED, "KeySpec": "AES_256"},
            "under a key to be deleted": {"KeyId": PENDING, "KeySpec": "AES_256"},
            "under an RSA key": {"KeyId": RSA, "KeySpec": "AES_256"},
            "under an HMAC key": {"KeyId": MAC, "KeySpec": "AES_256"},
            "under an unknown key": {"KeyId": UNKNOWN, "KeySpec": "AES_256"},
            "not really": {"KeyId": PLAIN, "KeySpec": "AES_256", "DryRun": True},
        }
        for operation in ("generate_data_key", "generate_data_key_without_plaintext")
    },
    **{
        operation: {"for P-256": {"KeyId": PLAIN, "KeyPairSpec": "ECC_NIST_P256"}}
        for operation in ("generate_data_key_pair", "generate_data_key_pair_without_plaintext")
    },
    "generate_random": {
        "1": {"NumberOfBytes": 1},
        "1024": {"NumberOfBytes": 1024},
        "0": {"NumberOfBytes": 0},
        "1025": {"NumberOfBytes": 1025},
        "how much is missing": {},
    },
    "sign": {
        "with PSS": PSS,
        "with the salt of PSS": salt,
        "with PKCS #1": PKCS1,
        "with P-256": ECDSA,
        "with P-384": {"KeyId": P384, "Message": MESSAGE, "SigningAlgorithm": "ECDSA_SHA_384"},
        "with secp256k1": {"KeyId": K256, "Message": MESSAGE, "SigningAlgorithm": "ECDSA_SHA_256"},
        "a digest": {**PSS, "Message": DIGEST, "MessageType": "DIGEST"},
        "a digest of the wrong length": {**PSS, "Message": DIGEST[:-1], "MessageType": "DIGEST"},
        "by the algorithm of another curve": {**ECDSA, "SigningAlgorithm": "ECDSA_SHA_384"},
        "by the algorithm of another type": {**ECDSA, "SigningAlgorithm": "RSASSA_PSS_SHA_256"},
        "by an unknown algorithm": {**ECDSA, "SigningAlgorithm": "MD5"},
        "a message of an unknown type": {**ECDSA, "MessageType": "LETTER"},
        "nothing": {**ECDSA, "Message": b""},
        "4097": {**ECDSA, "Message": b"x" * 4097},
        "with a key to encrypt": {**PSS, "KeyId": RSA},
        "with an HMAC key": {**ECDSA, "KeyId": MAC},
        "with a disabled key": {**ECDSA, "KeyId": DISABLED_P256},
        "with a key to be deleted": {**ECDSA, "KeyId": PENDING_P256},
        "with an unknown key": {**ECDSA, "KeyId": UNKNOWN},
        "not really": {**ECDSA, "DryRun": True},
    },
    "verify": {
        "by RSA": {**PKCS1, "Signature": BY_RSA},
        "by P-256": {**ECDSA, "Signature": BY_P256},
        "of a message as its digest": {**ECDSA, "Message": DIGEST, "MessageType": "DIGEST", "Signature": BY_P256},
        "of a digest of the wrong length": {
            **ECDSA, "Message": DIGEST[:-1], "MessageType": "DIGEST", "Signature": BY_P256
        },
        "altered": {**PKCS1, "Signature": altered(BY_RSA)},
        "of another message": {**ECDSA, "Message": b"other", "Signature": BY_P256},
        "garbage": {**ECDSA, "Signature": b"garbage"},
        "nothing": {**ECDSA, "Signature": b""},
        "by another algorithm": {**PSS, "Signature": BY_RSA},
        "by an algorithm that the key has not": {**ECDSA, "SigningAlgorithm": "ECDSA_SHA_512", "Signature": BY_P256},
        "with a key to encrypt": {**PKCS1, "KeyId": RSA, "Signature": BY_RSA},
        "with a disabled key": {
            **ECDSA, "KeyId": (disabled := key("ECC_NIST_P256", "SIGN_VERIFY")),
            "Signature": signature(disabled, "ECDSA_SHA_256", "disable_key"),
        },
        "with a key to be deleted": {
            **ECDSA, "KeyId": (dying := key("ECC_NIST_P256", "SIGN_VERIFY")),
            "Signature": signature(dying, "ECDSA_SHA_256", "schedule_key_deletion"),
        },
        "with an unknown key": {**ECDSA, "KeyId": UNKNOWN, "Signature": BY_P256},
    },
    "generate_mac": {
        "HMAC_256": CODE,
        "HMAC_384": {**CODE, "KeyId": key("HMAC_384", "GENERATE_VERIFY_MAC"), "MacAlgorithm": "HMAC_SHA_384"},
        "HMAC_512": {**CODE, "KeyId": key("HMAC_512", "GENERATE_VERIFY_MAC"), "MacAlgorithm": "HMAC_SHA_512"},
        "by the algorithm of another spec": {**CODE, "MacAlgorithm": "HMAC_SHA_512"},
        "by an unknown algorithm": {**CODE, "MacAlgorithm": "MD5"},
        "with a key to encrypt": {**CODE, "KeyId": PLAIN},
        "with a disabled key": {**CODE, "KeyId": DISABLED_MAC},
        "with a key to be deleted": {**CODE, "KeyId": PENDING_MAC},
        "with an unknown key": {**CODE, "KeyId": UNKNOWN},
        "of nothing": {**CODE, "Message": b""},
        "of 4097": {**CODE, "Message": b"x" * 4097},
        "not really": {**CODE, "DryRun": True},
    },
    "verify_mac": {
        "of a message": {**CODE, "Mac": code(MAC)},
        "altered": {**CODE, "Mac": altered(code(MAC))},
        "of another message": {**CODE, "Message": b"other", "Mac": code(MAC)},
        "by the algorithm of another spec": {**CODE, "MacAlgorithm": "HMAC_SHA_512", "Mac": code(MAC)},
        "with a key to encrypt": {**CODE, "KeyId": PLAIN, "Mac": code(MAC)},
        "with a disabled key": {
            **CODE, "KeyId": (lost := key("HMAC_256", "GENERATE_VERIFY_MAC")),
            "Mac": code(lost, "disable_key"),
        },
        "with a key to be deleted": {
            **CODE, "KeyId": (left := key("HMAC_256", "GENERATE_VERIFY_MAC")),
            "Mac": code(left, "schedule_key_deletion"),
        },
        "with an unknown key": {**CODE, "KeyId": UNKNOWN, "Mac": code(MAC)},
    },
    "get_public_key": {
        "RSA": {"KeyId": RSA},
        "RSA to sign": {"KeyId": RSA_SIGN},
        "P-256": {"KeyId": P256},
        "P-384": {"KeyId": P384},
        "secp256k1": {"KeyId": K256},
        "to agree": {"KeyId": AGREE},
        "of a symmetric key": {"KeyId": PLAIN},
        "of an HMAC key": {"KeyId": MAC},
        "of a disabled key": {"KeyId": DISABLED_P256},
        "of a key to be deleted": {"KeyId": PENDING_P256},
        "of an unknown key": {"KeyId": UNKNOWN},
    },
    "derive_shared_secret": {
        "on P-256": {"KeyId": AGREE, "KeyAgreementAlgorithm": "ECDH", "PublicKey": PEER},
    },
    "encapsulate": {
        "for an unknown key": {"KeyId": UNKNOWN, "EncapsulationAlgorithm": "ML_KEM"},
    },
    "decapsulate": {
        "with an unknown key": {
            "KeyId": UNKNOWN, "EncapsulationAlgorithm": "ML_KEM", "SharedSecretCiphertextBlob": b"x" * 1088
        },
    },
}  # fmt: skip
