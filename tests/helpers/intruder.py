"""Tries to look into another process of the same user, as a debugger does, and prints what it got, one word a line.

`python intruder.py PID`: `traced` (PTRACE_ATTACH), `memory` (process_vm_readv), and `mem`, `environ`, `maps` and `fd`
(files of /proc/PID) for each way that worked.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

_PTRACE_ATTACH, _PTRACE_DETACH = 16, 17


class _Span(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _reads_memory(pid: int, address: int) -> bool:
    """Whether the kernel looks at the other's memory for this one."""
    libc, word = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(8)
    mine, theirs = _Span(ctypes.addressof(word), 8), _Span(address, 8)
    libc.process_vm_readv(pid, ctypes.byref(mine), 1, ctypes.byref(theirs), 1, 0)
    return ctypes.get_errno() != errno.EPERM  # EFAULT says that it looked, and that nothing is at the address


def main(pid: int) -> None:
    """Try all ways."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(_PTRACE_ATTACH, pid, 0, 0) == 0:
        print("traced")
        os.waitpid(pid, 0)
        libc.ptrace(_PTRACE_DETACH, pid, 0, 0)
    if _reads_memory(pid, 0x400000):
        print("memory")
    for name in ("mem", "environ", "maps"):
        with suppress(OSError), Path(f"/proc/{pid}/{name}").open("rb") as file:
            if name == "mem" or file.read(16):
                print(name)
    with suppress(OSError):
        list(Path(f"/proc/{pid}/fd").iterdir())
        print("fd")


if __name__ == "__main__":
    main(int(sys.argv[1]))
