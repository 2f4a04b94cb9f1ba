"""Grants with an unmodified boto3: what they permit, with which encryption context, and until when."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.aws_client import REGION, Account, Kms
from helpers.running import Running, Start
from helpers.support import b64

ACCOUNT = "arn:aws:iam::000000000000"


@pytest.fixture(scope="module")
def service(start: Start) -> Running:
    return start("--workers", "2", "--rate-limit", "off")


@pytest.fixture(scope="module")
def account(service: Running) -> Account:
    return Account(service, service.user("amy"))


@pytest.fixture(scope="module")
def kms(account: Account) -> Kms:
    return account.kms()


@pytest.fixture(scope="module")
def bob(service: Running) -> Account:
    return Account(service, service.user("bob"))


@pytest.fixture(scope="module")
def eve(service: Running) -> Kms:
    return Account(service, service.user("eve")).kms()


def granted(kms: Kms, key: str, *operations: str, **more: Any) -> dict[str, Any]:
    given = {"KeyId": key, "GranteePrincipal": f"{ACCOUNT}:user/bob", "Operations": list(operations), **more}
    return dict(kms.create_grant(**given))


def test_a_grant_permits_its_operations_and_no_more(kms: Kms, bob: Account, eve: Kms) -> None:
    key, theirs = kms.key(), bob.kms()
    assert theirs.refusal("encrypt", KeyId=key, Plaintext=b"x")[0] == "NotFoundException"
    made = granted(kms, key, "Encrypt", "GenerateDataKey")
    sealed = theirs.encrypt(KeyId=key, Plaintext=b"x", GrantTokens=[made["GrantToken"]])["CiphertextBlob"]
    assert kms.decrypt(CiphertextBlob=theirs.generate_data_key(KeyId=key, KeySpec="AES_256")["CiphertextBlob"])
    for name in ("decrypt", "describe_key", "schedule_key_deletion"):
        given = {"CiphertextBlob": sealed} if name == "decrypt" else {"KeyId": key}
        assert theirs.refusal(name, **given)[0] == "AccessDeniedException"
    assert eve.refusal("encrypt", KeyId=key, Plaintext=b"x")[0] == "NotFoundException"
    kms.revoke_grant(KeyId=key, GrantId=made["GrantId"])
    assert theirs.refusal("encrypt", KeyId=key, Plaintext=b"x")[0] == "NotFoundException"


def test_grants_for_every_kind_of_key(kms: Kms, bob: Account) -> None:
    theirs = bob.kms()
    signing = kms.key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")
    granted(kms, signing, "Sign", "Verify", "GetPublicKey", "DescribeKey")
    signed = {"KeyId": signing, "Message": b"m", "SigningAlgorithm": "ECDSA_SHA_256"}
    assert theirs.verify(**signed, Signature=theirs.sign(**signed)["Signature"])["SignatureValid"]
    assert theirs.get_public_key(KeyId=signing)["PublicKey"]
    assert theirs.describe_key(KeyId=signing)["KeyMetadata"]["KeyUsage"] == "SIGN_VERIFY"
    code = kms.key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC")
    granted(kms, code, "GenerateMac")
    assert theirs.generate_mac(KeyId=code, Message=b"m", MacAlgorithm="HMAC_SHA_256")["Mac"]
    refused = kms.refusal("create_grant", KeyId=code, GranteePrincipal=f"{ACCOUNT}:user/bob", Operations=["Decrypt"])
    assert refused == (
        "ValidationException",
        "Grants on keys for GENERATE_VERIFY_MAC cannot permit Decrypt.",
    )


@pytest.mark.parametrize(
    ("rule", "admitted", "refused"),
    [
        ("EncryptionContextEquals", [{"a": "1", "b": "2"}], [{}, {"a": "1"}, {"a": "1", "b": "2", "c": "3"}]),
        (
            "EncryptionContextSubset",
            [{"a": "1", "b": "2"}, {"b": "2", "c": "3", "a": "1"}],
            [{}, {"a": "1", "b": "1"}],
        ),
    ],
)
def test_an_encryption_context_limits_a_grant(
    kms: Kms,
    bob: Account,
    rule: str,
    admitted: list[dict[str, str]],
    refused: list[dict[str, str]],
) -> None:
    key, theirs = kms.key(), bob.kms()
    granted(kms, key, "Encrypt", "Decrypt", "DescribeKey", Constraints={rule: {"a": "1", "b": "2"}})
    for context in admitted:
        sealed = theirs.encrypt(KeyId=key, Plaintext=b"x", EncryptionContext=context)["CiphertextBlob"]
        assert theirs.decrypt(CiphertextBlob=sealed, EncryptionContext=context)["Plaintext"] == b"x"
    for context in refused:
        wrong = {"KeyId": key, "EncryptionContext": context}
        assert theirs.refusal("encrypt", Plaintext=b"x", **wrong)[0] == "AccessDeniedException"
        assert theirs.refusal("generate_data_key", KeySpec="AES_256", **wrong)[0] == "AccessDeniedException"
        sealed = kms.encrypt(Plaintext=b"x", **wrong)["CiphertextBlob"]
        assert theirs.refusal("decrypt", CiphertextBlob=sealed, **wrong)[0] == "AccessDeniedException"
    assert theirs.describe_key(KeyId=key)


def test_no_other_door_gets_around_the_context(service: Running, kms: Kms, bob: Account) -> None:
    key = kms.key()
    granted(kms, key, "Encrypt", "Decrypt", Constraints={"EncryptionContextSubset": {"a": "1"}})
    right, wrong = b64(b'{"a":"1","b":"2"}'), b64(b'{"a":"2"}')

    def rest(operation: str, body: dict[str, Any]) -> Any:
        return service.curl("POST", f"/api/v1/keys/{key}/{operation}", body, token=bob.token)

    assert rest("encrypt", {"plaintext": "eA==", "associated_data": right}).status == 200
    assert rest("encrypt", {"items": [{"plaintext": "eA==", "associated_data": right}] * 2}).status == 200
    for associated_data in (wrong, "", b64(b'{"a": "1"}'), b64(b'{"a":"1","a":"1"}'), b64(b"\xff"), b64(b"[1]")):
        one = {"plaintext": "eA==", "associated_data": associated_data}
        assert rest("encrypt", one).status == 403
        assert rest("encrypt", {"items": [{"plaintext": "eA==", "associated_data": right}, one]}).status == 403
    sealed = rest("encrypt", {"plaintext": "eA==", "associated_data": right}).json["ciphertext"]
    assert rest("rewrap", {"ciphertext": sealed, "associated_data": right}).status == 403
    vault = service.curl("POST", f"/v1/transit/encrypt/{key}", {"plaintext": "eA=="}, token=bob.token)
    assert vault.status == 403


def test_grants_are_listed(kms: Kms, bob: Account) -> None:
    key = kms.key()
    arn = f"arn:aws:kms:{REGION}:000000000000:key/{key}"
    limited = {
        "Name": "for-bob",
        "RetiringPrincipal": f"{ACCOUNT}:user/amy",
        "Constraints": {"EncryptionContextEquals": {"a": "1"}},
    }
    first = granted(kms, key, "Encrypt", "RetireGrant", **limited)
    assert granted(kms, key, "Encrypt", "RetireGrant", **limited) == first
    others = [granted(kms, key, "Decrypt") for _ in range(2)]
    ids = sorted(each["GrantId"] for each in (first, *others))
    pages = kms.client.get_paginator("list_grants").paginate(KeyId=key, PaginationConfig={"PageSize": 2})
    assert [each["GrantId"] for page in pages for each in page["Grants"]] == ids
    (shown,) = kms.list_grants(KeyId=key, GrantId=first["GrantId"])["Grants"]
    assert shown.pop("CreationDate")
    assert shown == {
        "KeyId": arn,
        "GrantId": first["GrantId"],
        "GranteePrincipal": f"{ACCOUNT}:user/bob",
        "IssuingAccount": f"{ACCOUNT}:root",
        "Operations": ["Encrypt", "RetireGrant"],
        **limited,
    }
    retirable = kms.list_retirable_grants(RetiringPrincipal=f"{ACCOUNT}:user/amy")["Grants"]
    assert first["GrantId"] in {each["GrantId"] for each in retirable}
    assert len(bob.kms().list_grants(KeyId=key)["Grants"]) == 3


@pytest.mark.parametrize("how", ["token", "id"])
def test_a_grant_is_retired_by_its_grantee(kms: Kms, bob: Account, eve: Kms, how: str) -> None:
    key, theirs = kms.key(), bob.kms()
    kept = granted(kms, key, "Encrypt")["GrantId"]
    made = granted(kms, key, "Encrypt", "RetireGrant")
    arn = f"arn:aws:kms:{REGION}:000000000000:key/{key}"
    which = {"GrantToken": made["GrantToken"]} if how == "token" else {"KeyId": arn, "GrantId": made["GrantId"]}
    assert eve.refusal("retire_grant", **which)[0] == "NotFoundException"
    assert theirs.refusal("retire_grant", **which, DryRun=True)[0] == "DryRunOperationException"
    assert theirs.encrypt(KeyId=key, Plaintext=b"x")
    theirs.retire_grant(**which)
    assert theirs.refusal("retire_grant", **which)[0] == "NotFoundException"
    assert theirs.refusal("retire_grant", KeyId=arn, GrantId=kept)[0] == "NotFoundException"
    assert [each["GrantId"] for each in kms.list_grants(KeyId=key)["Grants"]] == [kept]


def test_a_grant_is_retired_by_whom_it_names(service: Running, kms: Kms) -> None:
    key, carol = kms.key(), Account(service, service.user("carol")).kms()
    made = granted(kms, key, "Encrypt", RetiringPrincipal=f"{ACCOUNT}:user/carol")
    carol.retire_grant(GrantToken=made["GrantToken"])
    assert not kms.list_grants(KeyId=key)["Grants"]


@pytest.mark.parametrize("principal", [f"{ACCOUNT}:root", "000000000000"])
def test_the_account_is_the_owner(kms: Kms, bob: Account, eve: Kms, principal: str) -> None:
    key = kms.key()
    made = granted(kms, key, "Encrypt", GranteePrincipal=principal, RetiringPrincipal=principal)
    (shown,) = kms.list_grants(KeyId=key, GranteePrincipal=principal)["Grants"]
    assert shown["GranteePrincipal"] == shown["RetiringPrincipal"] == f"{ACCOUNT}:user/amy"
    for stranger in (bob.kms(), eve):  # nobody else gets anything by it
        assert stranger.refusal("encrypt", KeyId=key, Plaintext=b"x")[0] == "NotFoundException"
        assert stranger.list_retirable_grants(RetiringPrincipal=principal)["Grants"] == []
    retirable = kms.list_retirable_grants(RetiringPrincipal=principal)["Grants"]
    assert made["GrantId"] in {each["GrantId"] for each in retirable}
    kms.retire_grant(GrantToken=made["GrantToken"])


def test_what_cannot_be_granted(kms: Kms, bob: Account) -> None:
    key = kms.key()
    right = {"KeyId": key, "GranteePrincipal": f"{ACCOUNT}:user/bob", "Operations": ["Encrypt", "Decrypt"]}
    for code, wrong in (
        ("InvalidArnException", {"GranteePrincipal": f"{ACCOUNT}:user/nobody"}),
        ("InvalidArnException", {"GranteePrincipal": "arn:aws:iam::111111111111:user/bob"}),
        ("InvalidArnException", {"GranteePrincipal": "arn:aws:iam::111111111111:root"}),
        ("InvalidArnException", {"RetiringPrincipal": "111111111111"}),
        ("InvalidArnException", {"RetiringPrincipal": f"{ACCOUNT}:role/user"}),
        ("ValidationException", {"Operations": ["Dance"]}),
        ("ValidationException", {"Operations": []}),
        ("ValidationException", {"Operations": ["Sign"]}),
        ("ValidationException", {"Name": "a b"}),
        ("UnsupportedOperationException", {"Operations": ["Encrypt", "CreateGrant"]}),
        ("UnsupportedOperationException", {"Operations": ["ReEncryptFrom"]}),
        ("UnsupportedOperationException", {"Constraints": {"SourceArn": "arn:aws:s3:us-east-1:000000000000:x"}}),
        ("UnsupportedOperationException", {"GranteeServicePrincipal": "s3.amazonaws.com"}),
        (
            "ValidationException",
            {"Constraints": {"EncryptionContextEquals": {}, "EncryptionContextSubset": {}}},
        ),
        ("ValidationException", {"Constraints": {"EncryptionContextSubset": {str(n): "" for n in range(9)}}}),
        ("InvalidGrantTokenException", {"GrantTokens": ["x"]}),
        ("DryRunOperationException", {"DryRun": True}),
    ):
        assert kms.refusal("create_grant", **{**right, **wrong})[0] == code, wrong
    assert not kms.list_grants(KeyId=key)["Grants"]
    theirs = bob.kms()
    assert theirs.refusal("create_grant", **right)[0] == "NotFoundException"
    made = granted(kms, key, "Encrypt", "DescribeKey")
    assert theirs.refusal("create_grant", **right)[0] == "AccessDeniedException"
    assert theirs.refusal("revoke_grant", KeyId=key, GrantId=made["GrantId"])[0] == "AccessDeniedException"
    kms.disable_key(KeyId=key)
    assert kms.refusal("create_grant", **right)[0] == "DisabledException"
    kms.schedule_key_deletion(KeyId=key)
    assert kms.refusal("create_grant", **right)[0] == "KMSInvalidStateException"
