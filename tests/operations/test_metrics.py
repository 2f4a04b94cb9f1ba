"""What operators chart is there, means what the page of the metrics says, and names nobody."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import insert

from helpers.certificates import write_pair
from helpers.running import wait_until
from helpers.shell import ROOT
from helpers.support import Api, SteeredClock, World, b64, basic, settings_for
from kms.access.model import Role
from kms.errors import AlreadyExists, Unavailable, every_refusal
from kms.operations import OPERATIONS, Service
from kms.operations.system.gauges import sample
from kms.vault import tables

pytestmark = pytest.mark.usefixtures("own_metric_files")

PAGE = ROOT / "docs/reference/metrics.md"
Values = dict[tuple[str, ...], float]


def scraped(world: World) -> dict[str, Values]:
    """The values by sample and the values of its labels, in the order of the labels' names."""
    answer = world.admin.get("/metrics")
    assert answer.status_code == 200
    found: dict[str, Values] = {}
    for family in text_string_to_metric_families(answer.text):
        for each in family.samples:
            labels = tuple(value for _, value in sorted(each.labels.items()))
            found.setdefault(each.name, {})[labels] = each.value
    return found


def of(world: World, name: str, *labels: str) -> float:
    return scraped(world).get(name, {}).get(labels, 0.0)


