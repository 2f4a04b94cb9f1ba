"""The lock of a running service says on which database it runs, to whoever looks and without a secret."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from helpers.shell import ROOT
from kms.config import Settings
from kms.errors import StartError
from kms.vault.database import shown
from kms.vault.served import served_from

HOLDER = """
import fcntl, os, sys
from kms.vault.served import say
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.lockf(lock, fcntl.LOCK_EX)
os.write(lock, b"what the service before it wrote there, which was longer than anything now")
say(lock, sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://kms:canary@db/kms", "postgresql://kms@db/kms"),
        ("postgresql+psycopg://kms@db:6432/kms?password=canary&sslmode=require", "postgresql://kms@db:6432/kms"),
        ("postgres://kms:canary@db/kms", "postgresql://kms@db/kms"),
        ("sqlite:////var/lib/../kms.db", "sqlite:////var/kms.db"),
    ],
)
def test_a_database_is_named_without_its_password(url: str, expected: str) -> None:
    assert shown(Settings(database_url=url).database) == expected


def test_what_is_no_address_is_not_repeated() -> None:
    with pytest.raises(StartError) as refused:
        shown("canary")
    assert "canary" not in str(refused.value)


def test_a_service_says_where_it_runs_as_long_as_it_does(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert served_from(lock) is None
    command = [sys.executable, "-c", HOLDER, str(lock), "postgresql+psycopg://kms:canary@db/kms"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert served_from(lock) == "postgresql://kms@db/kms"
        assert served_from(lock) == "postgresql://kms@db/kms"  # looking takes nothing away
        holder.communicate("")
    assert served_from(lock) is None
    assert "canary" not in lock.read_text()
