"""Whatever a credential is exchanged for, and that again: nothing of it works once the first one has ended."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from helpers.aws_in_process import client
from helpers.people import Person
from helpers.support import Api, SteeredClock, Template, World, settings_for
from helpers.tokens import TOKEN_EXCHANGE
from helpers.vault_client import Vault
from helpers.wsgi import answer_of, signed

STEPS = ["exchange", "child", "access key", "log in", "sts", "renew", "second factor", "wait"]
"""Every way in which something that proves a client becomes something else that does, or could live on."""
NUMBERS = itertools.count()


@dataclass
class Held:
    """What proves a client: a session, or an access key."""

    world: World
    clock: SteeredClock
    session: Api | None = None
    access: dict[str, Any] | None = None
    is_first: bool = False

    def works(self) -> bool:
        """Whether the service takes it."""
        if self.session is not None:
            return bool(self.session.get("/api/v1/keys").status_code == 200)
        assert self.access is not None
        return answer_of(self.world, signed(self.access, self.clock, "ListKeys", b"{}"), b"{}")[0] == 200

    def become(self, step: str, seconds: int, person: Person) -> tuple[Held, datetime] | None:
        """What comes of it by that step, and when that ends; None where nothing does."""
        if self.access is not None:
            return {"log in": self._log_in, "sts": self._sts}.get(step, self._nothing)(seconds)
        if step == "second factor":
            return self._confirmed(person)
        ways = {"exchange": self._exchanged, "child": self._child, "access key": self._key, "renew": self._renewed}
        return ways.get(step, self._nothing)(seconds)

    def _nothing(self, seconds: int) -> None:
        return None

    def _of_session(self, token: str, seconds: int) -> tuple[Held, datetime]:
        made = Api(self.world.http, {"Authorization": f"Bearer {token}"}, "")
        return Held(self.world, self.clock, made), self.clock() + timedelta(seconds=seconds)

    def _exchanged(self, seconds: int) -> tuple[Held, datetime] | None:
        assert self.session is not None
        form = {"grant_type": TOKEN_EXCHANGE} | ({"expires_in": str(seconds)} if seconds % 2 else {})
        answer = self.world.http.post("/auth/token", headers=self.session.headers, data=form)
        if answer.status_code != 200:
            return None
        return self._of_session(answer.json["access_token"], answer.json["expires_in"])

    def _child(self, seconds: int) -> tuple[Held, datetime] | None:
        assert self.session is not None
        answer = Vault.of(self.world, self.session).write(
            "auth/token/create", ttl=f"{seconds}s" if seconds % 2 else ""
        )
        if answer.status != 200:
            return None
        auth = answer.json["auth"]
        return self._of_session(auth["client_token"], auth["lease_duration"])

    def _key(self, seconds: int) -> tuple[Held, datetime] | None:
        assert self.session is not None
        if self.is_first:
            return None  # a person who has just given two factors gives the client another credential: no renewal
        answer = self.session.post("/api/v1/access-keys", {"expires_in": seconds} if seconds % 2 else {})
        return self._of_key(answer.json, answer.json["expires_at"]) if answer.status_code == 201 else None

    def _renewed(self, seconds: int) -> None:
        assert self.session is not None
        vault = Vault.of(self.world, self.session)
        for path in ("renew-self", "renew"):
            assert vault.write(f"auth/token/{path}", increment=f"{seconds}s").status in (400, 403)

    def _confirmed(self, person: Person) -> tuple[Held, datetime] | None:
        assert self.session is not None
        self.clock.advance(seconds=30)  # for a code that was not used
        answer = self.session.post("/auth/second-factor", {"code": person.code})
        return (self, datetime.fromisoformat(answer.json["expires_at"])) if answer.status_code == 200 else None

    def _of_key(self, access: dict[str, Any], ends: str) -> tuple[Held, datetime]:
        return Held(self.world, self.clock, access=access), datetime.fromisoformat(ends)

    def _log_in(self, seconds: int) -> tuple[Held, datetime] | None:
        assert self.access is not None
        if "session_token" in self.access:
            return None
        given = {"role_id": self.access["access_key_id"], "secret_id": self.access["secret_access_key"]}
        answer = Vault(self.world).write("auth/approle/login", **given)
        if answer.status != 200:
            return None
        auth = answer.json["auth"]
        return self._of_session(auth["client_token"], auth["lease_duration"])

    def _sts(self, seconds: int) -> tuple[Held, datetime] | None:
        more = {"DurationSeconds": max(seconds, 900)} if seconds % 2 else {}
        try:
            with patch("botocore.auth.get_current_datetime", lambda *_, **__: self.clock()):
                made = client(self.world, "sts", self.access).get_session_token(**more)["Credentials"]
        except ClientError:
            return None
        names = {
            "access_key_id": "AccessKeyId",
            "secret_access_key": "SecretAccessKey",
            "session_token": "SessionToken",
        }
        access = {name: made[theirs] for name, theirs in names.items()}
        return Held(self.world, self.clock, access=access), made["Expiration"]


@pytest.fixture(scope="module")
def steered(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, SteeredClock]]:
    """A world without rate limits, whose clock goes on from one example to the next."""
    clock = SteeredClock(datetime.now(UTC).replace(microsecond=0))  # for answers name whole seconds
    opened = template.open(settings_for(tmp_path_factory.mktemp("steered") / "data", rate_limit="off"), clock)
    yield World.of(opened), clock
    opened.close()


def first_of(kind: str, seconds: int, person: Person, clock: SteeredClock) -> tuple[Held, datetime]:
    """What the others come from, and when it ends."""
    if kind == "a person's session":
        (shown,) = person.api.get(f"/api/v1/clients/{person.client_id}/sessions").json["items"]
        return Held(person.world, clock, person.api, is_first=True), datetime.fromisoformat(shown["expires_at"])
    made = person.api.post("/api/v1/access-keys", {"expires_in": seconds})
    assert made.status_code == 201, made.text
    return Held(person.world, clock, access=made.json), datetime.fromisoformat(made.json["expires_at"])


steps = st.tuples(st.sampled_from(STEPS), st.integers(0, 99), st.integers(60, 3600))


@hypothesis_settings(max_examples=30, deadline=None)
@given(st.sampled_from(["a person's session", "an access key"]), st.integers(60, 7200), st.lists(steps, max_size=12))
def test_no_sequence_of_renewals_lives_past_the_first_end(
    steered: tuple[World, SteeredClock], kind: str, seconds: int, taken: list[tuple[str, int, int]]
) -> None:
    world, clock = steered
    person = Person.of(world, f"person{next(NUMBERS)}")
    everything = [first_of(kind, seconds, person, clock)]
    for step, which, period in taken:
        if step == "wait":
            clock.advance(seconds=period // 6)
            continue
        held, ends = everything[which % len(everything)]
        made = held.become(step, period, person)
        if made is not None:
            assert clock() < made[1] <= ends, step
            if made[0] is not held:
                everything.append(made)
    for held, ends in everything:
        assert held.works() == (clock() < ends)
    clock.now = max(clock(), everything[0][1])
    for held, _ in everything:
        assert not held.works()
        assert not any(held.become(step, 61, person) for step in STEPS[:-1])


def test_the_steps_do_make_something(steered: tuple[World, SteeredClock]) -> None:
    """Or the property above would hold of nothing."""
    world, clock = steered
    person = Person.of(world, "somebody")
    session, ends = first_of("a person's session", 0, person, clock)
    access, _ = first_of("an access key", 3600, person, clock)
    child = session.become("exchange", 601, person)
    assert child is not None and child[1] == clock() + timedelta(seconds=601) and child[0].works()
    for held, step in ((session, "child"), (child[0], "access key"), (access, "log in"), (access, "sts")):
        made = held.become(step, 1801, person)
        assert made is not None and made[0].works(), step
    confirmed = session.become("second factor", 0, person)
    assert confirmed is not None and confirmed[1] == ends
