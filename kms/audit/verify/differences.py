"""How a row of entries differs from the row that the tree proves: what was changed, dropped, inserted, moved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from kms.audit.verify.findings import Kind


@dataclass(frozen=True)
class Difference:
    """One difference: place `proven` of the row that is proven, place `present` of the row that is there.

    `was` and `now` are the leaf hashes there, None where nothing was or is. `other` is the second place of the proven
    row for an entry that was moved, or two that were exchanged.
    """

    kind: Kind
    proven: int
    present: int
    was: bytes | None = None
    now: bytes | None = None
    other: int | None = None


def differences(
    proven: Sequence[bytes], present: Sequence[bytes], *, most: int, margin: int = 0
) -> tuple[list[Difference], int, int]:
    """Compare two rows of leaf hashes from the left, until `most` differences are found.

    Where more of both rows is still to come, `margin` is how far ahead it looks for an entry that stands elsewhere:
    so many are left over at the end. Returns the differences, and how much of each row was used up.
    """
    row, there = list(proven), list(present)
    places = list(range(len(there)))  # where each of `there` stands in `present`
    lacking, surplus = Counter(row) - Counter(there), Counter(there) - Counter(row)
    found: list[Difference] = []
    at = shift = 0  # `row[at]` is `proven[at + shift]`
    while len(found) < most and at < (min(len(row), len(there)) - margin if margin else max(len(row), len(there))):
        was = row[at] if at < len(row) else None
        now = there[at] if at < len(there) else None
        if was == now:
            at += 1
            continue
        place = places[at] if now is not None else len(present)
        stood_later = now is not None and not surplus[now] and now in row[at + 1 :]
        stands_later = was is not None and not lacking[was] and was in there[at + 1 :]
        if was is not None and now is not None and stood_later and stands_later:
            ahead, behind = row.index(now, at), there.index(was, at)
            if ahead == behind:
                found.append(Difference(Kind.MOVED, at + shift, place, was, now, ahead + shift))
                there[at], there[ahead] = was, now
                places[at], places[ahead] = places[ahead], place
            elif ahead < behind:
                found.append(Difference(Kind.MOVED, at + shift, places[behind], was, was, behind + shift))
                there.insert(at, there.pop(behind))
                places.insert(at, places.pop(behind))
            else:
                found.append(Difference(Kind.MOVED, ahead + shift, place, now, now, at + shift))
                there.insert(ahead, there.pop(at))
                places.insert(ahead, places.pop(at))
        elif was is None or (now is not None and stands_later and not stood_later):
            found.append(Difference(Kind.INSERTED, at + shift, place, now=now))
            surplus[there.pop(at)] -= 1
            places.pop(at)
        elif now is None or stood_later:
            found.append(Difference(Kind.DROPPED, at + shift, place, was))
            lacking[row.pop(at)] -= 1
            shift += 1
        else:
            found.append(Difference(Kind.CHANGED, at + shift, place, was, now))
            lacking[was] -= 1
            surplus[now] -= 1
            at += 1
    return found, at + shift, len(present) - (len(there) - at)
