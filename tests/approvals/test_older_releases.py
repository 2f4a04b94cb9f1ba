"""A release that knows nothing of approvals would carry out what waits: it is kept out once there is a rule."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import insert

from helpers.approvals import asked_rule, people_of, rule
from helpers.support import World, kind_of
from kms.config import Settings
from kms.errors import StartError
from kms.operations import Service
from kms.vault import schema, tables
from kms.vault.opening import open_vault
from kms.vault.sealed_schema import read_schema


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """The migrations of the release before."""
    folder = tmp_path / "migrations"
    shutil.copytree(schema._MIGRATIONS, folder)
    (folder / "versions" / "0014_approvals.py").unlink()
    return folder


def test_the_first_rule_keeps_older_releases_out(
    world: World, settings: Settings, older: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people_of(world)
    own = schema.own_schema()
    with monkeypatch.context() as patched:
        patched.setattr(schema, "_MIGRATIONS", older)
        open_vault(settings).close()  # beside this release, as long as there is no rule
    rule(world, permissions=["keys:delete"])
    again = Service.open(settings, world.service.clock)  # which leaves that as it is
    with again.vault.read() as snapshot:
        assert read_schema(snapshot.connection, snapshot.derived_keys) == replace(own, compatible_from=own.revision)
    again.close()
    monkeypatch.setattr(schema, "_MIGRATIONS", older)
    with pytest.raises(StartError, match="made by a newer release"):
        open_vault(settings)


def test_no_rule_is_made_while_an_older_node_serves(world: World) -> None:
    people_of(world)
    row = {"node_id": "n" * 32, "host": "old", "beats": 0, "leaving": 0, "release": "1.0", "revision": "0012"}
    with world.service.vault.change() as change:
        change.connection.execute(insert(tables.nodes).values(row | {"clock_offset": 0}))
    refused = asked_rule(world, permissions=["keys:delete"])
    assert (kind_of(refused), "Upgrade every node" in refused.json["detail"]) == ("conflict", True)
