"""A service whose vault is sealed with shares: it listens, says that it is sealed, and takes shares on the host.

The listening socket is kept when the vault is open, and the first worker goes on with it. So whoever connects
meanwhile waits a moment and is not refused.
"""

from __future__ import annotations

import mmap
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

import msgspec
import structlog

from kms import listening, unseal_socket
from kms.answering import shown_address, wait_until_it_answers
from kms.config import Settings
from kms.errors import Sealed, StartError
from kms.log import READY_LOGGER
from kms.renewal import Renewal
from kms.sd_notify import ServiceManager
from kms.vault.keyslots import NEXT, SEAL, SealRecord
from kms.vault.opening import stored_vault
from kms.vault.seals import ShamirSeal
from kms.vault.unsealing import Unsealing
from kms.workers import Workers

_THREADS = 4
_RETRY_SECONDS = 5
_PAGE = 256


class StoppedWhileSealed(Exception):
    """A stop was asked for before there were enough shares."""


class SealedService:
    """Serves while the vault is sealed. `listening` is its socket, once it has served."""

    def __init__(self, manager: ServiceManager, listen: Callable[[Settings], socket.socket]) -> None:
        self._manager = manager
        self._listen = listen
        self.listening: socket.socket | None = None

    def unseal(self, settings: Settings) -> Unsealing | None:
        """Wait until people have given enough shares; None where the vault does not wait for any.

        Raises StartError or StoppedWhileSealed.
        """
        stored = stored_vault(settings) if settings.seal == ShamirSeal.name else None
        if stored is None or settings.seal_share_files or not _waits_for_shares(stored.slots):
            return None
        unsealing = Unsealing(stored.slots, stored.vault_id)
        self.listening = self._listen(settings)
        board = _Board(unsealing.progress)
        workers = self._workers(settings, self.listening, board)
        renewal = Renewal(settings)
        workers.start(renewal.pair)
        threading.Thread(target=self._take_shares, args=(settings, unsealing, board), daemon=True).start()
        workers.run(renewal, is_over=lambda: unsealing.is_done)
        renewal.pair.close()
        if workers.was_stopped:
            self._manager.stopping()
            raise StoppedWhileSealed
        if not unsealing.is_done:
            raise StartError("The service is sealed and cannot say so; see the log.")
        self._manager.say("Opening the vault")
        return unsealing

    def _workers(self, settings: Settings, held: socket.socket, board: _Board) -> Workers:
        few = msgspec.structs.replace(settings, threads=_THREADS, workers=1)

        def open_worker(socket_of_worker: socket.socket) -> listening.Listener:
            return listening.Listener(few, socket_of_worker, _application(board))

        return Workers(1, held.dup, open_worker, _ReloadingOnly(self._manager))

    def _take_shares(self, settings: Settings, unsealing: Unsealing, board: _Board) -> None:
        def progressed(progress: str) -> None:
            if progress == board.text:
                return
            board.show(progress)
            self._manager.say(progress.capitalize())
            structlog.get_logger(READY_LOGGER).info(progress)

        wait_until_it_answers(settings, "/livez")
        shown = f"https://{shown_address(settings)}"
        structlog.get_logger(READY_LOGGER).info(
            f"{unsealing.progress}; `kms unseal` gives one. {shown} answers that the service is sealed"
        )
        self._manager.ready(f"{unsealing.progress.capitalize()}; `kms unseal` gives one")
        try:
            unseal_socket.serve(settings.run_dir, unsealing, progressed)
        except OSError as error:
            structlog.get_logger().error("no shares can be taken on the socket", reason=error.strerror)
        os.kill(os.getpid(), signal.SIGCHLD)  # wakes who waits for signals


def _waits_for_shares(slots: Iterable[Any]) -> bool:
    return any(each.slot in (SEAL, NEXT) and SealRecord.decoded(each.seal).name == ShamirSeal.name for each in slots)


class _Board:
    """A line of text that the processes of the service share."""

    def __init__(self, text: str) -> None:
        self._page = mmap.mmap(-1, _PAGE)
        self.show(text)

    def show(self, text: str) -> None:
        """Put another text there."""
        self._page[:] = text.encode()[: _PAGE - 1].ljust(_PAGE, b"\0")

    @property
    def text(self) -> str:
        """What is there."""
        return self._page[:].rstrip(b"\0").decode("utf-8", "replace")


class _ReloadingOnly:
    """Tells the service manager of new TLS pairs, and not that the service stops: it goes on, unsealed."""

    def __init__(self, manager: ServiceManager) -> None:
        self.reloading = manager.reloading
        self.reloaded = manager.reloaded

    def stopping(self) -> None:
        """Not yet."""


def _application(board: _Board) -> Any:
    """A WSGI application that says that the service is sealed, and reads no body."""
    from kms.api.problems import encoded  # here: the process that starts the workers does without it

    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/livez":
            status, body, headers = HTTPStatus.OK, b"ok\n", [("Content-Type", "text/plain")]
        else:
            refusal = Sealed(
                f"{board.text}. `kms unseal` on the host of the service gives one.", retry_after=_RETRY_SECONDS
            )
            status = HTTPStatus(refusal.status)
            body, headers = encoded(refusal, secrets.token_hex(8))
        headers += [("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
        start_response(f"{status.value} {status.phrase}", headers)
        return [b""] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    return answer
