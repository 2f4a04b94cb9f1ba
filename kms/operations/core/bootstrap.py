"""The first start of an empty vault: the client `admin`, shown once to a person or written to one file."""

from __future__ import annotations

import sys
from pathlib import Path

import structlog

from kms.access import clients
from kms.access.model import Client, Role
from kms.audit.entry import SUCCESS, AuditEntry, timestamp
from kms.audit.keys import ensure_keys, has_keys
from kms.clock import Clock, utc_now
from kms.config import Settings
from kms.errors import StartError
from kms.operations.core import shown_once
from kms.revocation.published import ensure_signing_key, has_signing_key
from kms.vault.store import Vault

FIRST_ADMIN = "admin"
_SECOND_ADMIN = (
    f"{FIRST_ADMIN} is the only administrator: make a second one soon (`python -m kms client create NAME --role "
    "admin`), who can let the first in again when their phone and recovery codes are lost"
)


def enrol_first_admin(vault: Vault, settings: Settings, clock: Clock = utc_now) -> None:
    """Make `admin` where there is no client yet. Its credentials go to a terminal, or to a file of mode 0600.

    A file is written before the commit, so that no credentials are lost between the two; where the commit
    then fails, the next start replaces the file. Raises StartError.
    """
    if vault.host.distrust is not None:
        return  # nothing is changed in it
    with vault.read() as snapshot:
        if has_signing_key(snapshot) and has_keys(snapshot) and snapshot.matching(Client, limit=1):
            return
    with vault.change() as change:
        ensure_signing_key(change, clock())
        ensure_keys(change, clock())
        if change.matching(Client, limit=1):
            return
        enrolment = clients.create(change, FIRST_ADMIN, frozenset({Role.ADMIN}), clock())
        entry = AuditEntry(1, timestamp(clock()), "bootstrap", "bootstrap", SUCCESS, "local", target=FIRST_ADMIN)
        change.record(entry.line().decode())
        on_terminal = settings.bootstrap_file is None and sys.stderr.isatty()
        if not on_terminal:
            path = settings.bootstrap_file or settings.data_dir / "bootstrap.json"
            _write(path, enrolment)
            structlog.get_logger().warning(f"made the client {FIRST_ADMIN}; its credentials are in {path}")
            structlog.get_logger().warning(_SECOND_ADMIN)
    if on_terminal:
        _show(enrolment, settings)


def _write(path: Path, enrolment: clients.Enrolment) -> None:
    if not path.absolute().parent.is_dir():
        raise StartError(f"KMS_BOOTSTRAP_FILE={path}: there is no such directory.")
    shown_once.write(path, enrolment)


def _show(enrolment: clients.Enrolment, settings: Settings) -> None:
    shown_once.show(enrolment)
    out = sys.stderr
    print("\nKeep the recovery codes away from the phone. Whoever loses both is let in again by another", file=out)
    print("administrator, so make a second one soon:", file=out)
    print("\n  python -m kms login && python -m kms client create NAME --role admin", file=out)
    host = "localhost" if settings.host in ("127.0.0.1", "0.0.0.0", "::1", "::") else settings.host  # noqa: S104
    print("\nTry it, with the six digits that the app shows (or `python -m kms login`):\n", file=out)
    print(
        f"  printf 'code: '; read -r CODE; curl --cacert {settings.tls_cert} -X POST "
        f"-u '{enrolment.client.client_id}:{enrolment.client_secret}' -H \"X-TOTP: $CODE\" "
        f"https://{host}:{settings.port}/generate_symmetric_key\n",
        file=out,
    )
