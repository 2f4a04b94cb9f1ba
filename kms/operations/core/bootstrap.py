"""The first start of an empty vault: the client `admin`, shown once to a person or written to one file."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import segno
import structlog

from kms.access import clients
from kms.access.model import Client, Role
from kms.audit.entry import SUCCESS, AuditEntry, timestamp
from kms.clock import Clock, utc_now
from kms.config import Settings
from kms.errors import StartError
from kms.files import write_private
from kms.revocation.published import ensure_signing_key, has_signing_key
from kms.vault.store import Vault

FIRST_ADMIN = "admin"


def enrol_first_admin(vault: Vault, settings: Settings, clock: Clock = utc_now) -> None:
    """Make `admin` where there is no client yet. Its credentials go to a terminal, or to a file of mode 0600.

    A file is written before the commit, so that no credentials are lost between the two; where the commit
    then fails, the next start replaces the file. Raises StartError.
    """
    if vault.host.distrust is not None:
        return  # nothing is changed in it
    with vault.read() as snapshot:
        if has_signing_key(snapshot) and snapshot.matching(Client, limit=1):
            return
    with vault.change() as change:
        ensure_signing_key(change, clock())
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
    if on_terminal:
        _show(enrolment, settings)


def _write(path: Path, enrolment: clients.Enrolment) -> None:
    if not path.absolute().parent.is_dir():
        raise StartError(f"KMS_BOOTSTRAP_FILE={path}: there is no such directory.")
    content = {
        "client_id": enrolment.client.client_id,
        "client_secret": enrolment.client_secret,
        "totp_secret": enrolment.totp_secret,
        "totp_uri": enrolment.totp_uri,
        "recovery_codes": enrolment.recovery_codes,
    }
    write_private(path, msgspec.json.format(msgspec.json.encode(content)) + b"\n")


def _show(enrolment: clients.Enrolment, settings: Settings) -> None:
    out = sys.stderr
    print("\nThis is shown once. Scan the code with an authenticator app:\n", file=out)
    segno.make(enrolment.totp_uri, error="l").terminal(out=out, compact=True)
    print(f"\n  client id       {enrolment.client.client_id}", file=out)
    print(f"  client secret   {enrolment.client_secret}", file=out)
    print(f"  TOTP secret     {enrolment.totp_secret}", file=out)
    print(f"  recovery codes  {' '.join(enrolment.recovery_codes[:5])}", file=out)
    print(f"                  {' '.join(enrolment.recovery_codes[5:])}", file=out)
    host = "localhost" if settings.host in ("127.0.0.1", "0.0.0.0", "::1", "::") else settings.host  # noqa: S104
    print("\nTry it, with the six digits that the app shows (or `python -m kms login`):\n", file=out)
    print(
        f"  printf 'code: '; read -r CODE; curl --cacert {settings.tls_cert} -X POST "
        f"-u '{enrolment.client.client_id}:{enrolment.client_secret}' -H \"X-TOTP: $CODE\" "
        f"https://{host}:{settings.port}/generate_symmetric_key\n",
        file=out,
    )
