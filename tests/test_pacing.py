"""Background work leaves most of the time to others, and never sleeps for long."""

from __future__ import annotations

import time

import pytest

from kms.pacing import Pace


@pytest.mark.parametrize(("worked", "waits"), [(0.02, 0.18), (60.0, 5.0)])
def test_it_waits_nine_times_what_a_tenth_took_and_at_most_five_seconds(
    worked: float, waits: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, slept = [1000.0], list[float]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", slept.append)
    pace = Pace(10)
    for _ in range(2):
        now[0] += worked
        pace()
    assert slept == pytest.approx([waits, waits])
