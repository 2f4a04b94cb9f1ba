"""The same calls on this service and on moto: equal outcomes, but for listed differences, in which AWS is right."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
from botocore import xform_name
from botocore.config import Config

from helpers.aws_calls import ACCOUNT, CASES, KEY_ARN, REGION, Kms, Outcome
from helpers.running import Start
from helpers.support import free_port

pytestmark = pytest.mark.slow
PAGE = Path(__file__).parents[2] / "docs/reference/aws.md"
ANSWERS = "answers"


@dataclass(frozen=True)
class Difference:
    """What AWS documents, and what moto does instead in those cases: patterns of "operation: what".

    Either one refuses and the other does not, or not with the same exception; or `members` have one of those pairs of
    values, first ours, then moto's (None for no such member). With `more`, other members differ for that too.
    """

    documented: str
    moto: str
    cases: tuple[str, ...]
    ours: str = ANSWERS
    theirs: str = ANSWERS
    members: dict[str, list[tuple[Any, Any]]] = field(default_factory=dict)
    more: bool = False

    def covers(self, case: str) -> bool:
        return any(fnmatchcase(case, pattern) for pattern in self.cases)

    def explained(self, unequal: dict[str, tuple[Any, Any]]) -> set[str]:
        """The members that differ for this reason."""
        if unequal.get("refused") == (self.ours, self.theirs) or (self.more and self._members(unequal)):
            return set(unequal)
        return self._members(unequal)

    def _members(self, unequal: dict[str, tuple[Any, Any]]) -> set[str]:
        return {
            path
            for path, pair in unequal.items()
            if any(fnmatchcase(path, name) and pair in pairs for name, pairs in self.members.items())
        }


USAGE = "InvalidKeyUsageException"
STATE = "KMSInvalidStateException"
INVALID = "ValidationException"
FAULT = "500"

DIFFERENCES = [
    Difference(
        "DryRun makes no call: DryRunOperationException says that it would have succeeded", "makes the call",
        ("*: not really",), "DryRunOperationException",
    ),
    Difference(
        "a disabled key is of no use: DisabledException", "uses it",
        (
            "encrypt: with a disabled key", "decrypt: after its key was disabled", "re_encrypt: for a disabled key",
            "re_encrypt: from a disabled key", "generate_data_key*: under a disabled key",
            "sign: with a disabled key", "verify: with a disabled key", "generate_mac: with a disabled key",
            "verify_mac: with a disabled key",
        ),
        "DisabledException",
    ),
    Difference(
        "the rotation of a disabled key stays as it is: DisabledException", "carries the call out",
        ("*able_key_rotation: of a disabled key", "rotate_key_on_demand: of a disabled key"), "DisabledException",
    ),
    Difference(
        "a key that is to be deleted is of no use: KMSInvalidStateException", "uses it",
        (
            "encrypt: with a key to be deleted", "decrypt: while its key is to be deleted",
            "re_encrypt: for a key to be deleted", "generate_data_key*: under a key to be deleted",
            "sign: with a key to be deleted", "verify: with a key to be deleted",
            "generate_mac: with a key to be deleted", "verify_mac: with a key to be deleted",
        ),
        STATE,
    ),
    Difference(
        "a key that is to be deleted stays as it is: KMSInvalidStateException", "carries the call out",
        (
            "enable_key: that is to be deleted", "disable_key: that is to be deleted", "schedule_key_deletion: twice",
            "update_key_description: of a key to be deleted", "tag_resource: of a key to be deleted",
            "untag_resource: of a key to be deleted", "*able_key_rotation: of a key to be deleted",
            "rotate_key_on_demand: of a key to be deleted", "*_alias: *to a key to be deleted",
            "create_alias: for a key to be deleted",
        ),
        STATE,
    ),
    Difference(
        "only a key that is to be deleted can be kept: KMSInvalidStateException", "disables any key",
        ("cancel_key_deletion: twice", "cancel_key_deletion: of a key that stays"), STATE,
    ),
    Difference(
        "while a key is to be deleted, it does not rotate", "goes on saying that it does",
        ("get_key_rotation_status: of a key that is to be deleted",), members={"KeyRotationEnabled": [(False, True)]},
    ),
    Difference(
        "where a key id is needed, an alias is an InvalidArnException", "NotFoundException",
        tuple(
            f"{operation}: by an alias"
            for operation in (
                "update_key_description", "enable_key", "disable_key", "schedule_key_deletion", "tag_resource",
                "untag_resource", "list_resource_tags", "get_key_policy", "list_key_policies", "enable_key_rotation",
                "get_key_rotation_status",
            )
        ),
        "InvalidArnException", "NotFoundException",
    ),
    Difference(
        "an ARN that is none is an InvalidArnException", "NotFoundException",
        ("describe_key: by an ARN of another service", "describe_key: by an ARN of nothing",
         "describe_key: by an ARN of another resource"),
        "InvalidArnException", "NotFoundException",
    ),
    Difference(
        "a key is known in its own region only: NotFoundException", "does not look at the region of an ARN",
        ("describe_key: by an ARN of another region",), "NotFoundException",
    ),
    Difference(
        "a key ARN is good wherever a key id is", "breaks (500)",
        ("disable_key: by its ARN", "schedule_key_deletion: by its ARN"), ANSWERS, FAULT,
    ),
    Difference(
        "a required member that is missing is a ValidationException", "breaks (500)",
        (
            "describe_key: without an id", "create_alias: for nothing", "encrypt: what is missing",
            "re_encrypt: for nobody", "generate_random: how much is missing",
        ),
        INVALID, FAULT,
    ),
    Difference(
        "a required member that is missing is a ValidationException", "does without it",
        ("update_key_description: to nothing said", "tag_resource: without a value"), INVALID,
    ),
    Difference(
        "KeyId has 1 to 2048 characters: ValidationException", "NotFoundException",
        ("describe_key: by an empty id", "describe_key: by an id of 2049"), INVALID, "NotFoundException",
    ),
    Difference(
        "CiphertextBlob has 1 to 6144 bytes and is needed: ValidationException", "InvalidCiphertextException",
        ("decrypt: nothing", "decrypt: what is missing"), INVALID, "InvalidCiphertextException",
    ),
    Difference(
        "a value that is not of the enumeration is a ValidationException", "takes any",
        ("create_key: for an unknown usage", "create_key: of an unknown origin", "encrypt: by an unknown algorithm",
         "sign: a message of an unknown type"),
        INVALID,
    ),
    Difference(
        "what is too long, too short, too large or too small is a ValidationException", "takes it",
        (
            "create_key: with a description of 8193", "update_key_description: to 8193", "create_alias: of 257",
            "create_alias: that is only the prefix", "tag_resource: without a name",
            "tag_resource: with a name of 129", "tag_resource: with a value of 257", "put_key_policy: that is empty",
            "schedule_key_deletion: in 6 days", "schedule_key_deletion: in 31 days",
            "enable_key_rotation: every 89 days", "enable_key_rotation: every 2561 days", "generate_random: 0",
            "sign: 4097", "generate_mac: of nothing", "generate_mac: of 4097", "list_*: none of them",
            "list_*: 1001 of them",
        ),
        INVALID,
    ),
    Difference(
        "Limit is how many there are at most, Truncated that there are more, NextMarker where", "shows all of them",
        ("list_keys: two of them", "list_resource_tags: two of them", "list_aliases: two of them"),
        members={
            "Truncated": [(True, False)], "NextMarker": [("a marker", None)], "Keys[[]2].KeyId": [(None, "key-3")],
            "Tags[[]2].TagKey": [(None, "c")], "Aliases[[]2].AliasName": [(None, "alias/two/c")],
        },
        more=True,
    ),
    Difference(
        "a marker that no list gave is an InvalidMarkerException", "does not look at it",
        ("list_*: from a marker that is none",), "InvalidMarkerException",
    ),
    Difference(
        "KeyUsage is needed for all but symmetric keys, and must go with KeySpec: ValidationException",
        "makes the key",
        ("create_key: * for nothing said", "create_key: RSA_2048 for KEY_AGREEMENT",
         "create_key: HMAC_256 for SIGN_VERIFY", "create_key: ECC_NIST_P256 for ENCRYPT_DECRYPT",
         "create_key: SYMMETRIC_DEFAULT for SIGN_VERIFY"),
        INVALID,
    ),
    Difference(
        "there are keys for Ed25519, ML-DSA and ML-KEM", "ValidationException",
        ("create_key: ECC_NIST_EDWARDS25519 for *", "create_key: ML_*"), ANSWERS, INVALID,
    ),
    Difference(
        "KeyUsage is ENCRYPT_DECRYPT if nothing is said", "has no KeyUsage, and has SigningAlgorithms",
        ("create_key: of no spec", "create_key: with a *"),
        members={"KeyMetadata.KeyUsage": [("ENCRYPT_DECRYPT", None)], "KeyMetadata.SigningAlgorithms": [(None, [])]},
    ),
    Difference(
        "MultiRegion is false if nothing is said", "has no MultiRegion",
        ("create_key: *", "describe_key: *"), members={"KeyMetadata.MultiRegion": [(False, None)]},
    ),
    Difference(
        "a symmetric key's material has a name", "names no material",
        ("create_key: *", "describe_key: *", "decrypt: *", "re_encrypt: *", "generate_data_key*: *",
         "list_key_rotations: *"),
        members={"*MaterialId": [("a material", None)]},
    ),
    Difference(
        "each rotation says whether its material is the current one", "does not say so", ("list_key_rotations: *",),
        members={"*KeyMaterialState": [("CURRENT", None), ("NON_CURRENT", None)]},
    ),
    Difference(
        "keys have MacAlgorithms or KeyAgreementAlgorithms according to their usage, and no others",
        "has algorithms to encrypt and to sign instead",
        ("create_key: HMAC_* for GENERATE_VERIFY_MAC", "create_key: * for KEY_AGREEMENT", "get_public_key: to agree"),
        members={
            "*MacAlgorithms": [([f"HMAC_SHA_{bits}"], None) for bits in (256, 384, 512)],
            "*KeyAgreementAlgorithms": [(["ECDH"], None)],
            "*SigningAlgorithms": [(None, []), *((None, [f"ECDSA_SHA_{bits}"]) for bits in (256, 384, 512))],
            "*EncryptionAlgorithms": [(None, ["RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256"])],
        },
    ),
    Difference(
        "a tag twice, one of AWS or more than 50 are a TagException", "takes them",
        ("create_key: with a tag twice", "create_key: with a tag of AWS", "create_key: with 51 tags",
         "tag_resource: twice", "tag_resource: of AWS", "tag_resource: 51 of them", "tag_resource: one too many"),
        "TagException",
    ),
    Difference(
        "a policy that cannot be read is a MalformedPolicyDocumentException", "takes it",
        ("create_key: with a policy that is no JSON", "put_key_policy: that is no JSON"),
        "MalformedPolicyDocumentException",
    ),
    Difference(
        "PolicyName is default if nothing is said", "NotFoundException",
        ("get_key_policy: of no name", "put_key_policy: of no name"), ANSWERS, "NotFoundException",
    ),
    Difference(
        "the policy comes with its PolicyName", "comes without", ("get_key_policy: of a key",),
        members={"PolicyName": [("default", None)]},
    ),
    Difference(
        "only symmetric keys for encryption rotate: UnsupportedOperationException", "rotates any key",
        ("*able_key_rotation: of an RSA key", "enable_key_rotation: of an HMAC key",
         "get_key_rotation_status: of an RSA key", "rotate_key_on_demand: of an RSA key",
         "list_key_rotations: of an RSA key"),
        "UnsupportedOperationException",
    ),
    Difference(
        "the status comes with KeyId, and of a key that rotates with its period and the next date", "comes without",
        ("get_key_rotation_status: *",),
        members={
            "KeyId": [(KEY_ARN + "key-1", None)], "RotationPeriodInDays": [(365, None)],
            "NextRotationDate": [("a time", None)],
        },
    ),
    Difference(
        "the answer says KeyState and PendingWindowInDays", "does not", ("schedule_key_deletion: *",),
        members={"KeyState": [("PendingDeletion", None)], "PendingWindowInDays": [(7, None), (30, None)]},
    ),
    Difference(
        "KeyId in an answer is the ARN of the key", "repeats what was asked, or has the id",
        (
            "schedule_key_deletion: *", "cancel_key_deletion: *", "rotate_key_on_demand: *", "list_key_rotations: *",
            "generate_mac: *", "verify_mac: *", "get_public_key: *",
        ),
        members={name: [(KEY_ARN + "key-1", "key-1")] for name in ("KeyId", "Rotations*.KeyId")},
    ),
    Difference(
        "aliases beginning with alias/aws/ are AWS's own: NotAuthorizedException", "knows those that AWS has now",
        ("create_alias: that AWS could have",), "NotAuthorizedException",
    ),
    Difference(
        "an alias goes to keys of the same type and usage only", "gives it to any key",
        ("update_alias: to a key of another usage", "update_alias: to a key of another type"), INVALID,
    ),
    Difference(
        "an alias has a CreationDate and a LastUpdatedDate", "has none", ("list_aliases: *",),
        members={f"Aliases*.{name}": [("a time", None)] for name in ("CreationDate", "LastUpdatedDate")},
    ),
    Difference(
        "the answer names the algorithm", "does not", ("encrypt: *", "decrypt: *", "re_encrypt: *"),
        members={"*EncryptionAlgorithm": [("SYMMETRIC_DEFAULT", None), ("RSAES_OAEP_SHA_256", None)]},
    ),
    Difference(
        "a key is used for its KeyUsage, with an algorithm of its KeySpec: InvalidKeyUsageException",
        "encrypts with AES under any key and any algorithm",
        (
            "encrypt: with an RSA key, symmetrically", "encrypt: with a symmetric key, asymmetrically",
            "encrypt: with a key to sign", "encrypt: with an HMAC key", "re_encrypt: for a key to sign",
            "generate_data_key*: under an RSA key", "generate_data_key*: under an HMAC key",
        ),
        USAGE,
    ),
    Difference(
        "a key is used for its KeyUsage, with an algorithm of its KeySpec: InvalidKeyUsageException",
        "ValidationException",
        ("sign: by the algorithm of another *", "sign: with a key to encrypt", "sign: with an HMAC key",
         "verify: by an algorithm that the key has not", "verify: with a key to encrypt"),
        USAGE, INVALID,
    ),
    Difference(
        "an HMAC key has the algorithm of its KeySpec: InvalidKeyUsageException", "takes every algorithm",
        ("generate_mac: by the algorithm of another spec",), USAGE,
    ),
    Difference(
        "an HMAC key has the algorithm of its KeySpec: InvalidKeyUsageException", "KMSInvalidMacException",
        ("verify_mac: by the algorithm of another spec",), USAGE, "KMSInvalidMacException",
    ),
    Difference(
        "RSA keys encrypt with OAEP: little, in no context, and with KeyId to decrypt: ValidationException",
        "encrypts with AES",
        ("encrypt: with an RSA key, too much", "encrypt: with an RSA key, in a context",
         "decrypt: RSA without a key"),
        INVALID,
    ),
    Difference(
        "what was encrypted outside with the public key is decrypted", "InvalidCiphertextException",
        ("decrypt: RSA from outside", "decrypt: RSA from outside by SHA-1"), ANSWERS, "InvalidCiphertextException",
    ),
    Difference(
        "the context must be the same, pair by pair: InvalidCiphertextException", "compares the pairs run together",
        ("decrypt: in a context that runs together the same",), "InvalidCiphertextException",
    ),
    Difference(
        "a key other than that of the ciphertext is an IncorrectKeyException", "AccessDeniedException",
        ("decrypt: with another key", "decrypt: with a key to sign"),
        "IncorrectKeyException", "AccessDeniedException",
    ),
    Difference(
        "a key other than that of the ciphertext is an IncorrectKeyException", "does not look at SourceKeyId",
        ("re_encrypt: with another key",), "IncorrectKeyException",
    ),
    Difference(
        "there are data key pairs and shared secrets", "breaks (500)",
        ("generate_data_key_pair*: *", "derive_shared_secret: *"), ANSWERS, FAULT,
    ),
    Difference(
        "there are secrets encapsulated for ML-KEM keys", "breaks (500)",
        ("*capsulate: *",), "NotFoundException", FAULT,
    ),
    Difference(
        "the salt of a PSS signature is as long as the digest", "is as long as it can be",
        ("sign: with the salt of PSS",), members={"as long as the digest": [(True, False)]},
    ),
    Difference(
        "a DIGEST is what is signed, not hashed again", "hashes it again",
        ("verify: of a message as its digest",), members={"SignatureValid": [(True, False)]},
    ),
    Difference(
        "a DIGEST has the length that the algorithm has: ValidationException", "takes any length",
        ("sign: a digest of the wrong length", "verify: of a digest of the wrong length"), INVALID,
    ),
    Difference(
        "a signature that is not valid is a KMSInvalidSignatureException", "answers with SignatureValid false",
        ("verify: altered", "verify: of another message", "verify: garbage", "verify: by another algorithm"),
        "KMSInvalidSignatureException",
    ),
    Difference(
        "a symmetric key has no public half: UnsupportedOperationException", "shows one of a key that does not exist",
        ("get_public_key: of a symmetric key", "get_public_key: of an HMAC key"), "UnsupportedOperationException",
    ),
    Difference(
        "a public key comes with its KeySpec", "comes without", ("get_public_key: *",),
        members={
            "KeySpec": [(spec, None) for spec in ("RSA_2048", "ECC_NIST_P256", "ECC_NIST_P384", "ECC_SECG_P256K1")]
        },
    ),
]  # fmt: skip

# What AWS documents for calls that are not answered so here yet.
MODEL = botocore.session.get_session().get_service_model("kms")
OPERATIONS = {xform_name(name): name for name in MODEL.operation_names}
COMMON = {INVALID, "NotAuthorizedException"}  # "Common Errors" of the API reference
EVERY_CASE = [f"{operation}: {what}" for operation, cases in CASES.items() for what in cases]


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of moto's server."""
    port = free_port()
    log = tmp_path_factory.mktemp("moto") / "log"
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=log.parent)
    try:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        else:
            pytest.fail(log.read_text())
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def client(url: str, access_key: str, secret: str, verify: str | None = None) -> Any:
    return boto3.client(
        "kms",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret,
        verify=verify,
        config=Config(retries={"total_max_attempts": 1}, parameter_validation=False, proxies={}),
    )


