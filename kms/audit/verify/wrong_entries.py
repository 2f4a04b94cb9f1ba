"""Names the entries that are wrong, where the right leaf hashes are proven and the bundles say something else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kms.audit.tiles import TILE_WIDTH, Tiles
from kms.audit.tree import leaf_hashes
from kms.audit.verify.differences import Difference, differences
from kms.audit.verify.evidence import rows_of
from kms.audit.verify.findings import Finding, Glimpse, Kind, missing, numbers
from kms.audit.verify.reading import bundle_entries

MOST = 1000  # differences that are told apart: a log with more is not worth reading entry by entry
_MOST_BUNDLES = 4096  # 32 MiB of hashes
_AT_ONCE = 64  # bundles
_MARGIN = 16 * TILE_WIDTH  # if more is dropped in a row than this, it may be told as changed


class WrongEntries:
    """Collects the bundles that are wrong, from the first on, and tells what is wrong in them."""

    def __init__(self, tiles: Tiles, size: int) -> None:
        self._tiles = tiles
        self._size = size
        self._runs: list[dict[int, bytes]] = []  # of bundles side by side, with the leaf hashes that are proven
        self._kept = 0
        self._first_left_out: int | None = None

    def add(self, index: int, row: bytes) -> None:
        """Bundle `index` should have these leaf hashes, and has not."""
        if self._kept == _MOST_BUNDLES:
            self._first_left_out = self._first_left_out or index
            return
        self._kept += 1
        if not self._runs or index - 1 not in self._runs[-1]:
            self._runs.append({})
        self._runs[-1][index] = row

    def is_last(self, index: int) -> bool:
        """Whether this bundle is the last that was added."""
        return bool(self._runs) and index in self._runs[-1]

    def findings(self) -> list[Finding]:
        """What is wrong in the bundles, in the order of the entries."""
        every: list[tuple[Difference, bytes | None]] = []
        for run in self._runs:
            if len(every) < MOST:
                every += self._compared(run, MOST - len(every))
        found = [self._finding(each, entry) for each, entry in _merged(_matched(every))]
        if len(every) < MOST and self._first_left_out is None:
            return found
        last = every[-1][0].proven if len(every) >= MOST else (self._first_left_out or 0) * TILE_WIDTH
        sentence = f"From entry {last} on there may be more that is wrong."
        return [*found, Finding(Kind.CHANGED, sentence, last, self._size - 1, is_exact=False)]

    def _compared(self, run: dict[int, bytes], most: int) -> list[tuple[Difference, bytes | None]]:
        """The differences in bundles side by side, with what stands at the place, numbered as in the whole log."""
        base, behind = min(run) * TILE_WIDTH, 0
        proven: list[bytes] = []
        present: list[bytes] = []
        entries: list[bytes] = []
        found: list[tuple[Difference, bytes | None]] = []
        left = sorted(run)
        while (left or proven or present) and len(found) < most:
            for index in left[:_AT_ONCE]:
                proven += rows_of(run[index])
                read = bundle_entries(self._tiles, index, self._size, or_narrower=True) or []
                entries += read
                present += leaf_hashes(read)
            left = left[_AT_ONCE:]
            each, used, used_there = differences(
                proven, present, most=most - len(found), margin=_MARGIN if left else 0
            )
            for difference in each:
                shown = entries[difference.present] if difference.present < len(entries) else None
                moved = replace(
                    difference,
                    proven=difference.proven + base,
                    present=difference.present + behind,
                    other=None if difference.other is None else difference.other + base,
                )
                found.append((moved, shown if difference.kind is not Kind.DROPPED else None))
            base, behind = base + used, behind + used_there
            proven, present, entries = proven[used:], present[used_there:], entries[used_there:]
            if not left:
                break
        return found

    def _finding(self, difference: Difference, entry: bytes | None) -> Finding:
        first, last = difference.proven, difference.other or difference.proven
        glimpse = Glimpse.of(entry) if entry is not None else None
        match difference.kind:
            case Kind.MOVED:
                assert difference.other is not None
                how = "stands at" if difference.was == difference.now else "was exchanged with"
                sentence = f"Entry {first} {how} {difference.other}."
                return Finding(Kind.MOVED, sentence, first, first, glimpse=glimpse, moved_to=difference.other)
            case Kind.INSERTED:
                sentence = f"{_count(last - first + 1)} inserted before entry {first}."
                return Finding(Kind.INSERTED, sentence, first, first, glimpse=glimpse)
            case Kind.DROPPED:
                return missing(first, last, self._size)
            case _:
                sentence = f"{numbers(first, last).capitalize()} {'was' if first == last else 'were'} changed."
                return Finding(Kind.CHANGED, sentence, first, last, glimpse=glimpse)


def _count(many: int) -> str:
    return "An entry was" if many == 1 else f"{many} entries were"


def _matched(every: Sequence[tuple[Difference, bytes | None]]) -> list[tuple[Difference, bytes | None]]:
    """Find what stands in another bundle far away: it was moved, or two were exchanged."""
    appeared = {each.now: each for each, _ in every if each.kind in {Kind.CHANGED, Kind.INSERTED}}
    gone: set[int] = set()
    found = []
    for each, entry in every:
        there = appeared.get(each.was) if each.was is not None else None
        if id(each) in gone:
            continue
        if each.kind in {Kind.CHANGED, Kind.DROPPED} and there is not None and there is not each:
            is_exchange = each.kind is there.kind is Kind.CHANGED and each.now == there.was
            if is_exchange or (each.kind, there.kind) == (Kind.DROPPED, Kind.INSERTED):
                gone.add(id(there))
                place = there.proven - (not is_exchange and there.proven > each.proven)  # it left a gap before
                each = replace(each, kind=Kind.MOVED, now=each.now or each.was, other=place)
        found.append((each, entry))
    return [(each, entry) for each, entry in found if id(each) not in gone]


def _merged(every: Sequence[tuple[Difference, bytes | None]]) -> list[tuple[Difference, bytes | None]]:
    """Join what lies side by side: `other` is then the last entry, or for what was inserted as many further on."""
    merged: list[tuple[Difference, bytes | None]] = []
    for each, entry in every:
        if merged and each.kind is not Kind.MOVED:
            before, shown = merged[-1]
            last = before.proven if before.other is None else before.other
            is_next = each.proven == (before.proven if each.kind is Kind.INSERTED else last + 1)
            if before.kind is each.kind and is_next:
                merged[-1] = replace(before, other=last + 1), shown
                continue
        merged.append((each, entry))
    return merged
