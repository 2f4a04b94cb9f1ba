"""What a service manager is told, in this process; tests/system/test_starting.py has a whole service do it."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

import pytest

from helpers.service_manager import ListeningManager
from kms.sd_notify import ServiceManager


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_each_step_is_one_message(tmp_path: Path, kind: str) -> None:
    with ListeningManager(str(tmp_path / "notify") if kind == "path" else f"@kms-{uuid.uuid4()}") as listening:
        manager = ServiceManager(listening.address)
        manager.say("Opening the vault")
        assert listening.told() == ({"STATUS": "Opening the vault"}, os.getpid())
        manager.ready("Listening")
        assert listening.told()[0] == {"READY": "1", "STATUS": "Listening"}
        before = time.monotonic_ns() // 1000
        manager.reloading()
        told = listening.told()[0]
        assert told["RELOADING"] == "1"
        assert before <= int(told["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        manager.reloaded(is_good=False)
        told = listening.told()[0]
        assert told["READY"] == "1"
        assert told["STATUS"].startswith("Listening; the new TLS certificate was refused")
        manager.reloaded(is_good=True)
        assert listening.told()[0] == {"READY": "1", "STATUS": "Listening"}
        manager.stopping()
        assert listening.told()[0] == {"STOPPING": "1", "STATUS": "Answering the last requests"}


def test_a_reload_does_not_say_that_a_service_is_ready_which_is_not(tmp_path: Path) -> None:
    with ListeningManager(str(tmp_path / "notify")) as listening:
        manager = ServiceManager(listening.address)
        manager.reloading()
        manager.reloaded(is_good=True)
        assert listening.is_quiet()
        manager.ready("Listening")
        manager.stopping()
        manager.reloaded(is_good=True)
        assert [*listening.told()[0], *listening.told()[0]] == ["READY", "STATUS", "STOPPING", "STATUS"]
        assert listening.is_quiet()


def test_no_child_process_gets_the_variable() -> None:
    environ = {"NOTIFY_SOCKET": "/nowhere/notify", "HOME": "/"}
    ServiceManager.of_environment(environ)
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize("address", [None, "", "/nowhere/notify", "@" + "x" * 200, "vsock:2:1"])
def test_a_manager_that_cannot_be_told_stops_nothing(address: str | None) -> None:
    ServiceManager(address).ready("Listening")
