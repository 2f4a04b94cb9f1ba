"""Taking over spools of a release that wrote no codes, as the log begins.

Anybody who can write files can make such a spool. So it is taken only while the log has no entry yet: each is written
anew, with the codes of this release, and from then on a file without codes is damage.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from kms.audit.spool_files import FIRST_LINE_BYTES, is_over, opened, spools_in
from kms.audit.spool_lines import Codes, first_line, name_in
from kms.audit.tree import leaf_hash
from kms.files import appearing


def adopt(directory: Path, key: bytes) -> None:
    """Give the lines of every spool without codes, whose process has ended, their codes. Raises OSError.

    It may be done again where it was cut off: each file is replaced in one step.
    """
    for place, path in spools_in(directory):
        file = opened(path) if place is not None and not place.begin else None
        if file is not None:
            with file:
                if is_over(file) and _is_older(file):
                    _write_anew(path, file, Codes(key, path.stem))


def _is_older(file: BinaryIO) -> bool:
    first = file.read(FIRST_LINE_BYTES)
    file.seek(0)
    return bool(first.strip(b"\0")) and name_in(first) is None


def _write_anew(path: Path, file: BinaryIO, codes: Codes) -> None:
    at = 0
    with appearing(path, replace=True) as new, open(file.fileno(), "rb", closefd=False) as lines:
        at += new.write(first_line(path.stem))
        for line in lines:
            if line.endswith(b"\n"):  # without it is what was not finished, or allocated ahead
                at += new.write(codes.coded(line[:-1], leaf_hash(line[:-1]), at) + b"\n")
