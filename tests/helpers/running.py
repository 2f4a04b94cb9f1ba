"""The real service: `python app.py` on a free port, driven by curl over TLS with verification on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyotp

from kms.audit.folding import PROCESS_NAME


def wait_until(
    condition: Callable[[], object], shown: Callable[[], object] = lambda: "", every: float = 0.02
) -> None:
    """Wait until `condition` holds, looking `every` so many seconds. Fails with what is `shown` after a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, shown()
        time.sleep(every)


def process_of(command: list[str], folder: Path, log: Path, environ: dict[str, str]) -> subprocess.Popen[bytes]:
    """A program that runs in `folder` and writes to `log`, and that ends on SIGINT."""
    with log.open("wb") as out:
        return subprocess.Popen(
            command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            # A shell that runs the tests in the background has them ignore SIGINT, and what they start inherits that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip


@dataclass
class Answer:
    """What curl got."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.text)


def _name_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


@dataclass
class Running:
    """One running service in its own folder."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    environ: dict[str, str]
    token: str = ""
    _used_steps: dict[str, int] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where it listens; its certificate is for that name."""
        return f"https://localhost:{self.port}"

    @property
    def admin(self) -> dict[str, Any]:
        """The credentials of the first administrator."""
        return dict(json.loads((self.folder / "admin.json").read_text()))

    def curl(self, method: str, path: str, body: Any = None, *options: str, token: str | None = None) -> Answer:
        """Send a request, with the token of this service unless another, or none (""), is given."""
        bearer = self.token if token is None else token
        command = ["curl", "-sS", "-i", "--http1.1", "--cacert", str(self.folder / "server.crt"), "-X", method]
        command += ["--connect-timeout", "60"]
        if bearer:
            command += ["-H", f"Authorization: Bearer {bearer}"]
        if body is not None:
            command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        done = subprocess.run(
            [*command, *options, self.url + path], capture_output=True, check=True, env=self.environ
        )
        head, _, text = done.stdout.decode().partition("\r\n\r\n")
        if head.startswith("HTTP/1.1 100"):
            head, _, text = text.partition("\r\n\r\n")
        first, *lines = head.split("\r\n")
        headers = dict(line.lower().split(": ", 1) if ": " in line else (line, "") for line in lines)
        return Answer(int(first.split()[1]), headers, text)

    def code(self, enrolment: dict[str, Any]) -> str:
        """Six digits that were not used yet; it may wait for the next ones to be in reach."""
        client_id = enrolment["client_id"]
        while True:
            now = int(time.time()) // 30
            soon = int(time.time() + 5) // 30  # a step that ends while the request is on its way is of no use
            step = max(soon - 1, self._used_steps.get(client_id, 0) + 1)
            if step <= now + 1:
                break
            time.sleep(1)
        self._used_steps[client_id] = step
        return str(pyotp.TOTP(enrolment["totp_secret"]).at(step * 30))

    def login(self, enrolment: dict[str, Any]) -> str:
        """A session token; each call spends a TOTP step."""
        client_id, code = enrolment["client_id"], self.code(enrolment)
        answer = self.curl(
            "POST", "/auth/token", None, "-u", f"{client_id}:{enrolment['client_secret']}", "-H", f"X-TOTP: {code}",
            token="",
        )  # fmt: skip
        assert answer.status == 200, answer.text
        return str(answer.json["access_token"])

    def enrol(self, client_id: str, *roles: str) -> dict[str, Any]:
        """The credentials of a new client, with the role `user` unless others are given."""
        answer = self.curl("POST", "/api/v1/clients", {"client_id": client_id, "roles": list(roles) or ["user"]})
        assert answer.status == 201, answer.text
        return dict(answer.json)

    def user(self, client_id: str) -> str:
        """A session token of a new client."""
        return self.login(self.enrol(client_id))

    def worker_pids(self) -> list[int]:
        """The process ids of its workers, as they are now."""
        return [pid for pid in self._children() if _name_of(pid) != PROCESS_NAME]

    def all_pids(self) -> list[int]:
        """The process ids of the service: of its first process, the workers, and the one that folds the audit log."""
        return [self.process.pid, *self._children()]

    def _children(self) -> list[int]:
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False)
        return [int(pid) for pid in found.stdout.split()]

    def wait_for_workers(self, count: int, without: set[int]) -> None:
        """Wait until so many workers are there and those `without` which it should be are gone."""

        def are_there() -> bool:
            there = set(self.worker_pids())
            return len(there) == count and there.isdisjoint(without)

        wait_until(are_there, self.log.read_text)

    def answers(self) -> bool:
        """Whether it answers that it is ready; it may not listen yet."""
        try:
            return self.curl("GET", "/readyz", token="").status == 200
        except subprocess.CalledProcessError:
            return False

    def wait_until_ready(self) -> None:
        """Wait until it has said that it listens. Fails with its log where it ended instead."""

        def is_ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return "listening on https://" in self.log.read_text()

        wait_until(is_ready, self.log.read_text)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it by that signal, and after SIGKILL its workers too; give the exit code."""
        pids = self.all_pids()[1:]
        if self.process.poll() is None:
            self.process.send_signal(how)
        code = self.process.wait(timeout=60)
        if how == signal.SIGKILL:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, how)
        return code


Start = Callable[..., Running]
