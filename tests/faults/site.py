"""One installation of the service that faults happen to: started, killed and started again in the same folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from helpers.running import Running, process_of
from helpers.support import free_port
from kms.config import Settings

ROOT = Path(__file__).parents[2]
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "AWS_CA_BUNDLE")
_START_SECONDS = 240
TRACEBACK = "Traceback (most recent call last)"


class Site(Running):
    """`python app.py` in a folder of its own. `database_url` is None for SQLite in the data directory."""

    @classmethod
    def build(
        cls, folder: Path, database_url: str | None, workers: int = 3, log: Path | None = None, **env: str
    ) -> Site:
        """Start it, and log its administrator in."""
        folder.mkdir(parents=True, exist_ok=True)
        environ = {name: value for name, value in os.environ.items() if name not in _CA_VARIABLES}
        environ |= {"PYTHONWARNINGS": "ignore", "KMS_RATE_LIMIT": "off", "KMS_LOG_FORMAT": "json", **env}
        if database_url is not None:
            environ["KMS_DATABASE_URL"] = database_url
        site = cls(folder, free_port(), None, log or folder / "log", environ)  # type: ignore[arg-type]  # started next
        site.database_url, site.workers, site.logs = database_url, workers, []
        site.start()
        site.token = site.login(site.admin)
        return site

    database_url: str | None
    workers: int
    logs: list[str]

    def start(self, wait: bool = True) -> None:
        """Start it in its folder, with the same port; wait until it is ready."""
        command = [sys.executable, str(ROOT / "app.py"), "--port", str(self.port), "--bootstrap-file", "admin.json"]
        self.process = process_of([*command, "--workers", str(self.workers)], self.folder, self.log, self.environ)
        if wait:
            self._wait_for_start()

    def _wait_for_start(self) -> None:
        """As `wait_until_ready`, with more patience: many faults may be made at once."""
        deadline = time.monotonic() + _START_SECONDS
        while "listening on https://" not in (said := self.log.read_text(errors="replace")):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError(f"the service does not start: {said[-2000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL the service and all of its workers, as when the machine takes them away."""
        pids = self.all_pids()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(timeout=30)
        while any(_is_alive(pid) for pid in pids[1:]):
            time.sleep(0.005)
        self.keep_log()

    def end(self) -> None:
        """Stop it in an orderly way, or by force where that does not work."""
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            self.kill()
        self.keep_log()

    def keep_log(self) -> None:
        """Remember the log, which the next start overwrites."""
        with suppress(OSError):
            self.logs.append(self.log.read_text(errors="replace"))

    @property
    def tracebacks(self) -> list[str]:
        """Every stack trace in the logs kept so far."""
        return [part[:1500] for log in self.logs for part in log.split(TRACEBACK)[1:]]

    @property
    def settings(self) -> Settings:
        """For opening its vault beside it."""
        log = self.environ.get("KMS_AUDIT_DIR")
        return Settings(
            data_dir=self.folder / "kms-data",
            database_url=self.database_url,
            audit_dir=Path(log) if log is not None else None,
        )

    def verify(self) -> tuple[int, str]:
        """What `kms vault verify` says: exit code and text."""
        environ = {**self.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-m", "kms", "vault", "verify"],
            cwd=self.folder, env=environ, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def is_ready(self) -> bool:
        """Whether /readyz says so."""
        try:
            return self.curl("GET", "/readyz", None, "--max-time", "5", token="").status == 200
        except subprocess.CalledProcessError:
            return False

    def wait_ready(self, seconds: float = 90) -> float:
        """Wait until /readyz says so; returns how long that took, in seconds. Raises TimeoutError."""
        began = time.monotonic()
        while not self.is_ready():
            if time.monotonic() - began > seconds:
                raise TimeoutError("the service is not ready again: " + self.log.read_text(errors="replace")[-2000:])
            time.sleep(0.02)
        return time.monotonic() - began


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def problem_of(body: Any) -> str:
    """The name of the problem type in an answer, or ""."""
    return str(body.get("type", "")).removeprefix("/problems/") if isinstance(body, dict) else ""
