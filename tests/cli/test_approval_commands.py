"""`approvals` and `approval-rules`: what the command shows and asks, and break-glass on the host."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from helpers.approvals import RULES, approve, pending, people_of, rule, shown
from helpers.people import Person
from helpers.support import SteeredClock, World, kind_of, settings_for
from kms.access.model import Role
from kms.cli import main
from kms.client import Client, kept_login
from kms.client.errors import ApprovalPending
from kms.client.kept_login import KeptLogin
from kms.clock import utc_now
from kms.config import Settings

Kms = Callable[..., list[Any]]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Those of a service that sends notices to one host."""
    return settings_for(tmp_path / "data", notice_hosts="localhost")


def test_a_call_is_asked_for_approved_and_shown(kms: Kms, shared_world: World, served: tuple[str, str]) -> None:
    people = {name: Person.of(shared_world, name, *roles) for name, roles in (("ann", ["admin"]), ("eve", ["admin"]))}
    options = "--operation delete_key --approver ann --approver eve --approvals 1 --key orders*"
    (made,) = kms("approval-rules", "add", "orders-only", *options.split(), by="admin")
    assert (made["approvals"], made["expires_in"]) == (1, "P1D")
    assert [each["name"] for each in kms("approval-rules", "list")] == ["orders-only"]
    kms("key", "create", "orders", by="alice")
    (told,) = kms("key", "delete", "orders", "--yes", code=10)
    (waiting,) = kms("approvals", "list", "--state", "pending")
    assert waiting["approval_id"] in told
    with Client() as library, pytest.raises(ApprovalPending, match="kms approvals show"):
        library.call("delete_key", key_id="orders")
    token = people["ann"].api.headers["Authorization"].removeprefix("Bearer ")
    kept_login.save(KeptLogin(*served, token, "ann"))
    assert kms("approvals", "show", waiting["approval_id"])[0]["requester"] == "alice"
    assert kms("approvals", "approve", waiting["approval_id"])[0]["state"] == "done"
    (shown,) = kms("approvals", "show", waiting["approval_id"], by="alice")
    assert (shown["state"], shown["result"]["key_id"]) == ("done", "orders")
    (removal,) = kms("approval-rules", "remove", "orders-only", code=10, by="admin")
    assert "needs the approval of others" in removal
    (mine,) = [each for each in kms("approvals", "list", "--state", "pending") if each["requester"] == "admin"]
    assert kms("approvals", "reject", mine["approval_id"], "--reason", "kept")[0]["state"] == "rejected"


def break_glass(world: World, *more: str, given: str = "") -> Result:
    """Run the command beside the service, as on its host."""
    where = ["--data-dir", str(world.service.settings.data_dir)]
    return CliRunner().invoke(main, ["approval-rules", "break-glass", *more, *where], input=given)


