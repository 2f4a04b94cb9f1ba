"""Every action of AWS on a key is one that a key policy takes away, and gives, by its name."""

from __future__ import annotations

import json
from typing import Any

from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from helpers.aws_in_process import client
from helpers.support import World
from kms.access.model import Grant
from kms.api.aws.request import ACTIONS
from kms.keys.model import Alias, Key, KeyVersion

ACCOUNT = "000000000000"
ALICE, BOB = (f"arn:aws:iam::{ACCOUNT}:user/{name}" for name in ("alice", "bob"))
EVERYTHING = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "kms:*"}
SIGN = {"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY"}
MAC = {"KeySpec": "HMAC_256", "KeyUsage": "GENERATE_VERIFY_MAC"}
EXTERNAL = {"Origin": "EXTERNAL"}
WRAPPING = {"WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_2048"}

CALLS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "CancelKeyDeletion": ({}, "cancel_key_deletion", {}),
    "CreateAlias": ({}, "create_alias", {"AliasName": "alias/a"}),
    "CreateGrant": ({}, "create_grant", {"GranteePrincipal": ALICE, "Operations": ["Encrypt"]}),
    "DeleteImportedKeyMaterial": (EXTERNAL, "delete_imported_key_material", {}),
    "DescribeKey": ({}, "describe_key", {}),
    "DisableKey": ({}, "disable_key", {}),
    "DisableKeyRotation": ({}, "disable_key_rotation", {}),
    "EnableKey": ({}, "enable_key", {}),
    "EnableKeyRotation": ({}, "enable_key_rotation", {}),
    "Encrypt": ({}, "encrypt", {"Plaintext": b"x"}),
    "GenerateDataKey": ({}, "generate_data_key", {"KeySpec": "AES_256"}),
    "GenerateDataKeyPair": ({}, "generate_data_key_pair", {"KeyPairSpec": "ECC_NIST_P256"}),
    "GenerateDataKeyPairWithoutPlaintext": (
        {}, "generate_data_key_pair_without_plaintext", {"KeyPairSpec": "ECC_NIST_P256"},
    ),
    "GenerateDataKeyWithoutPlaintext": ({}, "generate_data_key_without_plaintext", {"KeySpec": "AES_256"}),
    "GenerateMac": (MAC, "generate_mac", {"Message": b"x", "MacAlgorithm": "HMAC_SHA_256"}),
    "GetKeyPolicy": ({}, "get_key_policy", {}),
    "GetKeyRotationStatus": ({}, "get_key_rotation_status", {}),
    "GetParametersForImport": (EXTERNAL, "get_parameters_for_import", WRAPPING),
    "GetPublicKey": (SIGN, "get_public_key", {}),
    "ListGrants": ({}, "list_grants", {}),
    "ListKeyPolicies": ({}, "list_key_policies", {}),
    "ListKeyRotations": ({}, "list_key_rotations", {}),
    "ListResourceTags": ({}, "list_resource_tags", {}),
    "ReplicateKey": ({"MultiRegion": True}, "replicate_key", {"ReplicaRegion": "eu-west-1"}),
    "RotateKeyOnDemand": ({}, "rotate_key_on_demand", {}),
    "ScheduleKeyDeletion": ({}, "schedule_key_deletion", {}),
    "Sign": (SIGN, "sign", {"Message": b"x", "SigningAlgorithm": "ECDSA_SHA_256"}),
    "TagResource": ({}, "tag_resource", {"Tags": [{"TagKey": "a", "TagValue": "b"}]}),
    "UntagResource": ({}, "untag_resource", {"TagKeys": ["a"]}),
    "UpdateKeyDescription": ({}, "update_key_description", {"Description": "d"}),
    "Verify": (SIGN, "verify", {"Message": b"x", "SigningAlgorithm": "ECDSA_SHA_256", "Signature": b"x" * 70}),
    "VerifyMac": (MAC, "verify_mac", {"Message": b"x", "MacAlgorithm": "HMAC_SHA_256", "Mac": b"x" * 32}),
}  # fmt: skip
NEEDS = {"CreateGrant": ["Encrypt"]}  # nobody gives what it does not have


