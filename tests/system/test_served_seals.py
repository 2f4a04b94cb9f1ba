"""The service starts with each seal, and again; docs/how-to/seals.md as it is pasted."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.certificates import write_pair
from helpers.running import Running, Start, wait_until
from helpers.shell import ROOT, blocks, run, variables_of
from helpers.softhsm import PIN, SoftHsm
from helpers.support import free_port
from helpers.under_gunicorn import under_gunicorn
from kms.config import load
from kms.vault.opening import open_vault

pytestmark = pytest.mark.slow
PAGE = "docs/how-to/seals.md"
BY_ANOTHER = [blocks(PAGE, "`kms`")[number] for number in (2, 3)]


@pytest.fixture(scope="module")
def other(start: Start) -> Running:
    """A second installation, where the page's lines made the key `seal-a` and an access key."""
    service = start("--workers", "1", login=False, KMS_ACCESS_KEY_LIFETIME="P365D")
    run(service, "python -m kms login --credentials admin.json")
    for script in blocks(PAGE, "`kms`")[:2]:
        run(service, script)
    assert (service.folder / "seal-secret").stat().st_mode & 0o777 == 0o600
    return service


def starts_twice(start: Start, folder: Path, **settings: str) -> str:
    """A new service with these settings keeps its keys when it is started again. What it logged."""
    service = start("--workers", "1", folder=folder, **settings)
    body = {"key_id": "kept", "type": "aes-256-gcm"}
    assert service.curl("POST", "/api/v1/keys", body).status == 201
    sealed = service.curl("POST", "/api/v1/keys/kept/encrypt", {"plaintext": "aGVsbG8="}).json
    assert service.stop() == 0
    again = start("--workers", "1", folder=folder, login=False, **settings)
    again.token = service.token
    opened = again.curl("POST", "/api/v1/keys/kept/decrypt", {"ciphertext": sealed["ciphertext"]})
    assert opened.json["plaintext"] == "aGVsbG8="
    assert again.stop() == 0
    return service.log.read_text() + again.log.read_text()


def does_not_start(folder: Path, **settings: str) -> tuple[int, str]:
    """The exit code of a start that is refused, and what it says."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("KMS_")}
    done = subprocess.run(
        [sys.executable, ROOT / "app.py", "--port", str(free_port())],
        cwd=folder,
        env={**environ, "PYTHONWARNINGS": "ignore", **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("seal", ["file", "passphrase", "credential"])
def test_a_seal_on_the_host(start: Start, tmp_path: Path, seal: str) -> None:
    (tmp_path / "secret").write_text(f"{base64.b64encode(os.urandom(32)).decode()}\n")
    (tmp_path / "secret").chmod(0o600)
    variable = {
        "file": "KMS_SEAL_FILE",
        "passphrase": "KMS_SEAL_PASSPHRASE_FILE",
        "credential": "KMS_SEAL_CREDENTIAL",
    }
    path = "made" if seal == "file" else "secret"
    starts_twice(start, tmp_path, KMS_SEAL=seal, **{variable[seal]: path})
    assert (tmp_path / "kms-data" / "root.key").exists() is False


def test_a_token(start: Start, tmp_path: Path) -> None:
    """As the page has it. With a wrong PIN the exit code tells a supervisor not to try again."""
    SoftHsm.in_folder(tmp_path / "probe")
    _, token, settings = blocks(PAGE, "`pkcs11`")
    environ = variables_of(token + settings, tmp_path)
    log = starts_twice(start, tmp_path, **environ)
    assert "made the key `kms` in the token `kms`" in log
    assert "482913" not in log
    (tmp_path / "hsm" / "pin").write_text("000000\n")
    code, said = does_not_start(tmp_path, **environ)
    assert code == 78
    assert "tried once" in said
    assert "Traceback" not in said
    unit = (ROOT / "deploy" / "kms.service").read_text()
    assert "\nRestartPreventExitStatus=78\n" in unit


@pytest.mark.parametrize("script", BY_ANOTHER, ids=["aws", "vault"])
def test_another_installation(start: Start, other: Running, tmp_path: Path, script: str) -> None:
    for name, there in {"seal-id": "seal-id", "seal-secret": "seal-secret", "server.crt": "other.crt"}.items():
        (tmp_path / there).write_bytes((other.folder / name).read_bytes())
    script = script.replace("localhost:8443", f"localhost:{other.port}")
    environ = variables_of(script, tmp_path)
    log = starts_twice(start, tmp_path, **environ)
    assert (other.folder / "seal-secret").read_text().strip() not in log


def test_an_installation_that_is_away_is_waited_for(start: Start, other: Running, tmp_path: Path) -> None:
    """Both come back after a power cut, in whatever order."""
    ids = {"seal-id": "seal-id", "seal-secret": "seal-secret", "other.crt": "server.crt"}
    ids = {name: str(other.folder / there) for name, there in ids.items()}
    script = BY_ANOTHER[0].replace("localhost:8443", f"localhost:{other.port}")
    for name, path in ids.items():
        script = script.replace(f"={name}", f"={path}")
    environ = variables_of(script, tmp_path)
    open_vault(load({"data_dir": tmp_path / "kms-data"}, environ)).close()
    other.stop()
    waiting = subprocess.Popen(
        [sys.executable, ROOT / "app.py", "--port", str(free_port())],
        cwd=tmp_path,
        env={**other.environ, **environ},
        stdout=subprocess.DEVNULL,
        stderr=(tmp_path / "waiting").open("wb"),
    )
    log = tmp_path / "waiting"
    service = Running(tmp_path, 0, waiting, log, other.environ)
    try:
        wait_until(lambda: "waiting for the KMS at localhost" in log.read_text(), log.read_text)
        start("--workers", "1", folder=other.folder, port=other.port, login=False, KMS_ACCESS_KEY_LIFETIME="P365D")
        service.wait_until_ready()
    finally:
        service.stop()


def test_workers_of_gunicorn_get_what_their_parent_unsealed(tmp_path: Path) -> None:
    """A worker that comes later neither has the PIN nor opens the token."""
    hsm, port = SoftHsm.in_folder(tmp_path / "hsm"), free_port()
    hsm.make_token()
    write_pair(tmp_path)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("KMS_")}
    environ |= {"KMS_SEAL": "pkcs11", "KMS_SEAL_PKCS11_MODULE": str(hsm.module), "KMS_SEAL_PKCS11_TOKEN": "kms"}
    environ |= {"KMS_SEAL_PKCS11_PIN_FILE": "pin", "KMS_WORKERS": "1", **hsm.environ}
    (tmp_path / "pin").write_text(f"{PIN}\n")
    service = under_gunicorn(tmp_path, port, environ)

    def is_ready() -> bool:
        assert service.process.poll() is None, service.log.read_text()
        return service.answers()

    try:
        wait_until(is_ready, service.log.read_text, every=0.2)
        hsm.configuration.write_text("directories.tokendir = /nowhere\n")
        (worker,) = service.worker_pids()
        os.kill(worker, signal.SIGKILL)
        service.wait_for_workers(1, without={worker})
        wait_until(is_ready, service.log.read_text, every=0.2)
    finally:
        service.stop()
