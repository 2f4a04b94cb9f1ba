"""The proof that a revocation is an entry of the audit log, checked offline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from kms.audit.checkpoint import Checkpoint, open_checkpoint
from kms.audit.cosignature import CosignatureKey
from kms.audit.note import Ed25519Key, NoteMalformed, SignatureRefused
from kms.audit.proof import MAX_PROOF_BYTES, ProofRefused, TlogProof
from kms.audit.tree import Unverified
from kms.cli import show
from kms.cli.failing import NOT_AUTHENTIC, Failure
from kms.cli.verifier_keys import log_key_in, witness_key_in
from kms.client.revocations import Revocation
from kms.files import fault_of


@dataclass(frozen=True)
class Receipts:
    """Proofs in the file or folder `path`, of the log with the verifier key `key`.

    Each of `witnesses` must have cosigned the checkpoint to which a proof leads. `kept` is the one that it must lead
    to, if there is one.
    """

    path: Path
    key: Ed25519Key
    witnesses: Sequence[CosignatureKey] = ()
    kept: Checkpoint | None = None

    @classmethod
    def of(cls, path: Path, key: str, witnesses: Sequence[str], checkpoint: Path | None) -> Receipts:
        """What the options say: keys as text or as names of files. Raises Failure, click.ClickException."""
        parsed = log_key_in(key)
        of_witnesses = [witness_key_in(each) for each in witnesses]
        try:
            kept = open_checkpoint(_read(checkpoint), parsed).checkpoint if checkpoint is not None else None
        except Unverified as unverified:
            raise Failure(f"{checkpoint}: {show.plain(str(unverified))}", NOT_AUTHENTIC) from None
        return cls(path, parsed, of_witnesses, kept)

    def tell(self, entry: Revocation) -> None:
        """Print where in the log the audit entry of this revocation is. Raises Failure if nothing proves that."""
        leaf = entry.leaf
        if leaf is None:
            raise Failure(
                f"Entry {entry.serial} of the list names no audit entry; an older release has made it.", NOT_AUTHENTIC
            )
        why: Unverified | None = None
        needed = len({each.name for each in self.witnesses})
        for proof in self._proofs():
            try:
                opened = proof.check(leaf, self.key, self.witnesses, needed=needed)
            except (NoteMalformed, SignatureRefused, ProofRefused) as unverified:
                why = unverified
                continue
            self._require_kept(opened.checkpoint)
            click.echo(
                f"Entry {entry.serial} of the list is made by entry {proof.index} of the audit log "
                f"{show.plain(opened.checkpoint.origin)}, as of its {opened.checkpoint.size} entries "
                f"(leaf {entry.audit_leaf})."
            )
            return
        reason = f" {show.plain(str(why))}" if why is not None and self.path.is_file() else ""
        raise Failure(
            f"{self.path} does not prove that the revocation is in the audit log.{reason} "
            f"Ask for the proof: kms audit receipt {entry.audit_leaf}",
            NOT_AUTHENTIC,
        )

    def _require_kept(self, found: Checkpoint) -> None:
        if self.kept is None or found == self.kept:
            return
        if found.size == self.kept.size:
            raise Failure(
                f"The proof leads to another log than the checkpoint: both have {found.size} entries, their roots "
                "differ.",
                NOT_AUTHENTIC,
            )
        raise Failure(
            f"The proof leads to the log as of {found.size} entries, the checkpoint has {self.kept.size}. Show with "
            "`kms audit verify --checkpoint` that the log continues the older of them, or give the checkpoint in the "
            "proof."
        )

    def _proofs(self) -> Iterator[TlogProof]:
        for path in sorted(self.path.iterdir()) if self.path.is_dir() else [self.path]:
            if path.is_file() and (path == self.path or path.stat().st_size <= MAX_PROOF_BYTES):
                try:
                    yield TlogProof.parse(_read(path))
                except Unverified as unverified:
                    if path == self.path:
                        raise Failure(f"{path}: {show.plain(str(unverified))}", NOT_AUTHENTIC) from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_PROOF_BYTES + 1)  # what is longer is refused where it is parsed
    except OSError as error:
        raise click.ClickException(f"{path} cannot be read: {fault_of(error)}.") from None
