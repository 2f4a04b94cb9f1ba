"""A progress bar on stderr for what takes longer than a second, where somebody looks at it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

_AFTER_SECONDS = 1.0


@contextmanager
def progress(about: str, total: int | None, *, in_bytes: bool = True) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number of bytes done since the last call, out of `total` (None: unknown).

    Without `in_bytes` it counts something else. The bar is removed at the end.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    counts = (DownloadColumn(), TransferSpeedColumn()) if in_bytes else (MofNCompleteColumn(),)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *counts,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task, began, is_shown = bar.add_task(about, total=total), time.monotonic(), False

    def advance(count: int) -> None:
        nonlocal is_shown
        bar.advance(task, count)
        if not is_shown and time.monotonic() > began + _AFTER_SECONDS:
            is_shown = True
            bar.start()

    try:
        yield advance
    finally:
        bar.stop()
