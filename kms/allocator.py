"""Has large blocks of memory go back to the system when they are freed, in place of staying with the process."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3  # malloc.h of the GNU C library
_LARGE_BYTES = 4 << 20  # more than a request and its answer, less than what Argon2id works in


def return_large_blocks() -> None:
    """Have `malloc` take blocks of four mebibytes and more from the system, each for itself.

    The GNU C library stops doing that by itself once one was freed. After that, each thread that has ever hashed a
    passphrase keeps the memory for it: in a soak a worker grew by 250 MiB. Other C libraries know no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
