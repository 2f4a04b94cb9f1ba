"""Multi-region keys with an unmodified boto3: one key, used in every region that it was replicated to."""

from __future__ import annotations

import pytest

from helpers.aws_client import REGION, Account, Kms
from helpers.running import Running, Start

OTHER, THIRD = "eu-central-1", "us-gov-west-1"


@pytest.fixture(scope="module")
def account(start: Start) -> Account:
    service: Running = start("--workers", "2", "--rate-limit", "off")
    return Account(service, service.user("amy"))


@pytest.fixture(scope="module")
def kms(account: Account) -> Kms:
    return account.kms()


@pytest.fixture(scope="module")
def abroad(account: Account) -> Kms:
    return account.kms(OTHER)


def arn(key: str, region: str) -> str:
    return f"arn:aws:kms:{region}:000000000000:key/{key}"


def test_what_one_region_encrypts_another_decrypts(kms: Kms, abroad: Kms) -> None:
    key = kms.key(MultiRegion=True)
    assert key.startswith("mrk-")
    sealed = kms.encrypt(KeyId=key, Plaintext=b"x", EncryptionContext={"a": "1"})["CiphertextBlob"]
    opening = {"CiphertextBlob": sealed, "EncryptionContext": {"a": "1"}}
    assert abroad.refusal("decrypt", **opening)[0] == "AccessDeniedException"
    assert abroad.refusal("describe_key", KeyId=key)[0] == "NotFoundException"
    made = kms.replicate_key(KeyId=key, ReplicaRegion=OTHER, Description="d", Tags=[{"TagKey": "a", "TagValue": "b"}])
    assert made["ReplicaKeyMetadata"]["Arn"] == arn(key, OTHER)
    assert made["ReplicaTags"] == [{"TagKey": "a", "TagValue": "b"}]
    assert made["ReplicaKeyMetadata"]["Description"] == "d"
    opened = abroad.decrypt(**opening, KeyId=arn(key, OTHER))
    assert (opened["Plaintext"], opened["KeyId"]) == (b"x", arn(key, OTHER))
    back = abroad.generate_data_key(KeyId=key, KeySpec="AES_256")
    assert kms.decrypt(CiphertextBlob=back["CiphertextBlob"])["Plaintext"] == back["Plaintext"]


def test_description_and_tags_are_those_of_a_region(kms: Kms, abroad: Kms) -> None:
    own = [{"TagKey": "where", "TagValue": "home"}]
    key = kms.key(MultiRegion=True, Description="home", Tags=own)
    made = kms.replicate_key(KeyId=key, ReplicaRegion=OTHER)
    assert (made["ReplicaKeyMetadata"]["Description"], made["ReplicaTags"]) == ("", [])
    theirs = [{"TagKey": "where", "TagValue": "abroad"}, {"TagKey": "x", "TagValue": ""}]
    abroad.tag_resource(KeyId=key, Tags=theirs)
    abroad.untag_resource(KeyId=key, TagKeys=["x"])
    abroad.update_key_description(KeyId=key, Description="abroad")
    for primary in (REGION, OTHER):  # and each keeps its own when the primary region moves
        for client, text in ((kms, "home"), (abroad, "abroad")):
            shown = client.describe_key(KeyId=key)["KeyMetadata"]
            assert (shown["Description"], shown["MultiRegionConfiguration"]["PrimaryKey"]["Region"]) == (
                text,
                primary,
            )
            assert client.list_resource_tags(KeyId=key)["Tags"] == [{"TagKey": "where", "TagValue": text}]
        if primary == REGION:
            kms.update_primary_region(KeyId=key, PrimaryRegion=OTHER)
    kms.schedule_key_deletion(KeyId=key)
    again = abroad.replicate_key(KeyId=key, ReplicaRegion=REGION)
    assert (again["ReplicaKeyMetadata"]["Description"], again["ReplicaTags"]) == ("", [])