def refusal(kms: Any, name: str, **given: Any) -> str:
    """The code of the refusal, or nothing."""
    try:
        getattr(kms, name)(**given)
    except ClientError as refused:
        return str(refused.response["Error"]["Code"])
    return ""


def prepared(alice: Any, action: str, made_as: dict[str, Any], *statements: dict[str, Any]) -> str:
    """A key of alice with a policy of which `statements` are a part, in a state for `action`."""
    key = str(alice.create_key(**made_as)["KeyMetadata"]["KeyId"])
    alice.put_key_policy(
        KeyId=key, Policy=json.dumps({"Version": "2012-10-17", "Statement": [EVERYTHING, *statements]})
    )
    if action == "CancelKeyDeletion":
        alice.schedule_key_deletion(KeyId=key)
    return key


def test_the_owner_is_denied_each_action_by_its_name(world: World) -> None:
    alice = client(world, "kms", world.user("alice").post("/api/v1/access-keys", {}).json)
    free = {}
    for action, (made_as, name, given) in CALLS.items():
        key = prepared(alice, action, made_as, {"Effect": "Deny", "Principal": "*", "Action": f"kms:{action}"})
        member = "TargetKeyId" if name == "create_alias" else "KeyId"
        if (code := refusal(alice, name, **{member: key}, **given)) != "AccessDeniedException":
            free[action] = code
    assert free == {}


def test_another_gets_each_action_by_its_name(world: World) -> None:
    alice = client(world, "kms", world.user("alice").post("/api/v1/access-keys", {}).json)
    bob = client(world, "kms", world.user("bob").post("/api/v1/access-keys", {}).json)
    kept = {}
    for action, (made_as, name, given) in CALLS.items():
        actions = [f"kms:{each}" for each in (action, *NEEDS.get(action, ()))]
        key = prepared(alice, action, made_as, {"Effect": "Allow", "Principal": {"AWS": BOB}, "Action": actions})
        member = "TargetKeyId" if name == "create_alias" else "KeyId"
        code = refusal(bob, name, **{member: key}, **given)
        if code in ("AccessDeniedException", "NotFoundException") or "Internal" in code:
            kept[action] = code
    assert kept == {}


ABOUT_NO_KEY = {"CreateKey", "GenerateRandom", "ListAliases", "ListKeys", "ListRetirableGrants"}


