"""Preparing to serve, in this process: what keeps a service from starting, in a sentence."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from helpers.support import settings_for
from kms.errors import StartError
from kms.server import prepare


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_space)
    with pytest.raises(StartError, match=f"Cannot use {tmp_path / 'data'}: disk full"):
        prepare(settings_for(tmp_path / "data", port=0))


def test_an_address_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="Cannot listen on"):
        prepare(settings_for(tmp_path / "data", port=0, host="a" * 70))


def test_a_client_ca_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"Cannot read .*clients\.pem"):
        prepare(settings_for(tmp_path / "data", port=0, client_ca=tmp_path / "clients.pem"))
