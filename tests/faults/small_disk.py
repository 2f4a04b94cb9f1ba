"""A file system of a few MiB, which can be filled and emptied. Only root can mount one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from faults.outcome import Skipped

_SIZES = (1 << 20, 4096, 1)
_PATIENCE_SECONDS = 30


class SmallDisk:
    """A mounted tmpfs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leave not a byte."""
        with self._filler.open("ab", buffering=0) as file:
            for size in _SIZES:
                with contextlib.suppress(OSError):
                    while file.write(b"x" * size):
                        pass

    def empty(self) -> None:
        """Give the space back."""
        self._filler.unlink(missing_ok=True)

    def protect(self) -> None:
        """Let nobody write there, not even root. It waits until no file is open for writing."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while self._remounted("ro"):
            if time.monotonic() > deadline:
                raise TimeoutError("the small disk cannot be made read-only")

    def release(self) -> None:
        """Let everybody write again."""
        assert not self._remounted("rw")

    def _remounted(self, how: str) -> int:
        command = ["mount", "-o", f"remount,{how}", str(self.folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode


@contextlib.contextmanager
def small_disk(folder: Path, mebibytes: int, mode: str = "700") -> Iterator[SmallDisk]:
    """Mount one at `folder`, which is made, for the block. Raises Skipped."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode={mode}", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        raise Skipped("only root can mount a small file system, and not everywhere")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
