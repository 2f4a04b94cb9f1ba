"""Whether other users can reach a mounted secret, although its mode would let them read it.

Kubernetes and Docker mount secrets with mode 0644 or 0444: they are protected by the mount, not by their mode.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
_SECRETS = Path("/run/secrets")


def is_out_of_reach(
    path: Path,
    mounts: Path = _MOUNTS,
    environ: Mapping[str, str] = os.environ,
    marks: Sequence[Path] = _CONTAINER_MARKS,
) -> bool:
    """Whether `path` is on a mount that only root and the user of this process can reach.

    That is the case if a directory above the mount is closed to all others. In a container, which has no other users,
    it is also the case if the mount is read-only or one for secrets. Raises OSError.
    """
    real = path.resolve(strict=True)
    point, options = _mount_of(real, mounts.read_text(errors="surrogateescape"))
    if point == Path("/"):
        return False
    if any(_is_closed(directory) for directory in (point, *point.parents) if directory.is_dir()):
        return True
    in_container = "KUBERNETES_SERVICE_HOST" in environ or any(mark.exists() for mark in marks)
    return in_container and ("ro" in options or point == _SECRETS or _SECRETS in point.parents)


def _is_closed(directory: Path) -> bool:
    status = directory.stat()
    return not status.st_mode & stat.S_IXOTH and status.st_uid in {0, os.geteuid()}


def _mount_of(real: Path, mounts: str) -> tuple[Path, set[str]]:
    """The mount point that `real` is below, and how it is mounted. The last one mounted on a point covers others."""
    point, options = Path("/"), ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        found = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4]))  # a blank is \\040
        if (found == real or found in real.parents) and len(found.parts) >= len(point.parts):
            point, options = found, fields[5]
    return point, set(options.split(","))
