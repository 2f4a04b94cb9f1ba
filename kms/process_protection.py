"""Keeps what a process knows to itself: no core dumps, no debugger, private files, no secrets in its environment.

The service, each of its workers, and every `kms` command begin with `protect_process`. What they fork inherits it.
It does not stop root, and it does not remove the copies that Python itself has made of a secret.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
from collections.abc import MutableMapping
from typing import Any

_PR_SET_DUMPABLE, _PR_SET_NAME = 4, 15  # linux/prctl.h
_ONLY_THIS_USER = 0o077
# A URL may have a password in it.
_SECRET = re.compile(r"KMS_\w+_(PASSPHRASE|PASSWORD|PIN|TOKEN|SECRET|SECRET_ID|KEY|KEY_ID|URL)")

withheld: dict[str, str] = {}
"""The variables that `protect_process` took out of the environment, for `kms.config.load`."""


def protect_process(environ: MutableMapping[str, str] = os.environ) -> list[str]:
    """Protect this process as far as its system can; gives a sentence for each thing that it cannot.

    - New files are for this user alone (umask 077).
    - A crash leaves no core dump, in a file (RLIMIT_CORE 0) or with a program that would be given it.
    - Only root can trace it, or read its memory, its environment and its descriptors (PR_SET_DUMPABLE 0, prctl(2)).
    - Settings that are secrets leave `environ`, so that no child inherits them, and are overwritten where
      /proc/PID/environ shows them. `kms.config.load` still knows them, also in processes that are forked from here.
    """
    os.umask(_ONLY_THIS_USER)
    return [sentence for sentence in (_forbid_core_files(), _forbid_tracing(), _withhold(environ)) if sentence]


def name_process(name: str) -> None:
    """Let `ps` and `top` show this name, of at most 15 bytes. Once a process is protected only it can do that."""
    prctl = _of_libc("prctl")
    if prctl is not None:
        prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()), *map(ctypes.c_ulong, (0, 0, 0)))


def log_unprotected(sentences: list[str]) -> None:
    """Log what `protect_process` could not do, once there is a log."""
    import structlog  # here: commands that log nothing start without it

    for sentence in sentences:
        structlog.get_logger().debug(sentence)


def _forbid_core_files() -> str:
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError) as error:
        return f"core dumps are not limited: {error}"
    return ""


def _forbid_tracing() -> str:
    prctl = _of_libc("prctl")
    if prctl is None:
        return "other processes of this user can read the memory of this one: the system has no prctl"
    if prctl(_PR_SET_DUMPABLE, *map(ctypes.c_ulong, (0, 0, 0, 0))) != 0:
        return f"other processes of this user can read the memory of this one: {os.strerror(ctypes.get_errno())}"
    return ""


def _withhold(environ: MutableMapping[str, str]) -> str:
    names = [name for name in environ if _SECRET.fullmatch(name)]
    getenv = _of_libc("getenv") if environ is os.environ else None
    for name in names:
        withheld[name] = environ[name]
        if getenv is not None:
            _overwrite(getenv, name)
        del environ[name]
    if names and getenv is None:
        return f"what this process was started with still shows {', '.join(sorted(names))}"
    return ""


def _overwrite(getenv: Any, name: str) -> None:
    """Fill the value of a variable with zeros where it stands: on the stack that the kernel made for this process."""
    getenv.restype, getenv.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    if address := getenv(os.fsencode(name)):
        ctypes.memset(address, 0, len(ctypes.string_at(address)))


def _of_libc(function: str) -> Any:
    """That function of the C library; None where there is none."""
    try:
        return getattr(ctypes.CDLL(None, use_errno=True), function, None)
    except (OSError, TypeError):
        return None
