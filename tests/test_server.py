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


@pytest.mark.parametrize("keys", ["", "witness+00000000+AA=="])
def test_witnesses_that_are_none(tmp_path: Path, keys: str) -> None:
    """Said once at the start, and not by each process that begins and ends again."""
    settings = settings_for(tmp_path / "data", port=0, witness_urls="https://witness.example", witness_keys=keys)
    with pytest.raises(StartError, match="witness_keys"):
        prepare(settings)
