"""Rate limits: each operation has those of its class and no others; refusals say when to come back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from helpers.support import SteeredClock, Template, World, b64
from helpers.vault_client import Vault
from kms.api.admission import Admission
from kms.config import Settings
from kms.errors import Unavailable


@pytest.fixture
def strict(template: Template, settings: Settings, clock: SteeredClock) -> Iterator[World]:
    limits = {"rate_limit_generate": "2/hour", "rate_limit_manage": "3/hour", "rate_limit_use": "4/hour"}
    limits |= {"rate_limit_authenticate": "5/hour", "rate_limit_public": "6/hour"}
    service = template.open(msgspec.structs.replace(settings, **limits), clock)
    yield World.of(service)
    service.close()


def test_each_class_has_its_own_count(strict: World) -> None:
    user, other = strict.user("user1"), strict.user("user2")
    body = {"plaintext": b64(b"x")}
    paths = ["/generate_symmetric_key", "/generate_ecc_key"]
    generated = [user.post(paths[n % 2]) for n in range(3)]
    used = [user.post("/api/v1/keys/user1_symmetric/encrypt", body).status_code for _ in range(5)]
    managed = [user.get("/api/v1/keys").status_code for _ in range(4)]
    assert [answer.status_code for answer in generated] == [200, 200, 429]
    assert used == [200] * 4 + [429]
    assert managed == [200] * 3 + [429]
    assert other.post("/generate_symmetric_key").status_code == 200
    refused = generated[2]
    assert 0 < int(refused.headers["Retry-After"]) <= 3601
    assert refused.headers["RateLimit-Policy"] == '"generate";q=2;w=3600'
    assert refused.headers["RateLimit"].startswith('"generate";r=0;t=')
    assert refused.json["type"] == "/problems/rate-limited"


def test_attempts_to_authenticate_count_by_source(strict: World) -> None:
    headers = {"Authorization": "Basic " + b64(b"x:y"), "X-TOTP": "000000"}

    def attempt(source: str, path: str) -> int:
        answer = strict.http.post(path, headers=headers, environ_overrides={"REMOTE_ADDR": source})
        return answer.status_code

    assert [attempt("10.0.0.1", path) for path in ["/auth/token", "/revoke_key"] * 3] == [401] * 5 + [429]
    assert attempt("10.0.0.2", "/auth/token") == 401


def test_attempts_without_credentials_count_too_and_good_tokens_do_not(strict: World) -> None:
    user = strict.user("user1")
    statuses = [strict.http.get("/revocation_list").status_code for _ in range(7)]
    assert statuses == [401] * 6 + [429]
    assert strict.http.get("/revocation_list", headers={"Authorization": "Bearer x"}).status_code == 429
    assert user.get("/revocation_list").status_code == 200
    audit = b"".join(path.read_bytes() for path in strict.service.settings.spool_dir.iterdir())
    assert audit.count(b"authentication-failed") == 6


def test_public_pages_count_by_source(strict: World) -> None:
    statuses = [strict.http.get("/problems/not-found").status_code for _ in range(7)]
    assert statuses == [200] * 6 + [429]
    assert strict.http.get("/livez").status_code == 200


@pytest.mark.parametrize(("path", "status"), [("sys/health?help=1", 200), ("sys//health", 307)])
def test_what_the_vault_dialect_tells_anybody_counts_by_source(strict: World, path: str, status: int) -> None:
    anybody = Vault(strict)
    assert [anybody.read(path).status for _ in range(7)] == [status] * 6 + [429]


def test_limits_can_be_switched_off(template: Template, settings: Settings, clock: SteeredClock) -> None:
    service = template.open(msgspec.structs.replace(settings, rate_limit="off", rate_limit_manage="1/hour"), clock)
    user = World.of(service).user("user1")
    assert [user.get("/api/v1/keys").status_code for _ in range(5)] == [200] * 5
    service.close()


def test_one_client_holds_at_most_a_quarter_of_the_threads(tmp_path: Path) -> None:
    admission = Admission(threads=16)
    held, release = threading.Semaphore(0), threading.Event()

    def hold() -> None:
        with admission.of_client("a"):
            held.release()
            release.wait(10)

    threads = [threading.Thread(target=hold) for _ in range(4)]
    for thread in threads:
        thread.start()
        held.acquire()
    with pytest.raises(Unavailable), admission.of_client("a"):
        pass
    with admission.of_client("b"):
        pass
    release.set()
    for thread in threads:
        thread.join()
    with admission.of_client("a"):
        pass
    assert admission._places == {}


def test_slow_operations_hold_at_most_half_of_them() -> None:
    admission = Admission(threads=4)
    held, release = threading.Semaphore(0), threading.Event()

    def hold() -> None:
        with admission.slow():
            held.release()
            release.wait(10)

    threads = [threading.Thread(target=hold) for _ in range(2)]
    for thread in threads:
        thread.start()
        held.acquire()
    with pytest.raises(Unavailable) as refused, admission.slow():
        pass
    assert refused.value.retry_after == 2
    release.set()
    for thread in threads:
        thread.join()
    with admission.slow():
        pass


def test_short_waits_are_no_refusals() -> None:
    """Sixteen threads that each hold a slot for a moment all get one of four."""
    admission, refused = Admission(threads=16), []

    def work() -> None:
        for _ in range(200):
            try:
                with admission.of_client("a"):
                    pass
            except Unavailable:
                refused.append(1)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == []
