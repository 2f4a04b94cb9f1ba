"""A real browser makes a passkey for the real service and logs in with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.virtual_authenticator import VirtualAuthenticatorOptions

from helpers import chromium
from helpers.chromium import Person
from helpers.people import PASSKEY_GRANT
from helpers.running import Running, Start, wait_until

pytestmark = pytest.mark.slow

CREATE = """
const done = arguments[arguments.length - 1];
const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(arguments[0]);
navigator.credentials.create({publicKey}).then(made => done(made.toJSON()), error => done(String(error)));
"""
GET = """
const done = arguments[arguments.length - 1];
const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(arguments[0]);
navigator.credentials.get({publicKey}).then(given => done(given.toJSON()), error => done(String(error)));
"""


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """Chromium with an authenticator that is told by nobody to whom the passkeys are."""
    with chromium.started(tmp_path / "profile") as driver:
        driver.set_script_timeout(30)
        yield driver


def authenticator() -> VirtualAuthenticatorOptions:
    return VirtualAuthenticatorOptions(
        protocol=VirtualAuthenticatorOptions.Protocol.CTAP2,
        transport=VirtualAuthenticatorOptions.Transport.INTERNAL,
        has_resident_key=True,
        has_user_verification=True,
        is_user_verified=True,
    )


def login(service: Running, response: Any) -> Any:
    return service.curl("POST", "/auth/token", {"grant_type": PASSKEY_GRANT, "passkey": response}, token="")


def test_a_passkey_in_chromium(start: Start, browser: webdriver.Chrome) -> None:
    service = start("--workers", "2")
    path = "/api/v1/clients/admin/passkeys"
    browser.add_virtual_authenticator(authenticator())
    browser.get(f"{service.url}/docs")
    options = service.curl("POST", f"{path}/options", {}).json
    made = browser.execute_async_script(CREATE, options)
    assert isinstance(made, dict), made
    added = service.curl("POST", path, {"name": "Chromium", "response": made})
    assert added.status == 201, added.text
    (credential,) = browser.get_credentials()
    assert credential.is_resident_credential

    again = browser.execute_async_script(CREATE, service.curl("POST", f"{path}/options", {}).json)
    assert "InvalidStateError" in again  # it has one for this client already

    given = browser.execute_async_script(GET, service.curl("POST", "/auth/passkey/options", {}, token="").json)
    assert isinstance(given, dict), given
    session = login(service, given)
    assert session.status == 200, session.text
    token = session.json["access_token"]
    assert service.curl("GET", "/api/v1/keys", token=token).status == 200
    assert login(service, given).status == 401  # a replay

    given = browser.execute_async_script(GET, service.curl("POST", "/auth/passkey/options", {}, token="").json)
    confirmed = service.curl("POST", "/auth/second-factor", {"passkey": given}, token=token)
    assert confirmed.status == 200, confirmed.text

    browser.set_user_verified(False)
    refused = browser.execute_async_script(GET, service.curl("POST", "/auth/passkey/options", {}, token="").json)
    assert "NotAllowedError" in refused
    browser.set_user_verified(True)

    assert service.curl("DELETE", f"{path}/{added.json['passkey_id']}").status == 200
    assert service.curl("GET", "/api/v1/keys", token=token).status == 401
    given = browser.execute_async_script(GET, service.curl("POST", "/auth/passkey/options", {}, token="").json)
    assert login(service, given).status == 401


def test_chromium_signs_for_no_other_page(start: Start, browser: webdriver.Chrome) -> None:
    """The same host on another port is another origin: the browser signs, and the service refuses."""
    service, other = start("--workers", "1"), start("--workers", "1", login=False)
    path = "/api/v1/clients/admin/passkeys"
    browser.add_virtual_authenticator(authenticator())
    browser.get(f"{other.url}/docs")
    made = browser.execute_async_script(CREATE, service.curl("POST", f"{path}/options", {}).json)
    assert isinstance(made, dict), made
    refused = service.curl("POST", path, {"name": "x", "response": made})
    assert (refused.status, "another page" in refused.json["detail"]) == (422, True)
    given = browser.execute_async_script(GET, service.curl("POST", "/auth/passkey/options", {}, token="").json)
    assert isinstance(given, dict), given
    refused = login(service, given)
    assert (refused.status, "another page" in refused.json["detail"]) == (401, True)


def test_a_passkey_at_the_console(start: Start, browser: webdriver.Chrome) -> None:
    service = start("--workers", "2", login=False)
    browser.add_virtual_authenticator(authenticator())
    person = Person(browser, service.url)
    person.go("/login")
    browser.execute_script("document.querySelector('details').open = true")
    person.fill(
        client_id="admin",
        client_secret=service.admin["client_secret"],
        recovery_code=service.admin["recovery_codes"][0],
    )
    person.press("Log in")
    person.go("/account/passkeys/new")
    person.fill(name="Chromium")
    person.press("Go on")
    person.press("Make it")
    person.see("The passkey is added")
    person.press("Log out")
    person.press("Log in with a passkey")
    person.see("Overview")

    person.press("Log out")
    browser.set_user_verified(False)
    browser.find_element("css selector", "form[data-passkey] button").click()
    wait_until(lambda: "cancelled" in browser.find_element("css selector", "form[data-passkey] .wrong").text)
    entries = browser.get_log("browser")
    assert not [each for each in entries if "Content Security Policy" in each["message"]]