def test_another_reaches_no_key_by_any_action(world: World) -> None:
    """And is told of one that is there what it is told of one that is not."""
    api, of_bob = world.user("alice"), world.user("bob")
    alice, bob = (client(world, "kms", each.post("/api/v1/access-keys", {}).json) for each in (api, of_bob))
    for name, body in {"kem": {"type": "ml-kem-768"}, "agree": {"type": "ec-p256", "usages": ["agree"]}}.items():
        assert api.post("/api/v1/keys", {"key_id": name, **body}).status_code == 201
    peer = of_bob.post("/api/v1/keys", {"key_id": "peer", "type": "ec-p256", "usages": ["agree"]})
    spki = load_pem_public_key(peer.json["versions"][0]["public_key"].encode())
    public = spki.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    keys = {
        action: (prepared(alice, action, made_as), name, given) for action, (made_as, name, given) in CALLS.items()
    }
    (hers, _, _), mine = keys["Encrypt"], str(bob.create_key()["KeyMetadata"]["KeyId"])
    sealed, own = (
        kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"] for kms, key in ((alice, hers), (bob, mine))
    )
    grant = alice.create_grant(KeyId=hers, GranteePrincipal=ALICE, Operations=["Encrypt"])["GrantId"]
    alice.create_alias(AliasName="alias/hers", TargetKeyId=hers)
    policy = json.dumps({"Version": "2012-10-17", "Statement": [EVERYTHING]})
    kem, ecdh = {"EncapsulationAlgorithm": "ML_KEM"}, {"KeyAgreementAlgorithm": "ECDH", "PublicKey": public}
    blob = {"ImportToken": b"x" * 64, "EncryptedKeyMaterial": b"x" * 64}
    keys |= {
        "Decapsulate": ("kem", "decapsulate", {**kem, "SharedSecretCiphertextBlob": b"x"}),
        "DeriveSharedSecret": ("agree", "derive_shared_secret", ecdh),
        "Encapsulate": ("kem", "encapsulate", kem),
        "GetKeyLastUsage": (hers, "get_key_last_usage", {}),
        "ImportKeyMaterial": (keys["GetParametersForImport"][0], "import_key_material", blob),
        "PutKeyPolicy": (hers, "put_key_policy", {"PolicyName": "default", "Policy": policy}),
        "ReEncrypt": (hers, "re_encrypt", {"CiphertextBlob": own, "DestinationKeyId": hers}),
        "RetireGrant": (hers, "retire_grant", {"GrantId": grant}),
        "RevokeGrant": (hers, "revoke_grant", {"GrantId": grant}),
        "UpdateAlias": (hers, "update_alias", {"AliasName": "alias/hers"}),
        "UpdatePrimaryRegion": (keys["ReplicateKey"][0], "update_primary_region", {"PrimaryRegion": "eu-west-1"}),
    }  # fmt: skip
    others = {
        "Decrypt": lambda: refusal(bob, "decrypt", CiphertextBlob=sealed),
        "ReEncrypt": lambda: refusal(bob, "re_encrypt", CiphertextBlob=sealed, DestinationKeyId=mine),
        "DeleteAlias": lambda: refusal(bob, "delete_alias", AliasName="alias/hers"),
        "UpdateAlias": lambda: refusal(bob, "update_alias", AliasName="alias/hers", TargetKeyId=mine),
    }
    assert set(keys) | set(others) | ABOUT_NO_KEY == set(ACTIONS)
    before = everything_of_keys(world)
    reached = {}
    for action, (key, name, given) in keys.items():
        member = {"CreateAlias": "TargetKeyId", "UpdateAlias": "TargetKeyId", "ReEncrypt": "DestinationKeyId"}
        named = member.get(action, "KeyId")
        before_it = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/" if action == "RetireGrant" else ""  # it takes ARNs only
        codes = [refusal(bob, name, **{**given, named: before_it + each}) for each in (key, UNKNOWN)]
        if codes[0] not in DENIED or codes[0] != codes[1]:
            reached[action] = codes
    reached |= {name: [code] for name, call in others.items() if (code := call()) not in DENIED}
    assert reached == {}
    assert everything_of_keys(world) == before


UNKNOWN = "00000000-0000-4000-8000-000000000000"
DENIED = ("AccessDeniedException", "NotFoundException")


def everything_of_keys(world: World) -> list[object]:
    with world.service.vault.read() as snapshot:
        return [snapshot.select(cls) for cls in (Key, KeyVersion, Alias, Grant)]


def test_who_is_denied_it_neither_ends_nor_lists_grants(world: World) -> None:
    api = world.user("alice")
    alice = client(world, "kms", api.post("/api/v1/access-keys", {}).json)
    world.user("bob")
    key = prepared(alice, "", {})
    made = alice.create_grant(KeyId=key, GranteePrincipal=BOB, Operations=["Encrypt"])["GrantId"]
    deny = {"Effect": "Deny", "Principal": "*", "Action": ["kms:RevokeGrant", "kms:ListGrants"]}
    document = {"Version": "2012-10-17", "Statement": [EVERYTHING, deny]}
    alice.put_key_policy(KeyId=key, Policy=json.dumps(document))
    assert refusal(alice, "revoke_grant", KeyId=key, GrantId=made) == "AccessDeniedException"
    assert api.delete(f"/api/v1/grants/{made}").status_code == 403
    assert world.admin.delete(f"/api/v1/grants/{made}").status_code == 403
    assert api.get("/api/v1/grants").json["items"] == []
    alice.put_key_policy(KeyId=key, Policy=json.dumps({"Version": "2012-10-17", "Statement": [EVERYTHING]}))
    assert len(api.get("/api/v1/grants").json["items"]) == 1
    assert refusal(alice, "revoke_grant", KeyId=key, GrantId=made) == ""


