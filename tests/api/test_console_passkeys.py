"""Passkeys at the console: added, used to log in, removed."""

from __future__ import annotations

import html
import json
import re
from typing import Any

from helpers.authenticator import Authenticator
from helpers.console import Browser
from helpers.people import request_options
from helpers.support import World
from kms.api.console.session import COOKIE


def options_in(page: Any) -> dict[str, Any]:
    """The options that the page hands to the browser."""
    found = re.search(r'data-options="([^"]*)"', page.text)
    assert found is not None, page.text
    return dict(json.loads(html.unescape(found[1])))


def log_in(world: World, response: Any) -> Browser:
    browser = Browser.of(world)
    browser.post("/login", {"passkey": json.dumps(response)}, csrf=None)
    return browser


def test_a_passkey_is_added_used_and_removed(world: World) -> None:
    world.enrol("ann")
    ann, authenticator = Browser.as_client(world, "ann"), Authenticator()
    assert "Add a passkey" in ann.get("/account").text
    assert "say what you will know it by" in ann.post("/account/passkeys/new", {"name": ""}).text.lower()
    made = authenticator.create(options_in(ann.post("/account/passkeys/new", {"name": "telephone"})))
    assert "Try again" in ann.post("/account/passkeys/add", {"name": "telephone", "passkey": "{"}).text
    ann.post("/account/passkeys/add", {"name": "telephone", "passkey": json.dumps(made)})
    assert "passkey:" in ann.get("/account").text

    given = authenticator.get(request_options(world))
    again = log_in(world, given)
    assert again.page.status_code == 303
    assert again.get("/account").status_code == 200
    replayed = log_in(world, given)
    assert (replayed.page.status_code, replayed.cookie) == (401, "")

    (passkey,) = world.login("ann").get("/api/v1/clients/ann/passkeys").json["items"]
    assert (passkey["name"], "last_used_at" in passkey) == ("telephone", True)
    path = f"/clients/ann/passkeys/{passkey['passkey_id']}/remove"
    assert "sessions that it began end" in ann.get(path).text
    ann.post(path)
    assert again.get("/account").text.count("Log in")  # the session that it began is over
    assert COOKIE in again.page.headers["Set-Cookie"]
    assert log_in(world, authenticator.get(request_options(world))).cookie == ""


def test_adding_one_asks_for_a_code_and_is_only_for_oneself(world: World) -> None:
    made = world.enrol("ann")
    world.enrol("bob")
    tired = Browser.as_client(world, "ann", fresh=False)
    assert 'name="code"' in tired.get("/account/passkeys/new").text
    assert "Give the six digits" in tired.post("/account/passkeys/new", {"name": "x"}).text
    assert made.totp_secret not in tired.page.text
    ann = Browser.as_client(world, "ann")
    authenticator = Authenticator()
    response = authenticator.create(options_in(ann.post("/account/passkeys/new", {"name": "x"})))
    bob = Browser.as_client(world, "bob")
    bob.post("/account/passkeys/add", {"name": "x", "passkey": json.dumps(response)})
    assert bob.page.status_code == 422  # the challenge was made for another client
    for wrong in ("", "[]", "x" * 40_000, json.dumps({"id": "x"})):
        assert Browser.of(world).post("/login", {"passkey": wrong}, csrf=None).status_code in {401, 422}
