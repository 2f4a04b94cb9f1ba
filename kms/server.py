"""`python app.py`: everything is checked before the first worker starts, then Granian serves."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec
import structlog

from kms import __version__, config, listening, tls
from kms.access import certificates
from kms.access.ratelimit import RateLimits
from kms.audit.spool import tidy
from kms.config import Settings, load
from kms.errors import Refusal, StartError
from kms.files import faults_of_start, private_directory
from kms.log import READY_LOGGER, configure_logging
from kms.notices.targets import targets_of
from kms.operations.core.bootstrap import enrol_first_admin
from kms.operations.system.checking import INTEGRITY
from kms.renewal import Renewal, require_served
from kms.sd_notify import ServiceManager
from kms.vault import claims, served
from kms.vault.opening import open_vault
from kms.vault.store import Vault
from kms.vault.unsealed import Unsealed
from kms.workers import Workers

_NO_CERTIFICATES = (
    "KMS_CLIENT_CA is set, and client certificates do not reach this server: "
    "run it under gunicorn, or behind a proxy that is in KMS_TRUSTED_PROXIES"
)


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

    \b
    For example:
      kms serve --host 0.0.0.0 --data-dir /var/lib/kms
    """
    os.umask(0o077)
    manager = ServiceManager.of_environment()
    try:
        settings = load({name: value for name, value in flags.items() if value is not None})
        if debug:
            settings = msgspec.structs.replace(settings, log_level="debug", workers=1)
        configure_logging(settings)
        manager.say("Opening the vault")
        settings, vault = prepare(settings, tls.server_context if debug else require_served)
        if settings.client_ca is not None and not settings.proxy_networks:
            structlog.get_logger().warning(_NO_CERTIFICATES)
        if debug:
            _serve_with_flask(settings, vault.unsealed, manager)
            leave(vault)
        else:
            is_clean = _serve_with_granian(settings, vault.unsealed, manager)
            leave(vault)
            if not is_clean:
                structlog.get_logger().warning("stopped before every request was answered")
                sys.exit(1)
            structlog.get_logger(READY_LOGGER).info("stopped, with every request answered")
    except StartError as error:
        print(f"The service does not start. {error}", file=sys.stderr)
        sys.exit(1)


def prepare(
    settings: Settings, check_tls: Callable[[Settings], object] = tls.server_context
) -> tuple[Settings, Vault]:
    """Everything that is done once for all workers: port, TLS material, vault, first administrator.

    `check_tls` raises StartError where what will serve cannot serve the TLS pair.

    Gives the settings with the port that was chosen, and the vault: for what is unsealed, and for `leave` in the end.
    Raises StartError.
    """
    with faults_of_start(settings.data_dir):
        return _prepare(settings, check_tls)


def _prepare(settings: Settings, check_tls: Callable[[Settings], object]) -> tuple[Settings, Vault]:
    for sentence in config.warnings():
        structlog.get_logger().warning(sentence)
    if settings.rate_limit == "off":
        structlog.get_logger().warning("RATE LIMITS ARE OFF: for benchmarks behind a private address only")
    private_directory(settings.data_dir)
    _hold_data_directory(settings)
    if settings.client_ca is not None:
        certificates.read_roots(settings.client_ca)
    targets_of(settings)
    RateLimits(settings).require_storage()
    settings = _with_free_port(settings)
    tls.ensure_material(settings)
    check_tls(settings)
    vault = open_vault(settings)
    if vault.host.distrust is not None:
        structlog.get_logger().critical("KEYS ARE NOT USED until `vault accept`", reason=vault.host.distrust)
    else:
        enrol_first_admin(vault, settings)
        claims.make_due(vault, INTEGRITY)  # the check of the whole follows while the service answers
    vault.engine.dispose()  # workers are forked from here and must not share connections
    return settings, vault


def leave(vault: Vault) -> None:
    """Take this host from the nodes, and leave the database whole: nothing of this host answers any more."""
    with suppress(Refusal), vault.change() as change:
        vault.nodes.leave(change)
    with suppress(Refusal):
        vault.checkpoint()  # whoever copies the file of SQLite, or puts another there, needs no other file
    vault.close()


def _serve_with_granian(settings: Settings, unsealed: Unsealed | None, manager: ServiceManager) -> bool:
    """Serve until a stop is asked for. Whether every request was answered."""

    def open_worker(socket_of_worker: socket.socket) -> listening.Listener:
        from kms.wsgi import create_app

        application = create_app(settings, unsealed).wsgi_app  # what Flask itself would call, one call later
        return listening.Listener(settings, socket_of_worker, application)

    renewal = Renewal(settings)
    workers = Workers(settings.workers, partial(_listening_socket, settings), open_worker, manager)
    workers.start(renewal.pair)
    threading.Thread(target=_announce, args=(settings, manager), daemon=True).start()
    return workers.run(renewal)


def _listening_socket(settings: Settings) -> socket.socket:
    """A socket of one worker. The kernel spreads new connections over all of them."""
    family, kind, protocol, _, address = _resolved(settings)
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections inherit it
    made.bind(address)
    made.listen(listening.BACKLOG)
    return made


def _serve_with_flask(settings: Settings, unsealed: Unsealed | None, manager: ServiceManager) -> None:
    from kms.wsgi import create_app

    app = create_app(settings, unsealed)
    threading.Thread(target=_announce, args=(settings, manager), daemon=True).start()
    # Never Flask's debug=True: its console in the browser would run code for whoever reaches it.
    app.run(settings.host, settings.port, ssl_context=tls.server_context(settings), threaded=True)


def _hold_data_directory(settings: Settings) -> None:
    """Refuse to run twice on one data directory, and clear what the last boot left there."""
    directory = settings.run_dir
    served.say(served.hold(directory), settings.database)
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
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "this is no host name"
        raise StartError(f"Cannot listen on {settings.host} port {settings.port}: {reason}.") from error


def _resolved(settings: Settings) -> tuple[Any, Any, int, str, tuple[Any, ...]]:
    """The address to listen on, by number."""
    found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return found[0]


def _announce(settings: Settings, manager: ServiceManager) -> None:
    """Say that the service is ready once it has answered, over TLS, that it is."""
    any_address = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
    context = ssl.create_default_context()
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
    manager.ready(f"Listening on https://{shown}:{settings.port}")
