"""The console: its session, its forms, and that it does what the operations do and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from helpers.console import SAME_ORIGIN, Browser
from helpers.support import SteeredClock, World, settings_for
from kms.access.model import Role, Token
from kms.api.console import session
from kms.api.console.pages.new_key import is_post_quantum, purposes
from kms.api.console.render import CONTENT_SECURITY_POLICY
from kms.api.console.routes import ROUTES
from kms.api.console.session import COOKIE, ConsoleSession
from kms.crypto.registry import KEY_TYPES
from kms.operations import OPERATIONS
from kms.vault.sealing import DerivedKeys

XSS = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
FOR_ALL = (
    "",
    "/keys",
    "/new-key",
    "/keys/mine",
    "/keys/mine/edit",
    "/keys/mine/do/rotate",
    "/keys/mine/do/suspend",
    "/keys/mine/do/resume",
    "/keys/mine/do/revoke",
    "/keys/mine/do/delete",
    "/keys/mine/do/cancel-deletion",
    "/keys/mine/do/trim",
    "/keys/mine/versions/1/destroy",
    "/keys/mine/export",
    "/revocations",
    "/account",
    "/account/passkeys/new",
    "/grants",
    "/new-grant",
    "/explain",
    "/explain?permission=keys:encrypt&key_id=mine",
    "/clients/ann/add-key",
    "/clients/ann/do/rotate-secret",
    "/clients/ann/do/end-sessions",
    "/approvals",
    "/approvals?state=",
    "/audit/receipt",
    "/keys?unused_days=90",
)
FOR_ADMINISTRATORS = (
    "/clients",
    "/clients/ann",
    "/clients/ann/do/disable",
    "/clients/ann/do/enable",
    "/clients/ann/do/delete",
    "/clients/ann/do/reset-second-factor",
    "/new-client",
    "/groups",
    "/new-group",
    "/audit",
    "/audit?outcome=refused&client_id=ann&since=2026-01-01&until=2026-12-31",
    "/keys/mine/blast-radius",
    "/keys/mine/blast-radius?version=1&since=2026-01-01",
    "/audit/users",
    "/audit/users?key_id=mine&version=1&since=2026-01-01",
    "/audit/novelties?client_id=ann&since=",
    "/approval-rules",
    "/new-approval-rule",
    "/approval-rules/none/remove",
    "/health",
)


@pytest.fixture(scope="module")
def people(shared_world: World) -> World:
    """A world with two users, each with a key, and a grant."""
    for name in ("ann", "bob"):
        api = shared_world.user(name)
        key_id = "mine" if name == "ann" else "others"
        body = {"key_id": key_id, "description": XSS, "labels": {XSS: XSS}}
        assert api.post("/api/v1/keys", body).status_code == 201
    return shared_world


@pytest.fixture
def ann(people: World) -> Browser:
    """A user at the console."""
    return Browser.as_client(people, "ann", Role.USER)


@pytest.fixture
def admin(people: World) -> Browser:
    """An administrator at the console."""
    return Browser.as_client(people, "admin", Role.ADMIN)


def entries(world: World, request_id: str) -> list[dict[str, Any]]:
    answer = world.admin.get("/api/v1/audit/entries?limit=10000")
    return [each for each in answer.json["items"] if each["request_id"] == request_id]


def test_a_log_in_makes_a_session_in_a_cookie_that_says_nothing(world: World) -> None:
    made = world.enrol("carol")
    browser = Browser.of(world)
    answer = browser.log_in("carol", made.client_secret, code=browser.code(made.totp_secret))
    assert (answer.status_code, answer.headers["Location"]) == (303, "/console")
    header = answer.headers["Set-Cookie"]
    assert header.startswith(f"{COOKIE}=")
    assert {part.strip() for part in header.split(";")[1:]} == {"Secure", "HttpOnly", "Path=/", "SameSite=Strict"}
    token = browser.held.token
    assert token.startswith("kms-token-")
    assert token not in header
    assert [entry["operation"] for entry in entries(world, answer.headers["X-Request-Id"])] == ["issue_token"]
    assert "Overview" in browser.get("").text
    assert token not in repr(browser.held)


def test_a_recovery_code_logs_in_once(world: World) -> None:
    made = world.enrol("carol")
    browser = Browser.of(world)
    code = made.recovery_codes[0]
    assert browser.log_in("carol", made.client_secret, recovery_code=code).status_code == 303
    again = Browser.of(world)
    assert again.log_in("carol", made.client_secret, recovery_code=code).status_code == 401


@pytest.mark.parametrize(
    ("fields", "status"),
    [({"client_secret": "wrong"}, 401), ({"code": ""}, 401), ({"code": "000000"}, 401), ({"client_id": XSS}, 401)],
)
def test_a_log_in_that_fails_keeps_the_client_id_and_no_secret(
    world: World, fields: dict[str, str], status: int
) -> None:
    made = world.enrol("carol")
    browser = Browser.of(world)
    given = {"client_id": "carol", "client_secret": made.client_secret, "code": browser.code(made.totp_secret)}
    answer = browser.post("/login", {**given, **fields}, csrf=None)
    assert answer.status_code == status
    assert made.client_secret not in answer.text
    assert "<script>alert" not in answer.text
    assert 'value="carol"' in answer.text or "client_id" in fields
    assert not browser.cookie
    request_id = answer.headers["X-Request-Id"]
    assert [entry["outcome"] for entry in entries(world, request_id)] == [
        "mfa-required" if fields.get("code") == "" else "authentication-failed"
    ]


def test_failures_at_the_console_count_to_the_lockout_of_every_way(world: World) -> None:
    made = world.enrol("carol")
    browser = Browser.of(world)
    for _ in range(12):
        answer = browser.log_in("carol", "wrong", code="000000")
    assert answer.status_code == 429
    assert "Retry-After" in answer.headers
    headers = {"X-TOTP": browser.code(made.totp_secret)}
    over_rest = world.http.post("/auth/token", auth=("carol", made.client_secret), headers=headers)
    assert over_rest.status_code == 429


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "null"},
        {"Origin": "https://elsewhere.example"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "null"},
        {"Sec-Fetch-Site": "same-site", "Origin": "https://localhost"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://elsewhere.example"},
    ],
)
def test_a_form_of_another_origin_is_refused(people: World, ann: Browser, headers: dict[str, str]) -> None:
    answer = ann.post("/new-key", {"key_id": "planted"}, headers=headers)
    assert answer.status_code == 403
    assert people.login("ann", Role.USER).get("/api/v1/keys/planted").status_code == 404
    login = Browser.of(people).post("/login", {"client_id": "ann"}, csrf=None, headers=headers)
    assert login.status_code == 403


@pytest.mark.parametrize("headers", [SAME_ORIGIN, {"Origin": "https://localhost"}])
def test_a_form_of_this_origin_is_taken(ann: Browser, headers: dict[str, str]) -> None:
    assert ann.post("/keys/mine/do/rotate", headers=headers).status_code == 303


def test_a_form_carries_what_only_its_own_session_knows(people: World, ann: Browser) -> None:
    other = Browser.as_client(people, "ann", Role.USER)
    for csrf in (None, "x", other.held.csrf, ann.held.token, "é"):
        answer = ann.post("/new-key", {"key_id": "planted"}, csrf=csrf)
        assert answer.status_code == 403
    twice = ann.http.post("/console/new-key", data={"csrf": [ann.held.csrf, "x"]}, headers=SAME_ORIGIN)
    assert twice.status_code == 403
    assert people.login("ann", Role.USER).get("/api/v1/keys/planted").status_code == 404


_EXAMPLES = {
    "key_id": "mine",
    "act_name": "revoke",
    "version": "1",
    "client_id": "ann",
    "session_id": "0",
    "kid": "k",
    "passkey_id": "p",
}
_EXAMPLES |= {"grant_id": "0" * 32, "group": "g", "approval_id": "0" * 32, "rule": "r"}
POSTS = [re.sub(r"<(?:int:)?(\w+)>", lambda found: _EXAMPLES[found[1]], each.path) for each in ROUTES]
POSTS = sorted({path for path, each in zip(POSTS, ROUTES, strict=True) if each.method == "POST"})


@pytest.mark.parametrize("path", [*POSTS, "/logout"])
def test_no_form_is_taken_without_a_session_or_its_mark(people: World, ann: Browser, path: str) -> None:
    stranger = Browser.of(people)
    answer = stranger.post(path, {"reason": "superseded"}, csrf="x" * 32)
    assert answer.status_code == (200 if path == "/logout" else 401)
    assert "Log in" in answer.text
    before = versions(people)
    assert ann.post(path, {"reason": "superseded", "oldest_version": "1"}, csrf="x").status_code == 403
    assert versions(people) == before


def versions(world: World) -> Any:
    shown = world.login("ann", Role.USER).get("/api/v1/keys/mine").json
    return shown["state"], shown["latest_version"]


def test_every_post_of_the_console_is_known(people: World) -> None:
    rules = people.http.application.url_map.iter_rules()
    found = {rule.rule for rule in rules if rule.rule.startswith("/console") and "POST" in (rule.methods or ())}
    declared = {f"/console{each.path}" for each in ROUTES if each.method == "POST"}
    assert found == declared | {"/console/login", "/console/logout"}


@pytest.mark.parametrize("path", [*FOR_ALL, *FOR_ADMINISTRATORS])
def test_a_page_changes_nothing_and_tells_no_secret(people: World, path: str) -> None:
    is_for_all = path in FOR_ALL
    browser = Browser.as_client(people, *(("ann", Role.USER) if is_for_all else ("admin", Role.ADMIN)))
    with people.service.vault.read() as snapshot:
        before = people.service.memory.epoch, len(snapshot.matching(Token, client_id="ann"))
    answer = browser.get(path)
    assert answer.status_code == 200, browser.text
    with people.service.vault.read() as snapshot:
        assert (people.service.memory.epoch, len(snapshot.matching(Token, client_id="ann"))) == before
    assert answer.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert browser.held.token not in answer.text
    assert browser.cookie not in answer.text
    assert "kms-secret-" not in answer.text
    assert "<script>alert" not in answer.text
    assert not re.search(r"<[^>]*\s(on\w+|style)\s*=", answer.text.replace("&lt;", "")), path
    assert re.findall(r"<script\b[^>]*>", answer.text) == [f'<script src="{_script(answer.text)}" defer>']


@pytest.mark.parametrize(
    ("name", "role", "paths"),
    [
        ("bob", Role.USER, ["", "/keys", "/keys/mine", "/grants", "/account", "/revocations",
                               "/approvals", "/audit/receipt"]),
        ("inspector", Role.AUDITOR, ["", "/keys", "/keys/mine", "/clients", "/clients/ann", "/groups", "/audit",
                                     "/audit/users", "/audit/novelties", "/health", "/account", "/revocations",
                                     "/approvals", "/approval-rules"]),
        ("admin", Role.ADMIN, ["", "/keys", "/keys/mine", "/clients/ann", "/audit", "/health", "/account"]),
    ],
)  # fmt: skip
def test_who_looks_leaves_no_refusals(people: World, name: str, role: Role, paths: list[str]) -> None:
    if name == "inspector":
        people.enrol(name, role)
    if name == "bob":
        grant = {"subject": "client:bob", "permission": "keys:read", "key_pattern": "mine"}
        assert people.login("ann", Role.USER).post("/api/v1/grants", grant).status_code == 201
    browser = Browser.as_client(people, name, role)
    for path in paths:
        answer = browser.get(path)
        assert answer.status_code == 200, browser.text
        left = entries(people, answer.headers["X-Request-Id"])
        assert [each for each in left if each["outcome"] != "success"] == [], path
        links = set(re.findall(r'href="/console(/(?!static)[^"?]*)', answer.text))
        for link in links:
            assert browser.get(link).status_code == 200, (path, link)


def _script(page: str) -> str:
    found = re.search(r'src="(/console/static/[^"]+/console\.js)"', page)
    assert found is not None
    return found[1]


def test_pages_are_for_who_may_see_them(people: World, ann: Browser) -> None:
    for path in ("/keys/others", "/keys/others/edit", "/keys/others/do/revoke", "/keys/nowhere"):
        assert ann.get(path).status_code == 404
    assert "others" not in ann.get("/keys").text
    assert "others" not in ann.get("").text
    for path in ("/clients", "/clients/bob", "/groups", "/audit", "/health"):
        assert ann.get(path).status_code == 403
    menu = re.findall(r'<a href="(/console[^"]*)"', ann.get("").text)
    assert not {"/console/clients", "/console/audit", "/console/health"} & {*menu}
    assert ann.post("/keys/others/do/revoke", {"reason": "superseded"}).status_code == 404
    assert ann.post("/clients/bob/do/disable").status_code == 403
    assert ann.post("/new-client", {"client_id": "planted", "roles": "user"}).status_code == 403


def test_a_cookie_is_no_bearer_token_and_a_token_no_cookie(people: World, ann: Browser) -> None:
    assert ann.http.get("/api/v1/keys").status_code == 401
    assert ann.http.post("/api/v1/keys", json={}).status_code == 401
    stranger = Browser.of(people)
    api = people.login("ann", Role.USER)
    answer = stranger.get("/keys", **api.headers)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/console/login")
    for value in (
        api.headers["Authorization"].removeprefix("Bearer "),
        ann.cookie[:-2],
        f"{ann.cookie[:9]}{ann.cookie[10:]}",
        "é",
    ):
        stranger.http.set_cookie(COOKIE, value, secure=True, path="/")
        assert stranger.get("/keys").status_code == 303


@pytest.fixture
def steered(world: World, clock: SteeredClock) -> Iterator[tuple[Browser, SteeredClock]]:
    """A user at the console, and the clock."""
    world.enrol("ann")
    yield Browser.as_client(world, "ann", Role.USER), clock


def test_who_does_nothing_is_logged_out_everywhere(steered: tuple[Browser, SteeredClock]) -> None:
    browser, clock = steered
    token = browser.held.token
    for _ in range(3):
        clock.advance(minutes=14)
        assert browser.get("/keys").status_code == 200
    stale = browser.cookie
    clock.advance(minutes=16)
    answer = browser.get("/keys")
    assert "You were logged out, because nothing was done for 15 minutes." in browser.text
    assert f"{COOKIE}=;" in answer.headers["Set-Cookie"]
    over_rest = browser.world.http.get("/api/v1/keys", headers={"Authorization": f"Bearer {token}"})
    assert over_rest.status_code == 401
    browser.http.set_cookie(COOKIE, stale, secure=True, path="/")
    assert "Your session is over." in browser.get("/keys").text


def test_an_ended_session_is_over_at_the_console(people: World, ann: Browser) -> None:
    api = people.login("ann", Role.USER)
    ended = api.delete("/api/v1/clients/ann/sessions")
    assert ended.status_code == 200
    assert "Your session is over." in ann.get("/keys").text
    assert not ann.cookie


def test_logging_out_ends_the_session_in_the_service(people: World, ann: Browser) -> None:
    token, kept = ann.held.token, ann.held
    assert "You are logged out." in ann.post("/logout").text
    assert not ann.cookie
    answer = people.http.get("/api/v1/keys", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401
    ann.hold(kept)
    assert "Your session is over." in ann.get("/keys").text


def test_another_site_does_not_log_anybody_out(people: World, ann: Browser) -> None:
    elsewhere = {"Sec-Fetch-Site": "cross-site", "Origin": "https://elsewhere.example"}
    stranger = Browser.of(people)  # whose cookie the browser keeps back
    for browser, headers in ((stranger, elsewhere), (stranger, SAME_ORIGIN), (ann, elsewhere)):
        answer = browser.post("/logout", headers=headers)
        assert f"{COOKIE}=;" not in str(answer.headers)
    assert ann.post("/logout", csrf="x").status_code == 403
    assert ann.get("/keys").status_code == 200


def test_what_is_dangerous_asks_for_a_code_that_works_once(world: World, clock: SteeredClock) -> None:
    made = world.enrol("ann")
    browser = Browser.as_client(world, "ann", Role.USER)
    assert browser.post("/new-key", {"key_id": "k"}).status_code == 303
    assert 'name="code"' not in browser.get("/keys/k/do/revoke").text
    clock.advance(minutes=6)
    assert 'name="code"' in browser.get("/keys/k/do/revoke").text
    for code in ("", "000000", "12345"):
        answer = browser.post("/keys/k/do/revoke", {"reason": "superseded", "code": code})
        assert answer.status_code == 422
        assert re.search(r'value="superseded"\s+checked', answer.text)
        assert 'aria-invalid="true"' in answer.text
        assert code == "" or code not in answer.text
    good = browser.code(made.totp_secret)
    answer = browser.post("/keys/k/do/revoke", {"reason": "superseded", "code": good})
    assert answer.status_code == 303, browser.text
    assert browser.post("/new-key", {"key_id": "l"}).status_code == 303
    assert browser.post("/keys/l/do/suspend").status_code == 303  # for five minutes it is not asked for again
    clock.advance(minutes=6)
    again = browser.post("/keys/l/do/revoke", {"reason": "superseded", "code": good})
    assert again.status_code == 422
    assert world.login("ann", Role.USER).get("/api/v1/keys/l").json["state"] == "suspended"


def test_wrong_codes_count_to_the_lockout(world: World, clock: SteeredClock) -> None:
    made = world.enrol("ann")
    browser = Browser.as_client(world, "ann", Role.USER, fresh=False)
    browser.post("/new-key", {"key_id": "k"})
    statuses = [browser.post("/keys/k/do/suspend", {"code": "000000"}).status_code for _ in range(12)]
    assert statuses[-1] == 429
    good = browser.code(made.totp_secret)
    assert browser.post("/keys/k/do/suspend", {"code": good}).status_code == 429


ACTS = [
    ("/keys/{key}/do/rotate", {}, "rotate_key_version"),
    ("/keys/{key}/do/suspend", {}, "suspend_key"),
    ("/keys/{key}/do/resume", {}, "resume_key"),
    ("/keys/{key}/edit", {"description": "d", "rotation_days": "30"}, "update_key"),
    ("/keys/{key}/versions/1/destroy", {}, "destroy_version"),
    ("/keys/{key}/do/trim", {"oldest_version": "2"}, "trim_key"),
    ("/keys/{key}/do/revoke", {"reason": "superseded"}, "revoke_key_versions"),
    ("/keys/{key}/do/delete", {"waiting_period": "7"}, "delete_key"),
    ("/keys/{key}/do/cancel-deletion", {}, "cancel_deletion"),
]


def test_each_act_on_a_key_leaves_the_entry_of_its_operation(people: World, ann: Browser) -> None:
    made = ann.post("/new-key", {"key_id": "acted-on", "type": "ed25519", "cryptoperiod": "10"})
    assert [each["operation"] for each in entries(people, made.headers["X-Request-Id"])] == ["create_key"]
    for path, fields, operation in ACTS:
        answer = ann.post(path.format(key="acted-on"), fields)
        assert answer.status_code == 303, (path, ann.text)
        found = entries(people, answer.headers["X-Request-Id"])
        assert [(each["operation"], each["outcome"]) for each in found] == [(operation, "success")]
        assert found[0]["client_id"] == "ann"
        assert found[0]["key_id"] == "acted-on"
    shown = people.login("ann", Role.USER).get("/api/v1/keys/acted-on").json
    assert (shown["description"], shown["rotation_period"], shown["oldest_version"]) == ("d", "P30D", 2)
    refused = ann.post("/keys/acted-on/do/resume")
    assert refused.status_code == 409
    entry = entries(people, refused.headers["X-Request-Id"])
    assert ("resume_key", "key-state") in [(each["operation"], each["outcome"]) for each in entry]


def test_a_key_is_given_out_wrapped(people: World, ann: Browser) -> None:
    ann.post("/new-key", {"key_id": "leaves", "exportable": "yes"})
    recipient = rsa.generate_private_key(65537, 2048)
    form = PublicFormat.SubjectPublicKeyInfo
    pem = recipient.public_key().public_bytes(Encoding.PEM, form).decode()
    answer = ann.post("/keys/leaves/export", {"recipient_public_key": pem})
    assert answer.status_code == 200, ann.text
    assert "RSA_AES_KEY_WRAP_SHA_256" in answer.text
    assert [each["operation"] for each in entries(people, answer.headers["X-Request-Id"])][-1] == "export_key"
    assert ann.post("/keys/mine/export", {"recipient_public_key": pem}).status_code == 409
    assert ann.post("/keys/leaves/export").status_code == 422
    assert 'id="recipient_public_key-wrong"' in ann.page.text


def test_the_audit_log_is_searched(people: World, ann: Browser) -> None:
    for _ in range(3):
        refused = ann.get("/keys/nowhere")
    where = "/api/v1/audit/entries?client_id=ann"
    found = people.admin.get(f"{where}&outcome=refused&operation=get_key").json["items"]
    assert len(found) >= 3
    assert {(each["client_id"], each["operation"], each["outcome"]) for each in found} == {
        ("ann", "get_key", "not-found")
    }
    assert found[-1]["request_id"] == refused.headers["X-Request-Id"]
    assert [each["time"] for each in found] == sorted(each["time"] for each in found)
    latest = found[-1]["time"]
    assert all(each["time"] < latest for each in people.admin.get(f"{where}&before={latest}").json["items"])
    assert people.admin.get(f"{where}&key_id=others").json["items"] == []
    made = people.admin.get(f"{where}&operation=create_key&key_id=mine&outcome=success&limit=1").json["items"]
    assert [each["key_id"] for each in made] == ["mine"]


def test_an_administrator_looks_after_clients(world: World) -> None:
    admin = Browser.as_client(world, "admin", Role.ADMIN)
    made = admin.post("/new-client", {"client_id": "dave", "roles": ["user", "auditor"]})
    assert made.status_code == 201
    secret = re.search(r"kms-secret-[\w-]+", made.text)
    assert secret is not None
    assert '<svg class="qr"' in made.text
    assert made.headers["Cache-Control"] == "no-store"
    assert [each["operation"] for each in entries(world, made.headers["X-Request-Id"])] == ["create_client"]
    totp = re.search(r'id="totp-secret"[^>]*>([A-Z2-7]+)<', made.text)
    assert totp is not None
    dave = Browser.of(world)
    assert dave.log_in("dave", secret[0], code=dave.code(totp[1])).status_code == 303
    again = admin.post("/new-client", {"client_id": "dave", "roles": "user"})
    assert again.status_code == 409
    assert 'value="dave"' in again.text
    assert secret[0] not in admin.get("/clients/dave").text
    for act, operation in (
        ("disable", "disable_client"),
        ("enable", "enable_client"),
        ("end-sessions", "end_every_session"),
    ):
        answer = admin.post(f"/clients/dave/do/{act}")
        assert answer.status_code == 303
        assert [each["operation"] for each in entries(world, answer.headers["X-Request-Id"])] == [operation]
    assert "Your session is over." in dave.get("").text
    for act in ("rotate-secret", "reset-second-factor"):
        assert "This is shown once." in admin.post(f"/clients/dave/do/{act}").text
    assert admin.post("/clients/dave/do/delete").headers["Location"] == "/console/clients"


def test_grants_and_groups_are_given_and_taken(world: World) -> None:
    admin = Browser.as_client(world, "admin", Role.ADMIN)
    world.enrol("ann")
    assert admin.post("/new-key", {"key_id": "orders"}).status_code == 303
    assert admin.post("/new-group", {"group": "sellers", "members": "ann\n", "description": XSS}).status_code == 303
    fields = {"subject": "group:sellers", "key_pattern": "orders", "permissions": ["keys:encrypt", "keys:read"]}
    assert admin.post("/new-grant", {**fields, "source": "127.0.0.0/8"}).status_code == 303, admin.text
    listed = world.admin.get("/api/v1/grants").json["items"]
    assert listed[0]["permissions"] == ["keys:encrypt", "keys:read"]
    assert listed[0]["conditions"] == {"source": ["127.0.0.0/8"]}
    assert "group:sellers" in admin.get("/grants").text
    assert "group:sellers" in admin.get("/keys/orders").text
    explained = admin.get("/explain?permission=keys:encrypt&key_id=orders&client_id=ann").text
    assert "allowed" in explained
    path = f"/grants/{listed[0]['grant_id']}/remove"
    assert "group:sellers may no longer keys:encrypt" in admin.get(path).text.replace(", keys:read", "")
    assert admin.post(path).status_code == 303
    assert world.admin.get("/api/v1/grants").json["items"] == []
    assert admin.post("/groups/sellers", {"members": "ann nobody"}).status_code == 404
    assert "ann nobody" in admin.page.text
    assert admin.post("/groups/sellers/delete").status_code == 303


def test_every_type_is_offered_once_under_what_it_is_for() -> None:
    offered = [kind.name for purpose in purposes() for kind in purpose.types]
    assert sorted(offered) == sorted(KEY_TYPES)
    assert all(purpose.about and purpose.types for purpose in purposes())
    marked = {name for name, kind in KEY_TYPES.items() if is_post_quantum(kind)}
    assert marked == {name for name, kind in KEY_TYPES.items() if "ML-" in kind.title}


def test_a_key_is_made_for_another_purpose(people: World, ann: Browser) -> None:
    fields = {"key_id": "agreed", "type": "ec-p256", "usages": "agree"}
    assert ann.post("/new-key", fields).status_code == 303, ann.text
    assert people.login("ann", Role.USER).get("/api/v1/keys/agreed").json["usages"] == ["agree"]


@pytest.mark.parametrize(
    ("path", "fields", "field"),
    [
        ("/new-key", {"key_id": XSS, "description": "kept"}, "key_id"),
        ("/new-key", {"key_id": "k", "rotation_period": "soon", "description": "kept"}, "rotation_period"),
        ("/new-key", {"key_id": "k", "labels": "a: b\na: c", "description": "kept"}, "labels"),
        ("/new-key", {"key_id": "k", "type": "rot13", "description": "kept"}, None),
        ("/keys/mine/edit", {"rotation_days": "-1", "description": "kept"}, "rotation_days"),
        ("/keys/mine/do/revoke", {"compromised_at": "kept"}, "reason"),
        ("/keys/mine/do/revoke", {"reason": "boredom", "compromised_at": "kept"}, "reason"),
        ("/keys/mine/do/delete", {"waiting_period": "4000"}, "waiting_period"),
        ("/keys/mine/do/trim", {"oldest_version": "kept"}, "oldest_version"),
        ("/new-grant", {"subject": "kept", "key_pattern": "mine"}, "subject"),
        ("/clients/ann/add-key", {"public_key": "kept"}, "public_key"),
    ],
)
def test_a_form_that_is_refused_comes_again_with_what_was_sent(
    ann: Browser, path: str, fields: dict[str, str], field: str | None
) -> None:
    answer = ann.post(path, fields)
    assert 400 <= answer.status_code < 500, ann.text
    assert "<script>alert" not in answer.text
    if "kept" in fields.values():
        assert "kept" in answer.text
    if field is not None:
        assert f'id="{field}-wrong"' in answer.text, ann.text
    assert "Expected" not in answer.text


def test_what_is_no_form_is_refused(ann: Browser) -> None:
    held = ann.held.csrf
    answers = [
        ann.http.post("/console/new-key", json={"csrf": held}, headers=SAME_ORIGIN),
        ann.http.post("/console/new-key", data=b"csrf=%ff&a=\xff", headers=SAME_ORIGIN, content_type="text/plain"),
        ann.http.post(
            "/console/new-key", data=b"csrf=\xff\xfe", headers=SAME_ORIGIN,
            content_type="application/x-www-form-urlencoded",
        ),
        ann.http.post("/console/new-key", data={"csrf": held, "key_id": ["a", "b"]}, headers=SAME_ORIGIN),
        ann.http.post("/console/new-key", data={"csrf": held, "description": "x" * 70_000}, headers=SAME_ORIGIN),
    ]  # fmt: skip
    assert [each.status_code for each in answers] == [415, 415, 400, 400, 413]
    assert all(each.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY for each in answers)


def test_lists_refuse_a_cursor_that_no_list_gave(ann: Browser, admin: Browser) -> None:
    assert ann.get("/keys?cursor=AAAA").status_code == 422
    assert ann.get("/keys?type=rot13").status_code == 400
    assert admin.get("/audit?since=tomorrow").status_code == 422


def test_keys_are_found_and_paged(unlimited_world: World) -> None:
    unlimited_world.enrol("eve")
    api = unlimited_world.login("eve", Role.USER)
    for number in range(52):
        api.post("/api/v1/keys", {"key_id": f"e{number:02d}", "labels": {"n": str(number)}})
    browser = Browser.as_client(unlimited_world, "eve", Role.USER)
    first = browser.get("/keys?prefix=e").text
    assert "e49" in first
    assert "e50" not in first
    following = re.search(r'href="/console(/keys\?cursor=[^"]+)"', first)
    assert following is not None
    second = browser.get(following[1].replace("&amp;", "&")).text
    assert "e51" in second
    assert "e49" not in second
    assert "e07" in browser.get("/keys?label=n:7").text
    assert "e08" not in browser.page.text
    assert re.search(r"<strong>52</strong>", browser.get("").text)


def test_files_can_be_kept_and_change_their_address_with_what_is_in_them(people: World, ann: Browser) -> None:
    for name in ("console.css", "console.js", "icon.svg"):
        found = re.search(rf'"(/console/static/[\w-]+/{re.escape(name)})"', ann.get("").text)
        assert found is not None
        answer = people.http.get(found[1])
        assert answer.status_code == 200
        assert "immutable" in answer.headers["Cache-Control"]
        assert people.http.get(f"/console/static/x/{name}").status_code == 404
    assert people.http.get("/console/static/x/..%2f..%2fsession.py").status_code != 200


def test_the_overview_says_what_to_act_on_to_those_who_look_after_the_service(world: World) -> None:
    world.enrol("amy")
    admin, amy = Browser.as_client(world, "admin", Role.ADMIN), Browser.as_client(world, "amy", Role.USER)
    sentence = "There is only one administrator"
    assert sentence in admin.get("").text
    assert sentence not in amy.get("").text
    world.enrol("second", Role.ADMIN)
    assert sentence not in admin.get("").text


def test_after_a_log_in_one_lands_on_the_overview_whatever_was_asked_for(world: World) -> None:
    made = world.enrol("carol")
    browser = Browser.of(world)
    assert browser.get("/keys?next=https://elsewhere.example").headers["Location"] == "/console/login"
    fields = {"client_id": "carol", "client_secret": made.client_secret, "code": browser.code(made.totp_secret)}
    answer = browser.post("/login?next=//elsewhere.example", {**fields, "next": "//elsewhere.example"}, csrf=None)
    assert answer.headers["Location"] == "/console"
    assert browser.get("/login").headers["Location"] == "/console"


def test_another_worker_takes_the_cookie_of_the_first(people: World, ann: Browser) -> None:
    other = Browser.of(World.of(people.service))
    other.http.set_cookie(COOKIE, ann.cookie, secure=True, path="/")
    assert other.get("/keys/mine").status_code == 200
    assert other.post("/keys/mine/do/rotate", csrf=ann.held.csrf).status_code == 303


def test_a_passphrase_is_chosen_and_never_shown(world: World) -> None:
    made = world.enrol("ann")
    browser = Browser.as_client(world, "ann", Role.USER)
    for wrong in ("short", "x" * 300):
        answer = browser.post("/clients/ann/do/rotate-secret", {"passphrase": wrong})
        assert answer.status_code == 422
        assert wrong not in answer.text
        assert 'id="passphrase-wrong"' in answer.text
    answer = browser.post("/clients/ann/do/rotate-secret", {"passphrase": "correct horse battery"})
    assert answer.status_code == 200
    assert "correct horse" not in answer.text
    assert "Your session is over." in browser.get("").text
    assert browser.log_in("ann", "correct horse battery", code=browser.code(made.totp_secret)).status_code == 303


def test_a_path_without_a_page_says_so(people: World, ann: Browser) -> None:
    assert ann.get("/nowhere/at/all").status_code == 404
    assert "There is no such page." in ann.get("/keys/mine/do/nothing").text
    assert ann.page.status_code == 404
    assert Browser.of(people).get("/nowhere").headers["Location"] == "/console/login"


def test_a_person_who_asks_too_often_is_told_so_on_a_page(template: Any, tmp_path: Any) -> None:
    opened = template.open(
        settings_for(tmp_path / "data", rate_limit_manage="5/minute", rate_limit_public="5/minute")
    )
    try:
        world = World.of(opened)
        browser = Browser.as_client(world, "admin", Role.ADMIN)
        answers = [browser.get("/clients") for _ in range(7)]
        assert answers[-1].status_code == 429
        assert int(answers[-1].headers["Retry-After"]) > 0
        assert "<h1>" in answers[-1].text
        stranger = Browser.of(world)
        for _ in range(7):
            answer = stranger.get("/login")
        assert answer.status_code == 429
        assert "Log in" in stranger.text
    finally:
        opened.close()


def test_the_console_can_be_switched_off(template: Any, tmp_path: Any) -> None:
    opened = template.open(settings_for(tmp_path / "data", console="off"))
    try:
        http = World.of(opened).http
        assert http.get("/console").status_code == 404
        assert http.post("/console/login").status_code == 404
    finally:
        opened.close()


def test_a_cookie_of_another_vault_is_none(people: World) -> None:
    ours = people.service.vault.derived_keys
    theirs = DerivedKeys(ours.keyset, b"another vault's id")
    value = session.sealed(ConsoleSession.of("t", people.service.clock()), theirs)
    assert session.opened(value, theirs) is not None
    assert session.opened(value, ours) is None


def test_the_summary_counts_what_its_caller_may_see(people: World) -> None:
    own = people.login("bob", Role.USER).get("/api/v1/key-summary").json
    assert own["counted"] == 1
    everybody = people.admin.get("/api/v1/key-summary").json
    assert everybody["counted"] > 1
    assert everybody["complete"] is True
    assert [each["key_id"] for each in own["expiring"]] == ["others"]
    assert json.dumps(own["states"]) == '{"active": 1}'
    assert "summarize_keys" in OPERATIONS


def test_forms_of_strangers_are_counted(template: Any, tmp_path: Any) -> None:
    limits = {"rate_limit_authenticate": "3/minute", "rate_limit_public": "3/minute"}
    service = template.open(settings_for(tmp_path / "data", **limits))
    world = World.of(service)
    for path in ("/login", "/logout"):
        answers = [Browser.of(world).http.post(f"/console{path}", data={}).status_code for _ in range(5)]
        assert (answers[0], answers[-1]) == (403, 429), path
    service.close()


def test_a_form_under_a_session_that_is_over_is_in_the_log(world: World) -> None:
    world.user("ann").post("/api/v1/keys", {"key_id": "mine"})
    ann = Browser.as_client(world, "ann")
    world.login("ann").delete("/api/v1/clients/ann/sessions")
    answer = ann.post("/keys/mine/do/rotate")
    assert answer.status_code == 401
    (entry,) = entries(world, answer.headers["X-Request-Id"])
    assert entry["outcome"] == "authentication-failed"
