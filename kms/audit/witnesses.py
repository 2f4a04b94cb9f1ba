"""Has witnesses cosign what is published, in threads of the process that folds, which waits for none of them.

A cosignature is added to the published checkpoint while that is the newest. Under load that is for a second, so the
newest checkpoint that was cosigned is also kept apart: proofs are made for it wherever it covers the entry.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import structlog

from kms.audit.checkpoint import Checkpoint
from kms.audit.cosignature import CosignatureKey
from kms.audit.log_files import CHECKPOINT, COSIGNED, exclusive, note_of, put
from kms.audit.note import Note, Signature
from kms.audit.tiles import Tiles
from kms.audit.tree import Unverified
from kms.audit.witness_client import FAULTS, Witness, WitnessRefused
from kms.config import Settings
from kms.errors import StartError, ValidationFailed
from kms.outgoing import any_place

_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_LOG = structlog.get_logger()


def witnesses_of(settings: Settings) -> list[Witness]:
    """The witnesses that the settings name. Raises StartError for what is no URL or no key of a witness."""
    urls, keys = _parts(settings.witness_urls), witness_keys_of(settings)
    if bool(urls) != bool(keys):
        raise StartError("witness_urls and witness_keys go together: where witnesses are, and what verifies them.")
    try:
        places = [any_place(f"{url.rstrip('/')}/add-checkpoint", "witness_urls") for url in urls]
    except ValidationFailed as refusal:
        raise StartError(refusal.detail) from None
    return [Witness(place, keys, settings.witness_ca) for place in places]


def witness_keys_of(settings: Settings) -> list[CosignatureKey]:
    """The keys of witnesses that the settings name. Raises StartError for what is none."""
    try:
        return [CosignatureKey.parse(each) for each in _parts(settings.witness_keys)]
    except Unverified as unverified:
        raise StartError(f"witness_keys holds verifier keys, with commas between. {unverified}") from None


def _parts(setting: str) -> list[str]:
    return [each.strip() for each in setting.split(",") if each.strip()]


@dataclass
class Witnesses:
    """Asks `witnesses` about what stands in the log's `directory`, from `start` to `stop`."""

    directory: Path
    witnesses: Iterable[Witness]
    _stopping: Event = field(default_factory=Event, init=False)

    def start(self) -> None:
        """Begin, in a thread for each witness."""
        for each in self.witnesses:
            Thread(target=self._run, args=(each,), name=f"witness {each.place.name}", daemon=True).start()

    def stop(self) -> None:
        """Ask nobody any more. What is under way ends with the process."""
        self._stopping.set()

    def _run(self, witness: Witness) -> None:
        pause, done, failing = _PAUSE_SECONDS, "", ""
        while not self._stopping.wait(pause):
            pause = _PAUSE_SECONDS
            try:
                done = self.ask(witness, done)
            except FAULTS as fault:
                if str(fault) != failing:
                    _tell(witness, fault)
                failing, pause = str(fault), _LONGEST_PAUSE_SECONDS
            except (OSError, StartError):
                _LOG.exception("a cosignature cannot be written")
                pause = _LONGEST_PAUSE_SECONDS
            else:
                if failing:
                    _LOG.warning("the witness cosigns again", witness=witness.place.name)
                failing = ""

    def ask(self, witness: Witness, done: str = "") -> str:
        """Have the published checkpoint cosigned, unless its text is the one that is `done`; returns its text.

        Raises what `FAULTS` names, OSError.
        """
        note = note_of(self.directory, CHECKPOINT)
        if note is None or note.text == done:
            return done
        try:
            signatures = witness.cosign(note, Tiles.in_directory(self.directory))
        except WitnessRefused:
            if note_of(self.directory, CHECKPOINT) != note:  # another host was first with a later one
                return done
            raise
        self._add(note, signatures)
        return note.text

    def _add(self, note: Note, signatures: list[Signature]) -> None:
        """Add cosignatures on the checkpoint in `note`, where it is still published, and where it is kept apart."""
        with exclusive(self.directory, wait=True):
            now, kept = note_of(self.directory, CHECKPOINT), self._kept(note)
            if now is not None and now.text == note.text:
                put(self.directory, CHECKPOINT, bytes(now.with_signatures(signatures)))
            if kept is not None and kept.text == note.text:
                put(self.directory, COSIGNED, bytes(kept.with_signatures(signatures)))
            elif kept is None:
                put(self.directory, COSIGNED, bytes(note.with_signatures(signatures)))

    def _kept(self, note: Note) -> Note | None:
        """What is kept apart, where it is as new as the checkpoint in `note`.

        Whoever can write the files may have put anything there. The published checkpoint is larger than all before.
        """
        try:
            kept, now = note_of(self.directory, COSIGNED), note_of(self.directory, CHECKPOINT)
            if kept is None or now is None or kept.text == note.text:
                return kept
            older, newer, newest = (Checkpoint.parse(each.text) for each in (note, kept, now))
        except Unverified:
            return None
        is_newer = newer.origin == older.origin and older.size < newer.size <= newest.size
        return kept if is_newer else None


def _tell(witness: Witness, fault: Exception) -> None:
    if isinstance(fault, WitnessRefused) and fault.is_alarming:
        _LOG.critical("A WITNESS REFUSES THE AUDIT LOG", witness=witness.place.name, reason=str(fault))
    else:
        _LOG.warning("a witness does not cosign", witness=witness.place.name, reason=str(fault))
