"""A covered call waits through every dialect, and is carried out as that dialect asked for it."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
from botocore.exceptions import ClientError

from helpers import aws_in_process
from helpers.approvals import APPROVALS, approve, pending, people_of, rule, shown, story
from helpers.console import Browser
from helpers.people import Person
from helpers.support import World, b64
from kms.access.model import Role
from kms.api import openapi
from kms.approvals import canonical
from kms.client.errors import ApprovalPending, KmsError
from kms.operations import OPERATIONS, Operation
from kms.operations.core.asking import asking, can_be_covered

_ID = re.compile(r"[0-9a-f]{32}")


@pytest.fixture
def people(world: World) -> dict[str, Person]:
    """Administrators `ann`, `bob` and `cat`, and `usr`, all logged in just now."""
    return people_of(world)


def test_in_the_dialect_of_aws(world: World, people: dict[str, Person]) -> None:
    rule(world, operations=["delete_key"], approvals=1)
    access = people["usr"].api.post("/api/v1/access-keys", {}).json
    kms = aws_in_process.client(world, "kms", access)
    key_id = kms.create_key()["KeyMetadata"]["KeyId"]
    with pytest.raises(ClientError) as refused:
        kms.schedule_key_deletion(KeyId=key_id, PendingWindowInDays=7)
    error = refused.value.response["Error"]
    assert error["Code"] == "AccessDeniedException"
    (approval_id,) = _ID.findall(error["Message"].partition("approval ")[2].partition(".")[0])
    assert kms.describe_key(KeyId=key_id)["KeyMetadata"]["KeyState"] == "Enabled"
    seen = shown(people["ann"], approval_id)
    assert (seen["request"]["dialect"], seen["request"]["action"]) == ("aws", "ScheduleKeyDeletion")
    assert seen["request"]["body"]["waiting_period"] == "P7D"
    assert approve(people["ann"], approval_id).json["state"] == "done"
    assert kms.describe_key(KeyId=key_id)["KeyMetadata"]["KeyState"] == "PendingDeletion"
    assert shown(people["usr"], approval_id)["result"]["key_id"] == key_id


def test_a_key_policy_of_aws_that_changes_meanwhile_is_obeyed(world: World, people: dict[str, Person]) -> None:
    rule(world, operations=["delete_key"], approvals=1)
    access = people["usr"].api.post("/api/v1/access-keys", {}).json
    kms = aws_in_process.client(world, "kms", access)
    made = kms.create_key()["KeyMetadata"]
    with pytest.raises(ClientError, match="approval"):
        kms.schedule_key_deletion(KeyId=made["KeyId"], PendingWindowInDays=7)
    (waiting,) = people["usr"].api.get(APPROVALS).json["items"]
    root = f"arn:aws:iam::{made['AWSAccountId']}:root"
    statement = '{"Effect": "%s", "Principal": {"AWS": "%s"}, "Action": "kms:%s", "Resource": "*"}'
    said = [statement % ("Allow", root, "*"), statement % ("Deny", "*", "ScheduleKeyDeletion")]
    policy = f'{{"Version": "2012-10-17", "Statement": [{", ".join(said)}]}}'
    kms.put_key_policy(KeyId=made["KeyId"], PolicyName="default", Policy=policy)
    answer = approve(people["ann"], waiting["approval_id"])
    assert (answer.json["state"], answer.json["failure"]["type"]) == ("failed", "permission-denied")


def test_in_the_dialect_of_vault(world: World, people: dict[str, Person]) -> None:
    usr = people["usr"].api
    token = {"X-Vault-Token": usr.headers["Authorization"].removeprefix("Bearer ")}
    assert world.http.post("/v1/transit/keys/orders", json={"exportable": True}, headers=token).status_code == 200
    rule(world, permissions=["keys:export"], approvals=1)
    refused = world.http.get("/v1/transit/export/encryption-key/orders", headers=token)
    assert refused.status_code == 403
    (approval_id, *_) = _ID.findall(refused.json["errors"][0])
    seen = shown(people["ann"], approval_id)
    assert (seen["request"]["dialect"], seen["operation"], seen["key_id"]) == ("vault", "export_key", "orders")


def test_a_use_of_a_key_in_the_dialect_of_vault(world: World, people: dict[str, Person]) -> None:
    usr = people["usr"].api
    token = {"X-Vault-Token": usr.headers["Authorization"].removeprefix("Bearer ")}
    assert world.http.post("/v1/transit/keys/orders", json={}, headers=token).status_code == 200
    body = {"plaintext": b64(b"text")}
    ciphertext = world.http.post("/v1/transit/encrypt/orders", json=body, headers=token).json["data"]["ciphertext"]
    rule(world, permissions=["keys:decrypt"], approvals=1)
    again = world.http.post("/v1/transit/decrypt/orders", json={"ciphertext": ciphertext}, headers=token)
    assert again.status_code == 403
    (approval_id, *_) = _ID.findall(again.json["errors"][0])
    assert approve(people["bob"], approval_id).json["state"] == "done"
    assert shown(people["usr"], approval_id)["result"]["plaintext"] == b64(b"text")
    acts = [each for each in story(world, approval_id) if each[0] == "approve_call"]
    assert acts == [("approve_call", "success", "bob", approval_id, "orders")]


def test_every_operation_that_is_no_question_can_be_covered_or_is_known_not_to_be() -> None:
    exempt = {each.name for each in OPERATIONS.values() if each.method != "GET" and not can_be_covered(each)}
    assert exempt == {
        "add_passkey",
        "approve_call",
        "confirm_second_factor",
        "create_access_key",
        "delete_access_key",
        "delete_passkey",
        "delete_public_key",
        "disable_client",
        "end_certificate",
        "end_every_credential",
        "end_every_session",
        "end_one_session",
        "end_session",
        "explain_policy",
        "issue_token",
        "passkey_creation_options",
        "passkey_request_options",
        "reject_call",
        "revoke_key",
        "revoke_key_versions",
        "revoke_named_key",
        "simulate_policy",
        "suspend_key",
    }
    assert set(asking()).isdisjoint(exempt)


def test_the_errors_of_the_client_library_tell_waiting_from_refusal() -> None:
    assert issubclass(ApprovalPending, KmsError)
    assert ApprovalPending("a" * 32, "text").approval_id == "a" * 32


def test_on_the_fast_path_and_through_flask_alike(world: World, people: dict[str, Person]) -> None:
    usr = people["usr"].api
    assert usr.post("/api/v1/keys", {"key_id": "orders", "type": "xaes-256-gcm"}).status_code == 201
    rule(world, permissions=["keys:encrypt"], key_pattern="orders")
    body = {"plaintext": b64(b"text")}
    fast = pending(usr.post("/api/v1/keys/orders/encrypt", body))
    through_flask = pending(
        usr.post("/api/v1/keys/orders/encrypt?", body, **{"Content-Type": "application/json; charset=utf-8"})
    )
    assert fast == through_flask
    assert usr.post("/api/v1/keys", {"key_id": "other", "type": "xaes-256-gcm"}).status_code == 201
    assert usr.post("/api/v1/keys/other/encrypt", body).status_code == 200


def test_a_way_round_is_covered_too(world: World, people: dict[str, Person]) -> None:
    """What reads a ciphertext without decrypt, and what destroys keys without delete."""
    usr, ann = people["usr"].api, people["ann"].api
    for key_id in ("orders", "mine"):
        assert usr.post("/api/v1/keys", {"key_id": key_id, "type": "xaes-256-gcm"}).status_code == 201
    assert ann.post("/api/v1/mounts", {"mount": "team"}).status_code == 201
    sealed = usr.post("/api/v1/keys/orders/encrypt", {"plaintext": b64(b"text")}).json["ciphertext"]
    rule(world, permissions=["keys:decrypt", "keys:delete"], key_pattern="orders")
    rule(world, name="rule2", permissions=["keys:delete"], key_pattern="team.x")
    path = "/api/v1/keys/orders/rewrap"
    assert usr.post(path, {"ciphertext": sealed}).status_code == 200
    pending(usr.post(path, {"ciphertext": sealed, "to_key_id": "mine"}))
    pending(usr.post(path, {"ciphertext": sealed, "to_associated_data": b64(b"other")}))
    pending(ann.delete("/api/v1/mounts/team"))


def test_what_reads_as_decrypting_does(world: World, people: dict[str, Person]) -> None:
    usr = people["usr"].api
    usages = ["encrypt", "decrypt", "wrap", "unwrap"]
    assert usr.post("/api/v1/keys", {"key_id": "rsa", "type": "rsa-2048", "usages": usages}).status_code == 201
    sealed = usr.post("/api/v1/keys/rsa/encrypt", {"plaintext": b64(b"text"), "format": "raw"}).json["ciphertext"]
    rule(world, permissions=["keys:decrypt"])
    pending(usr.post("/api/v1/keys/rsa/unwrap", {"wrapped_key": sealed, "algorithm": "RSA-OAEP-256"}))
    wrapped = usr.post("/api/v1/keys/rsa/wrap", {"key": b64(bytes(32))}).json["wrapped_key"]
    assert usr.post("/api/v1/keys/rsa/unwrap", {"wrapped_key": wrapped}).status_code == 200


def test_what_lets_others_use_a_key_as_a_grant_does(world: World, people: dict[str, Person]) -> None:
    usr = people["usr"].api
    for key_id, kind in (("orders", "xaes-256-gcm"), ("root", "hmac-sha256")):
        usages = {"usages": ["derive"]} if key_id == "root" else {}
        assert usr.post("/api/v1/keys", {"key_id": key_id, "type": kind, **usages}).status_code == 201
    rule(world, permissions=["grants:manage"])
    whole = {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::000000000000:root"}, "Action": "kms:*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [{**whole, "Resource": "*"}]})
    pending(usr.patch("/api/v1/keys/orders", {"policy": policy}))
    pending(usr.patch("/api/v1/keys/orders", {"policy": ""}))
    pending(usr.post("/api/v1/keys", {"key_id": "new", "policy": policy}))
    pending(usr.post("/api/v1/keys/external", {"key_id": "new", "policy": policy}))
    pending(usr.post("/api/v1/keys/root/derive", {"keep_as": {"key_id": "new", "policy": policy}, "length": 32}))
    assert usr.patch("/api/v1/keys/orders", {"description": "text"}).status_code == 200
    assert usr.post("/api/v1/keys", {"key_id": "new"}).status_code == 201


def test_what_makes_a_new_version_as_rotating_does(world: World, people: dict[str, Person]) -> None:
    usr = people["usr"].api
    assert usr.post("/api/v1/keys", {"key_id": "orders", "rotation_period": "P90D"}).status_code == 201
    rule(world, permissions=["keys:rotate"])
    pending(usr.patch("/api/v1/keys/orders", {"rotation_period": "PT1S"}))
    assert usr.patch("/api/v1/keys/orders", {"rotation_period": None}).status_code == 200


def test_a_key_that_is_kept_has_the_id_that_it_gets(world: World, people: dict[str, Person]) -> None:
    usr = people["usr"].api
    body = {"key_id": "root", "type": "hmac-sha256", "usages": ["derive"]}
    assert usr.post("/api/v1/keys", body).status_code == 201
    rule(world, permissions=["keys:create"], key_pattern="prod-*")
    kept: dict[str, Any] = {"type": "aes-256-gcm"}
    pending(usr.post("/api/v1/keys/root/derive", {"keep_as": {**kept, "key_id": "prod-1"}, "length": 32}))
    other = usr.post("/api/v1/keys/root/derive", {"keep_as": {**kept, "key_id": "test-1"}, "length": 32})
    assert other.status_code == 200, other.text


@pytest.mark.parametrize(
    "operation", [each for each in OPERATIONS.values() if can_be_covered(each)], ids=lambda each: each.name
)
def test_what_was_asked_comes_back_from_its_canonical_form(operation: Operation) -> None:
    example = openapi.example_of(operation)
    kind = operation.request
    request = msgspec.json.decode(msgspec.json.encode(example or {}), type=kind) if _is_whole(kind, example) else None
    if request is None:
        pytest.skip("it has no example")
    formed = canonical.canonical(operation.name, {"key_id": "orders"}, request, "rest", "")
    assert canonical.body_of(formed.content, kind) == request
    assert canonical.path_of(formed.content) == {"key_id": "orders"}


def _is_whole(kind: type[msgspec.Struct], example: object) -> bool:
    return example is not None or not any(field.required for field in msgspec.structs.fields(kind))


def test_in_the_console(world: World, people: dict[str, Person]) -> None:
    assert people["usr"].api.post("/api/v1/keys", {"key_id": "orders", "type": "xaes-256-gcm"}).status_code == 201
    rule(world, operations=["delete_key"], approvals=1)
    browser = Browser.as_client(world, "usr", Role.USER)
    browser.post("/keys/orders/do/delete", {"waiting_period": "7"})
    (waiting,) = people["usr"].api.get(APPROVALS).json["items"]
    assert waiting["request"]["dialect"] == "console"
    assert browser.page.headers["Location"].endswith(f"/approvals/{waiting['approval_id']}")
    assert approve(people["ann"], waiting["approval_id"]).json["state"] == "done"
