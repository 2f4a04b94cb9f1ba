"""Calls that a rule covers wait for other people, and are then carried out as they were asked, once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from helpers.approvals import APPROVALS, RULES, approve, asked_rule, entries, pending, people_of, rule, shown, story
from helpers.people import Person, child_of
from helpers.support import SteeredClock, World, b64, kind_of, settings_for, unb64
from helpers.tokens import new_key, public_jwk
from kms.access.model import Role
from kms.approvals.model import Approval
from kms.clock import rfc3339
from kms.config import Settings
from kms.notices.model import Delivery


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Those of a service that sends notices to one host."""
    return settings_for(tmp_path / "data", notice_hosts="localhost")


@pytest.fixture
def people(world: World) -> dict[str, Person]:
    """Administrators `ann`, `bob` and `cat`, and `usr`, all logged in just now."""
    return people_of(world)


@pytest.fixture
def orders(people: dict[str, Person]) -> str:
    """A key of `usr` that can be exported."""
    answer = people["usr"].api.post("/api/v1/keys", {"key_id": "orders", "type": "xaes-256-gcm", "exportable": True})
    assert answer.status_code == 201
    return "/api/v1/keys/orders"


def test_a_covered_call_waits_and_the_last_approval_carries_it_out(world: World, people: dict[str, Person]) -> None:
    rule(world, permissions=["keys:delete"], key_pattern="prod-*", approvals=2, expires_in="PT8H")
    usr = people["usr"].api
    for key_id in ("prod-1", "test-1"):
        assert usr.post("/api/v1/keys", {"key_id": key_id, "type": "xaes-256-gcm"}).status_code == 201
    assert usr.delete("/api/v1/keys/test-1").status_code == 200
    waiting = usr.delete("/api/v1/keys/prod-1", {"waiting_period": "P7D"})
    approval_id = pending(waiting)
    assert (waiting.json["operation"], waiting.json["key_id"]) == ("delete_key", "prod-1")
    assert (waiting.json["needed"], waiting.json["given"]) == (2, 0)
    assert usr.get("/api/v1/keys/prod-1").json["state"] == "active"

    seen = people["ann"].api.get(f"{APPROVALS}/{approval_id}").json
    assert seen["requester"] == "usr"
    assert seen["request"]["body"] == {"waiting_period": "P7D", "release_name": False}
    assert seen["request"]["path"] == {"key_id": "prod-1"}
    canonical = json.dumps(seen["request"], sort_keys=True, separators=(",", ":"))
    assert sha256(canonical.encode()).hexdigest() == seen["request_sha256"]

    first = approve(people["ann"], approval_id)
    assert (first.status_code, first.json["state"], first.json["given"]) == (200, "pending", 1)
    assert usr.get("/api/v1/keys/prod-1").json["state"] == "active"
    last = approve(people["bob"], approval_id)
    assert (last.status_code, last.json["state"]) == (200, "done"), last.text
    assert "result" not in last.json

    shown = usr.get(f"{APPROVALS}/{approval_id}").json
    assert shown["state"] == "done"
    assert shown["result"]["key_id"] == "prod-1"
    assert shown["result"]["state"] == usr.get("/api/v1/keys/prod-1").json["state"]
    assert usr.get("/api/v1/keys/prod-1").json["deletion_at"] is not None
    assert story(world, approval_id) == [
        ("delete_key", "approval-pending", "usr", approval_id, "prod-1"),
        ("approve_call", "success", "ann", approval_id, "prod-1"),
        ("approve_call", "success", "bob", approval_id, "prod-1"),
        ("delete_key", "success", "usr", approval_id, "prod-1"),
    ]


