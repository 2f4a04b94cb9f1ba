"""The console as a person has it: a real service and a real Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from helpers import chromium
from helpers.chromium import Person
from helpers.running import Running, Start

pytestmark = pytest.mark.slow

IMAGES = Path(__file__).parents[2] / "docs" / "images"
EVERYBODY = "", "/keys", "/new-key", "/keys/orders", "/keys/orders/do/revoke", "/revocations", "/account"
PAGES = (
    *EVERYBODY,
    "/keys/orders/edit",
    "/keys/orders/do/delete",
    "/keys/orders/do/trim",
    "/keys/orders/blast-radius",
    "/clients",
    "/clients/shop",
    "/clients/shop/do/disable",
    "/clients/shop/add-key",
    "/new-client",
    "/groups",
    "/new-group",
    "/grants",
    "/new-grant",
    "/explain?permission=keys:encrypt&key_id=orders&client_id=shop",
    "/audit",
    "/audit?session=none",
    "/audit/users?key_id=orders",
    "/audit/novelties?client_id=admin",
    "/audit/receipt",
    "/approvals",
    "/approval-rules",
    "/new-approval-rule",
    "/health",
    "/account/passkeys/new",
    "/nowhere",
)


@pytest.fixture(scope="module")
def service(start: Start) -> Running:
    """One service with some keys, clients and refusals in it."""
    chromium.require()
    running = start("--workers", "1")
    shop = running.enrol("shop")
    running.enrol("auditor", "auditor")
    keys = [
        {"key_id": "orders", "rotation_period": "P90D", "labels": {"env": "prod", "team": "shop"},
         "description": "Orders of the web shop"},
        {"key_id": "invoices", "type": "aes-256-gcm", "labels": {"env": "prod"}},
        {"key_id": "release-signing", "type": "ml-dsa-65", "rotation_period": "P365D"},
        {"key_id": "tls-legacy", "type": "rsa-2048", "cryptoperiod": "P30D"},
        {"key_id": "webhooks", "type": "hmac-sha256", "labels": {"env": "test"}},
    ]  # fmt: skip
    for key in keys:
        assert running.curl("POST", "/api/v1/keys", key).status == 201
    for _ in range(3):
        running.curl("POST", "/api/v1/keys/orders/rotate", {})
    running.curl("POST", "/api/v1/keys/invoices/suspend", {})
    running.curl("POST", "/api/v1/keys/webhooks/revoke", {"reason": "superseded"})
    running.curl("PUT", "/api/v1/groups/sellers", {"members": ["shop"], "description": "Who sells"})
    grant = {"subject": "group:sellers", "permission": "keys:encrypt", "key_pattern": "orders"}
    assert running.curl("POST", "/api/v1/grants", grant).status == 201
    for _ in range(30):
        running.curl("POST", "/api/v1/keys/orders/encrypt", {"plaintext": "aGVsbG8="})
    for _ in range(4):
        running.curl("POST", "/api/v1/keys/webhooks/mac", {"message": "aGVsbG8="})
    second = running.login(running.enrol("second", "admin"))
    rule = {"name": "destroy", "operations": ["delete_key"], "approvers": ["role:admin"], "approvals": 1}
    assert running.curl("POST", "/api/v1/approval-rules", rule).status == 201
    assert running.curl("DELETE", "/api/v1/keys/tls-legacy", {}, token=second).status == 202
    assert shop["client_secret"]
    return running


@pytest.fixture(scope="module")
def person(service: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    """An administrator, who has logged in with the form."""
    with chromium.started(tmp_path_factory.mktemp("profile")) as driver:
        someone = Person(driver, service.url)
        someone.log_in("admin", service.admin["client_secret"], service.code(service.admin))
        someone.see("Overview")
        yield someone


@pytest.fixture(scope="module")
def waiting(service: Running) -> str:
    """The page of a call of another administrator that waits for approval."""
    (found,) = service.curl("GET", "/api/v1/approvals?limit=1").json["items"]
    return f"/approvals/{found['approval_id']}"


@pytest.fixture(scope="module")
def every_page(person: Person, waiting: str) -> list[str]:
    """Every page of the list, those of the call that waits, and the receipt of an entry."""
    person.go("/audit?operation=create_key")
    link = person.driver.find_element(By.CSS_SELECTOR, "a[href*='/receipt?leaf=']").get_attribute("href")
    assert link is not None
    receipt = link.removeprefix(f"{person.url}/console")
    return [*PAGES, waiting, f"{waiting}/do/approve", f"{waiting}/do/reject", receipt]


@pytest.fixture(autouse=True)
def _nothing_is_left(person: Person) -> Iterator[None]:
    """After each test nothing is in the browser's storage, and no page has broken a rule of its policy."""
    yield
    for storage in ("localStorage", "sessionStorage"):
        assert person.driver.execute_script(f"return window.{storage}.length") == 0
    said = [each["message"] for each in person.driver.get_log("browser")]  # type: ignore[no-untyped-call]
    assert not [message for message in said if "Content Security Policy" in message or "TypeError" in message], said


