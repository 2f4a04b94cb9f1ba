"""What is installed: a wheel with everything in it, the command, and the client without the service's packages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from helpers.running import process_of, wait_until
from helpers.shell import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this source, built from a copy, in which nothing is left over."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT)
    source.mkdir()
    copy = ["xargs", "-0", "cp", "--parents", "-t", str(source)]
    subprocess.run(copy, input=listed, cwd=ROOT, check=True)
    pip(Path(sys.executable), "wheel", "--no-deps", "-w", str(folder), str(source))
    return next(folder.glob("kms-*.whl"))


def pip(python: Path, *arguments: str) -> None:
    done = subprocess.run([python, "-m", "pip", "-q", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def environment(folder: Path) -> Path:
    """The Python of a new virtual environment."""
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def test_the_wheel_has_everything(wheel: Path) -> None:
    listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard", "kms"], cwd=ROOT, text=True)
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert set(listed.split()) <= packed
    assert not {name for name in packed if not name.startswith(("kms/", "kms-"))}


def test_pip_install_gives_the_command_and_the_service(wheel: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "venv")
    pip(python, "install", str(wheel))
    kms = str(tmp_path / "venv" / "bin" / "kms")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("KMS_", "PYTHON"))}
    environ |= {"KMS_HOME": str(tmp_path / "home")}
    log = tmp_path / "log"
    serving = process_of(
        [kms, "serve", "--port", "0", "--workers", "1", "--bootstrap-file", "admin.json"], tmp_path, log, environ
    )
    try:
        wait_until(lambda: "listening on https://" in log.read_text() or serving.poll() is not None, log.read_text)
        port = log.read_text().split("listening on https://127.0.0.1:")[1][:5].rstrip('"\n ,')
        for command in (
            f"login --url https://localhost:{port} --credentials admin.json",
            "key create orders",
            "encrypt -k orders admin.json",
            "decrypt -o back.json admin.json.kms",
        ):
            subprocess.run([kms, *command.split()], cwd=tmp_path, env=environ, check=True, capture_output=True)
        assert (tmp_path / "back.json").read_bytes() == (tmp_path / "admin.json").read_bytes()
    finally:
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(timeout=60) == 0


def test_the_client_alone(wheel: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "venv")
    pip(python, "install", "-r", str(ROOT / "requirements-client.txt"))
    pip(python, "install", "--no-deps", str(wheel))
    program = "import kms.client.files, kms.client.revocations, importlib.util as u; print(u.find_spec('flask'))"
    done = subprocess.run([python, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"
    listed = subprocess.run([python, "-m", "kms", "--help"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "encrypt" in listed.stdout
    refused = subprocess.run(
        [python, "-m", "kms", "serve"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (refused.returncode, "needs the packages of the service" in refused.stderr) == (1, True)
