"""Starting, stopping, reloading, dying: what is acknowledged stays, nothing is half there."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from sqlalchemy import select

from helpers.running import Running, Start
from helpers.support import b64, free_port, new_database
from kms.config import Settings
from kms.crypto.registry import key_type
from kms.keys.model import Key
from kms.vault import tables
from kms.vault.opening import open_vault

ROOT = Path(__file__).parents[2]


class Maker(threading.Thread):
    """Makes keys one after the other and remembers what was acknowledged."""

    def __init__(self, service: Running, token: str, path: str) -> None:
        super().__init__(daemon=True)
        self.service, self.token, self.path = service, token, path
        self.acknowledged: list[dict[str, Any]] = []
        self.lost_in_flight = 0
        self.stopping = threading.Event()

    def run(self) -> None:
        context = ssl.create_default_context(cafile=str(self.service.folder / "server.crt"))
        headers = {"Authorization": f"Bearer {self.token}"}
        connection: http.client.HTTPSConnection | None = None
        while not self.stopping.is_set():
            sent = False
            try:
                if connection is None:
                    connection = http.client.HTTPSConnection(
                        "localhost", self.service.port, context=context, timeout=30
                    )
                    connection.connect()
                connection.request("POST", self.path, headers=headers)
                sent = True
                answer = connection.getresponse()
                body = json.loads(answer.read())
                if answer.status == 200:
                    self.acknowledged.append(body)
                if answer.getheader("Connection") == "close":
                    connection = None
            except (OSError, http.client.HTTPException):
                self.lost_in_flight += sent
                connection = None
                time.sleep(0.01)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize("victim", ["worker", "service"])
def test_kill_9_loses_no_acknowledged_key_and_leaves_none_half_made(
    start: Start, request: pytest.FixtureRequest, database: str, victim: str
) -> None:
    flags = ["--workers", "3", "--rate-limit", "off"]
    if database == "postgresql":
        flags += ["--database-url", new_database(request.getfixturevalue("postgres"))]
    service = start(*flags)
    tokens = [service.user(f"user{number}") for number in range(4)]
    makers = [Maker(service, token, "/generate_symmetric_key") for token in tokens]
    for maker in makers:
        maker.start()
    time.sleep(1.0)
    for _ in range(3 if victim == "worker" else 1):
        if victim == "worker":
            os.kill(service.worker_pids()[0], signal.SIGKILL)
            time.sleep(1.5)
        else:
            service.stop(signal.SIGKILL)
    if victim == "service":
        service = start(*flags, folder=service.folder, port=service.port, login=False)
        time.sleep(1.0)
    for maker in makers:
        maker.stopping.set()
    for maker in makers:
        maker.join(timeout=30)
    for number, maker in enumerate(makers):
        assert len(maker.acknowledged) >= 3
        key_id = f"user{number}_symmetric"
        detail = service.curl("GET", f"/api/v1/keys/{key_id}", token=tokens[number]).json
        versions = [each["version"] for each in detail["versions"]]
        assert versions == list(range(1, detail["latest_version"] + 1))
        assert {each["version"] for each in maker.acknowledged} <= set(versions)
        sealed = service.curl(
            "POST", f"/api/v1/keys/{key_id}/encrypt", {"plaintext": b64(b"x")}, token=tokens[number]
        )
        assert sealed.json["version"] == detail["latest_version"]
    service.stop()
    _every_key_is_whole(service, flags, [each for maker in makers for each in maker.acknowledged])


def _every_key_is_whole(service: Running, flags: list[str], acknowledged: list[dict[str, Any]]) -> None:
    url = flags[flags.index("--database-url") + 1] if "--database-url" in flags else None
    vault = open_vault(Settings(data_dir=service.folder / "kms-data", database_url=url))
    assert vault.check_tallies() == []
    material: dict[tuple[str, int], bytes] = {}
    with vault.read() as snapshot:
        for key in snapshot.select(Key):
            for version in snapshot.versions(key):
                loaded = snapshot.material(key, version)
                assert key_type(version.type).load(loaded)
                material[key.key_id, version.version] = loaded
        outbox = list(snapshot.connection.execute(select(tables.audit_outbox.c.entry)).scalars())
    for each in acknowledged:
        assert b64(material[each["key_id"], each["version"]]) == each["symmetric_key"]
    made = [entry for entry in map(json.loads, outbox) if entry["operation"] == "generate_symmetric_key"]
    assert len(made) == len(material)  # exactly one audit entry for each version
    vault.engine.dispose()


def test_sigterm_loses_no_request_in_flight(start: Start) -> None:
    service = start("--workers", "2", "--rate-limit", "off")
    makers = [Maker(service, service.user(f"u{number}"), "/generate_rsa_key") for number in range(3)]
    for maker in makers:
        maker.start()
    time.sleep(2.0)
    assert service.stop(signal.SIGTERM) == 0
    for maker in makers:
        maker.stopping.set()
    for maker in makers:
        maker.join(timeout=30)
    assert sum(len(maker.acknowledged) for maker in makers) >= 3
    assert sum(maker.lost_in_flight for maker in makers) == 0


def _served_certificate(service: Running) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("localhost", service.port, context=context, timeout=10)
    connection.connect()
    certificate = connection.sock.getpeercert(binary_form=True)  # type: ignore[union-attr]
    connection.close()
    assert certificate
    return certificate


def _write_pair(folder: Path, form: str = "pkcs8", passphrase: str = "") -> None:
    """A new self-signed pair, as the openssl command writes it."""
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "new.key", "-out", "server.crt"]
    request += ["-days", "30", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(request, cwd=folder, check=True, capture_output=True)
    output = ["-out", "server.key", "-passout", f"pass:{passphrase}"]
    convert = {
        "pkcs8": ["cp", "new.key", "server.key"],
        "pkcs1": ["openssl", "rsa", "-in", "new.key", "-traditional", "-out", "server.key"],
        "encrypted": ["openssl", "pkcs8", "-topk8", "-in", "new.key", *output],
        "encrypted-pkcs1": ["openssl", "rsa", "-in", "new.key", "-traditional", "-aes256", *output],
    }[form]
    subprocess.run(convert, cwd=folder, check=True, capture_output=True)
    (folder / "new.key").unlink()


def test_sigterm_writes_down_when_keys_were_used(start: Start) -> None:
    service = start("--workers", "2")
    service.curl("POST", "/api/v1/keys", {"key_id": "used"})
    service.curl("POST", "/api/v1/keys/used/encrypt", {"plaintext": ""})
    service.stop()
    again = start("--workers", "2", folder=service.folder, login=False)
    again.token = service.token
    assert again.curl("GET", "/api/v1/keys/used/last-use").json["operation"] == "encrypt"


def test_sighup_loads_a_new_certificate_and_keeps_the_old_one_when_it_is_bad(start: Start) -> None:
    service = start("--workers", "2")
    before = _served_certificate(service)
    (service.folder / "server.crt").write_text("garbage")
    service.process.send_signal(signal.SIGHUP)
    time.sleep(9)  # long enough for both workers to have been replaced
    assert _served_certificate(service) == before
    assert "old certificate stays" in service.log.read_text()
    _write_pair(service.folder)
    service.process.send_signal(signal.SIGHUP)
    wanted = x509.load_pem_x509_certificate((service.folder / "server.crt").read_bytes())
    deadline = time.monotonic() + 60
    # Workers are replaced one by one: done when a dozen handshakes in a row get the new certificate.
    while {x509.load_der_x509_certificate(_served_certificate(service)) for _ in range(12)} != {wanted}:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert service.curl("GET", "/api/v1/keys").status == 200  # the session has gone on


@pytest.mark.parametrize("form", ["pkcs1", "encrypted", "encrypted-pkcs1"])
def test_every_form_of_key_that_openssl_writes(start: Start, tmp_path: Path, form: str) -> None:
    (tmp_path / "pass").write_text("open sesame\n")
    _write_pair(tmp_path, form, "open sesame")
    service = start("--workers", "1", folder=tmp_path, KMS_TLS_KEY_PASSPHRASE_FILE="pass")
    assert service.curl("GET", "/readyz", token="").text == "ok\n"
    found = subprocess.run(["grep", "-rl", "PRIVATE KEY", str(tmp_path)], capture_output=True, text=True, check=False)
    assert [Path(line).name for line in found.stdout.split()] == ["server.key"]


def test_tls_1_2_when_asked_for_offers_only_forward_secrecy(start: Start) -> None:
    service = start("--workers", "1", KMS_TLS_MIN_VERSION="1.2")

    def offered(*options: str) -> bool:
        command = ["openssl", "s_client", "-connect", f"localhost:{service.port}", *options]
        return subprocess.run(command, input="", capture_output=True, text=True, check=False).returncode == 0

    assert not offered("-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    names = subprocess.check_output(["openssl", "ciphers", "-tls1_2", "-s", "ALL:@SECLEVEL=0"], text=True).strip()
    taken = {name for name in names.split(":") if offered("-tls1_2", "-cipher", f"{name}:@SECLEVEL=0")}
    assert taken
    assert all(name.startswith("ECDHE-") for name in taken), taken


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


def test_starts_that_must_fail_say_why(start: Start, tmp_path: Path) -> None:
    _write_pair(tmp_path)
    good_key, good_certificate = (tmp_path / "server.key").read_bytes(), (tmp_path / "server.crt").read_bytes()
    (tmp_path / "server.key").unlink()
    assert "server.key is not" in _refused(tmp_path)
    (tmp_path / "server.key").write_text("garbage")
    assert "not a private key" in _refused(tmp_path)
    _write_pair(tmp_path)
    (tmp_path / "server.crt").write_bytes(good_certificate)
    assert "is not the key of" in _refused(tmp_path)
    (tmp_path / "server.key").write_bytes(good_key)
    old = ["openssl", "x509", "-in", "server.crt", "-signkey", "server.key", "-days", "-1", "-out", "old.crt"]
    subprocess.run(old, cwd=tmp_path, check=True, capture_output=True)
    assert "expired on" in _refused(tmp_path, KMS_TLS_CERT="old.crt")
    _write_pair(tmp_path, "encrypted", "open sesame")
    assert "KMS_TLS_KEY_PASSPHRASE_FILE" in _refused(tmp_path)
    _write_pair(tmp_path)
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
    service = start("--workers", "1", "--host", host, login=False)
    shown = f"[{host}]" if ":" in host else host
    assert f"listening on https://{shown}:{service.port}" in service.log.read_text()
    assert service.curl("GET", "/readyz").text == "ok\n"
    service.stop()


def test_flask_s_own_server(start: Start) -> None:
    service = start("--debug")
    assert service.curl("POST", "/generate_ecc_key", {}).status == 200
    assert service.curl("GET", "/readyz").text == "ok\n"
    service.stop(signal.SIGINT)


def test_gunicorn(start: Start, tmp_path: Path) -> None:
    port = free_port()
    environ = {**os.environ, "KMS_PORT": str(port), "KMS_WORKERS": "2", "KMS_BOOTSTRAP_FILE": "admin.json"}
    environ["PYTHONPATH"] = str(ROOT)
    log = tmp_path / "log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "app:app"]
        process = subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=out, stderr=out)
    service = Running(tmp_path, port, process, log, environ)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                if service.curl("GET", "/readyz", token="").status == 200:
                    break
            except subprocess.CalledProcessError:
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
        service.token = service.login(service.admin)
        assert service.curl("POST", "/generate_symmetric_key", {}).status == 200
        assert service.curl("POST", "/generate_symmetric_key", {}, token="x").status == 401
        command = ["openssl", "s_client", "-connect", f"localhost:{port}", "-tls1_2"]
        assert subprocess.run(command, input=b"", capture_output=True, check=False).returncode != 0
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
    try:
        deadline = time.monotonic() + 30
        shown = ""
        while "listening on" not in shown:
            assert time.monotonic() < deadline, shown
            time.sleep(0.1)
            shown = (tmp_path / "typescript").read_text() if (tmp_path / "typescript").exists() else ""
    finally:
        subprocess.run(["pkill", "-TERM", "-P", str(process.pid)], check=False)
        process.wait(timeout=60)
    assert "█" in shown or "▀" in shown
    for words in ("client secret", "TOTP secret", "recovery codes", "curl --cacert server.crt"):
        assert words in shown
    assert not (tmp_path / "kms-data" / "bootstrap.json").exists()


def test_scheduled_rotation_happens_by_itself_once(start: Start) -> None:
    service = start("--workers", "3")
    service.curl("POST", "/generate_ecc_key", {})
    changed = service.curl("PATCH", "/api/v1/keys/admin_ecc", {"rotation_period": "PT4S"})
    assert changed.status == 200, changed.text
    began = time.monotonic()
    time.sleep(10)
    passed = time.monotonic() - began
    latest = service.curl("GET", "/api/v1/keys/admin_ecc").json["latest_version"]
    assert 2 <= latest <= 1 + passed // 4 + 1