def test_nobody_approves_what_they_asked_for_or_without_a_fresh_second_factor(
    world: World, people: dict[str, Person], clock: SteeredClock
) -> None:
    rule(world, operations=["create_client"], approvals=1)
    ann, bob = people["ann"], people["bob"]
    approval_id = pending(ann.api.post("/api/v1/clients", {"client_id": "new"}))
    assert kind_of(approve(ann, approval_id)) == "permission-denied"
    assert kind_of(approve(people["usr"], approval_id)) == "not-found"
    clock.advance(minutes=6)
    refused = approve(bob, approval_id)
    assert (refused.status_code, kind_of(refused)) == (401, "insufficient-user-authentication")
    assert bob.api.post("/auth/second-factor", {"code": bob.code}).status_code == 200
    assert approve(bob, approval_id).json["state"] == "done"
    made = shown(ann, approval_id)["result"]
    assert (made["client_id"], len(made["recovery_codes"])) == ("new", 10)
    assert "result" not in shown(bob, approval_id)
    assert kind_of(approve(bob, approval_id)) == "conflict"


def test_a_session_that_another_one_made_approves_nothing(
    world: World, people: dict[str, Person], orders: str
) -> None:
    rule(world, operations=["delete_key"], approvals=1)
    approval_id = pending(people["usr"].api.delete(orders))
    child = child_of(world, people["ann"].api, scope="approvals:use")
    for decision in ("approve", "reject"):
        assert kind_of(child.post(f"{APPROVALS}/{approval_id}/{decision}", {})) == "permission-denied"
    assert approve(people["ann"], approval_id).json["state"] == "done"


def test_a_client_that_was_made_after_the_call_approves_nothing(
    world: World, people: dict[str, Person], clock: SteeredClock
) -> None:
    rule(world, operations=["put_group"], approvals=1)
    approval_id = pending(people["ann"].api.put("/api/v1/groups/team", {"members": ["usr"]}))
    clock.advance(seconds=1)
    refused = approve(Person.of(world, "puppet", Role.ADMIN), approval_id)
    assert kind_of(refused) == "permission-denied"
    assert "made after" in refused.json["detail"]


def test_a_call_by_mistake_is_refused_as_without_a_rule(world: World, people: dict[str, Person], orders: str) -> None:
    rule(world, permissions=["keys:delete", "keys:export", "clients:manage"])
    assert kind_of(people["usr"].api.delete("/api/v1/keys/missing")) == "not-found"
    stranger = world.user("stranger")
    assert kind_of(stranger.delete(orders)) == "not-found"
    assert kind_of(stranger.post("/api/v1/clients", {"client_id": "x"})) == "permission-denied"
    assert kind_of(people["usr"].api.delete(orders, {"waiting_period": 7})) == "validation-failed"
    assert people["ann"].api.get(APPROVALS).json["items"] == []


def test_the_same_call_waits_once(world: World, people: dict[str, Person], orders: str) -> None:
    rule(world, permissions=["keys:delete"])
    usr = people["usr"].api
    first = pending(usr.delete(orders, {"waiting_period": "P7D"}))
    assert pending(usr.delete(orders, {"waiting_period": "P7D"})) == first
    assert pending(usr.delete(orders, {"waiting_period": "P8D"})) != first
    assert len(usr.get(f"{APPROVALS}?state=pending").json["items"]) == 2


def test_who_wants_to_know_of_calls_that_wait_is_told(world: World, people: dict[str, Person], orders: str) -> None:
    rule(world, permissions=["keys:delete"])
    subscription = people["ann"].api.post(
        "/api/v1/notices", {"url": "https://localhost/x", "events": ["approval.pending"]}
    )
    approval_id = pending(people["usr"].api.delete(orders))
    pending(people["usr"].api.delete(orders))  # the same
    notice_id = subscription.json["notice_id"]
    with world.service.vault.read() as snapshot:
        (delivery,) = snapshot.matching(Delivery, notice_id=notice_id)
    assert delivery.data == {
        "approval_id": approval_id,
        "operation": "delete_key",
        "requester": "usr",
        "rules": ["rule1"],
        "expires_at": delivery.data["expires_at"],
        "key_id": "orders",
    }
    refused = people["usr"].api.post(
        "/api/v1/notices", {"url": "https://localhost/x", "events": ["approval.pending"]}
    )
    assert kind_of(refused) == "permission-denied"