def test_the_page_lists_every_family_and_its_labels(world: World, tmp_path: Path) -> None:
    alice = world.user("alice")
    alice.post("/api/v1/keys", {"key_id": "k"})
    alice.post("/api/v1/keys/k/encrypt", {"plaintext": ""})
    write_pair(tmp_path)
    listed = {
        name: (kind, set(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in re.findall(
            r"^\| `(\w+)` \| (\w+)[ ¹]* \| (.*?) ?\|", PAGE.read_text(), re.MULTILINE
        )
    }
    found = {}
    for family in text_string_to_metric_families(world.admin.get("/metrics").text):
        assert family.documentation
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[name] = (family.type, labels)
    assert found == listed


def test_refusals_are_counted_by_problem_and_operation(world: World) -> None:
    alice = world.user("alice")
    alice.post("/api/v1/keys/none/encrypt", {"plaintext": ""})
    alice.post("/revoke_key", {})
    assert of(world, "kms_requests_total", "encrypt", "not-found") == 1
    assert of(world, "kms_requests_total", "revoke_key", "validation-failed") == 1


def test_log_ins_and_locks(world: World, clock: SteeredClock) -> None:
    wrong = basic("alice", "wrong", **{"X-TOTP": "000000"})
    for _ in range(6):
        world.http.post("/auth/token", headers=wrong)
    assert world.http.post("/auth/token", headers=wrong).status_code == 429
    world.http.post("/auth/token", headers=basic("alice", "wrong"))
    world.http.post("/v1/auth/userpass/login/bob", json={"password": "wrong", "passcode": "000000"})  # Vault's way
    found = scraped(world)
    assert found["kms_logins_total"] == {
        ("authentication-failed",): 7, ("rate-limited",): 1, ("mfa-required",): 1, ("success",): 0,
    }  # fmt: skip
    assert found["kms_login_locks"][()] == 1
    clock.advance(minutes=2)
    assert of(world, "kms_login_locks") == 0


@pytest.fixture
def keeper(database_url: str, tmp_path: Path, clock: SteeredClock) -> Iterator[World]:
    """A world on either database."""
    service = Service.open(settings_for(tmp_path / "data", database_url=database_url), clock)
    yield World.of(service)
    service.close()


def test_keys_by_type_and_state(keeper: World, clock: SteeredClock) -> None:
    alice = keeper.user("alice")
    assert alice.post("/api/v1/keys/external", {"type": "aes-256-gcm", "key_id": "lent"}).status_code == 201
    for number, type_ in enumerate(["ec-p256", "ec-p256", "xaes-256-gcm", "ed25519", "ed25519"]):
        assert alice.post("/api/v1/keys", {"type": type_, "key_id": f"k{number}"}).status_code == 201
    alice.post("/api/v1/keys/k1/suspend")
    alice.delete("/api/v1/keys/k3")
    alice.post("/api/v1/keys/k4/revoke", {"reason": "keyCompromise"})
    keys = scraped(keeper)["kms_keys"]
    expected = {
        ("pre-activation", "aes-256-gcm"): 1,  # it waits for its material
        ("active", "ec-p256"): 1,
        ("suspended", "ec-p256"): 1,
        ("active", "xaes-256-gcm"): 1,
        ("pending-deletion", "ed25519"): 1,
        ("compromised", "ed25519"): 1,
    }
    assert keys == expected
    alice.post("/api/v1/keys", {"key_id": "more"})
    assert scraped(keeper)["kms_keys"] == expected  # counted a moment ago
    clock.advance(days=366)
    assert scraped(keeper)["kms_keys"][("deactivated", "xaes-256-gcm")] == 2
    clock.advance(days=-366)  # a clock that was ahead keeps nothing back
    assert scraped(keeper)["kms_keys"][("active", "xaes-256-gcm")] == 2


def test_what_somebody_wrote_into_the_database_is_no_label(world: World, clock: SteeredClock) -> None:
    world.user("alice").post("/api/v1/keys", {"key_id": "k"})
    with world.service.vault.engine.connect().execution_options(kms_writes=True) as connection, connection.begin():
        connection.exec_driver_sql("UPDATE keys SET type = 'evil' || char(10) || 'x'")
    clock.advance(minutes=2)
    assert scraped(world)["kms_keys"] == {("active", "unknown"): 1}


def test_sessions_and_access_keys(world: World, clock: SteeredClock) -> None:
    alice = world.user("alice")
    alice.post("/api/v1/access-keys")
    found = scraped(world)  # with one of the administrator, who asks
    assert (found["kms_sessions"][()], found["kms_access_keys"][()]) == (2, 1)
    clock.advance(hours=25)
    found = scraped(world)
    assert (found["kms_sessions"][()], found["kms_access_keys"][()]) == (1, 0)


def test_caches_leases_epochs_and_the_database(world: World) -> None:
    alice = world.user("alice")
    alice.post("/api/v1/keys", {"key_id": "k"})

    def encrypt() -> None:
        assert alice.post("/api/v1/keys/k/encrypt", {"plaintext": b64(b"x")}).status_code == 200

    encrypt()
    before = scraped(world)
    for _ in range(5):
        encrypt()
    after = scraped(world)
    misses = "kms_cache_misses_total"
    assert before[misses][("authorizations",)] >= 1
    for cache in ("authorizations", "versions", "keys-by-uid", "keys-by-name"):
        assert after[misses][(cache,)] == before[misses][(cache,)], cache
    assert after["kms_cache_entries"][("authorizations",)] >= 1
    assert after["kms_leases_held"][()] == after["kms_workers"][()] == 1
    assert after["kms_epoch_seen"][()] == after["kms_epoch"][()] >= 1
    changes = before["kms_database_seconds_count"][("change",)]
    alice.post("/api/v1/keys", {"key_id": "other"})
    grown = scraped(world)
    assert grown["kms_database_seconds_count"][("change",)] > changes
    assert grown["kms_head_counter"][()] > after["kms_head_counter"][()]
    assert grown["kms_database_seconds_count"][("read",)] > after["kms_database_seconds_count"][("read",)]


def test_what_the_database_does_not_carry_out_is_counted(world: World) -> None:
    before = scraped(world)["kms_database_errors_total"]
    vault = world.service.vault
    with pytest.raises(Unavailable), vault.read() as snapshot:
        snapshot.connection.exec_driver_sql("SELECT * FROM nowhere")
    with pytest.raises(AlreadyExists), vault.change() as change:
        change.connection.execute(insert(tables.head).values(id=1, sealed=b""))
    after = scraped(world)["kms_database_errors_total"]
    assert {kind: after[kind] - before[kind] for kind in after} == {("unavailable",): 1, ("conflict",): 1}


def test_a_worker_without_a_lease_shows(world: World) -> None:
    assert of(world, "kms_leases_held") == 1
    failures = world.service.memory.failures
    world.service.vault.stop_trusting("a test")
    state = world.service.memory
    sample(world.service)
    body, _ = world.service.metrics.exposition([])
    assert b"kms_leases_held 0.0" in body
    world.service.vault.host.distrust = None
    wait_until(lambda: state.held)
    assert of(world, "kms_leases_held") == 1
    assert of(world, "kms_lease_failures_total") == failures


def test_the_processes_and_their_disk(world: World, tmp_path: Path) -> None:
    world.user("alice").post("/api/v1/keys/none/encrypt", {"plaintext": ""})
    found = scraped(world)
    assert found["kms_resident_memory_bytes"][()] > 10 << 20
    assert 3 < found["kms_open_descriptors"][()] < found["kms_open_descriptors_limit"][()]
    assert found["kms_audit_spool_files"][()] == 1
    assert found["kms_audit_spool_bytes"][()] > 0
    assert "kms_certificate_remaining_days" not in found  # somebody else serves TLS
    write_pair(tmp_path)
    assert 29 < of(world, "kms_certificate_remaining_days") < 31


def test_a_worker_that_ended_leaves_its_counts_and_no_gauge(world: World) -> None:
    """Another process of this parent writes metrics into the same directory, and ends."""
    folder = world.service.settings.run_dir / "metrics"
    script = (
        "import sys\nfrom pathlib import Path\nfrom kms.metrics import Metrics, WorkerState\n"
        "m = Metrics(Path(sys.argv[1]))\nm.count_login('success')\n"
        "m.sample(WorkerState(True, 2, 0, {'c': 5}, {'c': 7}, {}, 1, 1))\n"
    )
    before = of(world, "kms_logins_total", "success")
    subprocess.run(["python", "-c", script, str(folder)], check=True, cwd=ROOT)
    assert len(list(folder.glob("gauge_live*_*.db"))) == 4
    found = scraped(world)
    assert found["kms_logins_total"][("success",)] == before + 1
    assert found["kms_cache_misses_total"][("c",)] == 7
    assert ("c",) not in found["kms_cache_entries"]
    assert found["kms_leases_held"][()] == found["kms_workers"][()] == 1
    assert {int(path.stem.rpartition("_")[2]) for path in folder.glob("gauge_live*_*.db")} == {os.getpid()}


def test_no_label_holds_what_a_caller_sent(world: World) -> None:
    canary = "canary-5e1d"
    alice = world.user(f"{canary}-client", Role.USER)
    alice.post("/api/v1/keys", {"key_id": f"{canary}-key"})
    alice.post(f"/api/v1/keys/{canary}-key/encrypt", {"plaintext": canary})
    alice.get(f"/{canary}/x?{canary}={canary}")
    alice.http.open("/api/v1/keys", method="BREW", headers={"X-Canary": canary})
    Api(world.http, basic(canary, canary, **{"X-TOTP": canary}), canary).post("/auth/token")
    text = world.admin.get("/metrics").text
    assert canary not in text
    outcomes = {"success", *every_refusal()}
    for operation, outcome in re.findall(r'kms_requests_total\{operation="([^"]*)",outcome="([^"]*)"', text):
        assert outcome in outcomes
        assert operation in OPERATIONS or operation.partition(":")[0] in {
            "aws",
            "transit",
            "start",
            "unknown",
            "livez",
        }
