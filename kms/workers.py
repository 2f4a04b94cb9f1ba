"""The worker processes: starts them, gives them new TLS pairs, replaces those that die, and stops them.

The parent process handles signals only by waiting for them, one at a time. Each worker has its own listening socket.
If a worker is replaced, its successor inherits the socket, with the connections that wait there.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Protocol

import structlog

from kms.errors import StartError
from kms.tls import ServedPair

STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}
_SIGNALS = {*STOP_SIGNALS, signal.SIGHUP, signal.SIGCHLD}
_TICK_SECONDS = 1.0
_DRAIN_SECONDS = 30
_AT_ONCE_AFTER_SECONDS = 10
_PARENT_CHECK_SECONDS = 1.0
_PAUSE_SECONDS = 1.0
_ANSWER_SECONDS = 10
_DONE = b"\0"


class Serving(Protocol):
    """What a worker does."""

    def serve(self, pair: ServedPair) -> None:
        """Take new connections with `pair` from now on."""

    def stop(self) -> None:
        """Answer what is under way and end."""


class Renewal(Protocol):
    """Where TLS pairs come from."""

    @property
    def pair(self) -> ServedPair:
        """The newest that is good."""

    def renew(self, *, asked: bool) -> bool:
        """Look for a newer pair and make it `pair`; returns whether there was one. `asked`: try the files at once."""


class Manager(Protocol):
    """Who is told what the signals were taken for."""

    def reloading(self) -> None:
        """A newer TLS pair was asked for."""

    def reloaded(self, *, is_good: bool) -> None:
        """It is handed out, or there is none that is good."""

    def stopping(self) -> None:
        """The end was asked for, or cannot be kept off."""


class Workers:
    """`count` processes, each of which makes with `open_worker` what it serves with, on a socket from `listen`."""

    def __init__(
        self,
        count: int,
        listen: Callable[[], socket.socket],
        open_worker: Callable[[socket.socket], Serving],
        manager: Manager,
    ) -> None:
        self.was_stopped = False  # by a signal
        self._manager = manager
        self._listen = listen
        self._open = open_worker
        self._workers = [_Worker() for _ in range(count)]

    def start(self, pair: ServedPair) -> None:
        """Start them all. From here on this process takes no signal but in `run`."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        for each in self._workers:
            self._begin(each, pair)

    def run(self, renewal: Renewal, is_over: Callable[[], bool] = lambda: False) -> bool:
        """Serve until a stop is asked for, it `is_over`, or no worker comes up. Whether every request was answered.

        `is_over` is looked at after each signal, and once a second.
        """
        while not is_over():
            taken = signal.sigtimedwait(_SIGNALS, _TICK_SECONDS)
            number = taken.si_signo if taken else 0
            if number in STOP_SIGNALS:
                self.was_stopped = True
                return self._stop()
            self._renew(renewal, asked=number == signal.SIGHUP)
            for each in self._workers:
                each.note_answers()
            if not self._replace_the_dead(renewal.pair):
                structlog.get_logger().error("no worker comes up; see above")
                self._stop()
                return False
        return self._stop()

    def leave_connections(self) -> None:
        """Close the sockets of the workers in this process, which was forked and takes no connection.

        A socket that nobody accepts from, but that any process has open, would get its share of the connections.
        """
        for each in self._workers:
            each.forget(keep_listening=False)

    def _renew(self, renewal: Renewal, *, asked: bool) -> None:
        if asked:
            self._manager.reloading()
        is_new = renewal.renew(asked=asked)
        if is_new:
            self._hand_out(renewal.pair)
        if asked or is_new:
            self._manager.reloaded(is_good=is_new)

    def _begin(self, worker: _Worker, pair: ServedPair) -> None:
        worker.began = time.monotonic()
        if worker.listening is None:
            worker.listening = self._listen()
        mine, theirs = socket.socketpair()
        worker.channel, worker.serves = mine, False
        others = [part for each in self._workers if each is not worker for part in (each.listening, each.channel)]
        not_its_own = [mine, *(each for each in others if each is not None)]
        # Forked, because the descriptors of the pair and what was unsealed are inherited and not sent.
        process = get_context("fork").Process(
            target=_work, args=(self._open, worker.listening, theirs, not_its_own, pair, os.getpid())
        )
        process.start()
        worker.process = process
        theirs.close()

    def _hand_out(self, pair: ServedPair) -> None:
        for each in self._workers:
            if each.is_alive:
                each.take(pair)
        structlog.get_logger().info("certificate loaded anew")

    def _replace_the_dead(self, pair: ServedPair) -> bool:
        """Start others in place of those that ended. Whether any is there, or may come up."""
        dead = [each for each in self._workers if not each.is_alive]
        if len(dead) == len(self._workers) and not any(each.serves for each in dead):
            return False
        for each in dead:
            if each.process is not None:
                structlog.get_logger().error("a worker ended unexpectedly", exit_code=each.process.exitcode)
                each.forget(keep_listening=each.serves)
            if time.monotonic() - each.began > _PAUSE_SECONDS:
                try:
                    self._begin(each, pair)
                except OSError as error:  # too many processes or files, perhaps not for long
                    structlog.get_logger().error("a worker cannot be started", reason=error.strerror)
        return True

    def _stop(self) -> bool:
        """End them all: after their last answers, or at once when it is asked for again ten seconds later."""
        self._manager.stopping()
        asked_at = time.monotonic()
        for each in self._workers:
            each.end(signal.SIGTERM)
            if each.listening is not None:
                each.listening.close()  # from here on it ends with its worker
        while any(each.is_alive for each in self._workers):
            taken = signal.sigtimedwait({*STOP_SIGNALS, signal.SIGCHLD}, _TICK_SECONDS)
            waited = time.monotonic() - asked_at
            is_asked_again = taken is not None and taken.si_signo in STOP_SIGNALS and waited > _AT_ONCE_AFTER_SECONDS
            if is_asked_again or waited > _DRAIN_SECONDS:
                for each in self._workers:
                    each.end(signal.SIGKILL)
                return False
        return True


