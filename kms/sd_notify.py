"""Tells the service manager how far this service is: sd_notify(3), for systemd units of `Type=notify`.

One datagram for each step: `READY=1` when it listens, `RELOADING=1` and `READY=1` around a new TLS pair, and
`STOPPING=1` at a stop, each with a sentence for `systemctl status`. `WATCHDOG=1` is never sent. The process that
could send it only waits for signals and replaces workers that end, so it would prove nothing about the workers.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from typing import Self

import structlog

_VARIABLE = "NOTIFY_SOCKET"
_SEND_SECONDS = 1.0


class ServiceManager:
    """What started this process and listens at `address`: a path, or `@` and an abstract name. None: nobody does."""

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._serving = ""  # what is said of a service that is ready; nothing before it is

    @classmethod
    def of_environment(cls, environ: MutableMapping[str, str] = os.environ) -> Self:
        """The one that `NOTIFY_SOCKET` names, which is taken away: workers do not speak for the service."""
        return cls(environ.pop(_VARIABLE, None))

    def say(self, status: str) -> None:
        """Show `status`, a sentence, without changing anything."""
        self._send(f"STATUS={status}")

    def ready(self, status: str) -> None:
        """The service answers requests; `status` says where."""
        self._serving = status
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """The service loads its TLS pair anew. `reloaded` ends it. Passed over while the service is not ready."""
        if self._serving:
            now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            self._send("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=Loading the TLS certificate")

    def reloaded(self, *, is_good: bool) -> None:
        """The TLS pair was loaded, or was refused and the old one stays in use."""
        if self._serving:
            refused = "" if is_good else "; the new TLS certificate was refused, the log says why"
            self._send("READY=1", f"STATUS={self._serving}{refused}")

    def stopping(self) -> None:
        """The service takes no more requests."""
        self._serving = ""
        self._send("STOPPING=1", "STATUS=Answering the last requests")

    def _send(self, *assignments: str) -> None:
        if self._address is None:
            return
        name = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
                sending.settimeout(_SEND_SECONDS)
                sending.sendto("\n".join(assignments).encode(), name)
        except (OSError, ValueError) as error:
            structlog.get_logger().warning(
                "the service manager cannot be told", what=assignments[0], reason=str(error)
            )
