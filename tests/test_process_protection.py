"""What a process knows stays in it: each promise is attacked from outside."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from helpers import unprivileged
from kms import process_protection
from kms.config import Settings, load
from kms.errors import StartError
from kms.process_protection import protect_process

ROOT = Path(__file__).parents[1]
INTRUDER = ROOT / "tests" / "helpers" / "intruder.py"
WAIT = "print('ready', flush=True); sys.stdin.read()"
PROTECT = "import os, sys; from kms.process_protection import protect_process; missing = protect_process(); "
WAYS = {"traced", "memory", "mem", "environ", "maps", "fd"}


@pytest.fixture(autouse=True)
def _nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_protection, "withheld", {})
    monkeypatch.setattr("kms.config.withheld", process_protection.withheld)


@contextmanager
def program(code: str, *, is_nobody: bool = False, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Python that runs `code`, has said that it is ready, and waits."""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        unprivileged.command(command) if is_nobody else command, cwd=ROOT, env={**os.environ, **environ},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == "ready\n"
            yield running
        finally:
            running.kill()


def ways_into(pid: int) -> set[str]:
    """How another process of the same user, without any rights, got in."""
    command = unprivileged.command([sys.executable, str(INTRUDER), str(pid)])
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_no_process_of_the_same_user_can_look_into_it() -> None:
    with program(f"import sys; {WAIT}", is_nobody=True) as unprotected:
        found = ways_into(unprotected.pid)
    if found != WAYS:
        pytest.skip(f"here even a process that is not protected can be looked into only by {found}")
    with program(PROTECT + WAIT, is_nobody=True) as running:
        assert ways_into(running.pid) == set()


def test_what_it_forks_cannot_be_looked_into_either() -> None:
    code = PROTECT + "child = os.fork(); child and print(f'ready\\n{child}', flush=True); sys.stdin.read()"
    with program(code, is_nobody=True) as running:
        assert running.stdout is not None
        assert ways_into(int(running.stdout.readline())) == set()


def test_it_reads_its_own_descriptors_and_what_it_is_given_by_them() -> None:
    code = """
import select
made = os.memfd_create("x")
os.write(made, b"x")
assert open(f"/proc/self/fd/{made}", "rb").read() == b"x"
waiting = select.epoll()
assert os.readlink(f"/proc/self/fd/{waiting.fileno()}") == "anon_inode:[eventpoll]"
assert len(os.listdir("/proc/self/fd")) > 3 and open("/proc/self/mountinfo").read()
theirs, mine = os.pipe()
os.write(mine, b"given"); os.close(mine)
assert open(f"/dev/fd/{theirs}").read() == "given"
print("ready", flush=True)
"""
    with program(PROTECT + code, is_nobody=True):
        pass


@pytest.mark.parametrize("protection", ["", PROTECT])
def test_a_crash_leaves_no_core_dump(tmp_path: Path, protection: str) -> None:
    def allow() -> None:
        os.chdir(tmp_path)
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    crash = f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})"
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {protection}{crash}"
    try:
        crashed = subprocess.Popen([sys.executable, "-c", code], preexec_fn=allow)
    except subprocess.SubprocessError:
        pytest.skip("core dumps are forbidden here already")
    _, status = os.waitpid(crashed.pid, 0)
    crashed.returncode = -signal.SIGSEGV
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSEGV
    if not protection:
        if not os.WCOREDUMP(status):
            pytest.skip("nothing leaves core dumps here")
        return
    assert not os.WCOREDUMP(status)
    assert list(tmp_path.iterdir()) == []


def test_files_are_for_its_user_alone(tmp_path: Path) -> None:
    code = f"open({str(tmp_path / 'made')!r}, 'w'); os.mkdir({str(tmp_path / 'folder')!r})"
    subprocess.run([sys.executable, "-c", PROTECT + code], check=True, cwd=ROOT, umask=0)
    assert [each.stat().st_mode & 0o777 for each in (tmp_path / "made", tmp_path / "folder")] == [0o600, 0o700]


