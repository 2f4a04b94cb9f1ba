"""`client recover`: whoever has the host gets a client back, and whoever had its credentials loses it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyotp
import pytest
from click.testing import CliRunner, Result

from helpers.people import Person, by_passkey, request_options
from helpers.support import SteeredClock, Template, World, kind_of, new_database, settings_for
from helpers.tokens import ASSERTION_TYPE, assertion, new_key, public_jwk
from kms.access.model import ClientStatus, Role
from kms.cli import main
from kms.operations import Service

ROOT = Path(__file__).parents[2]
NAMES = {"client_id", "client_secret", "totp_secret", "totp_uri", "recovery_codes"}


def recover(world: World, *more: str, given: str = "", database: str = "") -> Result:
    """Run the command beside the service, as on its host."""
    where = ["--data-dir", str(world.service.settings.data_dir), *(["--database-url", database] if database else [])]
    return CliRunner().invoke(main, ["client", "recover", *more, *where], input=given)


def credentials(world: World, client_id: str, *more: str) -> dict[str, Any]:
    to = world.service.settings.data_dir.parent / "new.json"
    done = recover(world, client_id, "--yes", "--to", str(to), *more)
    assert done.exit_code == 0, done.output
    assert to.stat().st_mode & 0o777 == 0o600
    found = dict(json.loads(to.read_text()))
    assert found.keys() == NAMES
    assert not any(secret in done.output for secret in (found["client_secret"], found["totp_secret"]))
    return found


def log_in(world: World, client_id: str, secret: str, **headers: str) -> Any:
    return world.http.post("/auth/token", auth=(client_id, secret), headers=headers)


def code(world: World, secret: str) -> str:
    return pyotp.TOTP(secret).at(world.service.clock())


def by_key(world: World, key: Any, client_id: str) -> Any:
    signed = assertion(key, client_id, world.service.clock().timestamp())
    form = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": signed}
    return world.http.post("/auth/token", data={"grant_type": "client_credentials", **form})


def test_nothing_of_before_lets_anybody_in(world: World, clock: SteeredClock) -> None:
    amy = Person.of(world, "amy")
    world.enrol("bob")
    amy.api.post("/api/v1/keys", {"key_id": "orders"})
    grant = {"subject": "client:bob", "permission": "keys:encrypt", "key_pattern": "orders"}
    assert amy.api.post("/api/v1/grants", grant).status_code == 201
    passkey, program = amy.with_passkey(), new_key()
    added = amy.api.post("/api/v1/clients/amy/public-keys", {"jwk": public_jwk(program)})
    assert added.status_code == 201, added.json
    clock.advance(seconds=60)
    assert by_key(world, program, "amy").status_code == 200
    assert by_passkey(world, passkey.get(request_options(world))).status_code == 200

    new = credentials(world, "amy")

    assert amy.api.get("/api/v1/keys").status_code == 401
    clock.advance(seconds=60)
    assert kind_of(amy.login()) == "authentication-failed"  # the old secret, and the code of the old app
    assert log_in(world, "amy", new["client_secret"], **{"X-TOTP": amy.code}).status_code == 401
    assert log_in(world, "amy", amy.secret, **{"X-TOTP": code(world, new["totp_secret"])}).status_code == 401
    assert by_key(world, program, "amy").status_code == 401
    assert by_passkey(world, passkey.get(request_options(world))).status_code == 401

    answer = log_in(world, "amy", new["client_secret"], **{"X-TOTP": code(world, new["totp_secret"])})
    assert answer.status_code == 200, answer.json
    again = log_in(world, "amy", new["client_secret"], **{"X-Recovery-Code": new["recovery_codes"][0]})
    assert again.status_code == 200, again.json
    headers = {"Authorization": f"Bearer {answer.json['access_token']}"}
    assert [key["key_id"] for key in world.http.get("/api/v1/keys", headers=headers).json["items"]] == ["orders"]
    assert len(world.http.get("/api/v1/grants", headers=headers).json["items"]) == 1


def test_old_recovery_codes_are_gone(world: World) -> None:
    made = world.enrol("amy")
    credentials(world, "amy")
    old = {"X-Recovery-Code": made.recovery_codes[0]}
    assert log_in(world, "amy", made.client_secret, **old).status_code == 401


def test_what_is_kept_is_named(world: World, clock: SteeredClock) -> None:
    amy = Person.of(world, "amy")
    passkey, program = amy.with_passkey(), new_key()
    amy.api.post("/api/v1/clients/amy/public-keys", {"jwk": public_jwk(program)})
    done = recover(world, "amy", "--yes", "--keep-passkeys", "--keep-programs", "--to", "kept.json")
    assert done.exit_code == 0, done.output
    assert done.output.count("STAYS GOOD") == 2
    assert "laptop" in done.output
    clock.advance(seconds=60)
    assert by_key(world, program, "amy").status_code == 200
    assert by_passkey(world, passkey.get(request_options(world))).status_code == 200


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_it_is_in_the_audit_log_and_said_aloud(world: World) -> None:
    world.enrol("amy")
    done = recover(world, "amy", "--yes", "--to", "amy.json")
    assert "AN OPERATOR ON THE HOST GAVE A CLIENT NEW CREDENTIALS" in done.stderr
    assert "AN OPERATOR" not in done.stdout
    (entry,) = world.admin.get("/api/v1/audit/entries?operation=recover_client").json["items"]
    assert (entry["source"], entry["target"], entry["outcome"]) == ("local", "amy", "success")
    assert "client_id" not in entry


def test_a_lock_ends(world: World, clock: SteeredClock) -> None:
    clock.advance(minutes=1)  # the command has the clock of the machine, and the lock must not be over by that
    made = world.enrol("amy")
    for _ in range(8):
        log_in(world, "amy", "wrong", **{"X-TOTP": "123456"})
    right = code(world, made.totp_secret)
    assert log_in(world, "amy", made.client_secret, **{"X-TOTP": right}).status_code == 429
    new = credentials(world, "amy")
    answer = log_in(world, "amy", new["client_secret"], **{"X-TOTP": code(world, new["totp_secret"])})
    assert answer.status_code == 200, answer.json


def test_a_disabled_client_is_enabled_only_where_that_is_said(world: World) -> None:
    world.enrol("amy")
    world.admin.post("/api/v1/clients/amy/disable")
    refused = recover(world, "amy", "--yes", "--to", "amy.json")
    assert (refused.exit_code, "--no-enable" in refused.output) == (2, True)
    assert not Path("amy.json").exists()
    assert recover(world, "amy", "--no-enable", "--to", "still.json", given="y\n").exit_code == 0
    assert world.admin.get("/api/v1/clients/amy").json["status"] == ClientStatus.DISABLED
    asked = recover(world, "amy", "--to", "amy.json", given="y\ny\n")
    assert "Enable it?" in asked.output
    assert world.admin.get("/api/v1/clients/amy").json["status"] == ClientStatus.ENABLED


@pytest.mark.parametrize(
    ("client_id", "given", "reason"),
    [("nobody", "", "There is no client nobody"), ("amy", "n\n", "Aborted"), ("../etc", "", "There is no client")],
)
def test_what_is_refused_changes_nothing(world: World, client_id: str, given: str, reason: str) -> None:
    made = world.enrol("amy")
    done = recover(world, client_id, "--to", "x.json", given=given)
    assert (done.exit_code, reason in done.output) == (1, True), done.output
    assert not Path("x.json").exists()
    right = {"X-TOTP": code(world, made.totp_secret)}
    assert log_in(world, "amy", made.client_secret, **right).status_code == 200


def test_a_file_is_never_replaced_and_nothing_goes_to_a_pipe(world: World) -> None:
    Path("there").write_text("mine")
    assert recover(world, "admin", "--yes", "--to", "there").exit_code == 2
    assert recover(world, "admin", "--yes", "--to", "missing/x").exit_code == 1
    assert Path("there").read_text() == "mine"
    piped = recover(world, "admin", "--yes")
    assert (piped.exit_code, "--to" in piped.output) == (2, True)
    admin = world.bootstrap()
    right = {"X-TOTP": code(world, admin["totp_secret"])}
    assert log_in(world, "admin", admin["client_secret"], **right).status_code == 200


def test_a_database_that_is_not_trusted_is_left_alone(world: World) -> None:
    world.service.vault.stop_trusting("Rows were altered.")
    done = recover(world, "admin", "--yes", "--to", "x.json")
    assert (done.exit_code, "Rows were altered." in done.output) == (1, True)
    assert "vault verify" in done.output
    assert not Path("x.json").exists()


def test_it_works_while_no_service_runs(template: Template, tmp_path: Path, clock: SteeredClock) -> None:
    first = template.open(settings_for(tmp_path / "data"), clock)
    first.close()
    new = credentials(World.of(first), "admin")
    opened = Service.open(first.settings, clock)
    try:
        right = {"X-TOTP": pyotp.TOTP(new["totp_secret"]).at(clock())}
        assert log_in(World.of(opened), "admin", new["client_secret"], **right).status_code == 200
    finally:
        opened.close()


def test_every_node_of_a_database_hears_of_it(postgres: str, tmp_path: Path, clock: SteeredClock) -> None:
    """The session of a client ends on the other node, too, before the command returns."""
    url = new_database(postgres)
    first = Service.open(settings_for(tmp_path / "a", database_url=url), clock)
    key = (first.settings.data_dir / "root.key").read_bytes()
    (tmp_path / "b").mkdir(mode=0o700)
    (tmp_path / "b" / "root.key").write_bytes(key)
    (tmp_path / "b" / "root.key").chmod(0o600)
    second = Service.open(settings_for(tmp_path / "b", database_url=url), clock)
    try:
        here, there = World.of(first), World.of(second)
        amy = there.user("amy", Role.ADMIN)
        assert amy.get("/api/v1/keys").status_code == 200
        done = recover(here, "amy", "--yes", "--to", "amy.json", database=url)
        assert done.exit_code == 0, done.output
        assert amy.get("/api/v1/keys").status_code == 401
    finally:
        first.close()
        second.close()


def test_on_a_terminal_they_are_shown_once(world: World) -> None:
    command = [sys.executable, "-m", "kms", "client", "recover", "admin", "--data-dir"]
    command.append(str(world.service.settings.data_dir))
    done = subprocess.run(
        ["script", "-qec", shlex.join(command), "/dev/null"],
        input="y\n", cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "This is shown once" in done.stdout
    assert done.stdout.count("client secret") == 1
    secret = next(line.split()[-1] for line in done.stdout.splitlines() if "client secret" in line)
    totp = next(line.split()[-1] for line in done.stdout.splitlines() if line.strip().startswith("TOTP secret"))
    assert log_in(world, "admin", secret, **{"X-TOTP": code(world, totp)}).status_code == 200