def test_screenshots(person: Person, waiting: str, request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--screenshots"):
        pytest.skip("written with --screenshots")
    IMAGES.mkdir(exist_ok=True)
    shots = {"overview": "", "keys": "/keys", "key": "/keys/orders", "revoke": "/keys/orders/do/revoke",
             "new-key": "/new-key", "audit": "/audit?outcome=refused",
             "approval": f"{waiting}/do/approve"}  # fmt: skip
    for scheme, width, height in (("light", 1180, 860), ("dark", 1180, 860), ("phone", 360, 740)):
        with person.media("dark" if scheme == "dark" else "light", width, height):
            for name, path in shots.items():
                person.go(path)
                file = IMAGES / f"console-{name}-{scheme}.png"
                assert person.driver.save_screenshot(str(file))
                assert file.stat().st_size < 150_000


def test_a_key_is_made_rotated_and_revoked(person: Person) -> None:
    person.go("/new-key")
    person.fill(key_id="letters", description="Letters to customers", labels="env: prod")
    person.choose("type-ml-kem-768")
    person.press("Make the key")
    person.see("letters is made.")
    person.press("Rotate")
    person.see("Version 2 of letters is made, and protects from now on.")
    person.press("Rotate")
    person.see("letters is rotated.")
    person.press("Revoke")
    person.see("letters is revoked, with all of its 2 versions.")
    person.choose("reason-superseded")
    person.press("Revoke")
    person.see("letters is revoked.")
    person.see("superseded")
    person.go("/revocations")
    person.see("letters")


def test_a_client_gets_its_credentials_once(person: Person, service: Running) -> None:
    person.go("/new-client")
    person.fill(client_id="printer")
    person.press("Make the client")
    person.see("This is shown once.")
    secret = person.driver.find_element(By.ID, "client-secret").text
    code = person.driver.find_element(By.CSS_SELECTOR, "svg.qr")
    assert secret.startswith("kms-secret-")
    assert code.size["width"] >= 200
    assert not person.breaches()
    totp = person.driver.find_element(By.ID, "totp-secret").text
    assert service.login({"client_id": "printer", "client_secret": secret, "totp_secret": totp})
    person.press("Done")
    assert secret not in person.driver.page_source


def test_a_key_is_suspended_with_the_keyboard_alone(person: Person) -> None:
    person.go("/keys/release-signing")

    def press(*keys: str) -> None:
        ActionChains(person.driver).send_keys(*keys).perform()

    def focused() -> str:
        return str(person.driver.switch_to.active_element.text)

    press(Keys.TAB)
    assert focused() == "Skip to the content"
    press(Keys.ENTER)
    for _ in range(20):
        press(Keys.TAB)
        if focused() == "Suspend":
            break
    assert focused() == "Suspend"
    press(Keys.ENTER)
    person.see("release-signing is put on hold, with its only version.")
    press(Keys.TAB, Keys.TAB)
    for _ in range(30):
        if focused() == "Suspend":
            break
        press(Keys.TAB)
    press(Keys.ENTER)
    person.see("release-signing is on hold.")


def test_the_main_path_needs_no_javascript(person: Person) -> None:
    with person.without_javascript():
        person.go("/new-key")
        person.fill(key_id="without-js")
        person.press("Make the key")
        person.see("without-js is made.")
        person.press("Revoke")
        person.choose("reason-keyCompromise")
        person.press("Revoke")
        person.see("without-js is revoked.")
        person.see("compromised")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(person: Person, every_page: list[str], scheme: str) -> None:
    found = []
    with person.media(scheme):
        for path in every_page:
            person.go(path)
            found += [f"{path or '/'}: {each}" for each in person.breaches()]
    assert not found, "\n".join(found)


def test_nothing_scrolls_sideways_on_a_telephone(person: Person, every_page: list[str]) -> None:
    wide = {}
    with person.media(width=320, height=640):
        for path in every_page:
            person.go(path)
            width = person.driver.execute_script("return document.documentElement.scrollWidth")
            if width > 320:
                wide[path] = width
    assert not wide


def test_a_call_is_approved_and_another_one_waits_without_javascript(person: Person, waiting: str) -> None:
    with person.without_javascript():
        person.go("/keys/orders/do/delete")
        person.press("Delete")
        person.see("This is not done yet: it needs 1 approval of somebody else, and has 0.")
        person.press("Withdraw")
        person.press("Withdraw")
        person.see("Withdrawn by who asked.")
        person.go(waiting)
        person.press("Approve")
        person.see("exactly as it was asked")
        person.press("Approve")
        person.see("You have approved it, and it is carried out.")
        person.go("/keys/tls-legacy")
        person.see("It will be deleted on")


def test_a_name_that_is_a_script_is_shown_as_it_is(person: Person) -> None:
    person.go("/new-key")
    attack = "<script>document.title='x'</script><img src=x onerror=alert(1)>"
    person.fill(key_id="attacked", description=attack, labels=f"a: {attack}")
    person.press("Make the key")
    person.see(attack)
    assert "attacked" in person.driver.title


def test_who_logs_out_is_logged_out(person: Person, service: Running) -> None:
    person.go()
    cookie = person.driver.get_cookie("__Host-kms-console")
    assert cookie is not None
    assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Strict")
    assert "expiry" not in cookie
    person.press("Log out")
    person.see("You are logged out.")
    assert not person.breaches()
    kept = f"{cookie['name']}={cookie['value']}"
    answer = service.curl("GET", "/console/keys", None, "-H", f"Cookie: {kept}", token="")
    assert "Your session is over. Log in again." in answer.text