def test_the_ready_rules_of_the_page_hold_back_what_they_say(kms: Kms, shared_world: World) -> None:
    for name in ("kim", "lea"):
        shared_world.enrol(name, Role.ADMIN)
    page = (ROOT / "docs" / "how-to" / "approvals.md").read_text().replace("\\\n", "")
    added = re.findall(r"^kms (approval-rules add .*)$", page, re.MULTILINE)
    usr, admin = shared_world.user("mia"), shared_world.admin
    body = {"type": "xaes-256-gcm", "key_id": "mine", "exportable": True}
    assert usr.post("/api/v1/keys", body).status_code == 201
    backup = usr.post("/api/v1/keys/mine/backup", {}).json["backup"]
    soon = (utc_now() + timedelta(seconds=2)).isoformat()
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    issuer = {"issuer": "https://ci.example", "audience": "kms", "jwks": {"keys": [jwk]}}
    issuer_role = {"role": "x", "issuer": "https://ci.example", "claims": {"sub": "me"}, "client_id": "mia"}
    for line in added:
        kms(*shlex.split(line), by="admin")
    calls = [
        usr.delete("/api/v1/keys/mine"),
        usr.post("/api/v1/keys/mine/versions/1/destroy", {}),
        usr.post("/api/v1/keys/mine/trim", {"oldest_version": 1}),
        usr.post("/api/v1/keys/mine/material", {"wrapping_key_id": "0" * 32, "wrapped_key": "", "valid_until": soon}),
        usr.post("/api/v1/keys/mine/export", {"recipient_public_key": "x"}),
        usr.post("/api/v1/keys/mine/backup", {}),
        admin.post(
            "/api/v1/grants",
            {"subject": "client:mia", "permission": "keys:recover", "key_pattern": "*", "owner": "mia"},
        ),
        admin.post("/api/v1/issuers", issuer),
        admin.delete(f"/api/v1/issuers/{'0' * 24}"),
        usr.post("/api/v1/keys/restore", {"backup": backup}),
        admin.post("/api/v1/clients", {"client_id": "puppet", "roles": ["admin"]}),
        admin.post("/api/v1/clients/kim/reset-totp", {}),
        admin.put("/api/v1/groups/team", {"members": ["mia"]}),
        admin.delete("/api/v1/clients/mia"),
        admin.delete("/api/v1/groups/team"),
        admin.delete("/api/v1/groups/team/members/mia"),
        admin.post("/api/v1/issuer-roles", issuer_role),
        admin.post("/api/v1/approval-rules", {"name": "x", "permissions": ["keys:sign"], "approvers": ["kim"]}),
    ]
    assert [each.status_code for each in calls] == [202] * len(calls), [each.json for each in calls]
    assert len(added) == 6
    assert usr.post("/api/v1/keys/mine/encrypt", {"plaintext": ""}).status_code == 200
    assert usr.post("/api/v1/keys/mine/revoke", {}).status_code == 200


def test_break_glass_lifts_a_rule_for_a_while_and_is_loud(world: World, clock: SteeredClock) -> None:
    people = people_of(world)
    rule(world, permissions=["clients:manage"])
    ann = people["ann"].api
    waiting = pending(ann.post("/api/v1/clients", {"client_id": "one"}))
    notice = world.admin.post("/api/v1/notices", {"url": "https://localhost/x", "events": ["approval.rule_lifted"]})
    assert notice.status_code == 201, notice.text
    assert break_glass(world, "rule1", given="n\n").exit_code == 1
    pending(ann.post("/api/v1/clients", {"client_id": "two"}))
    done = break_glass(world, "rule1", "--for", "15", given="y\n")
    assert done.exit_code == 0, done.output
    assert "AN OPERATOR ON THE HOST TOOK AN APPROVAL RULE OUT OF FORCE: rule1" in done.stderr
    assert ann.post("/api/v1/clients", {"client_id": "two"}).status_code == 201
    (entry,) = world.admin.get("/api/v1/audit/entries?operation=break_glass").json["items"]
    assert (entry["source"], entry["target"]) == ("local", "rule1 lifted for 15 minutes")
    (delivery,) = world.admin.get(f"/api/v1/notices/{notice.json['notice_id']}/deliveries").json["items"]
    assert delivery["event"] == "approval.rule_lifted"
    assert "lifted_until" in ann.get(RULES).json["items"][0]
    assert kind_of(approve(people["bob"], waiting)) == "conflict", "it could be carried out twice"
    assert shown(people["ann"], waiting)["state"] == "failed"
    clock.advance(minutes=16)
    pending(ann.post("/api/v1/clients", {"client_id": "three"}))


def test_break_glass_removes_a_rule_for_good(world: World) -> None:
    people = people_of(world)
    rule(world, permissions=["clients:manage"])
    assert break_glass(world, "rule2", "--remove", "--yes").exit_code == 1
    assert break_glass(world, "rule1", "--remove", "--for", "5", "--yes").exit_code == 2
    done = break_glass(world, "rule1", "--remove", "--yes")
    assert done.exit_code == 0, done.output
    assert people["ann"].api.get(RULES).json["items"] == []
    assert people["ann"].api.post("/api/v1/clients", {"client_id": "two"}).status_code == 201
