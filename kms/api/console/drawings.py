"""What the pages draw: places in a drawing, which templates put into SVG beside words that say the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

WIDTH = 720
_MOST_LANES = 12
_LABELS = 40
_STILL_PROTECTS = {"active", "pre-activation", "suspended"}
_BAR_HEIGHT = 56


@dataclass(frozen=True)
class Lane:
    """One version on the time line: it protects from `begins` to `protects_until`, and processes until `ends`."""

    version: int
    state: str
    y: int
    begins: float
    protects_until: float
    ends: float


@dataclass(frozen=True)
class Life:
    """The time line of a key: `now` and the years, or months, as places from left to right."""

    lanes: list[Lane]
    height: int
    now: float
    ticks: list[tuple[float, str]]
    hidden: int


def life_of(versions: Sequence[Any], created_at: datetime, now: datetime) -> Life:
    """The time line of the newest versions of a key."""
    shown = list(versions)[-_MOST_LANES:][::-1]
    begins = min([created_at if len(shown) == len(versions) else now, *(each.activate_at for each in shown), now])
    last = max((each.process_until for each in shown), default=now)
    ends = max(min(last, now + timedelta(days=365 * 6)), begins + timedelta(days=30))
    span = (ends - begins).total_seconds()

    def place(at: datetime) -> float:
        share: float = (min(max(at, begins), ends) - begins).total_seconds() / span
        return float(round(_LABELS + share * (WIDTH - _LABELS - 8), 1))

    lanes = []
    next_began = now  # of the version after it, for one that protects no longer
    for row, each in enumerate(shown):
        until = each.expires_at if str(each.state) in _STILL_PROTECTS else min(each.expires_at, next_began, now)
        drawn = place(each.activate_at), place(until), place(each.process_until)
        lanes.append(Lane(each.version, str(each.state), row * 26, *drawn))
        next_began = each.activate_at
    ticks = [(place(at), text) for at, text in _ticks(begins, ends)]
    return Life(lanes, len(lanes) * 26, place(now), ticks, len(versions) - len(shown))


def _ticks(begins: datetime, ends: datetime) -> Iterable[tuple[datetime, str]]:
    years = ends.year - begins.year
    step = max(1, years // 6)
    if years:
        for year in range(begins.year + 1, ends.year + 1, step):
            yield datetime(year, 1, 1, tzinfo=UTC), str(year)
    else:
        for month in range(begins.month + 1, ends.month + 1):
            yield datetime(begins.year, month, 1, tzinfo=UTC), f"{begins.year}-{month:02d}"


@dataclass(frozen=True)
class Bars:
    """A bar chart of an hour, a bar for each three minutes."""

    bars: list[tuple[int, float, float, int]]
    """Its place from the left, where it begins from above, its height, and the number that it stands for."""
    total: int
    most: int
    sentence: str


def bars_of(times: Iterable[datetime], now: datetime, what: str, *, minutes: int = 60) -> Bars:
    """How many of `times` there were, in equal parts of the last `minutes`."""
    parts = 20
    counts = [0] * parts
    begins = now - timedelta(minutes=minutes)
    for at in times:
        share = (at - begins) / (now - begins)
        if 0 <= share <= 1:
            counts[min(parts - 1, int(share * parts))] += 1
    most, total = max(counts), sum(counts)
    bars = []
    for place, count in enumerate(counts):
        height = round(_BAR_HEIGHT * count / most, 1) if most else 0.0
        bars.append((place * 16, round(_BAR_HEIGHT - height, 1), height, count))
    each = minutes // parts
    busiest = f" The busiest {each} minutes had {most}." if most else ""
    return Bars(bars, total, most, f"{total} {what} in the last {minutes} minutes.{busiest}")
