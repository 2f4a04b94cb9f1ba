"""A clock that was ahead and was set right: what was stored meanwhile must not keep anybody out, or in."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyotp
import pytest

from helpers.support import SteeredClock, World, b64, basic
from helpers.wsgi import answer_of, signed
from kms.access.shared_counters import SharedCounters

TOKEN = "/auth/token"
DAYS = 10


def attempt(world: World, user: Any, clock: SteeredClock, **headers: str) -> Any:
    given = headers or {"X-TOTP": pyotp.TOTP(user.totp_secret).at(int(clock().timestamp()))}
    return world.http.post(TOKEN, headers=basic("user1", user.client_secret, **given))


def test_codes_work_again(world: World, clock: SteeredClock) -> None:
    user = world.enrol("user1")
    clock.advance(days=DAYS)
    assert attempt(world, user, clock).status_code == 200
    clock.advance(days=-DAYS)
    assert attempt(world, user, clock).status_code == 200
    assert attempt(world, user, clock).status_code == 401  # each still once


def test_a_new_secret_has_no_used_code(world: World, clock: SteeredClock) -> None:
    user = world.enrol("user1")
    assert attempt(world, user, clock, **{"X-TOTP": pyotp.TOTP(user.totp_secret).at(int(clock().timestamp()) + 30)})
    secret = world.admin.post("/api/v1/clients/user1/reset-totp").json["totp_secret"]
    code = pyotp.TOTP(secret).at(int(clock().timestamp()))
    assert attempt(world, user, clock, **{"X-TOTP": code}).status_code == 200


def test_a_lock_is_never_longer_than_its_maximum(world: World, clock: SteeredClock) -> None:
    user = world.enrol("user1")
    clock.advance(days=DAYS)
    for _ in range(25):
        last = attempt(world, user, clock, **{"X-TOTP": "000000"})
        clock.advance(seconds=int(last.headers.get("Retry-After", 0)))
    attempt(world, user, clock, **{"X-TOTP": "000000"})
    clock.advance(days=-DAYS)
    locked = attempt(world, user, clock, **{"X-Recovery-Code": user.recovery_codes[0]})
    assert (locked.status_code, int(locked.headers["Retry-After"]) <= 900) == (429, True)
    clock.advance(seconds=int(locked.headers["Retry-After"]) - 1)
    assert attempt(world, user, clock).status_code == 429  # it did not begin anew
    clock.advance(seconds=1)
    assert attempt(world, user, clock, **{"X-Recovery-Code": user.recovery_codes[0]}).status_code == 200


def test_a_session_does_not_live_longer(world: World, clock: SteeredClock) -> None:
    clock.advance(days=DAYS)
    alice = world.user("alice")
    access = alice.post("/api/v1/access-keys", {"expires_in": 900}).json
    body = b"{}"
    assert alice.get("/api/v1/keys").status_code == 200
    assert answer_of(world, signed(access, clock, "ListKeys", body), body)[0] == 200
    clock.advance(days=-DAYS)
    assert alice.get("/api/v1/keys").status_code == 401
    assert answer_of(world, signed(access, clock, "ListKeys", body), body)[0] == 400
    alice = world.login("alice")
    clock.advance(minutes=-2)  # hosts differ by minutes
    assert alice.get("/api/v1/keys").status_code == 200


def test_the_last_use_moves_on(world: World, clock: SteeredClock) -> None:
    alice = world.user("alice")
    alice.post("/api/v1/keys", {"key_id": "k"})
    clock.advance(days=DAYS)
    alice = world.login("alice")
    alice.post("/api/v1/keys/k/encrypt", {"plaintext": b64(b"x")})
    world.service.last_uses.write()
    clock.advance(days=-DAYS)
    alice = world.login("alice")
    alice.post("/api/v1/keys/k/decrypt", {"ciphertext": ""})
    alice.post("/api/v1/keys/k/encrypt", {"plaintext": b64(b"x")})
    world.service.last_uses.write_if_due()  # it was put off until the clock comes there again
    used_at = alice.get("/api/v1/keys/k/last-use").json["used_at"]
    assert used_at[:10] == clock().date().isoformat()


def test_a_window_of_a_rate_limit_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counters = SharedCounters(f"kms-counters://{tmp_path / 'counters'}?processes=2")
    real = time.time_ns
    ahead = int(timedelta(days=DAYS).total_seconds() * 1e9)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: real() + ahead)
        assert [counters.incr("name", 60) for _ in range(3)] == [1, 2, 3]
    assert [counters.incr("name", 60) for _ in range(2)] == [1, 2]
    assert counters.get_expiry("name") <= time.time() + 60


def test_a_code_that_was_used_says_when_the_next_is_there(world: World, clock: SteeredClock) -> None:
    user = world.enrol("user1")
    clock.advance(seconds=30 - clock().timestamp() % 30 + 10)
    assert attempt(world, user, clock).status_code == 200
    for _ in range(20):  # it does not count towards a lock
        used = attempt(world, user, clock)
        assert (used.status_code, used.headers["Retry-After"]) == (401, "20")
        assert "in 20 s" in used.json["detail"]
    clock.advance(seconds=20)
    assert attempt(world, user, clock).status_code == 200
    wrong = world.http.post(TOKEN, headers=basic("user1", "x", **{"X-TOTP": "000000"}))
    assert "Retry-After" not in wrong.headers


def test_an_ended_session_is_told_so(world: World, clock: SteeredClock) -> None:
    alice = world.user("alice")
    clock.advance(hours=2)
    over = alice.get("/api/v1/keys").json["detail"]
    assert "session is over" in over
    assert "/auth/token" in over
    assert "code works once" not in over


@pytest.mark.parametrize(
    "spell", [str.lower, lambda code: code.replace("-", ""), lambda code: code.lower()[:4] + code[4:]]
)
def test_recovery_codes_as_people_type_them(world: World, clock: SteeredClock, spell: Any) -> None:
    user = world.enrol("user1")
    for number, status in ((0, 200), (0, 401), (1, 200)):
        code = spell(user.recovery_codes[number])
        assert attempt(world, user, clock, **{"X-Recovery-Code": code}).status_code == status
