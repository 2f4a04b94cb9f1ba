"""OpenBao's own server, where it is installed: its storage in a folder, its listener on loopback."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from helpers.running import process_of, wait_until
from helpers.support import free_port

_WAIT = httpx.Timeout(30)


@dataclass
class OpenBao:
    """One server. `token` is the root token, once it is initialized."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    environ: dict[str, str]
    token: str = ""

    @classmethod
    def start(cls, folder: Path, *, more: str = "", pair: Path | None = None, **environ: str) -> OpenBao:
        """Start it with `more` in its configuration, and TLS where the folder of a pair is given.

        Skips the test where OpenBao is not installed.
        """
        if shutil.which("bao") is None:
            pytest.skip("OpenBao is not installed; requirements-dev.txt has it")
        port = free_port()
        tls = "tls_disable = true"
        if pair is not None:
            tls = f'tls_cert_file = "{pair / "server.crt"}"\n  tls_key_file = "{pair / "server.key"}"'
        (folder / "storage").mkdir(parents=True)
        (folder / "config.hcl").write_text(
            f'storage "raft" {{\n  path = "{folder / "storage"}"\n  node_id = "one"\n}}\n'
            f'listener "tcp" {{\n  address = "127.0.0.1:{port}"\n  {tls}\n}}\n'
            f'api_addr = "{"http" if pair is None else "https"}://127.0.0.1:{port}"\n'
            f'cluster_addr = "https://127.0.0.1:{free_port()}"\n{more}\n'
        )
        known = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        made = cls(folder, port, None, {**known, **environ})  # type: ignore[arg-type]  # started below
        made.start_again()
        return made

    @property
    def url(self) -> str:
        """Where it listens."""
        scheme = "https" if "tls_cert_file" in (self.folder / "config.hcl").read_text() else "http"
        return f"{scheme}://localhost:{self.port}"

    @property
    def log(self) -> str:
        """What it has said since it was started."""
        return (self.folder / "log").read_text()

    def start_again(self) -> None:
        """Start its process and wait until it answers."""
        command = ["bao", "server", f"-config={self.folder / 'config.hcl'}"]
        self.process = process_of(command, self.folder, self.folder / "log", self.environ)

        def answers() -> bool:
            assert self.process.poll() is None, self.log
            try:
                return self.call("GET", "sys/seal-status").status_code == httpx.codes.OK
            except httpx.TransportError:
                return False

        wait_until(answers, lambda: self.log, every=0.1)

    def call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """The answer to a request with the root token."""
        headers = {"X-Vault-Token": self.token} if self.token else {}
        url = f"{self.url}/v1/{path}"
        return httpx.request(method, url, json=body, headers=headers, verify=False, timeout=_WAIT, trust_env=False)

    def done(self, method: str, path: str, body: Any = None) -> Any:
        """What a request answers that has to go well."""
        answer = self.call(method, path, body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    @property
    def is_sealed(self) -> bool:
        """Whether it is sealed now."""
        return bool(self.done("GET", "sys/seal-status")["sealed"])

    def stop(self) -> None:
        """End its process."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)
