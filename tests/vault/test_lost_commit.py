"""A commit whose answer is lost: the caller is told that nobody knows, and not that nothing was changed."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import event

from helpers.support import make_key, new_database
from kms.config import Settings
from kms.crypto.registry import key_type
from kms.errors import Unavailable
from kms.vault.checking import wrong_tables
from kms.vault.opening import open_vault

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KIND = key_type("xaes-256-gcm")


@pytest.mark.parametrize("is_done", [True, False])
def test_a_server_that_dies_at_the_commit_leaves_it_open_whether_it_was_done(
    postgres: str, tmp_path: Path, is_done: bool
) -> None:
    url = new_database(postgres)
    vault = open_vault(Settings(data_dir=tmp_path, database_url=url))
    with vault.change() as change:
        make_key(change, "first", "user1", KIND, KIND.generate(), NOW)

    def die(connection: Any) -> None:
        driver = connection.connection.dbapi_connection
        if is_done:
            driver.execute("COMMIT")
            driver.execute("SELECT 1")  # the driver must not know that it is done
        with closing(psycopg.connect(url, autocommit=True)) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", [driver.info.backend_pid])

    event.listen(vault.engine, "commit", die)
    with pytest.raises(Unavailable, match="Look whether it was changed"), vault.change() as change:
        make_key(change, "second", "user1", KIND, KIND.generate(), NOW)
    event.remove(vault.engine, "commit", die)
    with vault.change() as change:
        assert (change.key_by_id("second") is not None) is is_done
        make_key(change, "third", "user1", KIND, KIND.generate(), NOW)
    assert wrong_tables(vault) == []
    vault.close()
