"""Proofs that an entry is in a log, checked offline: the files of c2sp.org/tlog-proof.

A proof holds the number of the entry, the hashes from its leaf up to the root, and the checkpoint with that root.
Whoever has the entry (or its leaf hash), the log's verifier key, and those of the witnesses that count, needs nothing
else.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection
from dataclasses import dataclass

from kms.audit.checkpoint import Checkpoint, SignedCheckpoint, decimal, open_checkpoint
from kms.audit.note import MAX_NOTE_BYTES, Note, NoteMalformed, SignatureRefused, Verifier, from_base64
from kms.audit.tree import HASH_BYTES, MAX_PROOF_HASHES, Subtree, Unverified, inclusion_proof, verify_inclusion

FIRST_LINE = "c2sp.org/tlog-proof@v1"
MAX_PROOF_BYTES = MAX_NOTE_BYTES


class ProofRefused(Unverified):
    """The proof does not show that the entry is in the log."""


@dataclass(frozen=True)
class TlogProof:
    """That entry `index` is in the tree of `checkpoint`, by the hashes of `path`, from the leaf's sibling upwards.

    `extra` is opaque and not authenticated; None and empty are the same.
    """

    index: int
    path: tuple[bytes, ...]
    checkpoint: Note
    extra: bytes | None = None

    def __bytes__(self) -> bytes:
        lines = [FIRST_LINE]
        if self.extra:
            lines.append(f"extra {b64encode(self.extra).decode()}")
        lines.append(f"index {self.index}")
        lines += [b64encode(each).decode() for each in self.path]
        return "\n".join((*lines, "", "")).encode() + bytes(self.checkpoint)

    @classmethod
    def parse(cls, content: bytes) -> TlogProof:
        """Read a proof; nothing of it is checked yet. Raises NoteMalformed."""
        if len(content) > MAX_PROOF_BYTES:
            raise NoteMalformed(f"The proof has more than {MAX_PROOF_BYTES} bytes.")
        head, separator, checkpoint = content.partition(b"\n\n")
        try:
            first, *lines = head.decode().split("\n")
        except UnicodeDecodeError:
            raise NoteMalformed("The proof is not UTF-8.") from None
        if first != FIRST_LINE:
            raise NoteMalformed(f"The proof does not begin with the line {FIRST_LINE}.")
        extra = from_base64(lines.pop(0)[6:]) if lines and lines[0].startswith("extra ") else None
        if not separator or not lines or not lines[0].startswith("index "):
            raise NoteMalformed("The proof has no line with the index of the entry, or no checkpoint after it.")
        path = tuple(map(from_base64, lines[1:])) if len(lines) <= MAX_PROOF_HASHES + 1 else ()
        if len(path) != len(lines) - 1 or any(len(each) != HASH_BYTES for each in path):
            raise NoteMalformed("The proof has too many hashes, or one that does not have 32 bytes.")
        return cls(decimal(lines[0][6:]), path, Note.parse(checkpoint), extra)

    def check(
        self, leaf: bytes, key: Verifier, witnesses: Collection[Verifier] = (), *, needed: int = 0
    ) -> SignedCheckpoint:
        """Check that the log of `key` has the entry with this leaf hash, and that `needed` of the witnesses saw it.

        Raises NoteMalformed, SignatureRefused or ProofRefused.
        """
        opened = open_checkpoint(bytes(self.checkpoint), key, witnesses)
        cosigners = len({each.name for each in opened.cosigned})  # a witness may have a key of each type
        if cosigners < needed:
            raise SignatureRefused(
                f"{cosigners} of the witnesses that are known have cosigned the checkpoint, {needed} must."
            )
        found = opened.checkpoint
        if not verify_inclusion(leaf, self.index, found.size, self.path, found.root):
            raise ProofRefused(f"The proof does not show that the entry is number {self.index} of {found.origin}.")
        return opened


def proof_of(index: int, subtree: Subtree, checkpoint: Note, extra: bytes | None = None) -> TlogProof:
    """Make the proof for entry `index` in the tree of `checkpoint`. Raises ValueError if there is no such entry."""
    size = Checkpoint.parse(checkpoint.text).size
    return TlogProof(index, tuple(inclusion_proof(index, size, subtree)), checkpoint, extra)
