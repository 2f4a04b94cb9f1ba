"""Requests that the OpenAPI description allows, and many that it does not, against the running server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.running import Running, Start
from kms.api import examples
from kms.operations import OPERATIONS

CONFIG = Path(__file__).with_name("schemathesis.toml")
EXCEPT = ("end_session", "issue_token", "confirm_second_factor", "audit_proof")
"""One ends the session in use, another takes another proof, the third locks its client out, and the last says "not
now" (503) while the entry may be about to come."""
OF_CLIENTS = ("disable_client", "delete_client", "rotate_client_secret", "reset_client_totp")
OF_CLIENTS += ("end_one_session", "end_every_session", "end_every_credential")
"""What may end the session in use when it is the turn of `admin`, or of that session; tried after the others."""
OF_ONESELF = ("passkey_creation_options", "add_passkey")
"""What nobody does for another client; no request that is made up has the right one."""


@pytest.fixture
def service(start: Start) -> Running:
    running = start("--workers", "2", "--rate-limit", "off")
    for body in (
        OPERATIONS["create_key"].example,
        *({"key_id": name, **each} for name, each in examples.KEYS.items()),
    ):
        assert running.curl("POST", "/api/v1/keys", body).status == 201
    return running


def schemathesis(service: Running, *options: str, without: tuple[str, ...] = (), only: tuple[str, ...] = ()) -> str:
    """Run it with all checks on; it fails where a check does. Gives back what it printed."""
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(CONFIG), "run"]
    command += [f"{service.url}/openapi.json", "--tls-verify", str(service.folder / "server.crt"), "--checks", "all"]
    command += ["-H", f"Authorization: Bearer {service.token}", *options]
    command += ["--seed", os.environ.get("KMS_TEST_SEED", "1")]  # of the same requests each time
    command += [part for name in without for part in ("--exclude-operation-id", name)]
    command += [part for name in only for part in ("--include-operation-id", name)]
    done = subprocess.run(
        command, cwd=service.folder, env=service.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("phases", ["examples,coverage", "fuzzing"])
def test_requests_of_every_kind(service: Running, phases: str) -> None:
    options = ("--phases", phases, "--max-examples", "60")
    assert "Authentication failed" not in schemathesis(service, *options, without=EXCEPT + OF_CLIENTS + OF_ONESELF)
    schemathesis(service, *options, only=OF_CLIENTS + OF_ONESELF)
    assert service.curl("GET", "/readyz").status == 200
