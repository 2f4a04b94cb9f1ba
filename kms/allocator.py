"""Has memory go back to the system when it is freed, in place of staying with the process."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # malloc.h of the GNU C library
_LARGE_BYTES = 4 << 20  # more than a request and its answer, less than what Argon2id works in
_ARENAS = 2


def return_freed_memory() -> None:
    """Have `malloc` take blocks of four mebibytes and more from the system, each for itself, and share two arenas.

    The GNU C library stops doing the first by itself once such a block was freed. After that, each thread that has
    ever hashed a passphrase keeps the memory for it: in a soak a worker grew by 250 MiB. And it gives its threads
    eight arenas for each core, of which every one keeps some of what was freed in it, though the interpreter's lock
    hardly ever lets two threads allocate at once. Other C libraries know no such settings.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_ARENA_MAX, _ARENAS)
