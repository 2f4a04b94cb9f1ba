"""Asks one witness to cosign a checkpoint, by the C2SP witness protocol (c2sp.org/tlog-witness)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from http.client import HTTPResponse
from pathlib import Path
from typing import NamedTuple

from kms import outgoing
from kms.audit.checkpoint import Checkpoint, decimal
from kms.audit.cosignature import CosignatureKey, add_checkpoint_request
from kms.audit.note import Note, NoteMalformed, Signature, SignatureRefused, signature_lines
from kms.audit.tiles import Tiles
from kms.audit.tree import Unverified, consistency_proof
from kms.outgoing import Place, Unreachable

SECONDS = 5.0
_MOST_READ = 65_536
_OK, _CONFLICT, _UNPROCESSABLE = 200, 409, 422
_SIZE = "text/x.tlog.size"


class WitnessRefused(Exception):
    """The witness does not cosign. `is_alarming` where it has seen a log that this one does not continue."""

    def __init__(self, reason: str, *, is_alarming: bool = False) -> None:
        super().__init__(reason)
        self.is_alarming = is_alarming


class _Answer(NamedTuple):
    status: int
    kind: str
    body: str


@dataclass
class Witness:
    """The witness at `place`. Signatures count that one of `keys` has made.

    `cosigned` is the size that it has cosigned last, as far as this process knows.
    """

    place: Place
    keys: Collection[CosignatureKey]
    ca: Path | None = None
    seconds: float = SECONDS
    cosigned: int = field(default=0, init=False)

    def cosign(self, note: Note, tiles: Tiles) -> list[Signature]:
        """The cosignatures of the witness on this checkpoint, verified.

        Raises WitnessRefused or Unreachable; Unverified where the log itself cannot be read.
        """
        checkpoint = Checkpoint.parse(note.text)
        old = min(self.cosigned, checkpoint.size)
        answer = self._ask(note, tiles, old)
        if answer.status == _CONFLICT and answer.kind == _SIZE:
            known = decimal(answer.body.removesuffix("\n"))
            if known > checkpoint.size:
                reason = f"it has seen {known} entries of this log, which has {checkpoint.size}"
                raise WitnessRefused(reason, is_alarming=True)
            if known != old:
                old = known
                answer = self._ask(note, tiles, old)
        if answer.status != _OK:
            # A witness that is asked for the size that it has answers a conflict where it has another root.
            is_fork = answer.status == _UNPROCESSABLE or (answer.status == _CONFLICT and old == checkpoint.size)
            reason = "it has seen another history of this log" if is_fork else f"it answered {answer.status}"
            raise WitnessRefused(reason, is_alarming=is_fork)
        signatures = self._verified(note.text, answer.body)
        self.cosigned = checkpoint.size
        return signatures

    def _ask(self, note: Note, tiles: Tiles, old: int) -> _Answer:
        size = Checkpoint.parse(note.text).size
        body = add_checkpoint_request(old, consistency_proof(old, size, tiles.at(size)), note)
        head = (
            f"POST {self.place.target} HTTP/1.1\r\nHost: {self.place.name.removesuffix(':443')}\r\n"
            f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\nAccept-Encoding: identity\r\n"
            "User-Agent: kms\r\nConnection: close\r\n\r\n"
        )
        return outgoing.exchange(
            self.place,
            head.encode("ascii") + body,
            _read,
            seconds=self.seconds,
            most=_MOST_READ,
            ca=self.ca,
            ca_setting="KMS_WITNESS_CA",
        )

    def _verified(self, text: str, lines: str) -> list[Signature]:
        """The newest signature of each known key. Raises WitnessRefused if one is wrong, or there is none."""
        known = {(key.name, key.key_id): key for key in self.keys}
        found: dict[CosignatureKey, tuple[int, Signature]] = {}
        try:
            for each in signature_lines(lines):
                key = known.get((each.name, each.key_id))
                if key is not None:
                    time = key.verify(text, each.value) or 0
                    if key not in found or time > found[key][0]:
                        found[key] = time, each
        except (NoteMalformed, SignatureRefused) as wrong:
            raise WitnessRefused(f"what it signed is not right: {wrong}") from None
        if not found:
            raise WitnessRefused("it signs with a key that KMS_WITNESS_KEYS does not name")
        return [signature for _, signature in found.values()]


def _read(response: HTTPResponse) -> _Answer:
    kind = response.getheader("Content-Type", "").partition(";")[0].strip().lower()
    try:
        return _Answer(response.status, kind, response.read(_MOST_READ).decode())
    except UnicodeDecodeError:
        raise Unreachable("its answer is not UTF-8") from None


FAULTS = (WitnessRefused, Unreachable, Unverified)
"""What keeps a witness from cosigning."""
