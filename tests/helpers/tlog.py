"""A transparency log in a directory, made by the service's own functions, for tests of whoever reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kms.audit.checkpoint import Checkpoint
from kms.audit.growing import grown
from kms.audit.note import Ed25519Signer, Signer, signed
from kms.audit.tiles import Tiles

ORIGIN = "kms.example:5000/audit"


def entry(number: int) -> bytes:
    """An entry as the service writes them."""
    return (
        b'{"v":1,"time":"2026-11-24T12:%02d:%02d.000000Z","request_id":"r%d","operation":"encrypt",'
        b'"outcome":"success","source":"10.0.0.1","client_id":"alice","key_id":"orders","version":1}'
        % (number // 60 % 60, number % 60, number)
    )


class WrittenLog:
    """Grows in its directory. `size` and `root` are those of the newest checkpoint."""

    def __init__(self, directory: Path, signer: Ed25519Signer | None = None) -> None:
        self.directory = directory
        self.signer = signer or Ed25519Signer(ORIGIN, Ed25519PrivateKey.generate())
        self.key = self.signer.key
        self.tiles = Tiles.in_directory(directory)
        self.size = 0
        self.root = b""

    def grow(self, lines: Sequence[bytes], *cosigners: Signer) -> bytes:
        """Append entries; the new checkpoint."""
        self.size, self.root, files = grown(self.tiles, self.size, lines)
        for path, content in files.items():
            self.write(path, content)
        checkpoint = bytes(signed(Checkpoint(self.key.name, self.size, self.root).text, self.signer, *cosigners))
        self.write("checkpoint", checkpoint)
        return checkpoint

    def write(self, path: str, content: bytes) -> None:
        """Put a file in the log."""
        file = self.directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