def test_over_rest_each_member_of_an_update_is_the_action_that_it_is_with_aws(world: World) -> None:
    api = world.user("alice")
    alice = client(world, "kms", api.post("/api/v1/access-keys", {}).json)
    bob = world.user("bob")
    for member, action in (
        ({"labels": {"a": "b"}}, "TagResource"),
        ({"add_labels": {"a": "b"}}, "TagResource"),
        ({"remove_labels": ["a"]}, "UntagResource"),
        ({"description": "d"}, "UpdateKeyDescription"),
        ({"rotation_period": "P90D"}, "EnableKeyRotation"),
        ({"rotation_period": None}, "DisableKeyRotation"),
        ({"min_protect_version": 1}, "Con*"),
    ):
        deny = {"Effect": "Deny", "Principal": "*", "Action": f"kms:{action}"}
        path = f"/api/v1/keys/{prepared(alice, '', {}, deny)}"
        assert api.patch(path, member).status_code == 403, member
        assert api.patch(path, {"policy": ""}).status_code == 200
        assert api.patch(path, member).status_code == 200, member
    put = {"Effect": "Allow", "Principal": {"AWS": BOB}, "Action": ["kms:PutKeyPolicy", "kms:UpdateKeyDescription"]}
    path = f"/api/v1/keys/{prepared(alice, '', {}, put)}"
    assert bob.patch(path, {"min_protect_version": 1}).status_code == 403
    assert bob.patch(path, {"policy": "", "labels": {}}).status_code == 403
    assert bob.patch(path, {"policy": ""}).status_code == 200
    assert bob.patch(path, {"policy": ""}).status_code == 404


def test_what_cannot_be_undone_is_not_in_what_aws_can_undo(world: World) -> None:
    api = world.user("alice")
    alice = client(world, "kms", api.post("/api/v1/access-keys", {}).json)
    bob = world.user("bob")
    actions = ["kms:DisableKey", "kms:ScheduleKeyDeletion", "kms:CancelKeyDeletion", "kms:EnableKey", "kms:*Key*"]
    key = prepared(alice, "", {}, {"Effect": "Allow", "Principal": {"AWS": BOB}, "Action": actions})
    path = f"/api/v1/keys/{key}"
    assert bob.post(f"{path}/suspend", {}).status_code == 200
    assert bob.post(f"{path}/resume", {}).status_code == 200
    compromised: dict[str, str] = {}
    assert bob.post(f"{path}/revoke", compromised).status_code == 403
    assert bob.post(f"{path}/versions/1/destroy", {}).status_code == 403
    assert bob.post(f"{path}/trim", {"oldest_version": 1}).status_code == 403
    assert bob.delete(path).status_code == 200
    assert bob.post(f"{path}/cancel-deletion", {}).status_code == 200
    deny = {"Effect": "Deny", "Principal": "*", "Action": ["kms:DisableKey", "kms:ScheduleKeyDeletion"]}
    kept = f"/api/v1/keys/{prepared(alice, '', {}, deny)}"
    for by in (api, world.admin):
        assert by.post(f"{kept}/revoke", compromised).status_code == 403
        assert by.post(f"{kept}/versions/1/destroy", {}).status_code == 403


def test_whom_a_policy_lets_sees_and_ends_the_grants_on_its_key(world: World) -> None:
    api = world.user("alice")
    alice = client(world, "kms", api.post("/api/v1/access-keys", {}).json)
    of_bob = world.user("bob")
    bob = client(world, "kms", of_bob.post("/api/v1/access-keys", {}).json)
    world.user("carol")
    to = {"GranteePrincipal": f"arn:aws:iam::{ACCOUNT}:user/carol", "Operations": ["Encrypt"]}
    allow = {"Effect": "Allow", "Principal": {"AWS": BOB}}
    creates = {**allow, "Action": ["kms:CreateGrant", "kms:Encrypt"]}
    handles = {**allow, "Action": ["kms:*Grant*", "kms:Encrypt"]}
    key, other = prepared(alice, "", {}, handles), prepared(alice, "", {}, creates)
    made = bob.create_grant(KeyId=key, **to)["GrantId"]
    elsewhere = bob.create_grant(KeyId=other, **to)["GrantId"]
    wide = api.post(
        "/api/v1/grants", {"subject": "client:carol", "permission": "keys:read", "key_pattern": "*", "owner": "alice"}
    ).json["grant_id"]
    assert [each["GrantId"] for each in bob.list_grants(KeyId=key)["Grants"]] == [made]
    assert [each["grant_id"] for each in of_bob.get(f"/api/v1/grants?key_id={key}").json["items"]] == [made]
    assert bob.list_grants(KeyId=other)["Grants"] == of_bob.get("/api/v1/grants").json["items"] == []
    assert of_bob.get("/api/v1/grants?key_id=unknown").status_code == 404
    assert refusal(bob, "revoke_grant", KeyId=other, GrantId=elsewhere) == "NotFoundException"
    for kept in (elsewhere, wide):
        assert of_bob.delete(f"/api/v1/grants/{kept}").status_code == 404
    assert refusal(bob, "revoke_grant", KeyId=key, GrantId=made) == ""
    again = bob.create_grant(KeyId=key, **to)["GrantId"]
    assert of_bob.delete(f"/api/v1/grants/{again}").status_code == 200


