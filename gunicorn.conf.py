"""`gunicorn app:app`: the choice where client certificates must reach the application.

`environ["gunicorn.socket"].getpeercert()` gives the verified peer. The settings are those of `python app.py`.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

from kms import server as kms_server
from kms.config import load
from kms.log import configure_logging, logging_config
from kms.process_protection import log_unprotected, protect_process
from kms.renewal import context_in_force
from kms.vault import unsealed
from kms.vault.store import Vault

_unprotected = protect_process()  # before secrets are read; the workers are forked from here
_settings = load()
_vault: Vault | None = None

bind = f"{_settings.host}:{_settings.port}"
workers = _settings.workers
worker_class = "gthread"
threads = _settings.threads
umask = 0o077
graceful_timeout = 30
certfile = str(_settings.tls_cert)  # these two only make gunicorn speak TLS; `ssl_context` below is what it uses
keyfile = str(_settings.tls_key)
control_socket_disable = True  # gunicorn's own door, at one path for all that this user runs; signals do the same
forwarder_headers = ""  # else a header of that name moves the path, from whoever is on this host
logconfig_dict = logging_config(_settings)


def on_starting(_server: Any) -> None:
    """Check and prepare everything once, before the first worker."""
    configure_logging(_settings)
    log_unprotected(_unprotected)
    global _vault
    _, _vault = kms_server.prepare(_settings, context_in_force)
    unsealed.inherited = _vault.unsealed  # the seal may want a person, or a token that counts wrong PINs


def on_exit(_server: Any) -> None:
    """Take this host from the nodes, after the last worker."""
    if _vault is not None:
        kms_server.leave(_vault)


def ssl_context(_config: Any, _default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """The same context that every other way of serving uses; asked for with each connection."""
    return context_in_force(_settings)
