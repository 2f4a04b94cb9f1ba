"""Two releases on one database: the older one goes on beside the newer schema, if that says that it may.

The newer releases are this one with further migrations, so that what this one does with their schema is real.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from helpers.support import make_key, new_database
from kms.config import Settings
from kms.crypto.registry import key_type
from kms.errors import StartError, Unavailable
from kms.keys.model import Key
from kms.vault import schema, upgrading
from kms.vault.checking import wrong_tables
from kms.vault.opening import open_vault
from kms.vault.sealed_schema import Schema
from kms.vault.store import Vault

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KIND = key_type("xaes-256-gcm")
FURTHER = '''"""What a later release adds."""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"
{compatible}

def upgrade() -> None:
    op.add_column("keys", sa.Column("added_{revision}", sa.String(16), nullable=False, server_default=""))
    op.create_table("added_{revision}", sa.Column("id", sa.Integer, primary_key=True))
'''


class Releases:
    """This release, and later ones by how many migrations they are ahead."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._monkeypatch = folder, monkeypatch
        self._own = schema._MIGRATIONS
        self.newest = int(schema.own_schema().revision)

    @contextmanager
    def ahead(self, count: int, *, compatible: bool = True) -> Iterator[Schema]:
        """The release that is `count` migrations ahead; the last of them is `compatible` with the one before it."""
        folder = self._folder / f"migrations-{count}-{compatible}"
        if not folder.exists():
            shutil.copytree(self._own, folder)
            for number in range(self.newest + 1, self.newest + count + 1):
                line = f'compatible_from = "{number - 1:04}"\n' if compatible else ""
                body = FURTHER.format(revision=f"{number:04}", before=f"{number - 1:04}", compatible=line)
                (folder / "versions" / f"{number:04}_further.py").write_text(body)
        with self._monkeypatch.context() as patched:
            patched.setattr(schema, "_MIGRATIONS", folder)
            yield schema.own_schema()


@pytest.fixture
def releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Releases:
    return Releases(tmp_path, monkeypatch)


class Hosts:
    """Vaults on one database, each on a host of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder, self._url = folder, url
        self._open: list[Vault] = []

    def open(self, host: str) -> Vault:
        """The vault, as this release has it at the moment, on that host."""
        data = self._folder / host
        first = next(self._folder.glob("*/root.key"), None)
        if first is not None and not data.exists():
            data.mkdir(mode=0o700)
            shutil.copy(first, data / "root.key")
        vault = open_vault(Settings(data_dir=data, database_url=self._url))
        self._open.append(vault)
        return vault

    def close(self) -> None:
        """Let go of all."""
        for vault in self._open:
            vault.close()


@pytest.fixture
def hosts(tmp_path: Path, database_url: str) -> Iterator[Hosts]:
    made = Hosts(tmp_path, database_url)
    yield made
    made.close()


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(tmp_path, f"sqlite:///{tmp_path / 'test.db'}")
    yield made
    made.close()


@pytest.fixture
def on_postgresql(tmp_path: Path, postgres: str) -> Iterator[Hosts]:
    made = Hosts(tmp_path, new_database(postgres))
    yield made
    made.close()


def works(vault: Vault, key_id: str) -> None:
    """Make a key, find it, and find the whole as it should be."""
    with vault.change() as change:
        made = make_key(change, key_id, "user1", KIND, KIND.generate(), NOW)
    with vault.read() as snapshot:
        assert snapshot.find(Key, made.uid) == made
    assert not wrong_tables(vault)


def revision(vault: Vault) -> str:
    with vault.read() as snapshot:
        return str(snapshot.connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())


def test_the_release_before_goes_on_and_starts_again_beside_a_newer_schema(hosts: Hosts, releases: Releases) -> None:
    older = hosts.open("older")
    works(older, "before")
    with releases.ahead(1) as ahead:
        newer = hosts.open("newer")
        assert revision(newer) == ahead.revision
        works(newer, "of-newer")
    works(older, "of-older")
    again = hosts.open("older-again")
    works(again, "of-older-again")
    assert revision(again) == ahead.revision  # it has set nothing back
    with releases.ahead(1):
        works(hosts.open("newer-again"), "of-newer-again")


def test_a_release_two_behind_is_refused_with_the_reason(on_sqlite: Hosts, releases: Releases) -> None:
    works(on_sqlite.open("older"), "before")
    with releases.ahead(1):
        on_sqlite.open("one-ahead")
    with releases.ahead(2) as ahead:
        on_sqlite.open("two-ahead")
    with pytest.raises(StartError, match=f"at schema {ahead.revision}.*only releases with {ahead.compatible_from}"):
        on_sqlite.open("older-again")
    with releases.ahead(1):
        works(on_sqlite.open("between"), "of-the-one-between")


def test_a_schema_that_says_nothing_is_for_its_own_release_only(on_sqlite: Hosts, releases: Releases) -> None:
    works(on_sqlite.open("older"), "before")
    with releases.ahead(1, compatible=False):
        works(on_sqlite.open("newer"), "of-newer")
    with pytest.raises(StartError, match="made by a newer release"):
        on_sqlite.open("older-again")


def test_whoever_writes_to_the_database_cannot_let_an_older_release_in(on_sqlite: Hosts, releases: Releases) -> None:
    vault = on_sqlite.open("older")
    with vault.engine.connect().execution_options(kms_writes=True) as connection, connection.begin():
        connection.execute(text("UPDATE alembic_version SET version_num = :it"), {"it": f"{releases.newest + 1:04}"})
    with pytest.raises(StartError, match="made by a newer release"):
        on_sqlite.open("older-again")


@pytest.mark.slow
def test_a_node_that_could_not_go_on_keeps_a_newer_release_from_migrating_while_it_lives(
    on_postgresql: Hosts, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upgrading, "_SILENT_SECONDS", 2.0)
    monkeypatch.setattr(upgrading, "_LOOKED_EVERY_SECONDS", 0.1)
    older = on_postgresql.open("older")
    joins(older)
    with releases.ahead(2) as ahead, beating(older), pytest.raises(StartError, match="Nothing was changed"):
        on_postgresql.open("newer")
    assert revision(older) != ahead.revision
    works(older, "still")
    with releases.ahead(2):  # now it is silent, and taken for dead
        newer = on_postgresql.open("newer")
        assert revision(newer) == ahead.revision
        with newer.read() as snapshot:
            assert newer.nodes.all(snapshot) == []
    with pytest.raises(Unavailable, match="Run a newer one"):
        joins(older)


def joins(vault: Vault) -> None:
    with vault.change() as change:
        vault.before_joining(change)
        vault.nodes.join(change)


@contextmanager
def beating(vault: Vault) -> Iterator[None]:
    """A node that lives."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(0.05):
            with suppress(Unavailable), vault.change() as change:
                vault.nodes.beat(change)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=30)


def test_a_node_says_what_it_runs(on_sqlite: Hosts, releases: Releases) -> None:
    vault = on_sqlite.open("node")
    vault.nodes.note_clock(-1.25)
    joins(vault)
    with vault.read() as snapshot:
        (node,) = vault.nodes.all(snapshot)
    assert (node.revision, node.clock_offset) == (f"{releases.newest:04}", -1250)
    assert node.release
