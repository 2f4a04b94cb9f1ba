"""Key policies of AWS are taken, enforced in every dialect, explained, and come back byte for byte."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from helpers.aws_in_process import client
from helpers.support import Api, SteeredClock, World, b64
from helpers.tokens import PlatformIssuer
from helpers.vault_client import Vault
from kms.keys.model import Key

ACCOUNT = "000000000000"
ROOT = f"arn:aws:iam::{ACCOUNT}:root"
DEFAULT = {"Sid": "Enable IAM policies", "Effect": "Allow", "Principal": {"AWS": ROOT}, "Action": "kms:*"}


def user(name: str) -> str:
    return f"arn:aws:iam::{ACCOUNT}:user/{name}"


@dataclass
class Someone:
    """A client with its session and boto3."""

    api: Api
    kms: Any

    def does(self, name: str, **given: Any) -> Any:
        """The answer, or the code of the refusal."""
        try:
            return getattr(self.kms, name)(**given)
        except ClientError as refused:
            return refused.response["Error"]["Code"]

    def may(self, name: str, **given: Any) -> bool:
        """Whether it is carried out; a refusal must be for want of permission."""
        answer = self.does(name, **given)
        if isinstance(answer, str):
            assert answer in ("AccessDeniedException", "NotFoundException"), answer
            return False
        return True


def someone(world: World, name: str) -> Someone:
    api = world.user(name)
    return Someone(api, client(world, "kms", api.post("/api/v1/access-keys", {}).json))


@pytest.fixture
def alice(world: World) -> Someone:
    return someone(world, "alice")


@pytest.fixture
def bob(world: World) -> Someone:
    return someone(world, "bob")


def document(*statements: dict[str, Any], default: bool = True) -> str:
    given = [DEFAULT, *statements] if default else list(statements)
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Resource": "*", **each} for each in given]}, indent=1)


def allow(who: str, *actions: str, **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Principal": {"AWS": who}, "Action": list(actions), **more}


def deny(who: Any, *actions: str, **more: Any) -> dict[str, Any]:
    principal = who if who == "*" else {"AWS": who}
    return {"Sid": "No", "Effect": "Deny", "Principal": principal, "Action": list(actions), **more}


def key_of(alice: Someone, *statements: dict[str, Any]) -> str:
    key = str(alice.kms.create_key()["KeyMetadata"]["KeyId"])
    if statements:
        text = document(*statements)
        alice.kms.put_key_policy(KeyId=key, Policy=text)
        assert alice.kms.get_key_policy(KeyId=key)["Policy"] == text
    return key


def test_whom_a_policy_names_may_do_what_it_says_and_no_more(alice: Someone, bob: Someone) -> None:
    key = key_of(alice, allow(user("bob"), "kms:GenerateDataKey*", "kms:Decrypt", "kms:DescribeKey"))
    made = bob.does("generate_data_key", KeyId=key, KeySpec="AES_256")
    assert bob.does("decrypt", CiphertextBlob=made["CiphertextBlob"])["Plaintext"] == made["Plaintext"]
    assert bob.may("describe_key", KeyId=key)
    for name, given in (
        ("encrypt", {"Plaintext": b"x"}),
        ("schedule_key_deletion", {}),
        ("disable_key", {}),
        ("put_key_policy", {"Policy": document(allow(user("bob"), "kms:*"))}),
        ("update_key_description", {"Description": "mine"}),
        ("tag_resource", {"Tags": [{"TagKey": "a", "TagValue": "b"}]}),
        ("create_grant", {"GranteePrincipal": user("bob"), "Operations": ["Decrypt"]}),
    ):
        assert not bob.may(name, KeyId=key, **given), name
    assert bob.api.post(f"/api/v1/keys/{key}/encrypt", {"plaintext": ""}).status_code == 403
    assert bob.api.post(f"/api/v1/keys/{key}/data-key", {}).status_code == 200
    assert bob.api.post(f"/api/v1/keys/{key}/export", {"plaintext": True}).status_code == 403
    assert bob.api.delete(f"/api/v1/keys/{key}").status_code == 403
    assert key in {each["key_id"] for each in bob.api.get("/api/v1/keys").json["items"]}
    assert alice.may("encrypt", KeyId=key, Plaintext=b"x")
    alice.kms.put_key_policy(KeyId=key, Policy=document())
    assert bob.does("generate_data_key", KeyId=key, KeySpec="AES_256") == "NotFoundException"
    assert bob.api.get("/api/v1/keys").json["items"] == []


def test_administrators_of_a_key_as_the_console_names_them(alice: Someone, bob: Someone) -> None:
    admin = allow(
        user("bob"), "kms:Create*", "kms:Describe*", "kms:Enable*", "kms:List*", "kms:Put*", "kms:Update*",
        "kms:Revoke*", "kms:Disable*", "kms:Get*", "kms:Delete*", "kms:TagResource", "kms:UntagResource",
        "kms:ScheduleKeyDeletion", "kms:CancelKeyDeletion", "kms:RotateKeyOnDemand",
    )  # fmt: skip
    attach = allow(
        user("bob"), "kms:CreateGrant", "kms:ListGrants", "kms:RevokeGrant",
        Condition={"Bool": {"kms:GrantIsForAWSResource": "true"}},
    )  # fmt: skip
    key = key_of(alice, admin, attach)
    assert bob.may("update_key_description", KeyId=key, Description="of orders")
    assert bob.may("disable_key", KeyId=key)
    assert bob.may("enable_key", KeyId=key)
    assert bob.may("rotate_key_on_demand", KeyId=key)
    assert not bob.may("encrypt", KeyId=key, Plaintext=b"x")
    assert not bob.may("create_grant", KeyId=key, GranteePrincipal=user("bob"), Operations=["Decrypt"])
    assert bob.may("put_key_policy", KeyId=key, Policy=document(admin))
    assert bob.may("schedule_key_deletion", KeyId=key, PendingWindowInDays=7)


def test_a_deny_holds_against_the_owner_and_administrators_in_every_dialect(
    world: World, alice: Someone, bob: Someone
) -> None:
    key = key_of(alice, allow(user("bob"), "kms:*"), deny("*", "kms:Encrypt", "kms:ScheduleKeyDeletion"))
    assert not alice.may("encrypt", KeyId=key, Plaintext=b"x")
    assert not bob.may("encrypt", KeyId=key, Plaintext=b"x")
    assert alice.api.post(f"/api/v1/keys/{key}/encrypt", {"plaintext": ""}).status_code == 403
    assert Vault.of(world, alice.api).write(f"transit/encrypt/{key}", plaintext="").status == 403
    assert not alice.may("schedule_key_deletion", KeyId=key)
    assert world.admin.delete(f"/api/v1/keys/{key}").status_code == 403
    assert alice.may("describe_key", KeyId=key)
    hidden = key_of(alice, deny(user("bob"), "kms:DescribeKey"), allow(user("bob"), "kms:Encrypt"))
    assert bob.does("describe_key", KeyId=hidden) == "NotFoundException"


def test_an_encryption_context_decides_for_each_message(alice: Someone, bob: Someone) -> None:
    only = {"StringEquals": {"kms:EncryptionContext:app": "shop"}}
    key = key_of(alice, allow(user("bob"), "kms:Encrypt", "kms:Decrypt", Condition=only))
    for context, expected in (({"app": "shop", "env": "x"}, True), ({"app": "bank"}, False), ({}, False)):
        assert bob.may("encrypt", KeyId=key, Plaintext=b"x", EncryptionContext=context) is expected
    bound = b64(json.dumps({"app": "shop"}).replace(" ", "").encode())
    path = f"/api/v1/keys/{key}/encrypt"
    assert bob.api.post(path, {"plaintext": "", "associated_data": bound}).status_code == 200
    assert bob.api.post(path, {"plaintext": "", "associated_data": b64(b"opaque")}).status_code == 403
    two = {"items": [{"plaintext": "", "associated_data": bound}, {"plaintext": ""}]}
    assert bob.api.post(path, two).status_code == 403
    unless = {"StringNotEquals": {"kms:EncryptionContext:app": "shop"}}
    strict = key_of(alice, deny("*", "kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", Condition=unless))
    assert alice.may("encrypt", KeyId=strict, Plaintext=b"x", EncryptionContext={"app": "shop"})
    assert not alice.may("encrypt", KeyId=strict, Plaintext=b"x", EncryptionContext={"app": "bank"})
    assert not alice.may("encrypt", KeyId=strict, Plaintext=b"x")
    sealed = alice.api.post(f"/api/v1/keys/{strict}/encrypt", {"plaintext": "", "associated_data": bound}).json[
        "ciphertext"
    ]
    again = {"ciphertext": sealed, "associated_data": bound}
    assert alice.api.post(f"/api/v1/keys/{strict}/rewrap", again).status_code == 403


def test_a_source_address_decides(world: World, alice: Someone, bob: Someone) -> None:
    inside = {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}
    key = key_of(alice, allow(user("bob"), "kms:Encrypt", Condition=inside))
    for source, expected in (("10.1.1.1", 200), ("192.0.2.1", 403)):
        answer = world.http.post(
            f"/api/v1/keys/{key}/encrypt",
            json={"plaintext": ""},
            headers=bob.api.headers,
            environ_overrides={"REMOTE_ADDR": source},
        )
        assert answer.status_code == expected


def test_a_time_decides_and_is_not_remembered(alice: Someone, bob: Someone, clock: SteeredClock) -> None:
    soon = {"DateGreaterThan": {"aws:CurrentTime": f"{clock.now.replace(microsecond=0):%Y-%m-%dT%H:%M:%SZ}"}}
    clock.advance(seconds=-5)
    key = key_of(alice, allow(user("bob"), "kms:Encrypt", Condition=soon))
    assert not bob.may("encrypt", KeyId=key, Plaintext=b"x")
    clock.advance(seconds=7)
    assert bob.may("encrypt", KeyId=key, Plaintext=b"x")
    clock.advance(seconds=-7)
    assert not bob.may("encrypt", KeyId=key, Plaintext=b"x")


@pytest.mark.parametrize(
    "of_a_service",
    [
        {"Effect": "Allow", "Principal": {"Service": "logs.eu-central-1.amazonaws.com"}, "Action": ["kms:Encrypt*"],
         "Condition": {"ArnLike": {"kms:EncryptionContext:aws:logs:arn": "arn:aws:logs:eu-central-1:1:*"}}},
        {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": ["kms:Encrypt", "kms:Decrypt"],
         "Condition": {"StringEquals": {"kms:CallerAccount": ACCOUNT, "kms:ViaService": "s3.x.amazonaws.com"}}},
        {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": ["kms:CreateGrant", "kms:Decrypt"],
         "Condition": {"StringEquals": {"kms:ViaService": "ec2.us-east-1.amazonaws.com"}}},
        {"Effect": "Allow", "Principal": {"Service": "eks.amazonaws.com"}, "Action": "kms:DescribeKey"},
        {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::999999999999:user/bob"}, "Action": "kms:*"},
    ],
)  # fmt: skip
def test_what_services_and_other_accounts_get_nobody_gets(
    alice: Someone, bob: Someone, of_a_service: dict[str, Any]
) -> None:
    key = key_of(alice, of_a_service)
    assert not bob.may("encrypt", KeyId=key, Plaintext=b"x")
    assert not bob.may(
        "decrypt", KeyId=key, CiphertextBlob=alice.kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    )


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        (allow(user("nobody"), "kms:Encrypt"), "invalid principals"),
        (
            allow(user("bob"), "kms:Encrypt", Condition={"StringEquals": {"aws:PrincipalOrgID": "o-1"}}),
            "PrincipalOrgID",
        ),
        (deny("*", "kms:Encrypt", Condition={"StringEquals": {"kms:KeySpec": "RSA_2048"}}), "KeySpec"),
        (allow(user("bob"), "kms:Encrpyt"), "Encrpyt"),
        (allow(user("bob"), "kms:Encrypt", Condition={"StringSounds": {"kms:ViaService": "x"}}), "StringSounds"),
        (deny("*", "kms:PutKeyPolicy"), "will not allow you to update the key policy"),
        (deny("*", "kms:*"), "will not allow you to update the key policy"),
    ],
)
def test_what_cannot_be_enforced_is_refused_and_named(
    alice: Someone, bob: Someone, statement: dict[str, Any], told: str
) -> None:
    key = key_of(alice)
    for bypass in (False, True):
        with pytest.raises(ClientError, match=told) as refused:
            alice.kms.put_key_policy(KeyId=key, Policy=document(statement), BypassPolicyLockoutSafetyCheck=bypass)
        assert refused.value.response["Error"]["Code"] == "MalformedPolicyDocumentException"
    over_rest = alice.api.patch(f"/api/v1/keys/{key}", {"policy": document(statement)})
    assert over_rest.status_code == 422
    assert told in over_rest.json["detail"]
    made = alice.api.post("/api/v1/keys", {"type": "aes-256-gcm", "policy": document(statement)})
    assert made.status_code == 422
    assert alice.may("encrypt", KeyId=key, Plaintext=b"x")


def test_without_the_account_the_owner_has_what_the_policy_leaves(alice: Someone, bob: Someone) -> None:
    key = key_of(alice)
    text = document(
        allow(user("alice"), "kms:PutKeyPolicy", "kms:GetKeyPolicy", "kms:DescribeKey"),
        allow(user("bob"), "kms:Encrypt"),
        default=False,
    )
    alice.kms.put_key_policy(KeyId=key, Policy=text)
    assert not alice.may("encrypt", KeyId=key, Plaintext=b"x")
    assert not alice.may("create_grant", KeyId=key, GranteePrincipal=user("alice"), Operations=["Encrypt"])
    assert bob.may("encrypt", KeyId=key, Plaintext=b"x")
    assert alice.may("put_key_policy", KeyId=key, Policy=document())
    assert alice.may("encrypt", KeyId=key, Plaintext=b"x")


def test_grants_are_given_by_whom_the_policy_lets(world: World, alice: Someone, bob: Someone) -> None:
    carol = someone(world, "carol")
    only = {"ForAllValues:StringEquals": {"kms:GrantOperations": ["Encrypt", "Decrypt", "RetireGrant"]}}
    key = key_of(alice, allow(user("bob"), "kms:Encrypt", "kms:DescribeKey"),
                 allow(user("bob"), "kms:CreateGrant", Condition=only))  # fmt: skip
    give = {"KeyId": key, "GranteePrincipal": user("carol")}
    assert bob.may("create_grant", **give, Operations=["Encrypt"])
    assert carol.may("encrypt", KeyId=key, Plaintext=b"x")
    assert not bob.may("create_grant", **give, Operations=["Decrypt"])  # what it may not do itself
    assert not bob.may("create_grant", **give, Operations=["DescribeKey"])  # what the condition leaves out
    body = {"subject": "client:carol", "permission": "keys:encrypt", "key_pattern": "*", "owner": "alice"}
    assert bob.api.post("/api/v1/grants", body).status_code == 403
    no_grants = key_of(alice, deny("*", "kms:CreateGrant"))
    assert not alice.may("create_grant", KeyId=no_grants, GranteePrincipal=user("bob"), Operations=["Encrypt"])
    everywhere = {"subject": "client:bob", "permission": "keys:encrypt", "key_pattern": "*"}
    assert alice.api.post("/api/v1/grants", everywhere).status_code == 403


def test_the_statement_that_decided_is_named(alice: Someone, bob: Someone) -> None:
    key = key_of(
        alice,
        allow(user("bob"), "kms:Encrypt", Sid="Bob encrypts"),
        {
            **deny(user("bob"), "kms:Encrypt", Condition={"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}),
            "Sid": "Not there",
        },
    )

    def told(**more: Any) -> Any:
        body = {"client_id": "bob", "permission": "keys:encrypt", "key_id": key, **more}
        return alice.api.post("/api/v1/policy/explain", body).json

    inside = told(source="10.0.0.1")
    assert inside["allowed"] is True
    assert [each["rule"] for each in inside["because"] if each["matches"]] == ['key policy statement "Bob encrypts"']
    outside = told(source="192.0.2.9")
    assert outside["allowed"] is False
    matching = {each["rule"]: each["effect"] for each in outside["because"] if each["matches"]}
    assert matching == {'key policy statement "Bob encrypts"': "allow", 'key policy statement "Not there"': "deny"}
    assert told(action="GenerateDataKey", source="10.0.0.1")["allowed"] is False


def test_a_session_of_a_role_is_named_by_the_role(world: World, alice: Someone) -> None:
    made = PlatformIssuer()
    world.enrol("pods")
    admin = world.admin
    admin.post("/api/v1/issuers", {"issuer": made.issuer, "audience": "kms", "jwks": made.jwks})
    role = {"role": "shop", "issuer": made.issuer, "claims": {"sub": "a:*"}, "client_id": "pods"}
    assert admin.post("/api/v1/issuer-roles", role).status_code == 201
    key = key_of(alice, allow(f"arn:aws:iam::{ACCOUNT}:role/shop", "kms:Encrypt"))
    token = made.token("a:b", world.service.clock().timestamp())
    arn = f"arn:aws:iam::{ACCOUNT}:role/shop"
    keys = client(world, "sts").assume_role_with_web_identity(
        RoleArn=arn, RoleSessionName="pod", WebIdentityToken=token
    )["Credentials"]
    pod = client(world, "kms", keys)
    assert pod.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    with pytest.raises(ClientError):
        client(world, "kms", world.login("pods").post("/api/v1/access-keys", {}).json).encrypt(
            KeyId=key, Plaintext=b"x"
        )


def test_a_text_from_before_policies_were_enforced_says_nothing(world: World, alice: Someone) -> None:
    key = key_of(alice)
    with world.service.vault.change() as change:
        found = change.key_by_id(key)
        assert isinstance(found, Key)
        change.replace(found, replace(found, policy="the owner knows"))
    assert alice.may("encrypt", KeyId=key, Plaintext=b"x")