class _Worker:
    """The place of one worker, with the process that has it at the moment."""

    def __init__(self) -> None:
        self.listening: socket.socket | None = None
        self.process: BaseProcess | None = None
        self.channel: socket.socket | None = None
        self.serves = False  # it has said so
        self.began = -math.inf

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self.process is not None and self.process.is_alive()

    def note_answers(self, wait: float = 0.0) -> None:
        """Read what it has said: that it serves, with the newest pair it was given."""
        if self.channel is not None:
            self.channel.settimeout(wait)
            with suppress(OSError):
                self.serves |= bool(self.channel.recv(64))

    def take(self, pair: ServedPair) -> None:
        """Have it serve with `pair`, and wait until it does."""
        assert self.channel is not None
        self.note_answers()
        with suppress(OSError):  # where it has just died, its successor takes the pair
            socket.send_fds(self.channel, [_DONE], pair.descriptors)
        self.note_answers(_ANSWER_SECONDS)

    def end(self, how: signal.Signals) -> None:
        """Send that signal, and after SIGKILL wait for its end."""
        if self.process is not None and self.process.pid is not None and self.is_alive:
            os.kill(self.process.pid, how)
            if how == signal.SIGKILL:
                self.process.join()

    def forget(self, *, keep_listening: bool) -> None:
        """Make the place free. Connections wait for the next process if that can be expected to come up."""
        self.process = None
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        if self.listening is not None and not keep_listening:
            self.listening.close()
            self.listening = None


def _work(
    open_worker: Callable[[socket.socket], Serving],
    listening: socket.socket,
    channel: socket.socket,
    not_its_own: list[socket.socket],
    pair: ServedPair,
    parent: int,
) -> None:
    """A worker, from its fork to its end."""
    for each in not_its_own:
        each.close()
    threading.Thread(target=_end_with, args=(parent,), name="parent watch", daemon=True).start()
    try:
        serving = open_worker(listening)
    except StartError as error:
        structlog.get_logger().error(f"a worker does not start: {error}")
        sys.exit(1)
    serving.serve(pair)
    pair.close()
    channel.send(_DONE)
    threading.Thread(target=_take_pairs, args=(channel, serving), name="pairs", daemon=True).start()
    signal.sigwait(STOP_SIGNALS)
    serving.stop()


def _take_pairs(channel: socket.socket, serving: Serving) -> None:
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, len(_DONE), 2)
        if not message:
            return
        pair = ServedPair(*descriptors)
        serving.serve(pair)
        pair.close()
        channel.send(_DONE)


def _end_with(parent: int) -> None:
    """End this worker when its parent is gone, so that a killed service leaves nothing behind on its port."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