def test_what_is_secret_is_sealed_and_not_shown(world: World, people: dict[str, Person], orders: str) -> None:
    rule(world, permissions=["keys:encrypt", "keys:decrypt"], key_pattern="orders", approvals=1)
    usr, secret = people["usr"].api, b"canary-of-a-plaintext"
    approval_id = pending(usr.post(f"{orders}/encrypt", {"plaintext": b64(secret), "associated_data": b64(secret)}))
    seen = shown(people["ann"], approval_id)
    assert seen["request"]["body"]["plaintext"] == {"redacted": True}
    assert "salt" not in seen
    mine = shown(people["usr"], approval_id)
    whole = {**mine["request"], "salt": mine["salt"]}
    whole["body"] = {**whole["body"], "plaintext": b64(secret), "associated_data": b64(secret)}
    canonical = json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()
    assert sha256(canonical).hexdigest() == seen["request_sha256"]
    done = approve(people["ann"], approval_id)
    assert done.json["state"] == "done", done.json
    ciphertext = shown(people["usr"], approval_id)["result"]["ciphertext"]
    again = pending(usr.post(f"{orders}/decrypt", {"ciphertext": ciphertext, "associated_data": b64(secret)}))
    assert approve(people["bob"], again).json["state"] == "done"
    assert unb64(shown(people["usr"], again)["result"]["plaintext"]) == secret
    assert "result" not in shown(people["bob"], again)
    database = world.service.settings.data_dir
    for path in filter(lambda each: each.is_file(), database.rglob("*")):
        content = path.read_bytes()
        assert secret not in content, path
        assert b64(secret).encode() not in content, path


@pytest.mark.parametrize("member", ["jwk", "jwks", "public_key"])
def test_a_private_key_that_is_sent_by_mistake_is_not_kept(
    world: World, people: dict[str, Person], member: str
) -> None:
    rule(world, operations=["add_public_key", "add_issuer"])
    jwk = dict(new_key().as_dict(private=True))
    pem = new_key().as_pem(private=True).decode()
    body = {"jwk": {"jwk": jwk}, "public_key": {"public_key": pem}, "jwks": {"jwks": {"keys": [jwk]}}}[member]
    if member == "jwks":
        refused = people["ann"].api.post(
            "/api/v1/issuers", {"issuer": "https://i.example", "audience": "kms", **body}
        )
    else:
        refused = people["usr"].api.post("/api/v1/clients/usr/public-keys", body)
    assert kind_of(refused) == "validation-failed"
    assert people["ann"].api.get(APPROVALS).json["items"] == []


def test_of_a_public_key_only_public_members_are_shown(world: World, people: dict[str, Person]) -> None:
    rule(world, operations=["add_public_key"])
    add, usr = "/api/v1/clients/usr/public-keys", people["usr"].api
    public = public_jwk(new_key())
    with_more = pending(usr.post(add, {"jwk": {**public, "x-note": "canary"}}))
    assert shown(people["ann"], with_more)["request"]["body"]["jwk"] == {**public, "x-note": {"redacted": True}}
    pem = "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n"
    private = pem.format(b64(new_key().private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())))
    disguised = pending(usr.post(add, {"public_key": private}))
    assert shown(people["ann"], disguised)["request"]["body"]["public_key"] == {"redacted": True}


