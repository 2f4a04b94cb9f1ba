"""Questions whose right answers are known, asked of a service whose files were harmed."""

from __future__ import annotations

from dataclasses import dataclass, field

from faults.connection import Connection, Reply, Unanswered
from faults.outcome import Outcome
from faults.site import Site
from helpers.support import b64

_PLAINTEXT = b64(b"what was sealed before the fault")


@dataclass
class Witness:
    """A client with a key that is in force, one that is revoked and one that is suspended.

    `prepare` makes them, `take_away` revokes and suspends: between the two is the time that an old copy is of.
    `made` are keys whose creation was acknowledged since.
    """

    site: Site
    outcome: Outcome
    token: str = ""
    sealed: dict[str, str] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    _numbers: int = 0

    def prepare(self) -> None:
        """Make the keys, and a message sealed under each."""
        self.token = self.site.user("alice")
        connection = Connection(self.site, self.token)
        for key_id in ("live", "revoked", "suspended"):
            assert connection.ask("POST", "/api/v1/keys", {"key_id": key_id}).is_success
            reply = connection.ask("POST", f"/api/v1/keys/{key_id}/encrypt", {"plaintext": _PLAINTEXT})
            self.sealed[key_id] = reply.body["ciphertext"]
        connection.close()

    def take_away(self) -> None:
        """Revoke one key and suspend another."""
        connection = Connection(self.site, self.token)
        for key_id, act in (("revoked", "revoke"), ("suspended", "suspend")):
            assert connection.ask("POST", f"/api/v1/keys/{key_id}/{act}", {}).is_success
        connection.close()

    def ask(self, may_be_gone: bool = False) -> bool:
        """Ask about each key once, on a connection of its own; whether the key in force could be used.

        `may_be_gone`: whether an answer may be that there is no such key, or no such session.
        """
        is_used = False
        for key_id, ciphertext in self.sealed.items():
            reply = self._ask("POST", f"/api/v1/keys/{key_id}/decrypt", {"ciphertext": ciphertext})
            if reply is None:
                continue
            if reply.is_success:
                is_right = key_id == "live" and reply.body["plaintext"] == _PLAINTEXT
                if not is_right:
                    self.outcome.find("wrong", f"decrypt under the {key_id} key: {reply.body}")
                self.outcome.acknowledged += 1
                is_used |= is_right
            else:
                self._refused(reply, {503, 403, 409} if key_id != "live" else {503}, may_be_gone, f"use of {key_id}")
        return is_used

    def make(self, may_be_gone: bool = False) -> bool:
        """Make a key; whether that was acknowledged."""
        self._numbers += 1
        key_id = f"made-{self._numbers}"
        reply = self._ask("POST", "/api/v1/keys", {"key_id": key_id})
        if reply is None:
            return False
        if reply.is_success:
            self.made.append(key_id)
            self.outcome.acknowledged += 1
            return True
        self._refused(reply, {503}, may_be_gone, "create")
        return False

    def find_made(self) -> None:
        """Everything that was acknowledged is there and can be used."""
        for key_id in self.made:
            reply = self._ask("POST", f"/api/v1/keys/{key_id}/encrypt", {"plaintext": "AAAA"})
            if reply is None or not reply.is_success:
                self.outcome.find("lost", f"{key_id} was acknowledged: {reply and (reply.status, reply.body)}")

    def _ask(self, method: str, path: str, body: object) -> Reply | None:
        connection = Connection(self.site, self.token, timeout=40)
        try:
            return connection.ask(method, path, body)
        except Unanswered:
            self.outcome.unanswered += 1
            return None
        finally:
            connection.close()

    def _refused(self, reply: Reply, plain: set[int], may_be_gone: bool, what: str) -> None:
        if reply.status in plain or (may_be_gone and reply.status in {401, 404}):
            self.outcome.refused += 1
        else:
            self.outcome.find("wrong", f"{what}: {reply.status} {str(reply.body)[:300]}")