Compare = Callable[[str], tuple[Outcome, Outcome]]


@pytest.fixture(scope="module")
def compare(start: Start, moto: str) -> Compare:
    """What a case has for its outcome in this service and in moto; it is called once."""
    service = start("--rate-limit", "off", KMS_AWS_ACCOUNT_ID=ACCOUNT)
    made = service.curl("POST", "/api/v1/access-keys", {}, token=service.user("amy")).json
    certificate = str(service.folder / "server.crt")
    ours = Kms(client(service.url, made["access_key_id"], made["secret_access_key"], certificate))
    theirs = Kms(client(moto, "any", "any"))
    return cache(lambda case: (ours.outcome(case), theirs.outcome(case)))


def unequal_members(ours: Outcome, theirs: Outcome) -> dict[str, tuple[Any, Any]]:
    """What both have for each member that they have not alike."""
    if "refused" in ours or "refused" in theirs:
        ours, theirs = ({"refused": each.get("refused", ANSWERS)} for each in (ours, theirs))
    pairs = {path: (ours.get(path), theirs.get(path)) for path in ours | theirs}
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}


@pytest.mark.parametrize("case", EVERY_CASE)
def test_it_is_as_with_moto_but_for_what_is_listed(compare: Compare, case: str) -> None:
    ours, theirs = compare(case)
    unequal = unequal_members(ours, theirs)
    listed = [each.explained(unequal) for each in DIFFERENCES if each.covers(case)]
    assert set(unequal) - set().union(*listed) == set(), unequal


