"""The service's clock an hour and a year ahead and behind, and back: keys, sessions, codes and leases hold.

The real processes run with a library before libc that shifts their wall clock by what a file says (steered_clock.c);
clocks that only go forward are not touched.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyotp

from faults.connection import Connection, Reply, Unanswered
from faults.judge import judge_log
from faults.outcome import Outcome, Skipped
from faults.runner import Bench, Fault
from faults.site import Site

_HOUR, _YEAR = 3600, 365 * 86_400
_LITTLE_MORE = 90
OFFSETS = {
    "an hour ahead": _HOUR + _LITTLE_MORE,
    "an hour behind": -_HOUR - _LITTLE_MORE,
    "a year ahead": _YEAR + _LITTLE_MORE,
    "a year behind": -_YEAR - _LITTLE_MORE,
}
_SOURCE = Path(__file__).with_name("steered_clock.c")
_PLAINTEXT = "AAAA"


@dataclass
class Steered:
    """A service whose clock is `offset` seconds from the real one."""

    site: Site
    outcome: Outcome
    file: Path
    offset: int = 0
    alice: dict[str, Any] = field(default_factory=dict)
    sealed: dict[str, str] = field(default_factory=dict)

    def set_clock(self, offset: int) -> None:
        """Steer it, and wait until its processes have noticed."""
        self.offset = offset
        self.file.write_text(f"{offset:+d}\n")
        time.sleep(1.5)

    def code(self) -> str:
        """The six digits of now, by its clock."""
        return str(pyotp.TOTP(self.alice["totp_secret"]).at(int(time.time()) + self.offset))

    def login(self, code: str) -> Reply:
        """Log alice in."""
        answer = self.site.curl(
            "POST", "/auth/token", None, "-u", f"alice:{self.alice['client_secret']}", "-H", f"X-TOTP: {code}",
            token="",
        )  # fmt: skip
        return Reply(answer.status, answer.json, "")

    def post(self, token: str, path: str, body: Any) -> Reply:
        """One request on a connection of its own."""
        connection = Connection(self.site, token)
        try:
            return connection.ask("POST", path, body)
        except Unanswered:
            return Reply(0, "no answer", "")
        finally:
            connection.close()

    def expect(self, what: str, reply: Reply, *statuses: int) -> None:
        """Count an answer, which must have one of these statuses."""
        self.outcome.acknowledged += reply.is_success
        self.outcome.refused += not reply.is_success
        if reply.status not in statuses:
            self.outcome.find("wrong", f"{what}: {reply.status} {str(reply.body)[:200]}, and not {statuses}")


def clocks(bench: Bench) -> Outcome:
    """Each of the offsets in turn, and the right time again after each."""
    outcome, file = Outcome(), bench.folder / "clock"
    file.write_text("+0\n")
    environ = {"LD_PRELOAD": str(_built(bench.folder)), "STEERED_CLOCK": str(file), "KMS_LOG_LEVEL": "error"}
    url = bench.databases.new_url(bench.folder)
    site = Site.build(bench.folder / "service", url, workers=2, **environ)
    site.environ = {name: value for name, value in site.environ.items() if name not in environ}  # not for curl
    steered = Steered(site, outcome, file)
    try:
        _prepare(steered)
        session = _logged_in(steered, "before")
        for name, offset in list(OFFSETS.items())[: bench.rounds]:
            outcome.tries += 1
            _away(steered, name, offset, session)
            session = _back(steered, name)
    finally:
        site.end()
    judge_log(site, outcome)
    return outcome


def _built(folder: Path) -> Path:
    """The library. Raises Skipped."""
    library = folder / "steered_clock.so"
    if shutil.which("cc") is None:
        raise Skipped("there is no C compiler; .ci/install-services installs one")
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, _SOURCE], check=True)
    return library


def _prepare(steered: Steered) -> None:
    steered.alice = steered.site.enrol("alice")
    token = _logged_in(steered, "at first")
    for key_id, cryptoperiod in (("long", "P365D"), ("short", "PT30M"), ("revoked", "P365D"), ("suspended", "P365D")):
        made = steered.post(token, "/api/v1/keys", {"key_id": key_id, "cryptoperiod": cryptoperiod})
        steered.expect(f"create {key_id}", made, 201)
        reply = steered.post(token, f"/api/v1/keys/{key_id}/encrypt", {"plaintext": _PLAINTEXT})
        steered.sealed[key_id] = reply.body["ciphertext"]
    steered.expect("revoke", steered.post(token, "/api/v1/keys/revoked/revoke", {}), 200)
    steered.expect("suspend", steered.post(token, "/api/v1/keys/suspended/suspend", {}), 200)


def _logged_in(steered: Steered, when: str) -> str:
    """A session by a code of now, which then does not work again."""
    deadline = time.monotonic() + 95
    while True:
        code = steered.code()
        reply = steered.login(code)
        if reply.is_success or time.monotonic() > deadline:
            break
        time.sleep(2)  # the code of these 30 seconds was used
    steered.expect(f"log-in {when}", reply, 200)
    steered.expect(f"the same code again {when}", steered.login(code), 401, 429)
    return str(reply.body.get("access_token", "")) if isinstance(reply.body, dict) else ""


def _away(steered: Steered, name: str, offset: int, earlier: str) -> None:
    steered.set_clock(offset)
    began = time.monotonic()
    steered.site.wait_ready()
    steered.outcome.recovery.append(time.monotonic() - began)
    steered.expect(f"{name}: a session from before", _encrypt(steered, earlier, "long"), 401)
    session = _logged_in(steered, name)
    _keys_hold(steered, name, session)
    _revocation_is_at_once(steered, name, session)


def _keys_hold(steered: Steered, name: str, session: str) -> None:
    is_ahead, is_year = steered.offset > 0, abs(steered.offset) > _YEAR
    # A year on, the cryptoperiod is over; before it began, a key may wait for its time, or not.
    of_long = (403,) if is_ahead and is_year else (200,) if is_ahead else (200, 403, 409)
    steered.expect(f"{name}: encrypt", _encrypt(steered, session, "long"), *of_long)
    if is_ahead:
        steered.expect(f"{name}: encrypt after half an hour", _encrypt(steered, session, "short"), 403)
    for key_id in ("revoked", "suspended"):
        steered.expect(f"{name}: encrypt, {key_id}", _encrypt(steered, session, key_id), 403, 409)
        steered.expect(f"{name}: decrypt, {key_id}", _decrypt(steered, session, key_id), 403, 409)
    opened = _decrypt(steered, session, "long")
    steered.expect(f"{name}: decrypt", opened, *((200,) if is_ahead else (200, 403, 409)))
    if opened.is_success and opened.body["plaintext"] != _PLAINTEXT:
        steered.outcome.find("wrong", f"{name}: another plaintext")


def _revocation_is_at_once(steered: Steered, name: str, session: str) -> None:
    """The lease does not go by this clock: what is revoked is refused by every worker."""
    key_id = name.replace(" ", "-")
    steered.expect(f"{name}: create", steered.post(session, "/api/v1/keys", {"key_id": key_id}), 201)
    steered.expect(f"{name}: use", _encrypt(steered, session, key_id), 200)
    steered.expect(f"{name}: revoke", steered.post(session, f"/api/v1/keys/{key_id}/revoke", {}), 200)
    for _ in range(10):
        steered.expect(f"{name}: use after the revocation", _encrypt(steered, session, key_id), 403)


def _back(steered: Steered, name: str) -> str:
    """The right time again: what was made meanwhile is no longer good where it was ahead, and one can log in."""
    during = _logged_in(steered, f"{name}, once more") if steered.offset > 0 else ""
    code = steered.code()
    steered.set_clock(0)
    if during:
        steered.expect(f"after {name}: a session of then", _encrypt(steered, during, "long"), 401)
    steered.expect(f"after {name}: a code of then", steered.login(code), 401, 429)
    session = _logged_in(steered, f"after {name}")
    steered.expect(f"after {name}: encrypt", _encrypt(steered, session, "long"), 200)
    steered.expect(f"after {name}: revoked", _encrypt(steered, session, "revoked"), 403)
    steered.expect(f"after {name}: suspended", _encrypt(steered, session, "suspended"), 409)
    return session


def _encrypt(steered: Steered, token: str, key_id: str) -> Reply:
    return steered.post(token, f"/api/v1/keys/{key_id}/encrypt", {"plaintext": _PLAINTEXT})


def _decrypt(steered: Steered, token: str, key_id: str) -> Reply:
    return steered.post(token, f"/api/v1/keys/{key_id}/decrypt", {"ciphertext": steered.sealed[key_id]})


FAULTS = [Fault("clock", "the clock an hour and a year ahead and behind, and right again", clocks, full=4)]
