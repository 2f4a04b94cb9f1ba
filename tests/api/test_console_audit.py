"""The audit log at the console: searched, asked questions, and receipts of its entries."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode

import pytest

from helpers.approvals import rule
from helpers.console import Browser
from helpers.people import Person
from helpers.support import SteeredClock, World, b64
from kms.access.model import Role
from kms.audit.note import Ed25519Key
from kms.audit.proof import TlogProof

XSS = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


@pytest.fixture
def used(world: World, clock: SteeredClock) -> World:
    """A key that alice made and used, and 100 days later rotated; then bob used it. Nobody uses `forgotten`."""
    alice, _ = world.user("alice"), world.enrol("bob")
    for key_id in ("orders", "forgotten"):
        assert alice.post("/api/v1/keys", {"key_id": key_id}).status_code == 201
    grant = {"subject": "client:bob", "permission": "keys:encrypt", "key_pattern": "orders"}
    assert alice.post("/api/v1/grants", grant).status_code == 201
    alice.post("/api/v1/keys/orders/encrypt", {"plaintext": b64(b"x")})
    clock.advance(days=100)
    alice, bob = world.login("alice", Role.USER), world.login("bob", Role.USER)
    assert alice.post("/api/v1/keys/orders/rotate").status_code == 200
    for _ in range(3):
        clock.advance(seconds=1)
        assert bob.post("/api/v1/keys/orders/encrypt", {"plaintext": b64(b"x")}).status_code == 200
    world.service.folder.fold()
    return world


@pytest.fixture
def auditor(used: World) -> Browser:
    """Who looks, at the console."""
    used.enrol("inspector", Role.AUDITOR)
    return Browser.as_client(used, "inspector", Role.AUDITOR)


def rows(browser: Browser) -> list[list[str]]:
    """The cells of the page's one table."""
    body = re.search(r"<tbody>(.*?)</tbody>", browser.page.text, re.DOTALL)
    if body is None:
        return []
    cells = [re.findall(r"<t[hd]\b[^>]*>(.*?)</t[hd]>", each, re.DOTALL) for each in body[1].split("</tr>")]
    return [[re.sub(r"<[^>]+>", "", cell).strip() for cell in row] for row in cells if row]


def today(world: World) -> str:
    return world.service.clock().date().isoformat()


def test_who_used_a_version_of_a_key_since_a_day(used: World, auditor: Browser) -> None:
    assert 'href="/console/audit/users?key_id=orders"' in auditor.get("/keys/orders").text
    auditor.get("/audit/users?key_id=orders&version=2")
    assert [row[:2] for row in rows(auditor)] == [["alice", "1"], ["bob", "3"]]
    auditor.get(f"/audit/users?key_id=orders&since={today(used)}&version=1")
    assert "Nobody." in auditor.text
    auditor.get(f"/audit/users?key_id=orders&since={today(used)}")
    assert ["bob", "3"] in [row[:2] for row in rows(auditor)]
    link = re.search(r'href="/console(/audit\?client_id=bob[^"]*)"', auditor.page.text)
    assert link is not None
    auditor.get(link[1].replace("&amp;", "&"))
    assert {(row[1], row[2]) for row in rows(auditor)} == {("bob", "encrypt")}
    assert auditor.get("/audit/users").status_code == 200
    assert rows(auditor) == []


def test_who_is_hurt_if_a_key_becomes_known(used: World, auditor: Browser) -> None:
    assert 'href="/console/keys/orders/blast-radius"' in auditor.get("/keys/orders").text
    auditor.get("/keys/orders/blast-radius?version=2")
    assert "bob 2 3 encrypt 3" in auditor.text
    assert "alice 1" not in auditor.text
    assert "client:bob keys:encrypt" in auditor.text
    assert "alice 1 1 encrypt 1" in (auditor.get("/keys/orders/blast-radius"), auditor.text)[1]
    assert auditor.get("/keys/orders/blast-radius?version=x").status_code == 422
    assert auditor.get("/keys/nowhere/blast-radius").status_code == 404
    bob, alice = (Browser.as_client(used, name, Role.USER) for name in ("bob", "alice"))
    assert bob.get("/keys/forgotten/blast-radius").status_code == 404
    assert alice.get("/keys/orders/blast-radius").status_code == 403
    assert "/blast-radius" not in alice.get("/keys/orders").text


def test_what_a_client_had_never_done_before(used: World, auditor: Browser) -> None:
    assert 'href="/console/audit/novelties?client_id=alice"' in auditor.get("/clients/alice").text
    auditor.get("/audit/novelties?client_id=alice")
    found = [(row[1], row[2]) for row in rows(auditor)]
    assert ("rotate_key_version", "orders") in found
    assert ("create_key", "orders") not in found
    auditor.get("/audit/novelties?client_id=alice&since=")
    assert ("create_key", "orders") in [(row[1], row[2]) for row in rows(auditor)]
    auditor.get("/audit/novelties?client_id=nobody")
    assert "Nothing was new." in auditor.text


def test_what_a_session_did(used: World, auditor: Browser) -> None:
    listed = auditor.get("/clients/bob").text
    (session,) = set(re.findall(r'href="/console/audit\?session=([0-9a-f]+)"', listed))
    auditor.get(f"/audit?session={session}")
    assert [row[2] for row in rows(auditor)].count("encrypt") == 3
    assert {row[1] for row in rows(auditor)} == {"bob"}
    assert "<details open>" in auditor.page.text