def test_conditions_of_create_grant_look_at_the_grant_and_a_dry_run_at_everything(world: World) -> None:
    alice = client(world, "kms", world.user("alice").post("/api/v1/access-keys", {}).json)
    bob = client(world, "kms", world.user("bob").post("/api/v1/access-keys", {}).json)
    world.user("carol")
    carol = f"arn:aws:iam::{ACCOUNT}:user/carol"
    allow = {"Effect": "Allow", "Principal": {"AWS": BOB}}
    to_carol = {"StringEquals": {"kms:GranteePrincipal": carol}}
    subset = {"StringEquals": {"kms:GrantConstraintType": "EncryptionContextSubset"}}
    for condition in (to_carol, {**to_carol, "Bool": {"kms:GrantIsForAWSResource": "false"}}):
        create = {**allow, "Action": "kms:CreateGrant", "Condition": condition}
        key = prepared(alice, "", {}, create, {**allow, "Action": "kms:Encrypt"})
        for grantee, expected in ((carol, ""), (BOB, "AccessDeniedException")):
            give = {"KeyId": key, "GranteePrincipal": grantee, "Operations": ["Encrypt"]}
            assert refusal(bob, "create_grant", **give, DryRun=True) == (expected or "DryRunOperationException")
            assert refusal(bob, "create_grant", **give) == expected
        assert refusal(
            bob, "create_grant", KeyId=key, GranteePrincipal=carol, Operations=["Decrypt"], DryRun=True
        ) == ("AccessDeniedException")
    deny = {**allow, "Effect": "Deny", "Principal": "*", "Action": "kms:CreateGrant", "Condition": {
        "StringNotEquals": {"kms:GranteePrincipal": carol}}}  # fmt: skip
    create = {**allow, "Action": "kms:CreateGrant", "Condition": subset}
    key = prepared(alice, "", {}, deny, create, {**allow, "Action": "kms:Encrypt"})
    give = {"KeyId": key, "Operations": ["Encrypt"]}
    assert refusal(alice, "create_grant", **give, GranteePrincipal=BOB) == "AccessDeniedException"
    assert refusal(alice, "create_grant", **give, GranteePrincipal=carol) == ""
    assert refusal(bob, "create_grant", **give, GranteePrincipal=carol) == "AccessDeniedException"
    context = {"EncryptionContextSubset": {"a": "b"}}
    assert refusal(bob, "create_grant", **give, GranteePrincipal=carol, Constraints=context) == ""


def test_a_simulation_knows_which_action_was_carried_out(world: World) -> None:
    api = world.user("alice")
    alice = client(world, "kms", api.post("/api/v1/access-keys", {}).json)
    bob = world.user("bob")
    allow = {"Effect": "Allow", "Principal": {"AWS": BOB}, "Action": "kms:GenerateDataKey"}
    key = prepared(alice, "", {}, allow)
    body = {"subject": "client:bob", "permission": "keys:encrypt", "key_pattern": key}
    made = api.post("/api/v1/grants", body).json["grant_id"]
    assert bob.post(f"/api/v1/keys/{key}/data-key", {}).status_code == 200
    assert bob.post(f"/api/v1/keys/{key}/encrypt", {"plaintext": ""}).status_code == 200
    told = world.admin.post("/api/v1/policy/simulate", {"remove": [made], "since": "P1D"}).json["changed"]
    assert [(each["client_id"], each["before"], each["after"], each["uses"]) for each in told] == [
        ("bob", True, False, 1)
    ]
