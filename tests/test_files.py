"""Directories and secrets: who else may reach them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kms.config import Settings
from kms.errors import StartError
from kms.files import durable_directory, private_bytes, private_directory
from kms.mounted import is_out_of_reach
from kms.vault.opening import open_vault


@pytest.fixture
def _of_another_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the owner may change a mode; this is what everybody else gets."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refuse)
    monkeypatch.setattr(os, "fchmod", refuse)


def _directory(path: Path, mode: int) -> Path:
    path.mkdir()
    path.chmod(mode)
    return path


def test_a_directory_is_tightened(tmp_path: Path) -> None:
    assert private_directory(_directory(tmp_path / "data", 0o777)).stat().st_mode & 0o777 == 0o700


def test_a_directory_that_would_not_outlast_a_power_cut_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="Input/output"):
        patched.setattr(os, "fsync", refuse)
        durable_directory(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    for _ in range(2):
        durable_directory(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_a_volume_of_another_owner_is_taken_with_a_warning(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    volume = _directory(tmp_path / "data", 0o2770)  # as Kubernetes mounts it for an fsGroup
    request.getfixturevalue("_of_another_owner")
    with capture_logs() as logged:
        private_directory(volume)
        private_directory(volume)
    assert [line["log_level"] for line in logged] == ["warning"]
    assert "2770" in logged[0]["event"]


def test_what_all_can_reach_is_refused(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    volume = _directory(tmp_path / "data", 0o775)
    request.getfixturevalue("_of_another_owner")
    with pytest.raises(StartError, match="0775"):
        private_directory(volume)


def test_a_vault_on_such_a_volume_opens_again(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    open_vault(settings).close()
    for path in (settings.data_dir, *settings.data_dir.iterdir()):
        path.chmod(0o770 if path.is_dir() else 0o660)  # as Kubernetes does at each mount
    request.getfixturevalue("_of_another_owner")
    open_vault(settings).close()


def test_secrets_that_others_can_read_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    for mode in (0o644, 0o606, 0o601):
        secret.chmod(mode)
        with pytest.raises(StartError, match="0600"):
            private_bytes(secret)
    secret.chmod(0o440)
    assert private_bytes(secret) == b"x"


@pytest.mark.parametrize(
    ("mode", "options", "environ", "reach"),
    [
        (0o755, "rw", {}, True),
        (0o755, "ro", {}, True),  # any user of the host
        (0o700, "rw", {}, False),
        (0o755, "ro", {"KUBERNETES_SERVICE_HOST": "10.43.0.1"}, False),
        (0o755, "rw", {"KUBERNETES_SERVICE_HOST": "10.43.0.1"}, True),  # perhaps a volume of several pods
    ],
)
def test_mounts_that_nobody_else_reaches(
    tmp_path: Path, mode: int, options: str, environ: dict[str, str], reach: bool
) -> None:
    open_to_all = Path("/dev/shm") / tmp_path.name  # the directories of a test are closed to others
    mount = open_to_all / "with blank"
    mount.mkdir(parents=True, mode=0o755)
    try:
        open_to_all.chmod(0o755)
        mount.chmod(mode)
        (mount / "..data").mkdir()
        (mount / "..data" / "key").write_bytes(b"x")
        (mount / "key").symlink_to("..data/key")
        escaped = str(mount).replace(" ", "\\040")
        mounts = tmp_path / "mountinfo"
        mounts.write_text(
            f"1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:5 / {escaped} {options},relatime - tmpfs tmpfs rw\n"
        )
        assert is_out_of_reach(mount / "key", mounts, environ, []) is not reach
        mounts.write_text("1 0 8:1 / / ro - ext4 /dev/sda rw\n")  # not a mount of its own
        assert not is_out_of_reach(mount / "key", mounts, environ, [])
    finally:
        shutil.rmtree(open_to_all)
