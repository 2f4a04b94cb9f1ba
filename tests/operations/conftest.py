"""Fixtures: a receiver of webhooks, trusted by a certificate that is made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.certificates import write_pair
from helpers.webhook_receiver import Receiver, receiving


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `server.crt` and `server.key`, for servers on loopback."""
    folder = tmp_path_factory.mktemp("pair")
    write_pair(folder)
    return folder


@pytest.fixture
def receiver(pair: Path) -> Iterator[Receiver]:
    """A receiver that takes everything."""
    with receiving(pair) as running:
        yield running
