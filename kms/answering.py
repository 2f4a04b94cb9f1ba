"""Waiting until a service on this host answers, over TLS, so that it is said to be there only once it is."""

from __future__ import annotations

import http.client
import ssl
import time
from http import HTTPStatus

from kms.config import Settings

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
_TIMEOUT_SECONDS = 2
_NOT_THERE_SECONDS, _NOT_READY_SECONDS = 0.05, 1.0


def shown_address(settings: Settings) -> str:
    """HOST:PORT as a URL has it."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{host}:{settings.port}"


def wait_until_it_answers(settings: Settings, path: str) -> None:
    """Return once the service of `settings` answers `path` with 200."""
    context = ssl.create_default_context()
    context.check_hostname = False  # it is our own port; the operator's certificate may name another host
    context.verify_mode = ssl.CERT_NONE
    while True:
        wait = _NOT_THERE_SECONDS
        try:
            host = _ANY_ADDRESS.get(settings.host, settings.host)
            connection = http.client.HTTPSConnection(host, settings.port, timeout=_TIMEOUT_SECONDS, context=context)
            connection.request("GET", path)
            if connection.getresponse().status == HTTPStatus.OK:
                return
            wait = _NOT_READY_SECONDS  # it answers that it is not ready, and why is in its log
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(wait)
