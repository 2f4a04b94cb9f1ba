"""A worker goes on with a change of the root key: not again and again where rows are not authentic."""

from __future__ import annotations

from typing import Any

from click.testing import CliRunner
from structlog.testing import capture_logs

from helpers.support import SteeredClock, World
from kms.cli import main
from kms.operations import Service
from kms.operations.system.root_key_change import go_on_with_root_key
from kms.vault import root_keys, tables
from kms.vault.seals import Seals


def begin(service: Service) -> None:
    rewrap = root_keys.Rewrap(Seals(service.settings), service.vault.derived_keys.vault_id)
    root_keys.begin(service.vault, rewrap, service.clock(), "{}")


def alter(service: Service, status: str) -> None:
    with service.vault.engine.begin() as connection:
        connection.execute(tables.clients.update().values(status=status))


def gone_on(service: Service) -> list[Any]:
    """What a worker says that looks now."""
    with capture_logs() as said:
        go_on_with_root_key(service, lambda: False)
    return [each["event"].partition(":")[0] for each in said]


def root_keys_in_use(service: Service) -> set[int]:
    return set(service.vault.derived_keys.keyset.root_keys)


STAYS = "the root key before stays in use"
ENDED = "the vault is under root key 2 now; root key 1 opens nothing any more"


def test_after_rows_that_are_not_authentic_it_looks_again_in_ten_minutes(world: World, clock: SteeredClock) -> None:
    service = world.service
    begin(service)
    alter(service, "disabled")
    assert gone_on(service) == [STAYS]
    for _ in range(9):
        clock.advance(minutes=1)
        assert gone_on(service) == []
    clock.advance(minutes=1, seconds=1)
    assert gone_on(service) == [STAYS]
    assert root_keys_in_use(service) == {1, 2}
    alter(service, "enabled")
    clock.advance(minutes=10, seconds=1)
    assert gone_on(service) == [ENDED]
    assert root_keys_in_use(service) == {2}


def test_the_command_does_not_wait_with_the_workers(world: World) -> None:
    service = world.service
    begin(service)
    alter(service, "disabled")
    assert gone_on(service) == [STAYS]
    alter(service, "enabled")
    command = ["vault", "rotate-root-key", "--yes", "--fast", "--data-dir", str(service.settings.data_dir)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert "Everything is under root key 2" in done.output
