"""A service in this process with something in every table, and questions whose answers must not change.

The process is this one because it takes a second to start a real one, and this is asked hundreds of times.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from faults.outcome import Outcome
from faults.runner import Bench
from helpers.every_table import fill
from helpers.support import Api, World, b64, settings_for
from kms.api.application import create_flask_app
from kms.config import Settings
from kms.operations import Service
from kms.server import leave
from kms.vault.opening import open_vault

_PLAINTEXT = b64(b"what was sealed before the fault")
_VOLATILE = {"request_id", "issued_at", "next_update", "jws", "instance", "ciphertext", "tracked_since"}
Question = tuple[str, str, str, Any]
"""Whose, and method, path and body."""


@dataclass
class Original:
    """A vault that is copied before each harm, and what its service answered."""

    folder: Path
    database_url: str | None
    questions: list[Question] = field(default_factory=list)
    tokens: dict[str, dict[str, str]] = field(default_factory=dict)
    answers: list[tuple[int, Any]] = field(default_factory=list)


def original(bench: Bench) -> Original:
    """Make it."""
    made = Original(bench.folder / "original", bench.databases.new_url(bench.folder))
    settings = settings_of(made.folder, made.database_url)
    with capture_logs():
        _build(made, settings)
    return made


def _build(made: Original, settings: Settings) -> None:
    service = Service.open(settings)
    fill(service.vault)
    world = World(service, create_flask_app(service).test_client())
    _make(world, made)
    made.answers = [answer_of(world, made, each) for each in made.questions]
    assert sum(status == 200 for status, _ in made.answers) >= 9, made.answers
    assert sum(status in {401, 403, 404, 409} for status, _ in made.answers) >= 5, made.answers
    service.close()
    leave(open_vault(settings))  # a copy is another host, and would wait for this one


def settings_of(folder: Path, url: str | None) -> Settings:
    """The settings of a service on that vault."""
    return settings_for(folder, database_url=url, rate_limit="off")


def _make(world: World, made: Original) -> None:
    alice, reader, gone = world.user("alice"), world.user("reader"), world.user("gone")
    ended = world.login("alice")
    for key_id in ("live", "revoked", "suspended", "leaving"):
        alice.post("/api/v1/keys", {"key_id": key_id})
    alice.post("/api/v1/keys", {"key_id": "signer", "type": "ec-p256"})
    sealed = {
        key_id: alice.post(f"/api/v1/keys/{key_id}/encrypt", {"plaintext": _PLAINTEXT}).json["ciphertext"]
        for key_id in ("live", "revoked", "suspended", "leaving")
    }
    alice.post("/api/v1/keys/live/rotate", {})
    alice.put("/api/v1/aliases/another", {"key_id": "live"})
    for key_id in ("live", "signer"):
        grant = {"subject": "client:reader", "permission": "keys:decrypt", "key_pattern": "live"}
        if key_id == "signer":
            grant |= {"permission": "keys:sign", "key_pattern": "signer"}
        grant_id = alice.post("/api/v1/grants", grant).json["grant_id"]
    alice.delete(f"/api/v1/grants/{grant_id}")
    signature = alice.post("/api/v1/keys/signer/sign", {"message": "AAAA"}).json["signature"]
    alice.post("/api/v1/keys/revoked/revoke", {})
    alice.post("/api/v1/keys/suspended/suspend", {})
    alice.delete("/api/v1/keys/leaving", {"waiting_period": "P30D"})
    world.admin.post("/api/v1/clients/gone/disable")
    ended.post("/auth/logout")
    made.tokens = {
        "alice": alice.headers, "reader": reader.headers, "gone": gone.headers, "ended": ended.headers,
        "admin": world.admin.headers,
    }  # fmt: skip
    for key_id, ciphertext in sealed.items():
        made.questions.append(("alice", "POST", f"/api/v1/keys/{key_id}/decrypt", {"ciphertext": ciphertext}))
    under_live = {"ciphertext": sealed["live"]}
    made.questions += [
        ("alice", "POST", "/api/v1/keys/another/decrypt", under_live),
        ("reader", "POST", "/api/v1/keys/live/decrypt", under_live),
        ("reader", "POST", "/api/v1/keys/signer/sign", {"message": "AAAA"}),
        ("alice", "POST", "/api/v1/keys/signer/verify", {"message": "AAAA", "signature": signature}),
        ("alice", "POST", "/api/v1/keys/signer/verify", {"message": "AAAB", "signature": signature}),
        ("alice", "POST", "/api/v1/keys/live/encrypt", {"plaintext": "AAAA"}),
        ("gone", "GET", "/api/v1/keys", None),
        ("ended", "GET", "/api/v1/keys", None),
        ("alice", "GET", "/api/v1/keys", None),
        ("alice", "GET", "/api/v1/keys/live", None),
        ("alice", "GET", "/api/v1/grants", None),
        ("alice", "GET", "/revocation_list", None),
        ("admin", "GET", "/api/v1/clients", None),
        ("reader", "GET", "/api/v1/clients", None),
    ]


def answer_of(world: World, made: Original, question: Question) -> tuple[int, Any]:
    """Status and body, without what differs each time."""
    who, method, path, body = question
    api = Api(world.http, made.tokens[who], who)
    answer = api.post(path, body) if method == "POST" else api.get(path)
    return answer.status_code, _steady(answer.json)


def _steady(body: Any) -> Any:
    if isinstance(body, dict):
        return {name: _steady(value) for name, value in body.items() if name not in _VOLATILE}
    return [_steady(each) for each in body] if isinstance(body, list) else body


def _is_part(said: Any, whole: Any) -> bool:
    """Whether `said` is `whole`, or that without some items of its lists."""
    if isinstance(said, dict) and isinstance(whole, dict):
        return said.keys() == whole.keys() and all(_is_part(said[name], whole[name]) for name in said)
    if isinstance(said, list) and isinstance(whole, list):
        rest = iter(whole)
        return all(any(_is_part(each, other) for other in rest) for each in said)
    return bool(said == whole)


def ask(world: World, made: Original, outcome: Outcome, what: str) -> bool:
    """Ask everything and compare; whether anything was refused that is answered otherwise.

    An answer where there was a refusal, another answer, and a fault of the service are wrong. An answer in which
    something is missing is `outcome.hidden`: who removes a row, or alters what it is looked up by, hides it until the
    check of the whole finds that.
    """
    is_refused = False
    for question, (status, body) in zip(made.questions, made.answers, strict=True):
        now, said = answer_of(world, made, question)
        may_hide = question[2] != "/revocation_list"  # which is compared with the head whenever it is read
        if may_hide and now == status == 200 and said != body and _is_part(said, body):
            outcome.hidden.append(what)
        elif now == 500 or (now == 200 and (now, said) != (status, body)):
            asked = " ".join(question[:3])
            outcome.find("wrong", f"{what}: {asked} answers {now} {str(said)[:300]}, and before {status}")
        elif now == 200:
            outcome.acknowledged += 1
        elif (now, said) != (status, body):
            is_refused = True
            outcome.refused += 1
    return is_refused


@contextmanager
def service_on(folder: Path, url: str | None) -> Iterator[tuple[World, list[Any]]]:
    """A service on that vault, and what it logs. Raises StartError."""
    with capture_logs() as logged:
        service = Service.open(settings_of(folder, url))
        try:
            yield World(service, create_flask_app(service).test_client()), logged  # type: ignore[misc]  # of dicts
        finally:
            service.close()


def judge_logged(logged: list[Any], outcome: Outcome, what: str) -> None:
    """No exception that nobody had foreseen, in any thread."""
    for line in logged:
        if line.get("exc_info") or line.get("log_level") == "exception":
            outcome.find("wrong", f"{what}: a stack trace: {line}")