def test_approvers_of_a_restoration_see_what_comes_back(
    world: World, people: dict[str, Person], orders: str, clock: SteeredClock
) -> None:
    rule(world, operations=["restore_key"], approvals=1)
    usr = people["usr"].api
    backup = usr.post(f"{orders}/backup", {}).json["backup"]
    assert kind_of(usr.post("/api/v1/keys/restore", {"backup": b64(b"nonsense")})) == "decryption-failed"
    assert world.user("stranger").post("/api/v1/keys/restore", {"backup": backup}).status_code == 403
    assert people["ann"].api.get(APPROVALS).json["items"] == []
    usr.delete(orders, {"release_name": True, "waiting_period": "P7D"})
    approval_id = pending(usr.post("/api/v1/keys/restore", {"backup": backup}))
    seen = shown(people["ann"], approval_id)
    assert seen["key_id"] == "orders"
    assert seen["request"]["body"]["backup"] == {
        "redacted": True,
        "key_id": "orders",
        "owner": "usr",
        "type": "xaes-256-gcm",
        "versions": 1,
        "latest_version": 1,
        "created_at": rfc3339(clock()),
        "exportable": True,
        "has_key_policy": False,
        "sealed_by": "this installation",
        "sha256": sha256(unb64(backup)).hexdigest(),
    }
    done = approve(people["bob"], approval_id)
    assert done.json["state"] == "done", done.json
    assert usr.get(orders).json["state"] == "active"


def test_the_canonical_form_is_the_same_in_every_process() -> None:
    """Sets have another order in each, and the same call must wait once whatever process takes it."""
    code = (
        "import msgspec; import kms.operations; from kms.approvals import canonical\n"
        "from kms.operations.accounts.grants import CreateGrantRequest\n"
        "given = {'subject': 'client:bob', 'key_pattern': 'x', 'permissions': "
        "['keys:encrypt', 'keys:decrypt', 'keys:sign', 'keys:mac']}\n"
        "request = msgspec.convert(given, CreateGrantRequest)\n"
        "print(canonical.canonical('create_grant', {}, request, 'rest', '').sha256.hex())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1


def test_the_result_is_there_for_a_day_and_for_sessions_of_the_same_scope(
    world: World, people: dict[str, Person], orders: str, clock: SteeredClock
) -> None:
    rule(world, permissions=["keys:export"], approvals=1)
    key = people["usr"].api.post("/api/v1/keys/import-wrapping-key", {}).json["public_key"]
    approval_id = pending(people["usr"].api.post(f"{orders}/export", {"recipient_public_key": key}))
    assert shown(people["ann"], approval_id)["request"]["body"]["recipient_public_key"] == key
    assert approve(people["ann"], approval_id).json["state"] == "done"
    assert unb64(shown(people["usr"], approval_id)["result"]["wrapped_key"])
    clock.advance(seconds=30)
    narrow = people["usr"].login(scope="approvals:use").json["access_token"]
    people["usr"].api.headers["Authorization"] = f"Bearer {narrow}"
    assert "result" not in shown(people["usr"], approval_id)
    clock.advance(days=1)
    people["usr"].api = world.login("usr")
    assert "result" not in shown(people["usr"], approval_id)
    assert shown(people["usr"], approval_id)["state"] == "done"


def test_a_rule_covers_its_own_change_and_removal(world: World, people: dict[str, Person]) -> None:
    rule(world, operations=["delete_key"], approvals=2)
    ann = people["ann"].api
    change = pending(ann.patch(f"{RULES}/rule1", {"approvals": 1}))
    assert ann.get(RULES).json["items"][0]["approvals"] == 2
    for name in ("bob", "cat"):
        answer = approve(people[name], change)
    assert answer.json["state"] == "done", answer.json
    assert ann.get(RULES).json["items"][0]["approvals"] == 1
    removal = pending(ann.delete(f"{RULES}/rule1"))
    assert approve(people["bob"], removal).json["state"] == "done"
    assert ann.get(RULES).json["items"] == []
    assert kind_of(ann.delete(f"{RULES}/rule1")) == "not-found"


def test_every_rule_that_covers_a_call_asks_for_its_approvals(
    world: World, people: dict[str, Person], orders: str
) -> None:
    rule(world, name="one", permissions=["keys:delete"], approvals=1, approvers=["ann", "bob"])
    rule(world, name="two", operations=["delete_key"], approvals=2, approvers=["bob", "cat", "admin"])
    approval_id = pending(people["usr"].api.delete(orders))
    assert approve(people["bob"], approval_id).json["state"] == "pending"
    view = shown(people["ann"], approval_id)
    assert view["rules"] == [{"rule": "one", "needed": 1, "given": 1}, {"rule": "two", "needed": 2, "given": 1}]
    assert approve(people["ann"], approval_id).json["state"] == "pending"
    assert approve(people["cat"], approval_id).json["state"] == "done"


def test_rejected_and_withdrawn_calls_are_never_carried_out(
    world: World, people: dict[str, Person], orders: str
) -> None:
    rule(world, permissions=["keys:delete"], approvals=1)
    for who, kind in (("ann", "rejected"), ("usr", "withdrawn")):
        approval_id = pending(people["usr"].api.delete(orders))
        ended = people[who].api.post(f"{APPROVALS}/{approval_id}/reject", {"reason": "no"})
        assert (ended.json["state"], ended.json["failure"]) == ("rejected", {"type": kind, "detail": "no"})
        assert kind_of(approve(people["bob"], approval_id)) == "conflict"
    assert people["usr"].api.get(orders).json["state"] == "active"


def test_a_batch_that_is_covered_is_refused_whole(world: World, people: dict[str, Person], orders: str) -> None:
    rule(world, permissions=["keys:rotate"], key_pattern="orders")
    usr = people["usr"].api
    assert usr.post("/api/v1/keys", {"key_id": "other", "type": "xaes-256-gcm"}).status_code == 201
    refused = usr.post("/api/v1/keys/rotate", {"items": [{"key_id": "other"}, {"key_id": "orders"}]})
    assert (kind_of(refused), "rule1" in refused.json["detail"]) == ("conflict", True)
    assert usr.get("/api/v1/keys/other").json["state"] == "active"
    for path in ("/api/v1/keys/rotate", "/rotate_key"):
        pending(usr.post(path, {"key_id": "orders"}))


def test_a_stranger_learns_of_no_alias_from_a_batch(world: World, people: dict[str, Person], orders: str) -> None:
    rule(world, permissions=["keys:encrypt"], key_pattern="orders")
    assert people["usr"].api.put("/api/v1/aliases/nice", {"key_id": "orders"}).status_code == 200
    stranger = world.user("stranger")
    answers = [
        stranger.post(f"/api/v1/keys/{name}/encrypt", {"items": [{"plaintext": ""}]}) for name in ("nice", "absent")
    ]
    assert [answer.status_code for answer in answers] == [404, 404]


def test_an_alias_and_a_pattern_of_a_grant_are_the_keys_they_stand_for(
    world: World, people: dict[str, Person], orders: str
) -> None:
    usr = people["usr"].api
    assert usr.put("/api/v1/aliases/current", {"key_id": "orders"}).status_code == 200
    rule(world, permissions=["keys:delete", "grants:manage"], key_pattern="orders", approvals=1)
    assert pending(usr.delete("/api/v1/keys/current"))
    for pattern in ("orders", "or*", "*"):
        body = {"subject": "role:user", "permission": "keys:encrypt", "key_pattern": pattern}
        assert pending(usr.post("/api/v1/grants", body)), pattern
    other = usr.post(
        "/api/v1/grants", {"subject": "role:user", "permission": "keys:encrypt", "key_pattern": "test-*"}
    )
    assert other.status_code == 201


def test_a_key_that_gave_up_its_name_is_still_the_key_of_the_rule(world: World, people: dict[str, Person]) -> None:
    rule(world, operations=["create_grant"], permissions=["keys:recover"], key_pattern="payroll*")
    usr, bob = people["usr"].api, people["bob"].api
    assert usr.post("/api/v1/keys", {"key_id": "payroll-1"}).status_code == 201
    renamed = bob.delete("/api/v1/keys/payroll-1", {"release_name": True}).json["key_id"]
    assert usr.post("/api/v1/keys", {"key_id": "payroll-1"}).status_code == 201
    assert bob.post(f"/api/v1/keys/{renamed}/cancel-deletion", {}).json["key_id"] == renamed
    grant = {"subject": "client:bob", "permission": "keys:recover", "owner": "usr"}
    for pattern in (renamed, f"{renamed[:12]}*", "del*"):
        pending(bob.post("/api/v1/grants", {**grant, "key_pattern": pattern}))
    assert bob.post("/api/v1/grants", {**grant, "key_pattern": "dev-*"}).status_code == 201


def test_giving_what_only_administrators_give_counts_as_asking_for_it(
    world: World, people: dict[str, Person]
) -> None:
    rule(world, operations=["create_grant"], permissions=["keys:recover", "keys:export-plaintext"], approvals=1)
    grant = {"subject": "client:usr", "key_pattern": "*", "owner": "usr"}
    ann = people["ann"].api
    assert ann.post("/api/v1/grants", {**grant, "owner": "ann", "permission": "keys:encrypt"}).status_code == 201
    waiting = pending(
        ann.post("/api/v1/grants", {**grant, "permissions": ["keys:encrypt", "keys:recover"], "owner": "ann"})
    )
    assert approve(people["bob"], waiting).json["state"] == "done"
    assert story(world, waiting)[-1] == ("create_grant", "success", "ann", "client:usr", None)


SENSELESS: list[tuple[dict[str, Any], str]] = [
    ({}, "validation-failed"),
    ({"operations": ["issue_token"]}, "validation-failed"),
    ({"operations": ["get_key"]}, "validation-failed"),
    ({"operations": ["no_such"]}, "validation-failed"),
    ({"permissions": ["metrics:read"]}, "validation-failed"),
    ({"permissions": ["keys:delete"], "operations": ["encrypt"]}, "validation-failed"),
    ({"permissions": ["keys:delete"], "expires_in": "PT1M"}, "validation-failed"),
    ({"permissions": ["keys:delete"], "approvals": 0}, "validation-failed"),
    ({"permissions": ["keys:delete"], "approvers": ["role:boss"]}, "validation-failed"),
    ({"permissions": ["keys:delete"], "approvals": 4}, "conflict"),
    ({"permissions": ["keys:delete"], "approvers": ["nobody"], "approvals": 1}, "conflict"),
    ({"permissions": ["keys:delete"], "approvers": ["ann"], "approvals": 1}, "conflict"),
    ({"operations": ["disable_client"]}, "validation-failed"),
    ({"operations": ["revoke_key_versions"]}, "validation-failed"),
]


def test_a_rule_that_makes_no_sense_is_refused(world: World, people: dict[str, Person]) -> None:
    for given, problem in SENSELESS:
        refused = asked_rule(world, **given)
        assert kind_of(refused) == problem, (given, refused.text)


def test_who_makes_no_rules_makes_none(world: World, people: dict[str, Person]) -> None:
    body = {"name": "rule1", "approvers": ["role:admin"], "permissions": ["keys:delete"]}
    assert kind_of(people["usr"].api.post(RULES, body)) == "permission-denied"
    assert kind_of(people["usr"].api.get(RULES)) == "permission-denied"
    assert [each for each in entries(world) if each["operation"] == "create_approval_rule"] == []


def test_an_altered_call_is_not_carried_out(world: World, people: dict[str, Person], orders: str) -> None:
    rule(world, permissions=["keys:delete"], approvals=1)
    mine = pending(people["usr"].api.delete(orders))
    other = pending(people["usr"].api.post(f"{orders}/cancel-deletion", {}))
    with world.service.vault.change() as change:  # whoever had the keys of the rows, and not that of the seal
        found, theirs = change.find(Approval, mine), change.find(Approval, other)
        assert found is not None
        assert theirs is not None
        change.replace(found, replace(found, request=theirs.request))
    failed = approve(people["ann"], mine)
    assert (failed.json["state"], failed.json["failure"]["type"]) == ("failed", "integrity-failure")
    assert people["usr"].api.get(orders).json["state"] == "active"
