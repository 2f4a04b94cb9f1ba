"""Runs programs as a user without any rights, also where only root can reach the Python that runs the tests.

Then a mount namespace of its own has the folders of Python in reach.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOBODY = 65534
_DROP = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--bounding-set=-all", "--"]
_IN_NAMESPACE = """
set -eu
umask 022
stash=$(mktemp -d)
for each in $NEEDED; do mkdir -p "$stash$each"; mount --bind "$each" "$stash$each"; done
for each in $CLOSED; do mount -t tmpfs -o mode=755 none "$each"; done
for each in $NEEDED; do mkdir -p "$each"; mount --move "$stash$each" "$each"; done
if [ "$HIDE" ]; then mount -t proc -o hidepid=invisible none /proc; fi
find "$stash" -depth -type d -empty -delete
exec "$@"
"""


def command(program: list[str], *, hide_others: bool = False) -> list[str]:
    """What runs `program` as nobody, or as who runs the tests where that is not root.

    `hide_others`: it does not see other processes that it cannot trace, as with systemd's ProtectProc=invisible.
    Skips the test where that cannot be done.
    """
    whole = _command(program, hide_others)
    if not _works(hide_others):
        pytest.skip("no program can be run here as a user without rights")
    return whole


@cache
def _works(hide_others: bool) -> bool:
    try:
        probe = _command([sys.executable, "-c", "import kms.errors"], hide_others)
        return subprocess.run(probe, cwd=ROOT, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _command(program: list[str], hide_others: bool) -> list[str]:
    if os.getuid() != 0:
        return ["false"] if hide_others else program
    needed = {str(path) for path in map(Path, (sys.base_prefix, sys.prefix, ROOT)) if _closed_above(path)}
    if not needed and not hide_others:
        return [*_DROP, *program]
    closed = {str(_closed_above(Path(path))) for path in needed}
    given = [
        f"NEEDED={' '.join(sorted(needed))}",
        f"CLOSED={' '.join(closed)}",
        f"HIDE={'yes' if hide_others else ''}",
    ]
    script = ["env", *given, "unshare", "--mount", "sh", "-c", _IN_NAMESPACE, "sh"]
    return [*script, "env", "-u", "NEEDED", "-u", "CLOSED", "-u", "HIDE", *_DROP, *program]


def _closed_above(path: Path) -> Path | None:
    """The outermost folder above `path` that others cannot pass."""
    return next((each for each in reversed(path.parents) if not each.stat().st_mode & 0o001), None)


def folder(made: Path) -> Path:
    """Give `made`, and what is in it, to whom `command` runs programs as."""
    if os.getuid() == 0:
        for each in (made, *made.rglob("*")):
            shutil.chown(each, NOBODY, NOBODY)
    return made
