"""`python app.py`: everything is checked before the first worker starts, then Granian serves."""

from __future__ import annotations

import fcntl
import http.client
import os
import shutil
import signal
import socket
import ssl
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec
import structlog
from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer

from kms import __version__, tls
from kms.access.ratelimit import RateLimits
from kms.audit.spool import tidy
from kms.config import Settings, load
from kms.errors import Refusal, StartError
from kms.files import private_directory
from kms.log import READY_LOGGER, configure_logging, logging_config
from kms.operations.core.bootstrap import enrol_first_admin
from kms.operations.system.checking import INTEGRITY
from kms.secret import Secret
from kms.vault import claims, served
from kms.vault.opening import open_vault
from kms.vault.store import Vault

_DRAIN_SECONDS = 30
_HEADER_TIMEOUT_MS = 10_000
_PARENT_CHECK_SECONDS = 1.0


@click.command(context_settings={"show_default": True})
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.  [default: 8443]")
@click.option("--workers", type=int, help="Worker processes.  [default: one for each core]")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where everything is kept.  [default: kms-data]")
@click.option("--database-url", help="sqlite:///PATH or postgresql://…  [default: SQLite in the data directory]")
@click.option("--redis-url", help="Counts rate limits over several nodes.")
@click.option("--seal", help="Where the root key comes from: file, passphrase or credential.  [default: file]")
@click.option("--bootstrap-file", type=click.Path(path_type=Path), help="Where the first credentials are written.")
@click.option("--rate-limit", type=click.Choice(["on", "off"]), help="Switch rate limits off, for benchmarks only.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[default: info]")
@click.option("--config", type=click.Path(exists=True), help="A TOML file with any of the settings.")
@click.option("--debug", is_flag=True, help="Serve with Flask's own server, one process, for development.")
@click.version_option(__version__)
def main(*, debug: bool, **flags: Any) -> None:
    """Run the Key Management System.

    Every flag is also a variable (--data-dir is KMS_DATA_DIR; KMS_X_FILE names a file that holds the value)
    and a member of the TOML file; docs/reference/settings.md lists them all. SIGHUP loads a new certificate,
    SIGTERM lets requests in flight finish.
    """
    os.umask(0o077)
    try:
        settings = load({name: value for name, value in flags.items() if value is not None})
        if debug:
            settings = msgspec.structs.replace(settings, log_level="debug", workers=1)
        configure_logging(settings)
        settings, vault = prepare(settings)
        if debug:
            _serve_with_flask(settings, vault.root_key)
        else:
            _serve_with_granian(settings, vault.root_key)
        leave(vault)
    except StartError as error:
        print(f"The service does not start. {error}", file=sys.stderr)
        sys.exit(1)


def prepare(settings: Settings) -> tuple[Settings, Vault]:
    """Everything that is done once for all workers: port, TLS material, vault, first administrator.

    Gives the settings with the port that was chosen, and the vault: for its root key, and for `leave` in the end.
    Raises StartError.
    """
    if settings.rate_limit == "off":
        structlog.get_logger().warning("RATE LIMITS ARE OFF: for benchmarks behind a private address only")
    private_directory(settings.data_dir)
    _hold_data_directory(settings)
    RateLimits(settings).require_storage()
    settings = _with_free_port(settings)
    tls.ensure_material(settings)
    tls.server_context(settings)
    vault = open_vault(settings)
    if vault.host.distrust is not None:
        structlog.get_logger().critical("KEYS ARE NOT USED until `vault accept`", reason=vault.host.distrust)
    else:
        enrol_first_admin(vault, settings)
        claims.make_due(vault, INTEGRITY)  # the check of the whole follows while the service answers
    vault.engine.dispose()  # workers are forked from here and must not share connections
    return settings, vault


def leave(vault: Vault) -> None:
    """Take this host from the nodes: nothing of it answers any more, and nobody needs to wait for it."""
    with suppress(Refusal), vault.change() as change:
        vault.nodes.leave(change)
    vault.close()


class _Server(MPServer):
    """Granian, taking the key's path as it is: resolving the name of memory gives a name that opens nothing."""

    def build_ssl_context(self, cert: Path | None, key: Path | None, *settings: Any) -> None:
        """Called once by Granian's constructor with passphrase, protocol, CA, revocation lists and verification."""
        assert cert is not None
        passphrase, protocol, *clients = settings
        self.ssl_ctx: Any = (True, str(cert.resolve()), str(key), passphrase, str(protocol), *clients)


