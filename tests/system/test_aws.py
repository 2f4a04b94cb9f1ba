"""An unmodified boto3 against the real service; its answers are held to botocore's own model."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, padding

from helpers.aws_client import REGION, Account, Kms
from helpers.running import Running, Start
from helpers.shell import blocks, run
from helpers.support import b64, unb64
from kms.api.aws.request import ACTIONS


@pytest.fixture(scope="module")
def service(start: Start) -> Running:
    return start("--workers", "2", "--rate-limit", "off")


@pytest.fixture(scope="module")
def account(service: Running) -> Account:
    return Account(service, service.user("amy"))


@pytest.fixture(scope="module")
def kms(account: Account) -> Kms:
    return account.kms()


def test_symmetric_encryption(kms: Kms) -> None:
    key = kms.key(Description="orders", Tags=[{"TagKey": "env", "TagValue": "prod"}])
    arn = f"arn:aws:kms:{REGION}:000000000000:key/{key}"
    context = {"order": "42", "customer": "7"}
    sealed = kms.encrypt(KeyId=key, Plaintext=b"hello", EncryptionContext=context)
    assert (sealed["KeyId"], sealed["EncryptionAlgorithm"]) == (arn, "SYMMETRIC_DEFAULT")
    other_order = dict(reversed(context.items()))
    opened = kms.decrypt(CiphertextBlob=sealed["CiphertextBlob"], EncryptionContext=other_order)
    assert (opened["Plaintext"], opened["KeyId"]) == (b"hello", arn)
    assert kms.decrypt(CiphertextBlob=sealed["CiphertextBlob"], EncryptionContext=context, KeyId=arn)["Plaintext"]
    for wrong in ({}, {"order": "42"}, {**context, "x": ""}):
        refused = kms.refusal("decrypt", CiphertextBlob=sealed["CiphertextBlob"], EncryptionContext=wrong)
        assert refused == ("InvalidCiphertextException", "")
    other = kms.key()
    moved = kms.re_encrypt(
        CiphertextBlob=sealed["CiphertextBlob"], SourceEncryptionContext=context, DestinationKeyId=other
    )
    assert moved["SourceKeyId"] == arn
    assert kms.decrypt(CiphertextBlob=moved["CiphertextBlob"], KeyId=other)["Plaintext"] == b"hello"
    code, _ = kms.refusal("decrypt", CiphertextBlob=moved["CiphertextBlob"], KeyId=key)
    assert code == "IncorrectKeyException"
    assert kms.refusal("decrypt", CiphertextBlob=b"garbage")[0] == "InvalidCiphertextException"


def test_data_keys(kms: Kms) -> None:
    key = kms.key()
    for asked, length in (
        ({"KeySpec": "AES_256"}, 32),
        ({"KeySpec": "AES_128"}, 16),
        ({"NumberOfBytes": 1000}, 1000),
    ):
        made = kms.generate_data_key(KeyId=key, **asked)
        assert len(made["Plaintext"]) == length
        assert kms.decrypt(CiphertextBlob=made["CiphertextBlob"])["Plaintext"] == made["Plaintext"]
        assert "Plaintext" not in kms.generate_data_key_without_plaintext(KeyId=key, **asked)
    assert kms.refusal("generate_data_key", KeyId=key)[0] == "ValidationException"
    pair = kms.generate_data_key_pair(KeyId=key, KeyPairSpec="ECC_NIST_P256")
    private = serialization.load_der_private_key(pair["PrivateKeyPlaintext"], None)
    public = serialization.load_der_public_key(pair["PublicKey"])
    assert private.public_key() == public
    assert kms.decrypt(CiphertextBlob=pair["PrivateKeyCiphertextBlob"])["Plaintext"] == pair["PrivateKeyPlaintext"]
    hidden = kms.generate_data_key_pair_without_plaintext(KeyId=key, KeyPairSpec="RSA_2048")
    assert "PrivateKeyPlaintext" not in hidden
    assert kms.refusal("generate_data_key_pair", KeyId=key, KeyPairSpec="SM2")[0] == "UnsupportedOperationException"
    assert len(kms.generate_random(NumberOfBytes=17)["Plaintext"]) == 17


def test_rsa(kms: Kms) -> None:
    key = kms.key(KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT")
    signing = kms.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["SigningAlgorithms"]
    assert signing == sorted(signing)
    public = serialization.load_der_public_key(kms.get_public_key(KeyId=key)["PublicKey"])
    for algorithm, digest in (("RSAES_OAEP_SHA_1", hashes.SHA1()), ("RSAES_OAEP_SHA_256", hashes.SHA256())):
        oaep = padding.OAEP(padding.MGF1(digest), digest, None)
        sealed = public.encrypt(b"from outside", oaep)  # type: ignore[union-attr,call-arg]
        opened = kms.decrypt(KeyId=key, CiphertextBlob=sealed, EncryptionAlgorithm=algorithm)
        assert opened["Plaintext"] == b"from outside"
        ours = kms.encrypt(KeyId=key, Plaintext=b"x", EncryptionAlgorithm=algorithm)["CiphertextBlob"]
        assert kms.decrypt(KeyId=key, CiphertextBlob=ours, EncryptionAlgorithm=algorithm)["Plaintext"] == b"x"
    assert kms.refusal("encrypt", KeyId=key, Plaintext=b"x")[0] == "InvalidKeyUsageException"
    long = {"KeyId": key, "Plaintext": b"x" * 300, "EncryptionAlgorithm": "RSAES_OAEP_SHA_256"}
    assert kms.refusal("encrypt", **long)[0] == "ValidationException"
    wrong = {"KeyId": key, "Message": b"x", "SigningAlgorithm": "RSASSA_PSS_SHA_256"}
    assert kms.refusal("sign", **wrong)[0] == "InvalidKeyUsageException"


SIGNING = {
    "RSA_2048": [
        "RSASSA_PSS_SHA_256",
        "RSASSA_PSS_SHA_512",
        "RSASSA_PKCS1_V1_5_SHA_256",
        "RSASSA_PKCS1_V1_5_SHA_384",
    ],
    "ECC_NIST_P256": ["ECDSA_SHA_256"],
    "ECC_NIST_P384": ["ECDSA_SHA_384"],
    "ECC_NIST_P521": ["ECDSA_SHA_512"],
    "ECC_SECG_P256K1": ["ECDSA_SHA_256"],
    "ECC_NIST_EDWARDS25519": ["ED25519_SHA_512"],
    "ML_DSA_44": ["ML_DSA_SHAKE_256"],
    "ML_DSA_65": ["ML_DSA_SHAKE_256"],
    "ML_DSA_87": ["ML_DSA_SHAKE_256"],
}


@pytest.mark.parametrize("spec", SIGNING)
def test_signatures(kms: Kms, spec: str) -> None:
    key = kms.key(KeySpec=spec, KeyUsage="SIGN_VERIFY")
    assert set(SIGNING[spec]) <= set(kms.describe_key(KeyId=key)["KeyMetadata"]["SigningAlgorithms"])
    for algorithm in SIGNING[spec]:
        asked = {"KeyId": key, "Message": b"message", "SigningAlgorithm": algorithm}
        made = kms.sign(**asked)
        assert kms.verify(**asked, Signature=made["Signature"])["SignatureValid"] is True
        altered = {**asked, "Message": b"another", "Signature": made["Signature"]}
        assert kms.refusal("verify", **altered) == ("KMSInvalidSignatureException", "")
        if algorithm.endswith(("256", "384", "512")) and not spec.startswith(("ML", "ECC_NIST_ED")):
            digest = hashes.Hash(getattr(hashes, f"SHA{algorithm[-3:]}")())
            digest.update(b"message")
            prehashed = {**asked, "Message": digest.finalize(), "MessageType": "DIGEST"}
            assert kms.verify(**prehashed, Signature=kms.sign(**prehashed)["Signature"])["SignatureValid"]
            assert kms.verify(**prehashed, Signature=made["Signature"])["SignatureValid"]
            short = {**prehashed, "Message": b"short"}
            assert kms.refusal("sign", **short)[0] == "ValidationException"
    if spec == "ECC_NIST_P256":
        public = serialization.load_der_public_key(kms.get_public_key(KeyId=key)["PublicKey"])
        public.verify(made["Signature"], b"message", ec.ECDSA(hashes.SHA256()))  # type: ignore[union-attr,call-arg,arg-type]


@pytest.mark.parametrize("bits", [224, 256, 384, 512])
def test_codes(kms: Kms, bits: int) -> None:
    key = kms.key(KeySpec=f"HMAC_{bits}", KeyUsage="GENERATE_VERIFY_MAC")
    asked = {"KeyId": key, "Message": b"message", "MacAlgorithm": f"HMAC_SHA_{bits}"}
    mac = kms.generate_mac(**asked)["Mac"]
    assert len(mac) == bits // 8
    assert kms.verify_mac(**asked, Mac=mac)["MacValid"] is True
    assert kms.refusal("verify_mac", **asked, Mac=mac[:-1] + b"x")[0] == "KMSInvalidMacException"
    other = {**asked, "MacAlgorithm": "HMAC_SHA_256" if bits == 224 else "HMAC_SHA_224"}
    assert kms.refusal("generate_mac", **other)[0] == "InvalidKeyUsageException"


def test_agreement_and_encapsulation(kms: Kms) -> None:
    key = kms.key(KeySpec="ECC_NIST_P256", KeyUsage="KEY_AGREEMENT")
    own = ec.generate_private_key(ec.SECP256R1())
    spki = own.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    public = serialization.load_der_public_key(kms.get_public_key(KeyId=key)["PublicKey"])
    agreed = kms.derive_shared_secret(KeyId=key, KeyAgreementAlgorithm="ECDH", PublicKey=spki)
    assert agreed["SharedSecret"] == own.exchange(ec.ECDH(), public)  # type: ignore[arg-type]
    key = kms.key(KeySpec="ML_KEM_768", KeyUsage="ENCAPSULATE_DECAPSULATE")
    made = kms.encapsulate(KeyId=key, EncapsulationAlgorithm="ML_KEM")
    opened = kms.decapsulate(
        KeyId=key, EncapsulationAlgorithm="ML_KEM", SharedSecretCiphertextBlob=made["SharedSecretCiphertextBlob"]
    )
    assert opened["SharedSecret"] == made["SharedSecret"]
    loaded = serialization.load_der_public_key(kms.get_public_key(KeyId=key)["PublicKey"])
    assert isinstance(loaded, mlkem.MLKEM768PublicKey)
    secret, ciphertext = loaded.encapsulate()
    opened = kms.decapsulate(KeyId=key, EncapsulationAlgorithm="ML_KEM", SharedSecretCiphertextBlob=ciphertext)
    assert opened["SharedSecret"] == secret


def test_the_life_of_a_key(kms: Kms) -> None:
    key = kms.key()
    arn = f"arn:aws:kms:{REGION}:000000000000:key/{key}"
    sealed = kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    kms.disable_key(KeyId=key)
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Disabled"
    assert kms.refusal("decrypt", CiphertextBlob=sealed) == ("DisabledException", f"{arn} is disabled.")
    kms.enable_key(KeyId=key)
    kms.enable_key(KeyId=arn)
    assert kms.decrypt(CiphertextBlob=sealed)["Plaintext"] == b"x"
    gone = kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    assert gone["KeyState"] == "PendingDeletion"
    assert timedelta(days=6.9) < gone["DeletionDate"] - datetime.now(UTC) <= timedelta(days=7)
    assert kms.refusal("encrypt", KeyId=key, Plaintext=b"x") == (
        "KMSInvalidStateException",
        f"{arn} is pending deletion.",
    )
    for call in ("enable_key", "disable_key", "schedule_key_deletion"):
        assert kms.refusal(call, KeyId=key)[0] == "KMSInvalidStateException"
    assert kms.cancel_key_deletion(KeyId=key) == {"KeyId": arn}
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Disabled"
    assert kms.refusal("cancel_key_deletion", KeyId=key)[0] == "KMSInvalidStateException"
    assert kms.refusal("schedule_key_deletion", KeyId=key, PendingWindowInDays=3)[0] == "ValidationException"
    kms.enable_key(KeyId=key)
    kms.update_key_description(KeyId=key, Description="invoices")
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["Description"] == "invoices"


def test_rotation(kms: Kms) -> None:
    key = kms.key()
    sealed = kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    assert kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"] is False
    kms.enable_key_rotation(KeyId=key, RotationPeriodInDays=90)
    status = kms.get_key_rotation_status(KeyId=key)
    assert (status["KeyRotationEnabled"], status["RotationPeriodInDays"]) == (True, 90)
    for _ in range(2):
        kms.rotate_key_on_demand(KeyId=key)
    assert kms.get_key_rotation_status(KeyId=key)["NextRotationDate"] == status["NextRotationDate"]
    kms.disable_key_rotation(KeyId=key)
    assert kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"] is False
    assert kms.decrypt(CiphertextBlob=sealed)["Plaintext"] == b"x"
    both = kms.list_key_rotations(KeyId=key, Limit=2)
    assert ([len(both["Rotations"]), both["Truncated"]], "NextMarker" in both) == ([2, False], False)
    one = kms.list_key_rotations(KeyId=key, Limit=1)
    rest = kms.list_key_rotations(KeyId=key, Limit=1, Marker=one["NextMarker"])
    assert ((one["Rotations"] + rest["Rotations"]), rest["Truncated"]) == (both["Rotations"], False)
    first = kms.list_key_rotations(KeyId=key, IncludeKeyMaterial="ALL_KEY_MATERIAL", Limit=2)
    assert first["Truncated"] is True
    second = kms.list_key_rotations(KeyId=key, IncludeKeyMaterial="ALL_KEY_MATERIAL", Marker=first["NextMarker"])
    shown = first["Rotations"] + second["Rotations"]
    assert [each["KeyMaterialState"] for each in shown] == ["CURRENT", "NON_CURRENT", "NON_CURRENT"]
    assert ["RotationDate" in each for each in shown] == [True, True, False]  # nothing was rotated to the first
    rsa = kms.key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")
    assert kms.refusal("rotate_key_on_demand", KeyId=rsa)[0] == "UnsupportedOperationException"
    kms.disable_key(KeyId=key)
    for call in ("enable_key_rotation", "disable_key_rotation", "rotate_key_on_demand"):
        assert kms.refusal(call, KeyId=key)[0] == "DisabledException"


def test_aliases(kms: Kms) -> None:
    one, two = kms.key(), kms.key()
    kms.create_alias(AliasName="alias/shop/orders", TargetKeyId=one)
    code, message = kms.refusal("create_alias", AliasName="alias/shop/orders", TargetKeyId=two)
    assert (code, "already exists" in message) == ("AlreadyExistsException", True)
    arn = f"arn:aws:kms:{REGION}:000000000000:alias/shop/orders"
    for name in ("alias/shop/orders", arn):
        assert kms.describe_key(KeyId=name)["KeyMetadata"]["KeyId"] == one
        assert kms.encrypt(KeyId=name, Plaintext=b"x")["KeyId"].endswith(one)
    (made,) = kms.list_aliases(KeyId=one)["Aliases"]
    assert made["LastUpdatedDate"] == made["CreationDate"]
    for target in (one, two):  # also where it stays: SPIRE takes aliases that nobody has updated for abandoned
        kms.update_alias(AliasName="alias/shop/orders", TargetKeyId=target)
        (updated,) = kms.list_aliases(KeyId=target)["Aliases"]
        assert updated["CreationDate"] == made["CreationDate"]
        assert updated["LastUpdatedDate"] > made["LastUpdatedDate"]
        made = updated
    assert kms.describe_key(KeyId=arn)["KeyMetadata"]["KeyId"] == two
    for spec, usage in (("RSA_2048", "ENCRYPT_DECRYPT"), ("ECC_NIST_P256", "SIGN_VERIFY")):
        other = {"AliasName": "alias/shop/orders", "TargetKeyId": kms.key(KeySpec=spec, KeyUsage=usage)}
        assert kms.refusal("update_alias", **other)[0] == "ValidationException"
    (listed,) = kms.list_aliases(KeyId=two)["Aliases"]
    assert (listed["AliasName"], listed["AliasArn"], listed["TargetKeyId"]) == ("alias/shop/orders", arn, two)
    kms.delete_alias(AliasName="alias/shop/orders")
    for call in ("delete_alias", "update_alias"):
        extra = {"TargetKeyId": one} if call == "update_alias" else {}
        assert kms.refusal(call, AliasName="alias/shop/orders", **extra)[0] == "NotFoundException"
    assert kms.refusal("describe_key", KeyId=arn)[0] == "NotFoundException"
    assert kms.refusal("create_alias", AliasName="orders", TargetKeyId=one)[0] == "ValidationException"
    kms.create_alias(AliasName="alias/orders", TargetKeyId=one)
    for name in ("alias/orders", arn.replace("shop/", "")):
        assert kms.refusal("disable_key", KeyId=name)[0] == "InvalidArnException"
        assert kms.refusal("create_alias", AliasName="alias/x", TargetKeyId=name)[0] == "ValidationException"
    kms.delete_alias(AliasName="alias/orders")
    assert kms.refusal("create_alias", AliasName="alias/aws/x", TargetKeyId=one)[0] == "NotAuthorizedException"
    for number in range(5):
        kms.create_alias(AliasName=f"alias/many/{number}", TargetKeyId=one)
    pages = list(kms.client.get_paginator("list_aliases").paginate(KeyId=one, PaginationConfig={"PageSize": 2}))
    assert sum(len(page["Aliases"]) for page in pages) == 5


def test_tags(kms: Kms) -> None:
    key = kms.key(Tags=[{"TagKey": "a", "TagValue": "1"}])
    kms.tag_resource(KeyId=key, Tags=[{"TagKey": "b", "TagValue": ""}, {"TagKey": "a", "TagValue": "2"}])
    first = kms.list_resource_tags(KeyId=key, Limit=1)
    assert (first["Tags"], first["Truncated"]) == ([{"TagKey": "a", "TagValue": "2"}], True)
    rest = kms.list_resource_tags(KeyId=key, Marker=first["NextMarker"])
    assert rest["Tags"] == [{"TagKey": "b", "TagValue": ""}]
    kms.untag_resource(KeyId=key, TagKeys=["a", "zzz"])
    assert kms.list_resource_tags(KeyId=key)["Tags"] == [{"TagKey": "b", "TagValue": ""}]
    assert kms.refusal("tag_resource", KeyId=key, Tags=[{"TagKey": "aws:x", "TagValue": ""}])[0] == "TagException"


def test_policies(kms: Kms) -> None:
    key = kms.key()
    policy = kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"]
    (statement,) = json.loads(policy)["Statement"]
    assert statement["Principal"] == {"AWS": "arn:aws:iam::000000000000:user/amy"}
    kms.put_key_policy(KeyId=key, Policy=policy)
    root = {
        "Effect": "Allow",
        "Principal": {"AWS": "arn:aws:iam::000000000000:root"},
        "Action": "kms:*",
        "Resource": "*",
    }
    put = json.dumps({"Version": "2012-10-17", "Statement": [root]}, indent=1)
    kms.put_key_policy(KeyId=key, Policy=put)
    assert kms.get_key_policy(KeyId=key)["Policy"] == put
    assert kms.get_key_policy(KeyId=kms.key(Policy=put))["Policy"] == put
    assert kms.list_key_policies(KeyId=key)["PolicyNames"] == ["default"]
    root = {**statement, "Principal": {"AWS": "arn:aws:iam::000000000000:root"}}
    assert kms.key(Policy=json.dumps({"Version": "2012-10-17", "Statement": [root]}))
    for wrong in (
        {**statement, "Effect": "Deny"},
        {**statement, "Principal": {"AWS": "arn:aws:iam::000000000000:user/nobody-of-that-name"}},
        {**statement, "Action": "kms:Encrypt"},  # nobody could change it again
        {**statement, "Condition": {"StringEquals": {"aws:PrincipalOrgID": "o-1"}}},
    ):
        document = json.dumps({"Version": "2012-10-17", "Statement": [wrong]})
        for call, given in (("put_key_policy", {"KeyId": key}), ("create_key", {})):
            assert kms.refusal(call, Policy=document, **given)[0] == "MalformedPolicyDocumentException"


def test_lists_go_on(service: Running, kms: Kms) -> None:
    made = {kms.key() for _ in range(5)}
    pages = list(kms.client.get_paginator("list_keys").paginate(PaginationConfig={"PageSize": 2}))
    assert all(len(page["Keys"]) <= 2 for page in pages)
    assert made <= {each["KeyId"] for page in pages for each in page["Keys"]}
    for call in ("list_keys", "list_aliases"):
        assert kms.refusal(call, Marker="not a marker")[0] == "InvalidMarkerException"


def test_regions_are_apart(account: Account) -> None:
    here, there = account.kms(), account.kms("eu-central-1")
    key = there.key()
    assert there.describe_key(KeyId=key)["KeyMetadata"]["Arn"].startswith("arn:aws:kms:eu-central-1:")
    assert here.refusal("describe_key", KeyId=key)[0] == "NotFoundException"
    assert key not in {each["KeyId"] for each in here.list_keys(Limit=1000)["Keys"]}
    for kms in (here, there):
        kms.create_alias(AliasName="alias/both", TargetKeyId=kms.key())
    assert [
        len([a for a in kms.list_aliases()["Aliases"] if a["AliasName"] == "alias/both"]) for kms in (here, there)
    ]
    sealed = there.encrypt(KeyId="alias/both", Plaintext=b"x")["CiphertextBlob"]
    assert there.decrypt(CiphertextBlob=sealed)["Plaintext"] == b"x"
    assert here.refusal("decrypt", CiphertextBlob=sealed)[0] == "AccessDeniedException"


def test_keys_are_the_same_in_both_dialects(service: Running, account: Account, kms: Kms) -> None:
    assert service.curl("POST", "/generate_symmetric_key", {}, token=account.token).status == 200
    sealed = kms.encrypt(KeyId="amy_symmetric", Plaintext=b"hello")["CiphertextBlob"]
    body = {"ciphertext": b64(sealed)}
    opened = service.curl("POST", "/api/v1/keys/amy_symmetric/decrypt", body, token=account.token)
    assert opened.json["plaintext"] == b64(b"hello")
    ours = service.curl("POST", "/api/v1/keys/amy_symmetric/encrypt", {"plaintext": "AAAA"}, token=account.token)
    assert kms.decrypt(CiphertextBlob=unb64(ours.json["ciphertext"]))["Plaintext"] == unb64("AAAA")
    context = {"ciphertext": b64(sealed), "associated_data": b64(b'{"a":"1","b":"2"}')}
    sealed = kms.encrypt(KeyId="amy_symmetric", Plaintext=b"x", EncryptionContext={"b": "2", "a": "1"})
    context["ciphertext"] = b64(sealed["CiphertextBlob"])
    assert service.curl("POST", "/api/v1/keys/amy_symmetric/decrypt", context, token=account.token).status == 200
    alias = service.curl("PUT", "/api/v1/aliases/ours", {"key_id": "amy_symmetric"}, token=account.token)
    assert alias.status == 200, alias.text
    assert kms.describe_key(KeyId="alias/ours")["KeyMetadata"]["KeyId"] == "amy_symmetric"
    service.curl("POST", "/revoke_key", {"key_id": "amy_symmetric"}, token=account.token)
    assert kms.refusal("encrypt", KeyId="amy_symmetric", Plaintext=b"x")[0] == "KMSInvalidStateException"


def test_others_keys_are_not_there(service: Running, kms: Kms) -> None:
    other = Account(service, service.user("otto")).kms()
    key, sealed = kms.key(), None
    sealed = kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    unknown = other.refusal("encrypt", KeyId="00000000-0000-0000-0000-000000000000", Plaintext=b"x")
    refused = other.refusal("encrypt", KeyId=key, Plaintext=b"x")
    assert refused == (unknown[0], unknown[1].replace("00000000-0000-0000-0000-000000000000", key))
    assert other.refusal("decrypt", CiphertextBlob=sealed)[0] == "AccessDeniedException"
    for call in ("describe_key", "disable_key", "enable_key", "schedule_key_deletion", "get_key_rotation_status"):
        assert other.refusal(call, KeyId=key)[0] == "NotFoundException"
    assert other.list_keys()["Keys"] == []


def test_dry_run(kms: Kms) -> None:
    key = kms.key()
    assert kms.refusal("encrypt", KeyId=key, Plaintext=b"x", DryRun=True)[0] == "DryRunOperationException"
    kms.disable_key(KeyId=key)
    assert kms.refusal("encrypt", KeyId=key, Plaintext=b"x", DryRun=True)[0] == "DisabledException"


def test_what_does_not_fit_is_said_in_the_words_of_aws(kms: Kms) -> None:
    for name, given, expected in (
        (
            "encrypt",
            {"Plaintext": b"x"},
            "Value null at 'keyId' failed to satisfy constraint: Member must not be null",
        ),
        (
            "encrypt",
            {"KeyId": "x" * 2049, "Plaintext": b"x"},
            "at 'keyId' failed to satisfy constraint: Member must have length less than or equal to 2048",
        ),
        (
            "encrypt",
            {"KeyId": "k", "Plaintext": b"x" * 4097},
            "Value at 'plaintext' failed to satisfy constraint: Member must have length less than or",
        ),
        (
            "create_key",
            {"KeySpec": "X"},
            "Value 'X' at 'keySpec' failed to satisfy constraint: Member must satisfy enum",
        ),
        (
            "list_keys",
            {"Limit": 0},
            "Value '0' at 'limit' failed to satisfy constraint: Member must have value greater",
        ),
    ):
        code, message = kms.refusal(name, **given)
        assert code == "ValidationException"
        assert message.startswith("1 validation error detected: ")
        assert expected in message
    for given, code in (
        ({"KeySpec": "RSA_2048"}, "ValidationException"),
        ({"KeySpec": "RSA_2048", "KeyUsage": "KEY_AGREEMENT"}, "ValidationException"),
        ({"KeySpec": "SM2", "KeyUsage": "SIGN_VERIFY"}, "UnsupportedOperationException"),
        ({"Origin": "AWS_CLOUDHSM"}, "UnsupportedOperationException"),
    ):
        assert kms.refusal("create_key", **given)[0] == code
    assert kms.refusal("describe_key", KeyId="arn:aws:s3:::x")[0] == "InvalidArnException"
    assert kms.refusal("describe_custom_key_stores")[0] == "UnsupportedOperationException"


def test_operations_are_those_of_the_model(kms: Kms) -> None:
    known = set(kms.client.meta.service_model.operation_names)
    assert set(ACTIONS) <= known


def _signed(account: Account, key: dict[str, Any], body: bytes = b"{}", **options: Any) -> tuple[int, dict[str, Any]]:
    """A request that was signed and then perhaps altered, sent by curl."""
    target = options.get("target", "TrentService.ListKeys")
    url = account.service.url + "/"
    headers = {"X-Amz-Target": target, "Content-Type": "application/x-amz-json-1.1", **options.get("extra", {})}
    request = AWSRequest("POST", url, headers=headers, data=body)
    credentials = Credentials(key["access_key_id"], key["secret_access_key"], options.get("token"))
    SigV4Auth(credentials, options.get("service", "kms"), REGION).add_auth(request)
    sent = {**dict(request.headers.items()), **options.get("altered", {})}
    command = ["curl", "-sS", "-w", "\n%{http_code}", "--cacert", str(account.service.folder / "server.crt"), url]
    for name, value in sent.items():
        command += ["-H", f"{name}: {value}"]
    done = subprocess.run(
        [*command, "--data-binary", options.get("sent_body", body).decode()],
        capture_output=True,
        check=True,
        env=account.service.environ,
        text=True,
    )
    text, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(text)


def test_signatures_are_checked(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    key = account.access_key()
    assert _signed(account, key)[0] == 200
    wrong = {**key, "secret_access_key": key["secret_access_key"].swapcase()}
    unknown = {**key, "access_key_id": "AKIA" + "A" * 16}
    for status, answer in (
        _signed(account, wrong),
        _signed(account, key, sent_body=b'{"Limit": 1}'),
        _signed(account, key, altered={"X-Amz-Target": "TrentService.CreateKey"}),
        _signed(account, key, altered={"Content-Type": "application/json"}),
        _signed(account, key, service="s3"),
    ):
        assert (status, answer["__type"]) == (400, "InvalidSignatureException")
    assert _signed(account, unknown)[1]["__type"] == "UnrecognizedClientException"
    assert _signed(account, key, token="x")[1]["__type"] == "UnrecognizedClientException"
    assert _signed(account, key, altered={"X-Amz-Foo": "x"})[1]["__type"] == "IncompleteSignatureException"
    assert _signed(account, key, altered={"Authorization": "Bearer x"})[1]["__type"] == "IncompleteSignatureException"
    assert _signed(account, key, target="TrentService.Nothing")[1]["__type"] == "UnknownOperationException"
    old = datetime.now(UTC) - timedelta(minutes=6)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *_, **__: old)
    status, answer = _signed(account, key)
    assert (status, answer["__type"]) == (400, "InvalidSignatureException")
    assert answer["message"].startswith("Signature expired")


def test_a_body_in_chunks_is_read(account: Account) -> None:
    status, answer = _signed(
        account,
        account.access_key(),
        b'{"Description": "in chunks"}',
        target="TrentService.CreateKey",
        altered={"Transfer-Encoding": "chunked"},
    )
    assert (status, answer["KeyMetadata"]["Description"]) == (200, "in chunks")


def test_access_keys(service: Running, account: Account) -> None:
    with_token = account.access_key(with_session_token=True, expires_in=60)
    assert account.kms(key=with_token).list_keys()
    assert account.kms(key={**with_token, "session_token": None}).refusal("list_keys")[0] == (
        "UnrecognizedClientException"
    )
    listed = service.curl("GET", "/api/v1/access-keys", token=account.token).json["items"]
    assert with_token["access_key_id"] in {each["access_key_id"] for each in listed}
    assert all("secret_access_key" not in each for each in listed)
    kms = account.kms(key=with_token)
    kms.list_keys()
    path = f"/api/v1/access-keys/{with_token['access_key_id']}"
    assert service.curl("DELETE", path, token=service.user("eve")).status == 404
    assert service.curl("DELETE", path, token=account.token).status == 200
    assert kms.refusal("list_keys")[0] == "UnrecognizedClientException"
    assert service.curl("POST", "/api/v1/access-keys", {"expires_in": 10**8}, token=account.token).status == 422
    enrolled = service.enrol("gone")
    gone = Account(service, service.login(enrolled)).kms()
    gone.list_keys()
    service.curl("POST", "/api/v1/clients/gone/disable")
    assert gone.refusal("list_keys")[0] == "UnrecognizedClientException"


def test_the_last_use_of_a_key(kms: Kms) -> None:
    key = kms.key()
    assert kms.get_key_last_usage(KeyId=key)["KeyLastUsage"] == {}
    kms.encrypt(KeyId=key, Plaintext=b"x")
    for _ in range(50):  # the other worker does not know for some minutes
        last = kms.get_key_last_usage(KeyId=key)
        if last["KeyLastUsage"]:
            break
        kms.client.close()
        kms.encrypt(KeyId=key, Plaintext=b"x")
    assert last["KeyLastUsage"]["Operation"] == "Encrypt"
    assert last["TrackingStartDate"] == last["KeyCreationDate"]
    assert kms.refusal("get_key_last_usage", KeyId="nothing")[0] == "NotFoundException"


def test_an_entry_for_every_request(service: Running, kms: Kms) -> None:
    key = kms.key()
    kms.encrypt(KeyId=key, Plaintext=b"x")
    kms.refusal("describe_key", KeyId="nothing")
    entries = service.curl("GET", "/api/v1/audit/entries?limit=3").json["items"]
    assert [(each["operation"], each["outcome"], each["client_id"]) for each in entries] == [
        ("create_key", "success", "amy"),
        ("encrypt", "success", "amy"),
        ("aws:DescribeKey", "not-found", "amy"),
    ]


def test_the_how_to_is_run_as_it_is_pasted(service: Running) -> None:
    page = "docs/how-to/aws-clients.md"
    scripts = [block for section in ("Get an access key", "With Python") for block in blocks(page, section)]
    run(service, "python -m kms login --credentials admin.json")
    printed = run(service, "".join(scripts).replace("pip install boto3", ":"))
    assert printed.splitlines()[-1] == "b'hello'"
