"""`python app.py`: everything is checked before the first worker starts, then Granian serves."""

from __future__ import annotations

import gc
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import msgspec
import structlog

from kms import __version__, config, listening, tls
from kms.access import certificates
from kms.access.ratelimit import RateLimits
from kms.answering import shown_address, wait_until_it_answers
from kms.audit.folding import FoldingProcess
from kms.audit.spool_files import tidy
from kms.audit.witnesses import witnesses_of
from kms.config import Settings, load
from kms.errors import Refusal, StartError
from kms.files import faults_of_start, private_directory
from kms.log import READY_LOGGER, configure_logging
from kms.notices.targets import targets_of
from kms.operations.core.bootstrap import enrol_first_admin
from kms.operations.core.new_seal import settle_seal
from kms.operations.system.checking import INTEGRITY
from kms.process_protection import log_unprotected, protect_process
from kms.renewal import Renewal, require_served
from kms.sd_notify import ServiceManager
from kms.sealed import SealedService, StoppedWhileSealed
from kms.vault import claims, served
from kms.vault.database import left_log
from kms.vault.opening import open_vault
from kms.vault.seals import ShamirSeal
from kms.vault.store import Vault
from kms.vault.unsealed import Unsealed
from kms.vault.unsealing import Unsealing
from kms.workers import STOP_SIGNALS, Workers

_NO_CERTIFICATES = (
    "KMS_CLIENT_CA is set, and client certificates do not reach this server: "
    "run it under gunicorn, or behind a proxy that is in KMS_TRUSTED_PROXIES"
)


_WANTS_ITS_OWN_SERVER = (
    "The seal `shamir` waits for people before it serves, which only `python app.py` (`kms serve`) does. Start "
    "that, or give the vault another seal: `kms vault reseal`."
)


@click.command(context_settings={"show_default": True})
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.  [default: 8443]")
@click.option("--workers", type=int, help="Worker processes.  [default: one for each core]")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where everything is kept.  [default: kms-data]")
@click.option("--database-url", help="sqlite:///PATH or postgresql://…  [default: SQLite in the data directory]")
@click.option("--redis-url", help="Counts rate limits over several nodes.")
@click.option(
    "--seal", help="What opens the vault: file, passphrase, shamir, credential, pkcs11, kms.  [default: file]"
)
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
    unprotected = protect_process()
    manager = ServiceManager.of_environment()
    try:
        settings = load({name: value for name, value in flags.items() if value is not None})
        if debug:
            settings = msgspec.structs.replace(settings, log_level="debug", workers=1)
        configure_logging(settings)
        log_unprotected(unprotected)
        manager.say("Opening the vault")
        sealed = SealedService(manager, _listening_socket)
        settings, vault = prepare(settings, tls.server_context if debug else require_served, sealed.unseal)
        if settings.client_ca is not None and not settings.proxy_networks:
            structlog.get_logger().warning(_NO_CERTIFICATES)
        if debug:
            if sealed.listening is not None:
                sealed.listening.close()
                signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # here nobody waits for them
            _serve_with_flask(settings, vault.unsealed, manager)
            leave(vault)
        else:
            is_clean = _serve_with_granian(settings, vault.unsealed, manager, sealed.listening)
            leave(vault)
            if not is_clean:
                structlog.get_logger().warning("stopped before every request was answered")
                sys.exit(1)
            structlog.get_logger(READY_LOGGER).info("stopped, with every request answered")
    except StoppedWhileSealed:
        structlog.get_logger(READY_LOGGER).info("stopped, still sealed")
    except StartError as error:
        print(f"The service does not start. {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def prepare(
    settings: Settings,
    check_tls: Callable[[Settings], object] = tls.server_context,
    unseal: Callable[[Settings], Unsealing | None] | None = None,
) -> tuple[Settings, Vault]:
    """Everything that is done once for all workers: port, TLS material, vault, first administrator.

    `check_tls` raises StartError where what will serve cannot serve the TLS pair. `unseal` waits for people where the
    seal is `shamir`; None: what will serve cannot wait.

    Gives the settings with the port that was chosen, and the vault: for what is unsealed, and for `leave` in the end.
    Raises StartError.
    """
    with faults_of_start(settings.data_dir):
        return _prepare(settings, check_tls, unseal)


