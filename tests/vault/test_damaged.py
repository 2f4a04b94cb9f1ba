"""A file of SQLite whose schema is damaged so that what SQLite says of it cannot be read as text."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from kms.config import Settings
from kms.errors import StartError
from kms.vault.opening import open_vault


def test_a_damaged_schema_is_a_reason_not_to_start(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    open_vault(settings).close()
    with closing(sqlite3.connect(tmp_path / "kms.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        damaged = (
            "UPDATE sqlite_master SET sql = CAST(x'435245415445205441424C45205B6B65F5' AS TEXT) WHERE name = 'keys'"
        )
        assert connection.execute(damaged).rowcount == 1
    with pytest.raises(StartError, match="damaged"):
        open_vault(settings)
