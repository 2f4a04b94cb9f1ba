"""A service that starts sealed, people who unseal it, and another seal while it is in use."""

from __future__ import annotations

import http.client
import json
import os
import pty
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.running import Running, process_of, wait_until
from helpers.service_manager import ListeningManager
from helpers.shell import ROOT
from helpers.support import free_port
from helpers.under_gunicorn import GUNICORN, under_gunicorn

pytestmark = pytest.mark.slow
_OTHERS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "AWS_CA_BUNDLE")
Begin = Callable[..., Running]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Starts the service of one folder and does not wait for it; stops what still runs."""
    port, begun = free_port(), []

    def go(**env: str) -> Running:
        environ = {name: value for name, value in os.environ.items() if name not in _OTHERS}
        environ |= {"PYTHONWARNINGS": "ignore", "PYTHONPATH": str(ROOT), **env}
        log = tmp_path / f"log-{len(begun)}"
        command = [sys.executable, str(ROOT / "app.py"), "--port", str(port), "--workers", "2"]
        process = process_of([*command, "--bootstrap-file", "admin.json"], tmp_path, log, environ)
        begun.append(Running(tmp_path, port, process, log, environ))
        return begun[-1]

    yield go
    for service in begun:
        if service.process.poll() is None:
            service.stop()


def kms(service: Running, *arguments: str, given: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command on the host of the service."""
    command = [sys.executable, "-m", "kms", *arguments]
    return subprocess.run(
        command, cwd=service.folder, env={**service.environ, **env}, input=given, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


def wait_until_said(service: Running, words: str) -> None:
    def is_said() -> bool:
        assert service.process.poll() is None, service.log.read_text()
        return words in service.log.read_text()

    wait_until(is_said, service.log.read_text, every=0.05)


def typed(service: Running, share: str) -> str:
    """Give a share as a person does, at a terminal; returns what the terminal shows."""
    mine, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "kms", "unseal"], cwd=service.folder, env=service.environ, stdin=theirs, stdout=theirs,
        stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while b"Share: " not in shown:
        shown += os.read(mine, 1024)
    os.write(mine, share.encode() + b"\n")
    while True:
        try:
            part = os.read(mine, 1024)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    assert process.wait(timeout=60) == 0, shown
    os.close(mine)
    return shown.decode()


