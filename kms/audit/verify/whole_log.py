"""Verifies a whole log from its files and a verifier key: all is computed again, from the entries to the root.

The log's checkpoint is what is trusted, once its signature is checked. Whatever its root does not prove is wrong, and
the first wrong entry is named. Who holds an older checkpoint also learns whether the log continues it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from kms.audit.checkpoint import Checkpoint, SignedCheckpoint, open_checkpoint
from kms.audit.log_files import CHECKPOINT, COSIGNED
from kms.audit.note import Verifier
from kms.audit.retention import dropped_up_to
from kms.audit.tiles import Tiles
from kms.audit.tree import Unverified
from kms.audit.verify.findings import Cosigned, Finding, Kind, Verdict, joined
from kms.audit.verify.judging import Hint, Judgement
from kms.audit.verify.reading import MOST_MISSING, read

Progress = Callable[[int, int], None]
"""Called with the number of entries that are done, and how many there are."""


def verify_log(
    tiles: Tiles,
    key: Verifier,
    *,
    witnesses: Iterable[Verifier] = (),
    older: Sequence[bytes] = (),
    hint: Hint | None = None,
    bundles_from: int | None = None,
    checkpoint: bytes | None = None,
    progress: Progress = lambda done, size: None,
) -> Verdict:
    """Verify the log that `tiles` reads against its checkpoint (by default the file of that name).

    The checkpoint that is kept apart for being cosigned must be one of the same log; where it is the newer one, the
    log is verified against that. `older` are checkpoints from before, as their holders kept them. Bundles that hold
    no entry from number `bundles_from` on may be missing; by default those that an entry of the log says retention
    drops. `hint` is asked only where the files do not tell which entry is wrong. What is wrong is in the verdict;
    OSError is raised where a file cannot be read.
    """
    known = list(witnesses)
    # That which is kept apart is read first, so that a log that grows meanwhile is ahead of it.
    kept, wrong = _cosigned(tiles, key, known) if checkpoint is None else (None, [])
    try:
        opened = open_checkpoint(tiles.fetch(CHECKPOINT) if checkpoint is None else checkpoint, key, known)
    except FileNotFoundError:
        return Verdict(None, (Finding(Kind.CHECKPOINT, "The log has no checkpoint."),))
    except Unverified as refused:
        return Verdict(
            None, (Finding(Kind.CHECKPOINT, f"The checkpoint of the log is not to be trusted. {refused}"),)
        )
    both = sorted((kept, opened), key=lambda each: each.checkpoint.size) if kept is not None else [opened]
    now = both[-1].checkpoint
    before, findings = _opened(older, key, now)
    before += [each.checkpoint for each in both[:-1]]
    announced = dropped_up_to(tiles, now.size)  # said by a later entry, which is verified too
    bundles_from = announced if bundles_from is None else bundles_from
    reading = read(tiles, now.size, bundles_from, progress)
    if reading.nothing_from is not None:
        found = [*wrong, *findings, _without_hashes(reading.nothing_from, now.size)]
        return Verdict(now, tuple(sorted(found, key=_order)), {}, reading.without_entries)
    judged = Judgement(tiles, now, reading, bundles_from).findings(before)
    if hint is not None and not all(each.is_exact for each in judged):
        judged = Judgement(tiles, now, reading, bundles_from, hint).findings(before)
    every = joined(sorted(wrong + findings + judged, key=_order), now.size)
    cosigned = {
        witness: Cosigned(time, each.checkpoint.size) for each in both for witness, time in each.cosigned.items()
    }
    unannounced = range(announced, max(announced, reading.without_up_to))
    return Verdict(now, tuple(every), cosigned, reading.without_entries, unannounced)


def _without_hashes(first: int, size: int) -> Finding:
    sentence = (
        f"Of the {size} entries in the checkpoint, those from {first} on have no hashes, {MOST_MISSING} tiles in a "
        "row or more: the log is cut there, or never was so large. Nothing after that was looked at, and without it "
        "nothing before it is proven."
    )
    return Finding(Kind.CUT, sentence, first, size - 1, is_exact=False)


def _cosigned(
    tiles: Tiles, key: Verifier, witnesses: Iterable[Verifier]
) -> tuple[SignedCheckpoint | None, list[Finding]]:
    """The checkpoint that is kept apart, if there is one, and what is wrong with it."""
    try:
        return open_checkpoint(tiles.fetch(COSIGNED), key, witnesses), []
    except FileNotFoundError:
        return None, []
    except Unverified as refused:
        return None, [Finding(Kind.CHECKPOINT, f"{COSIGNED} of the log is not to be trusted. {refused}")]


def _order(finding: Finding) -> tuple[bool, bool, int]:
    return finding.first is None, not finding.is_exact, finding.first or 0


def _opened(older: Sequence[bytes], key: Verifier, now: Checkpoint) -> tuple[list[Checkpoint], list[Finding]]:
    """The older checkpoints that can be compared with the tree of `now`, and what is wrong with the others."""
    before, findings = [], []
    for content in older:
        try:
            checkpoint = open_checkpoint(content, key).checkpoint
        except Unverified as refused:
            findings.append(Finding(Kind.CHECKPOINT, f"An older checkpoint is not to be trusted. {refused}"))
            continue
        if checkpoint.size <= now.size:
            before.append(checkpoint)
        else:
            sentence = f"The log is cut to {now.size} entries: an older checkpoint is of {checkpoint.size}."
            findings.append(Finding(Kind.CUT, sentence, now.size, checkpoint.size - 1))
    return before, findings
