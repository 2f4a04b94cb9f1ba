"""deploy/Containerfile: no engine runs here, so its commands are run below a folder in place of the image."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.deployed import DEPLOY
from helpers.running import process_of
from helpers.support import free_port

ROOT = DEPLOY.parent


def _instructions() -> list[tuple[str, str]]:
    """Each instruction and its arguments, of both stages."""
    lines = [line for line in (DEPLOY / "Containerfile").read_text().splitlines() if not line.startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ")
    found = [line.partition(" ") for line in whole.splitlines() if line.strip()]
    return [(name, rest.strip()) for name, _, rest in found]


def _arguments(name: str) -> list[str]:
    return [rest for each, rest in _instructions() if each == name]


def test_no_shell_has_a_part_in_it() -> None:
    for name in ("RUN", "ENTRYPOINT", "CMD"):
        assert all(isinstance(json.loads(rest), list) for rest in _arguments(name))
    assert json.loads(_arguments("HEALTHCHECK")[0].partition(" CMD ")[2])[0] == "/opt/kms/bin/python"


def test_it_runs_without_rights_and_writes_to_one_volume() -> None:
    assert _arguments("USER") == ["10001:10001"]
    assert _arguments("VOLUME") == ["/var/lib/kms"]
    assert "KMS_DATA_DIR=/var/lib/kms/data" in _arguments("ENV")[-1]


def test_both_stages_have_one_base() -> None:
    assert len({rest.removesuffix(" AS build") for rest in _arguments("FROM")}) == 1


def test_what_is_copied_is_what_is_sent_to_the_engine() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    sent = {line[1:] for line in lines if line.startswith("!")} - {"deploy"}
    copied = {name for rest in _arguments("COPY") if "--from" not in rest for name in rest.split()[:-1]}
    assert sent == copied
    assert all((ROOT / name).exists() for name in copied)


def test_every_package_that_the_service_needs_is_locked() -> None:
    needed = re.findall(r"^[\w-]+", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    locked = re.findall(r"^([\w-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert {name.lower() for name in needed} <= set(locked)


@pytest.mark.slow
def test_its_commands_make_what_serves(tmp_path: Path) -> None:
    """The commands of the first stage, then entry point and health check, as in the image but for the folders."""
    source = tmp_path / "source"
    source.mkdir()
    for name, rest in _instructions():
        if (name, rest.startswith("--from")) == ("COPY", False):
            *names, _ = rest.split()
            for each in names:
                copy = shutil.copytree if (ROOT / each).is_dir() else shutil.copy
                target = source / Path(each).name
                copy(ROOT / each, target)
        if name == "RUN" and rest.startswith(('["python"', '["/opt/')):
            command = [sys.executable if each == "python" else _moved(each, tmp_path) for each in json.loads(rest)]
            done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
    shutil.copy(DEPLOY / "healthcheck.py", tmp_path / "opt/kms/healthcheck.py")
    volume = tmp_path / "var/lib/kms"
    volume.mkdir(parents=True)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("KMS_", "PYTHON"))}
    environ |= {"KMS_DATA_DIR": str(volume / "data"), "KMS_PORT": str(free_port()), "KMS_WORKERS": "1"}
    check = [_moved(each, tmp_path) for each in json.loads(_arguments("HEALTHCHECK")[0].partition(" CMD ")[2])]
    entry = [_moved(_arguments(name)[0], tmp_path) for name in ("ENTRYPOINT", "CMD")]
    command = [*json.loads(entry[0]), *json.loads(entry[1])]
    before = subprocess.run(check, cwd=volume, env=environ, capture_output=True, text=True, check=False)
    assert (before.returncode, "It does not answer" in before.stderr) == (1, True)
    service = process_of(command, volume, tmp_path / "log", environ)
    try:
        for _ in range(60):
            health = subprocess.run(check, cwd=volume, env=environ, capture_output=True, text=True, check=False)
            if health.returncode == 0:
                break
        assert health.returncode == 0, health.stderr + (tmp_path / "log").read_text()
        assert {path.name for path in volume.iterdir()} == {"data", "server.crt", "server.key"}
    finally:
        service.terminate()
        assert service.wait(timeout=60) == 0


def _moved(text: str, root: Path) -> str:
    return text.replace("/opt/", f"{root}/opt/")
