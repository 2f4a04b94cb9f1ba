"""The credentials of a client, shown once on a terminal, or written to one file that only its owner can read."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import segno

from kms.access.clients import Enrolment
from kms.files import write_private


def as_json(enrolment: Enrolment) -> bytes:
    """A JSON object as `login --credentials` reads it: `client_id`, `client_secret`, `totp_secret` and so on."""
    content = {
        "client_id": enrolment.client.client_id,
        "client_secret": enrolment.client_secret,
        "totp_secret": enrolment.totp_secret,
        "totp_uri": enrolment.totp_uri,
        "recovery_codes": enrolment.recovery_codes,
    }
    return msgspec.json.format(msgspec.json.encode(content)) + b"\n"


def write(path: Path, enrolment: Enrolment) -> None:
    """Write them to `path`, mode 0600, in place of what was there. Raises StartError."""
    write_private(path, as_json(enrolment))


def show(enrolment: Enrolment) -> None:
    """Print them on stderr, with the URI for authenticator apps as a QR code."""
    out = sys.stderr
    print("\nThis is shown once. Scan the code with an authenticator app:\n", file=out)
    segno.make(enrolment.totp_uri, error="l").terminal(out=out, compact=True)
    print(f"\n  client id       {enrolment.client.client_id}", file=out)
    print(f"  client secret   {enrolment.client_secret}", file=out)
    print(f"  TOTP secret     {enrolment.totp_secret}", file=out)
    print(f"  recovery codes  {' '.join(enrolment.recovery_codes[:5])}", file=out)
    print(f"                  {' '.join(enrolment.recovery_codes[5:])}", file=out)