def test_three_people_unseal_a_service(begin: Begin, tmp_path: Path) -> None:
    service = begin(KMS_SEAL="shamir", KMS_SEAL_SHARES_DIR="shares")
    service.wait_until_ready()
    texts = [each.read_text().strip() for each in sorted((tmp_path / "shares").iterdir())]
    shutil.rmtree(tmp_path / "shares")
    service.token = service.login(service.admin)
    assert service.curl("POST", "/generate_symmetric_key", {}).status == 200
    assert service.curl("POST", "/generate_rsa_key", {}).status == 200
    assert service.curl("POST", "/revoke_key", {"key_id": "admin_rsa"}).status == 200
    token = service.token
    assert service.stop() == 0

    with ListeningManager(f"@kms-{uuid.uuid4()}") as manager:
        service = begin(KMS_SEAL="shamir", NOTIFY_SOCKET=manager.address)
        assert manager.told()[0] == {"STATUS": "Opening the vault"}
        assert manager.told()[0] == {
            "READY": "1", "STATUS": "Sealed: 0 of 3 shares given; `kms unseal` gives one",
        }  # fmt: skip
        says_that_it_is_sealed(service)
        first, second, third, fourth, _ = texts
        assert "1 of 3" in kms(service, "unseal", "--share-file", "-", given=first).stdout
        assert manager.told()[0] == {"STATUS": "Sealed: 1 of 3 shares given"}
        twice = kms(service, "unseal", "--share-file", "-", given=first)
        assert twice.returncode == 1
        assert "Share 1 was given already" in twice.stderr
        mistyped = kms(
            service, "unseal", "--share-file", "-", given=second[:-1] + ("0" if second[-1] != "0" else "1")
        )
        assert "Share 2 has a typing error" in mistyped.stderr
        assert "1 of 3" in mistyped.stderr
        assert "0 of 3" in kms(service, "unseal", "--reset").stdout
        kms(service, "unseal", "--share-file", "-", given=first.lower().replace("-", " "))
        shown = typed(service, second)
        assert "2 of 3" in shown
        assert second[30:60] not in shown
        assert "unsealed" in kms(service, "unseal", "--share-file", "-", given=fourth).stdout
        service.wait_until_ready()
    assert not (tmp_path / "kms-data" / "run" / "unseal.sock").exists()
    assert "does not wait for shares" in kms(service, "unseal", "--show").stderr
    service.token = token  # a new session would need a code that was not used yet
    assert service.curl("POST", "/api/v1/keys/admin_rsa/sign", {"message": ""}).status == 403
    encrypt = "/api/v1/keys/admin_symmetric/encrypt"
    assert service.curl("POST", encrypt, {"plaintext": ""}).status == 200
    victims = set(service.worker_pids())
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    service.wait_for_workers(2, without=victims)
    assert service.curl("POST", encrypt, {"plaintext": ""}).status == 200
    written = service.log.read_text()
    assert not any(each in written for each in texts)
    assert not any(each[-19:] in written for each in texts)
    assert service.stop() == 0

    service = begin(KMS_SEAL="shamir")
    wait_until_said(service, "0 of 3 shares given")
    assert "1 of 3" in kms(service, "unseal", "--share-file", "-", given=third).stdout
    assert service.stop() == 0
    assert "stopped, still sealed" in service.log.read_text()
    assert "No service runs" in kms(service, "unseal", "--show").stderr
    gunicorn = subprocess.run(
        GUNICORN, cwd=tmp_path,
        env={**service.environ, "KMS_PORT": str(service.port), "KMS_SEAL": "shamir"}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert gunicorn.returncode != 0
    assert "only `python app.py`" in gunicorn.stderr + gunicorn.stdout


def says_that_it_is_sealed(service: Running) -> None:
    """It answers strangers that it is sealed, reads nothing of what they send, and many of them do no harm."""
    assert service.curl("GET", "/livez", token="").text == "ok\n"
    for method, path in (
        ("GET", "/readyz"),
        ("POST", "/auth/token"),
        ("POST", "/generate_rsa_key"),
        ("PUT", "/v1/x"),
    ):
        answer = service.curl(method, path, {}, token="")
        assert answer.status == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json["type"] == "/problems/sealed"
        assert "sealed: 0 of 3 shares given" in answer.json["detail"]
    context = ssl.create_default_context(cafile=str(service.folder / "server.crt"))
    held = []
    for _ in range(40):
        connection = context.wrap_socket(
            socket.create_connection(("localhost", service.port)), server_hostname="localhost"
        )
        connection.sendall(b"POST /auth/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nhalf")
        held.append(connection)
    assert b" 503 " in held[0].recv(4096)
    assert service.curl("GET", "/readyz", token="").status == 503
    for connection in held:
        connection.close()
    for unreadable in (b"", b"{", b'{"share": 1}\n', b'{"other": 1}\n', b"x" * 5000):
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(30)
            folder = os.open(service.folder / "kms-data" / "run", os.O_RDONLY)
            asking.connect(f"/proc/self/fd/{folder}/unseal.sock")
            os.close(folder)
            asking.sendall(unreadable)
            asking.shutdown(socket.SHUT_WR)
            assert json.loads(asking.makefile("rb").readline())["refused"]
    assert (service.folder / "kms-data" / "run" / "unseal.sock").stat().st_mode & 0o777 == 0o600


class Load:
    """One client that encrypts without a pause, and what went wrong."""

    def __init__(self, service: Running) -> None:
        self._service = service
        self._ends = threading.Event()
        self.answers = 0
        self.failures: list[Any] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        context = ssl.create_default_context(cafile=str(self._service.folder / "server.crt"))
        connection = http.client.HTTPSConnection("localhost", self._service.port, context=context, timeout=30)
        headers = {"Authorization": f"Bearer {self._service.token}", "Content-Type": "application/json"}
        while not self._ends.is_set():
            try:
                connection.request("POST", "/api/v1/keys/admin_symmetric/encrypt", b'{"plaintext": ""}', headers)
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    self.failures.append(answer.status)
                self.answers += 1
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(error)
                connection.close()
            time.sleep(0.002)


def test_from_a_file_to_shares_to_a_passphrase_while_keys_are_used(begin: Begin, tmp_path: Path) -> None:
    service = begin()
    service.wait_until_ready()
    service.token = service.login(service.admin)
    token = service.token
    assert service.curl("POST", "/generate_symmetric_key", {}).status == 200

    def under_load(*arguments: str, **env: str) -> str:
        with Load(service) as load:
            wait_until(lambda: load.answers > 20, service.log.read_text)
            done = kms(service, "vault", *arguments, **env)
            so_far = load.answers
            wait_until(lambda: load.answers > so_far + 20, service.log.read_text)
        assert done.returncode == 0, done.stderr
        assert load.failures == []
        return done.stdout

    def restarted(**env: str) -> None:
        nonlocal service
        assert service.process.poll() is not None or service.stop() == 0
        service = begin(**env)
        if env.get("KMS_SEAL") == "shamir":
            wait_until_said(service, "0 of 3 shares given")
            for each in sorted((tmp_path / "shares").iterdir())[1:4]:
                kms(service, "unseal", "--share-file", str(each))
        service.wait_until_ready()
        service.token = token
        answer = service.curl("POST", "/api/v1/keys/admin_symmetric/encrypt", {"plaintext": ""})
        assert answer.status == 200, answer.text

    said = under_load("reseal", "--to", "shamir", "--yes", KMS_SEAL_SHARES_DIR="shares")
    assert "kms-data/root.key: it opens nothing any more" in said
    service.stop(signal.SIGKILL)  # between the commit and the restart
    restarted()  # with the old settings: nothing is lost, and it is reminded
    assert "waits for a start that proves it" in service.log.read_text()
    restarted(KMS_SEAL="shamir")
    assert "the old one, `file`, opens nothing. Remove the file" in service.log.read_text()
    assert "sealed with `shamir`" in kms(service, "vault", "verify", "--seal", "file").stderr
    words = tmp_path / "words"
    words.write_text("correct horse battery")
    words.chmod(0o600)
    shares = [f"--share-file={each}" for each in sorted((tmp_path / "shares").iterdir())[:3]]
    passphrase = {"KMS_SEAL": "passphrase", "KMS_SEAL_PASSPHRASE_FILE": str(words)}
    under_load("reseal", "--to", "passphrase", "--yes", "--seal", "shamir", *shares, **passphrase)
    restarted(**passphrase)
    assert "the old one, `shamir`, opens nothing" in service.log.read_text()
    assert '"new seal": "none"' in kms(service, "vault", "reseal").stdout
    assert "as the service wrote it" in kms(service, "vault", "verify", **passphrase).stdout
    assert service.stop() == 0


def test_a_new_seal_under_gunicorn(begin: Begin, tmp_path: Path) -> None:
    """There the first process opens the vault, and each worker again."""
    service = begin()
    service.wait_until_ready()
    assert service.stop() == 0
    key = tmp_path / "key"
    key.write_bytes(os.urandom(32))
    key.chmod(0o600)
    credential = {"KMS_SEAL_CREDENTIAL": str(key)}
    assert kms(service, "vault", "reseal", "--to", "credential", "--yes", **credential).returncode == 0
    environ = {**service.environ, **credential, "KMS_SEAL": "credential"}
    service = under_gunicorn(tmp_path, service.port, {**environ, "KMS_WORKERS": "2"})

    try:
        wait_until(service.answers, service.log.read_text, every=0.2)
        assert service.log.read_text().count("the old one, `file`, opens nothing") == 1
    finally:
        service.stop()