def test_each_region_says_where_the_key_is(kms: Kms, abroad: Kms) -> None:
    key = kms.key(MultiRegion=True, KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")
    kms.replicate_key(KeyId=key, ReplicaRegion=OTHER)
    kms.replicate_key(KeyId=key, ReplicaRegion=THIRD)
    configuration = {
        "PrimaryKey": {"Arn": arn(key, REGION), "Region": REGION},
        "ReplicaKeys": [{"Arn": arn(key, each), "Region": each} for each in (OTHER, THIRD)],
    }
    for client, kind in ((kms, "PRIMARY"), (abroad, "REPLICA")):
        shown = client.describe_key(KeyId=key)["KeyMetadata"]
        assert shown["MultiRegion"]
        assert shown["MultiRegionConfiguration"] == {"MultiRegionKeyType": kind, **configuration}
        listed = client.list_keys(Limit=1000)["Keys"]
        assert [each["KeyArn"] for each in listed if each["KeyId"] == key] == [shown["Arn"]]
    assert not kms.describe_key(KeyId=kms.key())["KeyMetadata"]["MultiRegion"]
    signed = {"KeyId": key, "Message": b"m", "SigningAlgorithm": "ECDSA_SHA_256"}
    assert abroad.verify(**signed, Signature=kms.sign(**signed)["Signature"])["SignatureValid"]


def test_aliases_are_those_of_a_region(kms: Kms, abroad: Kms) -> None:
    key = kms.key(MultiRegion=True)
    kms.replicate_key(KeyId=key, ReplicaRegion=OTHER)
    abroad.create_alias(AliasName="alias/abroad", TargetKeyId=key)
    assert abroad.encrypt(KeyId="alias/abroad", Plaintext=b"x")
    assert kms.refusal("encrypt", KeyId="alias/abroad", Plaintext=b"x")[0] == "NotFoundException"


def test_the_primary_region_moves(kms: Kms, abroad: Kms) -> None:
    key = kms.key(MultiRegion=True)
    assert kms.refusal("update_primary_region", KeyId=key, PrimaryRegion=OTHER)[0] == "NotFoundException"
    kms.replicate_key(KeyId=key, ReplicaRegion=OTHER)
    for name in ("enable_key_rotation", "rotate_key_on_demand"):
        assert abroad.refusal(name, KeyId=key)[0] == "UnsupportedOperationException"
    assert abroad.refusal("update_primary_region", KeyId=key, PrimaryRegion=OTHER)[0] == (
        "UnsupportedOperationException"
    )
    kms.update_primary_region(KeyId=key, PrimaryRegion=OTHER)
    kind = "MultiRegionKeyType"
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["MultiRegionConfiguration"][kind] == "REPLICA"
    sealed = kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    abroad.rotate_key_on_demand(KeyId=key)
    assert kms.decrypt(CiphertextBlob=sealed)["Plaintext"] == b"x"


def test_a_key_is_disabled_everywhere_at_once(kms: Kms, abroad: Kms) -> None:
    key = kms.key(MultiRegion=True)
    kms.replicate_key(KeyId=key, ReplicaRegion=OTHER)
    abroad.disable_key(KeyId=key)
    assert kms.refusal("encrypt", KeyId=key, Plaintext=b"x")[0] == "DisabledException"
    assert kms.refusal("replicate_key", KeyId=key, ReplicaRegion=THIRD)[0] == "DisabledException"
    kms.enable_key(KeyId=key)
    assert abroad.encrypt(KeyId=key, Plaintext=b"x")


def test_replicas_are_deleted_before_their_primary(kms: Kms, abroad: Kms) -> None:
    key = kms.key(MultiRegion=True)
    kms.replicate_key(KeyId=key, ReplicaRegion=OTHER)
    assert kms.refusal("schedule_key_deletion", KeyId=key)[0] == "KMSInvalidStateException"
    assert abroad.schedule_key_deletion(KeyId=key)["KeyState"] == "PendingDeletion"
    assert abroad.refusal("encrypt", KeyId=key, Plaintext=b"x")[0] == "NotFoundException"
    assert kms.encrypt(KeyId=key, Plaintext=b"x")
    assert kms.schedule_key_deletion(KeyId=key)["KeyState"] == "PendingDeletion"


def test_what_cannot_be_replicated(account: Account, kms: Kms) -> None:
    key = kms.key(MultiRegion=True)
    for code, wrong in (
        ("UnsupportedOperationException", {"KeyId": kms.key()}),
        ("AlreadyExistsException", {"ReplicaRegion": REGION}),
        ("ValidationException", {"ReplicaRegion": "here"}),
        ("MalformedPolicyDocumentException", {"Policy": "{}"}),
        ("TagException", {"Tags": [{"TagKey": "aws:x", "TagValue": "b"}]}),
        ("NotFoundException", {"KeyId": "mrk-" + "0" * 32}),
    ):
        assert kms.refusal("replicate_key", **{"KeyId": key, "ReplicaRegion": OTHER, **wrong})[0] == code, wrong
    stranger = Account(account.service, account.service.user("eve")).kms()
    assert stranger.refusal("replicate_key", KeyId=key, ReplicaRegion=OTHER)[0] == "NotFoundException"
