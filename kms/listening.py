"""Runs the server Granian in this process on one listening socket, and renews its TLS pair without a restart.

Granian reads its pair only once. For a new pair a second Granian starts on the same socket, and the first is drained:
it accepts no more connections, each of its answers closes its connection, and it stops once none of its connections
can be left. No request is lost, and the caches of the process stay.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, cast

# Granian's allocator, jemalloc, reads this as it is loaded. More bytes than that, as in a long list, go back to the
# system as soon as they are sent. By itself it would keep copies of them for a while.
os.environ.setdefault("_RJEM_MALLOC_CONF", "oversize_threshold:262144")

from granian._futures import _new_cbscheduler
from granian._granian import SocketHolder, WorkerSignal, WSGIWorker
from granian.constants import HTTPModes, SSLProtocols
from granian.http import HTTP1Settings
from granian.wsgi import Response, ResponseIterWrap

from kms.config import Settings
from kms.tls import ServedPair

BACKLOG = 1024
_HEADER_TIMEOUT_MS = 10_000  # Granian ends a connection that has been idle for so long, too
_DRAIN_SECONDS = _HEADER_TIMEOUT_MS / 1000 + 5
_LAST_ANSWERS_SECONDS = 0.25  # at a stop: for handshakes under way, and to tell busy clients that it is over
_DRY_RUN_SECONDS = 10
_CONNECTIONS = 4096  # of one worker at once; one that is idle costs 18 KiB
_DESCRIPTORS = 16384  # of one worker: handshakes do not count as connections yet, and have ten seconds
_LOOKS, _LOOK_SECONDS = 200, 0.005
_LAST = ("Connection", "close")
_SAME_FOR_ALL = {  # of PEP 3333, what Granian leaves to its wrapper
    "SCRIPT_NAME": "",
    "wsgi.errors": sys.stderr,
    "wsgi.input_terminated": True,
    "wsgi.multiprocess": False,
    "wsgi.multithread": True,
    "wsgi.run_once": False,
    "wsgi.version": (1, 0),
}


class Listener:
    """Serves a WSGI application on `listening`, with the newest pair that it was given."""

    def __init__(self, settings: Settings, listening: socket.socket, application: Any) -> None:
        self._settings = settings
        self._listening = listening
        self._application = application
        self._lock = threading.Lock()
        self._serving: list[_Granian] = []

    def serve(self, pair: ServedPair) -> None:
        """Take new connections with `pair` from now on. Those that there are go on until their next answer."""
        with self._lock:
            if self._listening.fileno() < 0:
                return  # it stops
            before = list(self._serving)
            self._serving.append(_Granian(self._settings, self._listening, self._application, pair))
            for each in before:
                each.stop_accepting()
        if before:
            ending = threading.Timer(_DRAIN_SECONDS, self._end, args=(before,))
            ending.daemon = True
            ending.start()

    def stop(self) -> None:
        """Answer what is under way and end."""
        with self._lock:
            serving = list(self._serving)
            self._listening.close()
        for each in serving:
            each.stop_accepting()
        time.sleep(_LAST_ANSWERS_SECONDS)
        self._end(serving)
        for each in serving:
            each.ended.wait()

    def _end(self, granians: list[_Granian]) -> None:
        with self._lock:  # a Granian that is told twice to end waits for ever
            mine = [each for each in granians if each in self._serving]
            self._serving = [each for each in self._serving if each not in mine]
        for each in mine:
            each.end()


class _Granian:
    """One run of Granian. `is_closing` makes each answer the last one on its connection."""

    def __init__(self, settings: Settings, listening: socket.socket, application: Any, pair: ServedPair) -> None:
        self.ended = threading.Event()
        self.is_closing = False
        self._application = application
        self._descriptor = os.dup(listening.fileno())  # Granian closes it
        self._signal = WorkerSignal()
        self._signal.add_cb(self.ended.set)
        _granian(settings, self._descriptor, pair, self._answer, self._signal)

    def _answer(self, exchange: Any, environ: dict[str, Any]) -> None:
        """Serve one request: what Granian's own wrapper does, but for the copy of `os.environ` in each request."""
        environ.update(_SAME_FOR_ALL)
        start = cast(Any, Response)()
        body = self._application(environ, start)
        headers = [*start.headers, _LAST] if self.is_closing else start.headers
        if isinstance(body, list):
            exchange.response_bytes(start.status, headers, b"".join(body))
        else:
            exchange.response_iter(start.status, headers, cast(Any, ResponseIterWrap)(body))

    def stop_accepting(self) -> None:
        """Leave new connections to others that listen on the same socket."""
        if self.is_closing:
            return
        self.is_closing = True
        for _ in range(_LOOKS):  # its own thread registers the socket, a moment after it was started
            if _forget(self._descriptor):
                return
            time.sleep(_LOOK_SECONDS)

    def end(self) -> None:
        """Answer what is under way, close what is idle; `ended` is set after that. Called once."""
        self._signal.set()


def _granian(settings: Settings, descriptor: int, pair: ServedPair, callback: Any, ending: WorkerSignal) -> None:
    """Start Granian's threads, which serve until `ending` is set. A pair that it does not take aborts the process."""
    minimum = SSLProtocols.tls12 if settings.tls_min_version == "1.2" else SSLProtocols.tls13
    loop = _loop()
    scheduler = _new_cbscheduler(loop, callback, impl_asyncio=True)  # type: ignore[no-untyped-call]
    make, hold = cast(Any, WSGIWorker), cast(Any, SocketHolder)  # their stubs are behind what they take
    worker = make(
        worker_id=1,  # for its log
        sock=(None, hold(descriptor, False, BACKLOG)),
        ipc=None,
        py_threads=settings.threads,
        backpressure=min(_CONNECTIONS, _descriptors() // 2),  # connections at once; others wait to be accepted
        # One protocol less to attack: a client of HTTP/2 could hold hundreds of half-sent bodies on one connection.
        http_mode=str(HTTPModes.http1),
        http1_opts=HTTP1Settings(header_read_timeout=_HEADER_TIMEOUT_MS),
        ssl_enabled=True,
        ssl_cert=pair.certificate,
        ssl_key=pair.key,
        ssl_protocol_min=str(minimum),
    )
    worker.serve_mtr(scheduler, loop, ending)


def _descriptors() -> int:
    """How many descriptors this process may have, after asking for more where it may have few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if 0 <= soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return min(_DESCRIPTORS, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """What Granian asks for and does not use with WSGI."""
    return asyncio.new_event_loop()


def _forget(descriptor: int) -> bool:
    """Take a socket out of what waits for it in this process, so that it wakes nobody there. Whether it did."""
    was_found = False
    # Not /proc/self/fdinfo: before Linux 5.14 a process that cannot be traced may not list that of its own.
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed meanwhile, or does not wait for it
            if str(entry.readlink()) == "anon_inode:[eventpoll]":
                with select.epoll.fromfd(os.dup(int(entry.name))) as found:
                    found.unregister(descriptor)
                    was_found = True
    return was_found


def is_taken(settings: Settings, pair: ServedPair) -> bool:
    """Whether Granian serves `pair`, found out by having it do so in a process of its own for a moment."""
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(_DRY_RUN_SECONDS)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # an abort would write the key into a core file
            faulthandler.disable()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            with socket.create_server(("127.0.0.1", 0)) as nobodys:
                _granian(settings, os.dup(nobodys.fileno()), pair, print, WorkerSignal())
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0