def test_secrets_leave_the_environment_and_what_the_system_shows_of_it() -> None:
    secret = "correct-horse-battery-staple"
    code = PROTECT + (
        "import subprocess; from kms.config import load; "
        "assert load().seal_passphrase == os.environ['OTHER'] and load().port == 1; "
        "del os.environ['OTHER']; "
        "assert 'SEAL_PASS' not in subprocess.check_output('env', text=True); "
        "print('ready', flush=True); sys.stdin.read()"
    )
    with program(code, KMS_SEAL_PASSPHRASE=secret, KMS_PORT="1", OTHER=secret) as running:
        shown = Path(f"/proc/{running.pid}/environ").read_bytes().split(b"\0")
    assert b"KMS_SEAL_PASSPHRASE=" in shown and b"KMS_PORT=1" in shown
    assert shown.count(secret.encode()) == 0 and b"OTHER=" + secret.encode() in shown


def test_what_is_withheld_is_known_in_forks_and_a_newer_value_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KMS_BACKUP_KEY", "a" * 43)
    monkeypatch.setenv("KMS_PUBLIC_URL", "https://kms.example.org")
    environ = dict(os.environ)
    assert protect_in_process(environ) == {"KMS_BACKUP_KEY", "KMS_PUBLIC_URL"}
    monkeypatch.delenv("KMS_BACKUP_KEY")
    monkeypatch.delenv("KMS_PUBLIC_URL")
    assert load().backup_key == "a" * 43 and load().origin == "https://kms.example.org"
    assert load(environ={}).backup_key is None
    monkeypatch.setenv("KMS_BACKUP_KEY", "b" * 43)
    assert load().backup_key == "b" * 43


def protect_in_process(environ: dict[str, str]) -> set[str]:
    """What `protect_process` takes out of `environ`, without what else it does to this process."""
    before = set(environ)
    process_protection._withhold(environ)
    return before - set(environ)


def test_every_setting_that_is_a_secret_is_withheld() -> None:
    words = ("pass", "pin", "token", "secret", "key", "url", "credential")
    texts = {name for name, hint in get_type_hints(Settings).items() if hint in (str, str | None)}
    suspicious = {f"KMS_{name.upper()}" for name in texts if any(word in name.split("_") for word in words)}
    suspicious |= {f"KMS_{name.upper()}" for name in texts if "pass" in name}
    assert {"KMS_SEAL_PASSPHRASE", "KMS_SMTP_PASSWORD", "KMS_DATABASE_URL", "KMS_BACKUP_KEY"} <= suspicious
    assert protect_in_process(dict.fromkeys(suspicious, "x")) == suspicious


@pytest.mark.parametrize(
    "name", ["KMS_URL", "KMS_CA_CERT", "KMS_SEAL_PASSPHRASE_FILE", "KMS_TOKEN_LIFETIME", "KMS_PORT"]
)
def test_what_is_no_secret_stays(name: str) -> None:
    assert protect_in_process({name: "x"}) == set()


@pytest.mark.parametrize(
    ("flag", "url"),
    [
        ("database_url", "postgresql://kms:word@db/kms"),
        ("database_url", "postgresql://db/kms?user=kms&password=word"),
        ("redis_url", "redis://:word@cache:6379/0"),
    ],
)
def test_no_password_is_taken_from_the_arguments(flag: str, url: str) -> None:
    with pytest.raises(StartError, match=f"KMS_{flag.upper()}_FILE") as refused:
        load({flag: url}, {})
    assert "word@" not in str(refused.value) and "=word" not in str(refused.value)


@pytest.mark.parametrize("url", ["postgresql://kms@db:5432/kms", "postgresql://db/kms", "sqlite:////a/b:c@d"])
def test_addresses_without_a_password_are_taken(url: str) -> None:
    assert load({"database_url": url}, {}).database_url == url


def test_a_system_without_these_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_protection.ctypes, "CDLL", lambda *_, **__: None)
    monkeypatch.setattr(process_protection.resource, "setrlimit", _refused)
    monkeypatch.setattr(os, "umask", lambda mask: mask)
    missing = protect_process({"KMS_SMTP_PASSWORD": "x"})
    assert [sentence.split(":")[0] for sentence in missing] == [
        "core dumps are not limited",
        "other processes of this user can read the memory of this one",
        "what this process was started with still shows KMS_SMTP_PASSWORD",
    ]


def _refused(*_: Any) -> None:
    raise OSError(1, "Operation not permitted")