def _serve_with_granian(settings: Settings, root_key: Secret) -> None:
    pair = tls.ServedPair(settings.run_dir)
    pair.put(tls.checked_pair(settings))
    server = _Server(
        "kms",
        address=_resolved(settings)[-1][0],
        port=settings.port,
        interface=Interfaces.WSGI,
        workers=settings.workers,
        blocking_threads=settings.threads,
        # One protocol less to attack: a client of HTTP/2 could hold hundreds of half-sent bodies on one connection.
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=_HEADER_TIMEOUT_MS),
        websockets=False,
        log_level=LogLevels.error,
        log_dictconfig=logging_config(settings),
        ssl_cert=pair.certificate,
        ssl_key=pair.key,
        ssl_protocol_min=SSLProtocols.tls12 if settings.tls_min_version == "1.2" else SSLProtocols.tls13,
        respawn_failed_workers=True,
        workers_kill_timeout=_DRAIN_SECONDS,
    )

    def reload_certificate() -> None:
        try:
            pair.put(tls.checked_pair(settings))
        except StartError as error:
            structlog.get_logger().error(f"the old certificate stays in use: {error}")
            return
        structlog.get_logger().info("certificate loaded anew")

    server.on_reload(reload_certificate)
    threading.Thread(target=_announce, args=(settings,), daemon=True).start()
    server.serve(target_loader=partial(_worker_app, settings, root_key, os.getpid()), wrap_loader=False)


def _worker_app(settings: Settings, root_key: Secret, parent: int) -> Any:
    from app import create_app

    threading.Thread(target=_end_with, args=(parent,), name="parent watch", daemon=True).start()
    return create_app(settings, root_key).wsgi_app  # what Flask itself would call, one call later


def _end_with(parent: int) -> None:
    """End this worker when its parent is gone, so that a killed service leaves nothing behind on its port."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def _serve_with_flask(settings: Settings, root_key: Secret) -> None:
    from app import create_app

    app = create_app(settings, root_key)
    threading.Thread(target=_announce, args=(settings,), daemon=True).start()
    # Never Flask's debug=True: its console in the browser would run code for whoever reaches it.
    app.run(settings.host, settings.port, ssl_context=tls.server_context(settings), threaded=True)


def _hold_data_directory(settings: Settings) -> None:
    """Refuse to run twice on one data directory, and clear what the last boot left there."""
    directory = private_directory(settings.run_dir)
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)  # stays open as long as this process lives
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise StartError(f"Another service is running on {settings.data_dir}.") from None
    served.say(lock, settings.database)
    shutil.rmtree(directory / "metrics", ignore_errors=True)
    tidy(settings.audit_dir)
    for counters in directory.glob("counters*"):
        counters.unlink(missing_ok=True)


def _with_free_port(settings: Settings) -> Settings:
    """Find out now whether the address can be had: workers share their port and would not notice another service."""
    try:
        family, kind, protocol, _, address = _resolved(settings)
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return msgspec.structs.replace(settings, port=probe.getsockname()[1])
    except OSError as error:
        raise StartError(f"Cannot listen on {settings.host} port {settings.port}: {error.strerror}.") from error


def _resolved(settings: Settings) -> tuple[Any, Any, int, str, tuple[Any, ...]]:
    """The address to listen on, by number: Granian takes no names."""
    found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return found[0]


def _announce(settings: Settings) -> None:
    """Say that the service is ready once it has answered, over TLS, that it is."""
    any_address = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
    context = ssl.create_default_context(cafile=str(settings.run_dir / "tls.crt"))
    context.check_hostname = False  # it is our own port; the operator's certificate may name another host
    context.verify_mode = ssl.CERT_NONE
    while True:
        wait = 0.05
        try:
            host = any_address.get(settings.host, settings.host)
            connection = http.client.HTTPSConnection(host, settings.port, timeout=2, context=context)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == http.HTTPStatus.OK:
                break
            wait = 1.0  # it answers that it is not ready, and why is in its log
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(wait)
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    structlog.get_logger(READY_LOGGER).info(f"listening on https://{shown}:{settings.port}")
