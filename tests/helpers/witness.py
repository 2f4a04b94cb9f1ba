"""A witness of transparency logs as c2sp.org/tlog-witness has it, on loopback and over TLS."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event, Lock
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from helpers.https_server import https_server
from kms.audit.checkpoint import Checkpoint, open_checkpoint
from kms.audit.cosignature import Cosigner
from kms.audit.note import Ed25519Key
from kms.audit.tree import EMPTY_ROOT, Unverified, verify_consistency

TIME = 1_700_000_000


class Reply(NamedTuple):
    """What the witness answers."""

    status: int
    body: str = ""
    kind: str = "text/plain"


@dataclass
class TestWitness:
    """Knows the logs in `logs`, by their origins. `seen` is the newest checkpoint of each that it has cosigned.

    `asked` are the old sizes that it was told. While `held` is set it answers nothing. `forge` has it sign another
    text than the checkpoint's. It signs so many `times`.
    """

    port: int
    ca: Path
    cosigner: Cosigner = field(
        default_factory=lambda: Cosigner("witness.example/w1", Ed25519PrivateKey.generate(), lambda: TIME)
    )
    logs: dict[str, Ed25519Key] = field(default_factory=dict)
    seen: dict[str, Checkpoint] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)
    held: Event = field(default_factory=Event)
    released: Event = field(default_factory=Event)
    forge: bool = False
    times: int = 1
    _lock: Lock = field(default_factory=Lock)

    __test__ = False

    @property
    def url(self) -> str:
        """Its submission prefix."""
        return f"https://localhost:{self.port}/w1"

    def add_checkpoint(self, body: bytes) -> Reply:
        """Answer a request, in the order in which the specification checks."""
        if self.held.is_set():
            self.released.wait()
        head, _, note = body.partition(b"\n\n")
        first, *lines = head.decode().split("\n")
        old, proof = int(first.removeprefix("old ")), [b64decode(line, validate=True) for line in lines]
        with self._lock:
            self.asked.append(old)
            key = self.logs.get(note.partition(b"\n")[0].decode())
            if key is None:
                return Reply(404)
            try:
                checkpoint = open_checkpoint(note, key).checkpoint
            except Unverified:
                return Reply(403)
            if old > checkpoint.size:
                return Reply(400)
            known = self.seen.get(checkpoint.origin, Checkpoint(checkpoint.origin, 0, EMPTY_ROOT))
            if old != known.size:
                return Reply(409, f"{known.size}\n", "text/x.tlog.size")
            if old == checkpoint.size and known.root != checkpoint.root:
                return Reply(409)
            if not verify_consistency(old, known.root, checkpoint.size, checkpoint.root, proof):
                return Reply(422)
            self.seen[checkpoint.origin] = checkpoint
            text = checkpoint.text.replace("\n", "/other\n", 1) if self.forge else checkpoint.text
            return Reply(200, "".join(self.cosigner.sign(text).line for _ in range(self.times)))


@contextmanager
def witnessing(folder: Path) -> Iterator[TestWitness]:
    """A witness with a certificate of its own in `folder`."""
    folder.mkdir(exist_ok=True)

    def answer(request: BaseHTTPRequestHandler, body: bytes) -> None:
        reply = made.add_checkpoint(body) if request.path == "/w1/add-checkpoint" else Reply(404)
        content = reply.body.encode()
        request.send_response(reply.status)
        request.send_header("Content-Type", reply.kind)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    with https_server(folder, answer) as port:
        made = TestWitness(port, folder / "server.crt")
        try:
            yield made
        finally:
            made.released.set()