def _prepare(
    settings: Settings,
    check_tls: Callable[[Settings], object],
    unseal: Callable[[Settings], Unsealing | None] | None,
) -> tuple[Settings, Vault]:
    if settings.seal == ShamirSeal.name and unseal is None:
        raise StartError(_WANTS_ITS_OWN_SERVER)
    for sentence in config.warnings():
        structlog.get_logger().warning(sentence)
    if settings.rate_limit == "off":
        structlog.get_logger().warning("RATE LIMITS ARE OFF: for benchmarks behind a private address only")
    private_directory(settings.data_dir)
    _hold_data_directory(settings)
    if settings.client_ca is not None:
        certificates.read_roots(settings.client_ca)
    targets_of(settings)
    witnesses_of(settings)
    RateLimits(settings).require_storage()
    settings = _with_free_port(settings)
    tls.ensure_material(settings)
    check_tls(settings)
    if (log := left_log(settings.database)) is not None:
        # Whoever has just put back a backup, and did not remove what lay beside it, must not take it for restored.
        structlog.get_logger().warning(f"the last service was killed; its newest changes are taken from {log}")
    unsealing = unseal(settings) if unseal is not None else None
    vault = open_vault(settings, unseal=unsealing)
    if unsealing is not None:
        vault.opened_by = unsealing.opened
    settle_seal(vault)
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


def _serve_with_granian(
    settings: Settings, unsealed: Unsealed | None, manager: ServiceManager, held: socket.socket | None
) -> bool:
    """Serve until a stop is asked for. Whether every request was answered.

    One worker takes the socket `held`, where clients may wait already.
    """
    waiting = [held] if held is not None else []

    def open_worker(socket_of_worker: socket.socket) -> listening.Listener:
        from kms.wsgi import create_app

        application = create_app(settings, unsealed, folds=False).wsgi_app  # what Flask itself would call
        gc.collect()
        gc.freeze()  # what was loaded stays; each full collection would look at all of it again, for 0.2 s
        return listening.Listener(settings, socket_of_worker, application)

    renewal = Renewal(settings)

    def listen() -> socket.socket:
        return waiting.pop() if waiting else _listening_socket(settings)

    workers = Workers(settings.workers, listen, open_worker, manager)
    folding = FoldingProcess(settings, unsealed, workers.leave_connections)

    def look_after() -> bool:
        folding.look_after()
        return False

    gc.collect()
    gc.freeze()  # processes share what is here: a collection in one of them would write to it, and so copy it
    workers.start(renewal.pair)
    folding.start()
    threading.Thread(target=_announce, args=(settings, manager), daemon=True).start()
    try:
        return workers.run(renewal, look_after)
    finally:
        folding.stop()


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
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what ends `run` is the same as Ctrl-C
    # Never Flask's debug=True: its console in the browser would run code for whoever reaches it.
    app.run(settings.host, settings.port, ssl_context=tls.server_context(settings), threaded=True)
    app.extensions["kms.schedule"].stop()
    app.extensions["kms"].close()


def _hold_data_directory(settings: Settings) -> None:
    """Refuse to run twice on one data directory, and clear what the last boot left there."""
    directory = settings.run_dir
    served.say(served.hold(directory), settings.database)
    shutil.rmtree(directory / "metrics", ignore_errors=True)
    tidy(settings.spool_dir)
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
    wait_until_it_answers(settings, "/readyz")
    shown = shown_address(settings)
    structlog.get_logger(READY_LOGGER).info(f"listening on https://{shown}")
    manager.ready(f"Listening on https://{shown}")
