"""A person in front of a real Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service as Chromedriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from helpers.installed import not_installed

_CHROMIUM, _CHROMEDRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
_FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    "--window-size=1280,900",
]
_SERIOUS = {"serious", "critical"}


def axe_script() -> str:
    """The rules of axe-core, as the package has them."""
    found = find_spec("axe_playwright_python")
    assert found is not None
    assert found.origin is not None
    return (Path(found.origin).parent / "axe.min.js").read_text()


def require() -> None:
    """Skip where there is no Chromium, but not in CI."""
    if not (_CHROMIUM.exists() and _CHROMEDRIVER.exists()):
        not_installed("Chromium")


@contextmanager
def started(folder: Path) -> Iterator[webdriver.Chrome]:
    """A new Chromium with a profile of its own in `folder`."""
    require()
    options = webdriver.ChromeOptions()
    options.binary_location = str(_CHROMIUM)
    options.accept_insecure_certs = True
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*_FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Chromedriver(str(_CHROMEDRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


@dataclass
class Person:
    """What a person does with the pages of the console at `url`."""

    driver: webdriver.Chrome
    url: str

    def go(self, path: str = "") -> None:
        """Open a page of the console."""
        self.driver.get(f"{self.url}/console{path}")

    def see(self, words: str) -> None:
        """Wait until the page says this."""
        WebDriverWait(self.driver, 20).until(lambda driver: words in self.text, self.text[:2000])

    @property
    def text(self) -> str:
        """What the page says."""
        return str(self.driver.find_element(By.TAG_NAME, "body").text)

    @property
    def path(self) -> str:
        """Where the browser is."""
        return self.driver.current_url.removeprefix(self.url)

    def fill(self, **fields: str) -> None:
        """Type into fields, by their names."""
        for name, value in fields.items():
            field = self.driver.find_element(By.ID, name)
            field.clear()
            field.send_keys(value)

    def choose(self, element: str) -> None:
        """Click what has this id."""
        found = self.driver.find_element(By.ID, element)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
        found.click()

    def press(self, words: str) -> None:
        """Click a button or link, and wait for the page that comes of it."""
        is_named = f"[normalize-space()='{words}']"
        found = self.driver.find_element(By.XPATH, f"//main//button{is_named}|//a{is_named}|//button{is_named}")
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
        before = self.driver.find_element(By.TAG_NAME, "html")
        found.click()
        WebDriverWait(self.driver, 20).until(lambda driver: driver.find_element(By.TAG_NAME, "html") != before)

    def log_in(self, client_id: str, secret: str, code: str) -> None:
        """Log in with the form."""
        self.driver.delete_all_cookies()
        self.go("/login")
        self.fill(client_id=client_id, client_secret=secret, code=code)
        self.press("Log in")

    def breaches(self) -> list[str]:
        """What axe finds on this page that is serious or critical."""
        self.driver.execute_script(axe_script())
        found: dict[str, Any] = self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            "axe.run(document, {resultTypes: ['violations']}).then(done, error => done({violations: [], error}));"
        )
        assert "error" not in found, found
        return [
            f"{each['id']}: {node['html'][:200]} {' '.join(node['failureSummary'].split())}"
            for each in found["violations"]
            if each["impact"] in _SERIOUS
            for node in each["nodes"]
        ]

    @contextmanager
    def media(self, scheme: str = "light", width: int = 1280, height: int = 900) -> Iterator[None]:
        """With another colour scheme, or on another screen."""
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self._cdp("Emulation.setEmulatedMedia", features=features)
        self._cdp(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 700
        )
        try:
            yield
        finally:
            self._cdp("Emulation.setEmulatedMedia", features=[])
            self._cdp("Emulation.clearDeviceMetricsOverride")

    @contextmanager
    def without_javascript(self) -> Iterator[None]:
        """With the scripts of pages switched off."""
        self._cdp("Emulation.setScriptExecutionDisabled", value=True)
        try:
            yield
        finally:
            self._cdp("Emulation.setScriptExecutionDisabled", value=False)

    def _cdp(self, command: str, **parameters: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, parameters)  # type: ignore[no-untyped-call]
