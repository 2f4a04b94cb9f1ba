"""One entry for every operation, or the operation is refused."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from helpers.running import wait_until
from helpers.support import World, b64
from kms import log
from kms.audit.entry import entry_of, time_of
from kms.audit.spool import Spool
from kms.audit.spool_files import tidy
from kms.audit.spool_reading import unchecked
from kms.errors import Unavailable

ROOT = Path(__file__).parents[2]
_LEAF = bytes(32)


def entries(world: World) -> list[dict[str, Any]]:
    return [
        e for e in world.admin.get("/api/v1/audit/entries?limit=10000").json["items"] if e["operation"] != "bootstrap"
    ]


def test_each_operation_leaves_one_entry(world: World) -> None:
    user = world.user("user1")
    user.post("/generate_symmetric_key")
    user.post("/api/v1/keys/user1_symmetric/encrypt", {"plaintext": b64(b"x")})
    user.post("/api/v1/keys/user1_symmetric/decrypt", {"ciphertext": ""})
    user.post("/revoke_key", {"key_id": "user1_symmetric"})
    user.post("/api/v1/keys/user1_symmetric/encrypt", {"plaintext": b64(b"x")})
    user.get("/api/v1/keys")
    user.get("/metrics")
    world.http.get("/api/v1/keys")
    found = [
        (e["operation"], e["outcome"], e.get("client_id"), e.get("key_id"), e.get("version")) for e in entries(world)
    ]
    assert sorted(found, key=str) == sorted(
        [
            ("generate_symmetric_key", "success", "user1", "user1_symmetric", 1),
            ("encrypt", "success", "user1", "user1_symmetric", 1),
            ("decrypt", "decryption-failed", "user1", "user1_symmetric", None),
            ("revoke_key", "success", "user1", "user1_symmetric", None),
            ("encrypt", "key-revoked", "user1", "user1_symmetric", 1),
            ("list_keys", "success", "user1", None, None),
            ("metrics", "permission-denied", "user1", None, None),
            ("list_keys", "authentication-failed", None, None, None),
        ],
        key=str,
    )


def test_the_members_are_an_allow_list_in_a_fixed_order(world: World) -> None:
    world.user("user1").post("/generate_symmetric_key")
    order = ["v", "time", "request_id", "operation", "outcome", "source", "client_id", "key_id", "version", "target"]
    order += ["items", "refused", "recovery", "credential", "subject", "session"]
    for entry in entries(world):
        assert list(entry) == [name for name in order if name in entry]


def test_a_line_that_nests_too_deep_is_no_entry() -> None:
    line = b'{"v":1,"x":' + b"[" * 60_000 + b"]" * 60_000 + b"}"
    assert (entry_of(line), time_of(line)) == (None, "")


def test_an_entry_names_the_session_that_asked_by_its_public_id(world: World) -> None:
    user = world.user("user1")
    user.post("/generate_symmetric_key")
    user.post("/api/v1/keys/user1_symmetric/encrypt", {"plaintext": ""})
    (session,) = [each["session_id"] for each in user.get("/api/v1/clients/user1/sessions").json["items"]]
    world.http.get("/api/v1/keys")
    exchange = {"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange"}
    narrower = user.http.post("/auth/token", data=exchange, headers=user.headers).json["session_id"]
    found = [(each["operation"], each.get("session"), each.get("target")) for each in entries(world)]
    assert ("encrypt", session, None) in found
    assert ("issue_token", session, narrower) in found
    assert ("list_keys", None, None) in found  # of nobody


def test_a_change_whose_entry_cannot_be_written_does_not_happen(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kms.vault.change import Change

    def full(self: Change, entry: str) -> None:
        raise Unavailable("full")

    user = world.user("user1")
    monkeypatch.setattr(Change, "record", full)
    assert user.post("/generate_symmetric_key").status_code == 503
    monkeypatch.undo()
    assert user.get("/api/v1/keys").json["items"] == []


def test_a_use_whose_entry_cannot_be_written_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    user = world.user("user1")
    user.post("/generate_symmetric_key")
    user.post("/api/v1/keys/user1_symmetric/encrypt", {"plaintext": ""})

    def no_space(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_space)
    statuses = set()
    while 503 not in statuses:  # what was allocated already is used up first
        answer = user.post("/api/v1/keys/user1_symmetric/encrypt", {"items": [{"plaintext": ""}]})
        statuses.add(answer.status_code)
    assert statuses == {200, 503}
    assert answer.json["type"] == "/problems/unavailable"
    assert "ciphertext" not in answer.json
    monkeypatch.undo()
    assert user.post("/api/v1/keys/user1_symmetric/encrypt", {"plaintext": ""}).status_code == 200


def test_a_full_disk_is_said_once_and_the_service_is_not_ready(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    user = world.user("user1")
    user.post("/generate_symmetric_key")
    with capture_logs() as logged, pytest.MonkeyPatch.context() as lines:
        lines.setattr(log, "_lines_are_json", False)  # those do not go through the library that captures
        assert world.http.get("/livez").status_code == 200
        monkeypatch.setattr(os, "posix_fallocate", no_space)
        for _ in range(3):
            ready = world.http.get("/readyz")
            use = user.post("/api/v1/keys/user1_symmetric/encrypt", {"plaintext": ""})
            assert {ready.status_code, use.status_code} == {503}
            assert "disk full" in ready.json["detail"]
            assert "disk full" in use.json["detail"]
        monkeypatch.undo()
        assert user.post("/api/v1/keys/user1_symmetric/encrypt", {"plaintext": ""}).status_code == 200
        for _ in range(3):
            assert world.http.get("/readyz").status_code == 200
    assert [line["log_level"] for line in logged if "AUDIT LOG CANNOT" in line["event"]] == ["warning"]
    probes = [line["outcome"] for line in logged if line.get("operation") in {"livez", "readyz"}]
    assert probes == ["unavailable", "success"]  # only what is new


def test_no_entry_is_lost_when_the_file_of_a_living_worker_is_removed(world: World) -> None:
    user = world.user("user1")
    user.post("/generate_symmetric_key")
    (spool,) = world.service.settings.spool_dir.iterdir()
    before = _files_lost(world)
    for _ in range(3):
        assert user.post("/api/v1/keys/user1_symmetric/encrypt", {"plaintext": ""}).status_code == 200
    spool.unlink()
    uses = 3

    def is_written_elsewhere() -> bool:
        nonlocal uses
        uses += user.post("/api/v1/keys/user1_symmetric/encrypt", {"plaintext": ""}).status_code == 200
        return any(world.service.settings.spool_dir.iterdir())

    wait_until(is_written_elsewhere)
    assert [entry["operation"] for entry in entries(world)].count("encrypt") == uses
    assert _files_lost(world) == before + 1


def _files_lost(world: World) -> float:
    (family,) = world.service.metrics.spools_lost.collect()
    return family.samples[0].value


@pytest.mark.parametrize("how", ["moved", "replaced", "cut"])
def test_what_is_written_goes_where_it_is_looked_for(tmp_path: Path, how: str) -> None:
    lost: list[None] = []
    spool = Spool(tmp_path / "audit", fsync=True, lost=lambda: lost.append(None))
    spool.append(b'{"a":1}', _LEAF)
    (path,) = (tmp_path / "audit").iterdir()
    if how == "cut":
        os.truncate(path, 0)
    else:
        path.rename(tmp_path / "elsewhere")
        assert how == "moved" or path.write_bytes(b"") == 0
    spool.require()
    spool.append(b'{"b":2}', _LEAF)
    assert sorted(unchecked(tmp_path / "audit")) == ([b'{"a":1}'] if how != "cut" else []) + [b'{"b":2}']
    assert lost == [None]
    if how != "cut":
        assert (tmp_path / "elsewhere").read_bytes() == b'{"a":1}\n'


def test_nothing_is_written_where_no_other_file_can_be_made(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "audit", fsync=False)
    spool.append(b'{"a":1}', _LEAF)
    (tmp_path / "audit").rename(tmp_path / "elsewhere")
    (tmp_path / "audit").write_text("in the way")
    with pytest.raises(Unavailable):
        spool.require()
    wait_until(lambda: _is_refused(spool))
    (tmp_path / "audit").unlink()
    spool.append(b'{"b":2}', _LEAF)
    first, *until_it_was_noticed, last = unchecked(tmp_path / "audit")
    assert (first, last) == (b'{"a":1}', b'{"b":2}')
    assert set(until_it_was_noticed) == {b'{"lost":1}'}


def _is_refused(spool: Spool) -> bool:
    try:
        spool.append(b'{"lost":1}', _LEAF)
    except Unavailable:
        return True
    return False


def test_a_line_that_does_not_fit_leaves_no_part_behind(tmp_path: Path) -> None:
    spool = Spool(tmp_path, fsync=True)
    spool.append(b'{"a":1}', _LEAF)
    (path,) = tmp_path.iterdir()
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, unlimited[1]))
    try:
        with pytest.raises(Unavailable):
            spool.append(b'{"b":"' + b"x" * path.stat().st_size + b'"}', _LEAF)
        spool.append(b'{"c":3}', _LEAF)  # there is still room for this one
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert unchecked(tmp_path) == [b'{"a":1}', b'{"c":3}']
    spool.close()
    assert path.read_bytes() == b'{"a":1}\n{"c":3}\n'
    assert path.stat().st_mode & 0o777 == 0o600


def test_lines_are_there_after_the_process_was_killed(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys, threading; from pathlib import Path; from kms.audit.spool import Spool\n"
        "spool = Spool(Path(sys.argv[1]), fsync=False)\n"
        "def fill(name):\n"
        "    for number in range(100_000):\n"
        "        spool.append(b'{\"%s\":%d}' % (name, number), b'')\n"
        "        if number == 60_000 and name == b'b': os.kill(os.getpid(), signal.SIGKILL)\n"
        "        last = number\n"
        "threads = [threading.Thread(target=fill, args=(name,)) for name in (b'a', b'b')]\n"
        "[each.start() for each in threads]\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    (path,) = tmp_path.iterdir()
    written, _, rest = path.read_bytes().rpartition(b"\n")
    found = [json.loads(line) for line in written.split(b"\n")]
    for name in "ab":
        numbers = [line[name] for line in found if name in line]
        assert numbers == list(range(len(numbers)))
    assert found.count({"b": 60_000}) == 1
    assert len(rest.strip(b"\0")) < 100
    assert set(unchecked(tmp_path)) <= set(written.split(b"\n"))


def test_spools_of_processes_that_ended_are_closed_and_empty_ones_removed(tmp_path: Path) -> None:
    alive, empty = Spool(tmp_path, fsync=False), Spool(tmp_path, fsync=False)
    alive.append(b'{"a": 1}', _LEAF)
    empty.close()
    assert len(list(tmp_path.iterdir())) == 1
    killed = tmp_path / "spool-00000000000000000001-1.jsonl"
    killed.write_bytes(b'{"b": 2}\n{"unfinished": ' + bytes(300_000))  # as a worker that was killed leaves it
    (tmp_path / "spool-00000000000000000002-1.jsonl").write_bytes(bytes(1 << 18))
    (tmp_path / "spool-00000000000000000003-1.jsonl").write_bytes(b"")
    tidy(tmp_path)
    assert killed.read_bytes() == b'{"b": 2}\n'
    assert len(list(tmp_path.iterdir())) == 2
    alive.append(b'{"a": 3}', _LEAF)
    assert sorted(unchecked(tmp_path)) == [b'{"a": 1}', b'{"a": 3}', b'{"b": 2}']
    alive.close()
