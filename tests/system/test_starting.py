"""Starting: in every way, at every address; what a start refuses, and what it shows."""

from __future__ import annotations

import http.client
import os
import signal
import ssl
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from helpers.authority import issue
from helpers.certificates import write_pair
from helpers.running import Start, wait_until
from helpers.service_manager import ListeningManager
from helpers.shell import ROOT
from helpers.support import free_port
from helpers.under_gunicorn import under_gunicorn


def _refused(folder: Path, *flags: str, **env: str) -> str:
    """What a start that must fail says."""
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(free_port()), *flags]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **env}
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "listening" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.slow
def test_starts_that_must_fail_say_why(start: Start, tmp_path: Path) -> None:
    write_pair(tmp_path)
    good_key, good_certificate = (tmp_path / "server.key").read_bytes(), (tmp_path / "server.crt").read_bytes()
    (tmp_path / "server.key").unlink()
    assert "server.key is not" in _refused(tmp_path)
    (tmp_path / "server.key").write_text("garbage")
    assert "not a private key" in _refused(tmp_path)
    write_pair(tmp_path)
    (tmp_path / "server.crt").write_bytes(good_certificate)
    assert "is not the key of" in _refused(tmp_path)
    (tmp_path / "server.key").write_bytes(good_key)
    old = ["openssl", "x509", "-in", "server.crt", "-signkey", "server.key", "-days", "-1", "-out", "old.crt"]
    subprocess.run(old, cwd=tmp_path, check=True, capture_output=True)
    assert "expired on" in _refused(tmp_path, KMS_TLS_CERT="old.crt")
    write_pair(tmp_path, "encrypted", "open sesame")
    assert "KMS_TLS_KEY_PASSPHRASE_FILE" in _refused(tmp_path)
    write_pair(tmp_path)
    assert "Cannot read KMS_SEAL_PASSPHRASE_FILE" in _refused(tmp_path, KMS_SEAL_PASSPHRASE_FILE="nowhere")
    assert "seal" in _refused(tmp_path, "--seal", "wax")
    assert "passphrase" in _refused(tmp_path, "--seal", "passphrase")
    assert "setting is wrong" in _refused(tmp_path, KMS_WORKERS="many")
    assert "rate limit" in _refused(tmp_path, KMS_RATE_LIMIT_USE="plenty")
    running = start("--workers", "1", login=False)
    assert "Cannot listen" in _refused(tmp_path, "--port", str(running.port))
    assert "Another service is running" in _refused(running.folder)


@pytest.mark.parametrize("host", ["::1", "localhost", "0.0.0.0"])
def test_addresses_to_listen_on(start: Start, host: str) -> None:
    """And what a service manager such as systemd is told meanwhile, by nobody but the process that it started."""
    with ListeningManager(f"@kms-{uuid.uuid4()}") as manager:
        service = start("--workers", "1", "--host", host, login=False, NOTIFY_SOCKET=manager.address)
        shown = f"[{host}]" if ":" in host else host
        assert f"listening on https://{shown}:{service.port}" in service.log.read_text()
        assert service.curl("GET", "/readyz").text == "ok\n"
        status = f"Listening on https://{shown}:{service.port}"
        me = service.process.pid
        assert manager.told() == ({"STATUS": "Opening the vault"}, me)
        assert manager.told() == ({"READY": "1", "STATUS": status}, me)
        service.process.send_signal(signal.SIGHUP)
        assert manager.told()[0]["RELOADING"] == "1"
        assert manager.told() == ({"READY": "1", "STATUS": status}, me)
        assert service.stop() == 0
        assert manager.told() == ({"STOPPING": "1", "STATUS": "Answering the last requests"}, me)
        assert manager.is_quiet()


def test_flask_s_own_server(start: Start, tmp_path: Path) -> None:
    (tmp_path / "clients.pem").write_text(issue("Clients", is_ca=True).pem)
    service = start("--debug", folder=tmp_path, KMS_CLIENT_CA="clients.pem")
    assert "client certificates do not reach this server" in service.log.read_text()
    assert service.curl("POST", "/generate_ecc_key", {}).status == 200
    assert service.curl("GET", "/readyz").text == "ok\n"
    service.stop(signal.SIGINT)


def test_gunicorn(start: Start, tmp_path: Path) -> None:
    port = free_port()
    environ = {**os.environ, "KMS_WORKERS": "2", "KMS_BOOTSTRAP_FILE": "admin.json"}
    service = under_gunicorn(tmp_path, port, environ)

    try:
        wait_until(service.answers, service.log.read_text, every=0.2)
        service.token = service.login(service.admin)
        assert service.curl("POST", "/generate_symmetric_key", {}).status == 200
        assert service.curl("POST", "/generate_symmetric_key", {}, token="x").status == 401
        command = ["openssl", "s_client", "-connect", f"localhost:{port}", "-tls1_2"]
        assert subprocess.run(command, input=b"", capture_output=True, check=False).returncode != 0
        context = ssl.create_default_context(cafile=str(tmp_path / "server.crt"))
        connection = http.client.HTTPSConnection("localhost", port, context=context)
        connection.request("GET", "/livez")
        assert "Content-Length" in dict(connection.getresponse().getheaders())  # as libmongocrypt looks for it
        connection.close()
    finally:
        service.stop()


def test_the_first_start_shows_credentials_once(start: Start) -> None:
    service = start("--workers", "1", login=False)
    assert (service.folder / "admin.json").stat().st_mode & 0o777 == 0o600
    assert set(service.admin) == {"client_id", "client_secret", "totp_secret", "totp_uri", "recovery_codes"}
    (service.folder / "admin.json").unlink()
    service.stop()
    again = start("--workers", "1", folder=service.folder, login=False)
    assert not (again.folder / "admin.json").exists()


def test_on_a_terminal_a_person_sees_a_code_to_scan(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if "CA_BUNDLE" not in name}
    port = free_port()
    command = f"{sys.executable} {ROOT / 'app.py'} --workers 1 --port {port}"
    script = ["script", "-qefc", command, "typescript"]
    process = subprocess.Popen(script, cwd=tmp_path, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    typescript = tmp_path / "typescript"

    def shown() -> str:
        return typescript.read_text() if typescript.exists() else ""

    try:
        wait_until(lambda: "listening on" in shown(), shown)
    finally:
        subprocess.run(["pkill", "-TERM", "-P", str(process.pid)], check=False)
        process.wait(timeout=60)
    text = shown()
    assert "█" in text or "▀" in text
    for words in ("client secret", "TOTP secret", "recovery codes", "curl --cacert server.crt"):
        assert words in text
    assert not (tmp_path / "kms-data" / "bootstrap.json").exists()