@pytest.mark.parametrize("case", EVERY_CASE)
def test_every_refusal_is_one_that_aws_documents(compare: Compare, case: str) -> None:
    operation = MODEL.operation_model(OPERATIONS[case.partition(":")[0]])
    refused = compare(case)[0].get("refused")
    assert refused in {None, *COMMON, *(shape.name for shape in operation.error_shapes)}


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda each: f"{each.documented} / {each.moto}")
def test_every_listed_difference_is_there(compare: Compare, difference: Difference) -> None:
    cases = filter(difference.covers, EVERY_CASE)
    found = {case: difference.explained(unequal_members(*compare(case))) for case in cases}
    for pattern in difference.cases:
        assert any(found[case] for case in found if fnmatchcase(case, pattern)), pattern
    if not difference.members:
        assert all(found.values()), found
    for name in difference.members:
        assert any(fnmatchcase(path, name) for paths in found.values() for path in paths), name


def test_the_page_lists_the_differences() -> None:
    rows = []
    for each in DIFFERENCES:
        operations = dict.fromkeys(OPERATIONS[case.partition(":")[0]] for case in filter(each.covers, EVERY_CASE))
        rows.append(f"| {', '.join(operations)} | {each.documented} | {each.moto} |")
    section = PAGE.read_text().partition("\n## Where moto differs\n")[2].partition("\n## ")[0]
    assert [line for line in section.splitlines() if line.startswith("| ")][1:] == rows
