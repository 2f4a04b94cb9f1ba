"""Runs a program as `deploy/kms.service` confines it, as far as that can be done without systemd.

`python confined.py SYSTEM-CALL-NUMBERS PROGRAM ARGUMENTS…`: new memory is never both writable and executable
(`MemoryDenyWriteExecute=`), and only the listed system calls work, with commas between them; the others fail with
EPERM (`SystemCallFilter=`, `SystemCallErrorNumber=EPERM`). Needs Linux 6.3 on x86-64, and no rights.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _PR_SET_MDWE = 38, 22, 65
_SECCOMP_MODE_FILTER = 2
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
_ALLOW, _EPERM, _KILL = 0x7FFF0000, 0x00050001, 0x80000000
_X86_64 = 0xC000003E


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def _filter(numbers: list[int]) -> bytes:
    """Kill for a call of another architecture, allow what is listed, EPERM for the rest."""
    steps = [_step(_LOAD, 4), _step(_IF_EQUAL, _X86_64, 1), _step(_RETURN, _KILL), _step(_LOAD, 0)]
    for number in numbers:
        steps += [_step(_IF_EQUAL, number, 0, 1), _step(_RETURN, _ALLOW)]
    return b"".join([*steps, _step(_RETURN, _EPERM)])


def _prctl(*arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(*[ctypes.c_ulong(each) for each in arguments]) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main(numbers: str, *command: str) -> None:
    """Confine this process and become `command`."""
    steps = _filter([int(number) for number in numbers.split(",")])
    buffer = ctypes.create_string_buffer(steps)
    program = _Program(len(steps) // 8, ctypes.addressof(buffer))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _prctl(_PR_SET_MDWE, 1, 0, 0, 0)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program), 0, 0)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