def test_which_keys_were_not_used_for_some_days(used: World, auditor: Browser) -> None:
    used.service.last_uses.write_at_the_end()
    assert 'href="/console/keys?unused_days=90"' in auditor.get("/audit").text
    auditor.get("/keys?unused_days=90")
    assert [row[0] for row in rows(auditor)] == ["forgotten"]
    for wrong in ("soon", "0", "-1", "10000", "9²"):
        assert auditor.get(f"/keys?unused_days={wrong}").status_code == 422, wrong
        assert 'id="unused_days-wrong"' in auditor.page.text


def test_the_log_is_searched_by_all_that_rest_takes(used: World, auditor: Browser) -> None:
    auditor.get("/audit?key_id=orders&version=2&operation=encrypt&outcome=success")
    assert len(rows(auditor)) == 3
    assert {row[4] for row in rows(auditor)} == {"orders v2"}
    request_id = re.search(r"[0-9a-f]{16,}", rows(auditor)[0][6])
    assert request_id is not None
    auditor.get(f"/audit?request_id={request_id[0]}")
    assert len(rows(auditor)) == 1
    assert used.admin.post("/api/v1/clients", {"client_id": "erin"}).status_code == 201
    auditor.get("/audit?target=erin")
    assert [(row[2], row[4]) for row in rows(auditor)] == [("create_client", "erin")]
    Person.of(used, "frank")
    auditor.get("/audit?source=192.0.2.1")
    assert "No entry is found." in auditor.text
    auditor.get("/audit?credential=secret")
    assert [(row[1], row[2]) for row in rows(auditor)] == [("frank", "issue_token")]
    assert auditor.get("/audit?version=first").status_code == 422
    assert 'id="version-wrong"' in auditor.page.text
    for path in (f"/audit?client_id={XSS}", f"/audit/users?key_id={XSS}", f"/audit/receipt?leaf={XSS}"):
        assert "<script>alert" not in auditor.get(path).text
        assert "alert(1)" in auditor.page.text


def test_older_entries_are_on_other_pages(used: World, auditor: Browser) -> None:
    bob = used.login("bob", Role.USER)
    for _ in range(120):
        assert bob.post("/api/v1/keys/orders/encrypt", {"plaintext": b64(b"x")}).status_code == 200
    used.service.folder.fold()
    path, found = "/audit?operation=encrypt", []
    for _ in range(4):
        auditor.get(path)
        found += rows(auditor)
        older = re.search(r'href="/console(/audit\?cursor=[^"]+)">Older', auditor.page.text)
        if older is None:
            break
        path = older[1].replace("&amp;", "&")
    assert len(found) == 124
    assert {row[2] for row in found} == {"encrypt"}
    assert auditor.get("/audit?cursor=AAAA").status_code == 422


def test_each_entry_has_a_receipt(used: World, auditor: Browser) -> None:
    auditor.get("/audit?key_id=orders&operation=encrypt&client_id=alice")
    (leaf,) = re.findall(r'href="/console/audit/receipt\?leaf=([\w-]{43})"', auditor.page.text)
    auditor.get(f"/audit/receipt?leaf={leaf}")
    assert "c2sp.org/tlog-proof@v1" in auditor.page.text
    number = re.search(r"Entry number (\d+) of the log", auditor.text)
    assert number is not None
    saved = auditor.get(f"/audit/receipt/file?leaf={leaf}")
    assert saved.headers["Content-Disposition"] == 'attachment; filename="receipt.txt"'
    assert saved.headers["Content-Type"] == "text/plain; charset=utf-8"
    proof = TlogProof.parse(saved.data)
    key = Ed25519Key.parse(used.http.get("/.well-known/audit-key").text.removesuffix("\n"))
    assert proof.check(urlsafe_b64decode(f"{leaf}="), key).checkpoint.size > proof.index == int(number[1])
    assert auditor.get("/audit/receipt/file").status_code == 422
    given = used.login("bob", Role.USER).post("/api/v1/keys/orders/encrypt", {"plaintext": b64(b"x")})
    bob = Browser.as_client(used, "bob", Role.USER)
    path = f"/audit/receipt?leaf={given.headers['Audit-Leaf'].replace('+', '%2B')}"
    waiting = bob.get(path)
    assert (waiting.status_code, waiting.headers["Retry-After"]) == (503, "1")
    used.service.folder.fold()
    assert "Entry number" in (bob.get(path), bob.text)[1]
    assert bob.get(f"/audit/receipt?leaf={'A' * 43}").status_code == 404
    assert bob.get("/audit/receipt?leaf=x").status_code == 422


def test_who_may_not_read_the_log_is_told_so(used: World) -> None:
    bob = Browser.as_client(used, "bob", Role.USER)
    for path in ("/audit", "/audit/users?key_id=orders", "/audit/novelties?client_id=alice"):
        assert bob.get(path).status_code == 403
        assert "bob may not do this: it needs audit:read." in bob.text
        assert rows(bob) == []


def test_a_call_that_waits_is_linked_from_its_entries(used: World, auditor: Browser) -> None:
    used.enrol("second", Role.ADMIN)
    rule(used, operations=["delete_key"], approvals=1)
    waiting = used.login("alice", Role.USER).delete("/api/v1/keys/orders")
    auditor.get("/audit?operation=delete_key")
    assert f'href="/console/approvals/{waiting.json["approval_id"]}"' in auditor.page.text
