"""Calls that wait for other people, at the console: seen, approved, rejected, withdrawn, and carried out."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from html import unescape
from typing import Any

import pytest

from helpers.approvals import APPROVALS, approve, left_by_an_end, people_of, rule, shown, story
from helpers.console import Browser
from helpers.people import Person
from helpers.support import SteeredClock, World
from kms.access.model import Role
from kms.api.console.pages import approvals

XSS = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


@pytest.fixture
def people(world: World) -> dict[str, Person]:
    """Administrators `ann`, `bob` and `cat`, and `usr` with the key `orders`; deleting keys needs two approvals."""
    made = people_of(world)
    assert made["usr"].api.post("/api/v1/keys", {"key_id": "orders"}).status_code == 201
    rule(world, name="destroy", operations=["delete_key"])
    return made


@pytest.fixture
def usr(world: World, people: dict[str, Person]) -> Browser:
    """Who asks, at the console."""
    return Browser.as_client(world, "usr", Role.USER)


def administrator(world: World, name: str, *, fresh: bool = True) -> Browser:
    return Browser.as_client(world, name, Role.ADMIN, fresh=fresh)


def asked(browser: Browser, path: str = "/keys/orders/do/delete", **fields: Any) -> str:
    """The id of the call that waits after that form was sent."""
    answer = browser.post(path, fields or {"waiting_period": "7"})
    assert answer.status_code == 303, browser.text
    found = re.fullmatch(r"/console/approvals/([0-9a-f]{32})", answer.headers["Location"])
    assert found is not None
    return found[1]


def test_two_people_approve_what_was_asked_at_the_console(
    world: World, people: dict[str, Person], usr: Browser
) -> None:
    approval_id = asked(usr)
    page = f"/approvals/{approval_id}"
    usr.get(page)
    assert "This is not done yet: it needs 2 approvals of other people, and has 0." in usr.text
    assert "delete_key with orders" in usr.text
    assert usr.text.count("Withdraw") == 1
    assert "Approve" not in usr.text.replace("Approvals", "")
    assert "Nobody yet." in usr.text

    ann, bob = administrator(world, "ann"), administrator(world, "bob")
    assert "delete_key" in ann.get("/approvals").text
    seen = ann.get(page).text
    said = shown(people["ann"], approval_id)
    assert said["request_sha256"] in seen
    assert "&#34;waiting_period&#34;: &#34;P7D&#34;" in seen
    assert said["request_sha256"] in ann.get(f"{page}/do/approve").text
    ann.post(f"{page}/do/approve")
    assert "You have approved it. It has 1 of 2 approvals." in (ann.get(page), ann.text)[1]
    assert "/do/approve" not in ann.page.text
    assert "/do/reject" in ann.page.text
    assert people["usr"].api.get("/api/v1/keys/orders").json["state"] == "active"
    bob.post(f"{page}/do/approve")
    assert "You have approved it, and it is carried out." in (bob.get(page), bob.text)[1]
    assert "/do/" not in bob.page.text
    assert people["usr"].api.get("/api/v1/keys/orders").json["deletion_at"] is not None
    assert story(world, approval_id) == [
        ("delete_key", "approval-pending", "usr", approval_id, "orders"),
        ("approve_call", "success", "ann", approval_id, "orders"),
        ("approve_call", "success", "bob", approval_id, "orders"),
        ("delete_key", "success", "usr", approval_id, "orders"),
    ]
    assert "&#34;key_id&#34;: &#34;orders&#34;" in usr.get(f"{page}/result").text
    assert f"{page}/result" in usr.get(page).text
    assert f"{page}/result" not in bob.get(page).text
    assert bob.get(f"{page}/result").status_code == 404
    assert "No call waits." in bob.get("/approvals").text
    assert approval_id in bob.get("/approvals?state=done").text
    assert approval_id in bob.get("/approvals?state=").text


def test_approving_asks_for_a_fresh_second_factor(
    world: World, people: dict[str, Person], usr: Browser, clock: SteeredClock
) -> None:
    approval_id = asked(usr)
    tired = administrator(world, "ann", fresh=False)
    clock.advance(seconds=31)
    for act in ("approve", "reject"):
        path = f"/approvals/{approval_id}/do/{act}"
        assert 'name="code"' in tired.get(path).text
        for code in ("", "000000"):
            answer = tired.post(path, {"code": code, "reason": "kept"})
            assert answer.status_code == 422
            assert 'id="code-wrong"' in answer.text
            assert act == "approve" or "kept" in answer.text
    assert shown(people["bob"], approval_id)["given"] == 0
    tired.post(f"/approvals/{approval_id}/do/approve", {"code": people["ann"].code})
    assert shown(people["bob"], approval_id)["given"] == 1
    assert 'name="code"' not in tired.get(f"/approvals/{approval_id}/do/reject").text


def test_nobody_approves_their_own_call_or_one_of_others_that_they_may_not(
    world: World, people: dict[str, Person], usr: Browser
) -> None:
    approval_id = asked(usr)
    page = f"/approvals/{approval_id}"
    own = usr.post(f"{page}/do/approve")
    assert own.status_code == 403
    assert "Nobody approves what they have asked for themselves." in usr.text
    world.enrol("inspector", Role.AUDITOR)
    inspector = Browser.as_client(world, "inspector", Role.AUDITOR)
    assert inspector.get(page).status_code == 200
    for act in ("approve", "reject"):
        assert inspector.post(f"{page}/do/{act}").status_code == 403
        assert "inspector is none of the approvers of this call." in inspector.text
    world.enrol("stranger")
    stranger = Browser.as_client(world, "stranger", Role.USER)
    for path in (page, f"{page}/do/approve", f"{page}/result", "/approvals/x", f"{page}/do/nothing"):
        assert stranger.get(path).status_code == 404, path
    assert stranger.post(f"{page}/do/approve").status_code == 404
    assert "delete_key" not in stranger.get("/approvals").text
    assert stranger.get("/approval-rules").status_code == 403
    assert "stranger may not do this: it needs clients:read." in stranger.text
    assert stranger.get("/approvals?state=nonsense").status_code == 422
    ann = administrator(world, "ann")
    assert ann.post(f"{page}/do/approve", csrf="x").status_code == 403
    assert ann.post(f"{page}/do/approve", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert shown(people["ann"], approval_id)["given"] == 0


def test_a_call_is_rejected_with_a_reason_that_is_shown_as_it_is(
    world: World, people: dict[str, Person], usr: Browser
) -> None:
    approval_id = asked(usr)
    ann, page = administrator(world, "ann"), f"/approvals/{approval_id}"
    assert ann.post(f"{page}/do/reject", {"reason": "x" * 501}).status_code == 422
    assert 'id="reason-wrong"' in ann.page.text
    assert ann.post(f"{page}/do/reject", {"reason": XSS}).status_code == 303
    usr.get(page)
    assert f"Rejected. {XSS}" in usr.text
    assert "<script>alert" not in usr.page.text
    assert "/do/" not in usr.page.text
    refused = ann.post(f"{page}/do/approve")
    assert refused.status_code == 409
    assert "This call does not wait for approval any more: it is rejected." in ann.text


@pytest.mark.parametrize("act", ["approve", "reject", "withdraw"])
def test_what_a_crash_has_left_approved_can_be_ended_or_carried_out(
    world: World,
    people: dict[str, Person],
    usr: Browser,
    clock: SteeredClock,
    monkeypatch: pytest.MonkeyPatch,
    act: str,
) -> None:
    approval_id = asked(usr)
    approve(people["ann"], approval_id)
    left_by_an_end(people["bob"], approval_id, monkeypatch)
    clock.advance(minutes=3)
    browser = usr if act == "withdraw" else administrator(world, "ann")
    path = f"/approvals/{approval_id}/do/{act}"
    assert path in (browser.get(f"/approvals/{approval_id}"), browser.page.text)[1]
    assert browser.post(path).status_code == 303
    assert shown(people["bob"], approval_id)["state"] == ("done" if act == "approve" else "rejected")


def test_who_asked_withdraws_without_a_code(world: World, people: dict[str, Person], clock: SteeredClock) -> None:
    tired = Browser.as_client(world, "usr", Role.USER)
    approval_id = asked(tired)
    clock.advance(minutes=10)
    page = f"/approvals/{approval_id}"
    assert 'name="code"' not in tired.get(f"{page}/do/withdraw").text
    assert tired.post(f"{page}/do/withdraw").status_code == 303
    assert "Withdrawn by who asked." in (tired.get(page), tired.text)[1]
    assert shown(people["ann"], approval_id)["state"] == "rejected"


def test_what_was_asked_is_shown_escaped_and_without_secrets(world: World, people: dict[str, Person]) -> None:
    rule(world, name="groups", operations=["put_group"], approvals=1)
    ann, bob = administrator(world, "ann"), administrator(world, "bob")
    approval_id = asked(ann, "/new-group", group="team", members="usr", description=XSS)
    for path in (f"/approvals/{approval_id}", f"/approvals/{approval_id}/do/approve", "/approvals"):
        assert "<script>alert" not in bob.get(path).text
    assert "alert(1)" in (bob.get(f"/approvals/{approval_id}"), bob.text)[1]
    rule(world, name="secrets", operations=["rotate_client_secret"], approvals=1)
    chosen = "correct horse battery"
    approval_id = asked(ann, "/clients/ann/do/rotate-secret", passphrase=chosen)
    for browser in (ann, bob):
        browser.get(f"/approvals/{approval_id}")
        assert "What may be secret is not shown." in browser.text
        assert chosen not in browser.page.text
    assert ("Salt of the request" in (ann.get(f"/approvals/{approval_id}"), ann.text)[1]) is True
    assert "Salt of the request" not in bob.text


def test_the_page_has_what_the_sha256_is_of(world: World, people: dict[str, Person], usr: Browser) -> None:
    approval_id = asked(usr)
    usr.get(f"/approvals/{approval_id}")
    found = re.search(r'<pre class="secret">(.*?)</pre>', usr.page.text, re.DOTALL)
    assert found is not None
    request = json.loads(found[1].replace("&#34;", '"'))
    assert request["dialect"] == "console"
    form = json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert sha256(form.encode()).hexdigest() in usr.text


def test_new_credentials_are_in_the_result_for_who_asked(world: World, people: dict[str, Person]) -> None:
    rule(world, name="people", operations=["create_client"], approvals=1)
    ann, bob = administrator(world, "ann"), administrator(world, "bob")
    approval_id = asked(ann, "/new-client", client_id="dave", roles="user")
    assert bob.post(f"/approvals/{approval_id}/do/approve").status_code == 303
    assert "kms-secret-" not in ann.get(f"/approvals/{approval_id}").text
    result = ann.get(f"/approvals/{approval_id}/result")
    assert "kms-secret-" in result.text
    assert '<svg class="qr"' in result.text
    assert result.headers["Cache-Control"] == "no-store"
    assert bob.get(f"/approvals/{approval_id}/result").status_code == 404


def test_a_call_that_can_not_be_carried_out_any_more_says_why(
    world: World, people: dict[str, Person], usr: Browser
) -> None:
    approval_id = asked(usr)
    assert approve(people["ann"], approval_id).status_code == 200
    rule(world, name="stricter", operations=["delete_key"], approvals=1)
    bob = administrator(world, "bob")
    assert bob.post(f"/approvals/{approval_id}/do/approve").status_code == 303
    bob.get(f"/approvals/{approval_id}")
    assert "You have approved it, and it could not be carried out." in bob.text
    assert "Not carried out." in bob.text
    assert "/do/" not in bob.page.text


def test_a_rule_is_made_and_guards_its_own_removal(world: World, people: dict[str, Person]) -> None:
    ann, bob = administrator(world, "ann"), administrator(world, "bob")
    fields = {
        "name": "export",
        "operations": "",
        "permissions": "keys:export\nkeys:export-plaintext",
        "key_pattern": "prod-*",
        "approvers": "role:admin",
        "approvals": "1",
        "expires_in": "2",
    }
    for wrong, field in (
        ({"permissions": "keys:fly"}, "permissions"),
        ({"operations": "fly"}, "operations"),
        ({"approvers": ""}, "approvers"),
        ({"approvals": "many"}, "approvals"),
        ({"expires_in": "31"}, "expires_in"),
        ({"expires_in": "soon"}, "expires_in"),
        ({"name": XSS}, "name"),
    ):
        assert ann.post("/new-approval-rule", {**fields, **wrong}).status_code == 422, wrong
        assert f'id="{field}-wrong"' in ann.page.text, (wrong, ann.text)
        assert "Expected" not in ann.text
        assert "<script>alert" not in ann.page.text
    assert ann.post("/new-approval-rule", fields).status_code == 303, ann.text
    made = {each["name"]: each for each in world.admin.get("/api/v1/approval-rules").json["items"]}["export"]
    assert (made["permissions"], made["expires_in"]) == (["keys:export", "keys:export-plaintext"], "P2D")
    assert "prod-*" in ann.get("/approval-rules").text
    approval_id = asked(ann, "/approval-rules/export/remove", unused="")
    assert "export" in bob.get("/approval-rules").text
    bob.post(f"/approvals/{approval_id}/do/approve")
    assert "/approval-rules/export/" not in bob.get("/approval-rules").text
    usr = Browser.as_client(world, "usr", Role.USER)
    assert usr.post("/new-approval-rule", fields).status_code == 403


def test_the_list_names_every_call_and_says_whose_it_is(
    world: World, people: dict[str, Person], usr: Browser
) -> None:
    first = asked(usr)
    again = asked(usr)
    assert again == first  # the same call is the same approval
    usr.get("/approvals")
    assert "1 call, the newest first" in usr.text
    assert "usr you" in usr.text
    assert people["usr"].api.get(APPROVALS).json["items"][0]["approval_id"] == first


def test_older_calls_are_on_the_next_page(
    usr: Browser, people: dict[str, Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approvals, "_AT_ONCE", 1)
    assert people["usr"].api.post("/api/v1/keys", {"key_id": "bills", "type": "xaes-256-gcm"}).status_code == 201
    calls = [asked(usr), asked(usr, "/keys/bills/do/delete")]
    usr.get("/approvals")
    (first,) = [each for each in calls if each in usr.page.text]
    (link,) = re.findall(r'href="/console(/approvals\?cursor=[^"]+)"', usr.page.text)
    usr.get(unescape(link))
    assert [each for each in calls if each in usr.page.text] == [each for each in calls if each != first]
