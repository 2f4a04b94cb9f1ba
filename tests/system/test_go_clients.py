"""Go's clients of Vault, OpenBao and AWS, unmodified: their programs are in tests/clients/go."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from helpers.running import Start
from helpers.tokens import PlatformIssuer

PROGRAMS = Path(__file__).parents[1] / "clients" / "go"
_NEEDED = (1, 26)


def _go_version() -> tuple[int, ...]:
    if shutil.which("go") is None:
        return ()
    found = re.search(r"go(\d+)\.(\d+)", subprocess.check_output(["go", "version"], text=True))
    return tuple(map(int, found.groups())) if found else ()


@pytest.mark.slow
@pytest.mark.skipif(_go_version() < _NEEDED, reason="Go 1.26 or later is not installed")
def test_the_clients_of_go(start: Start, tmp_path: Path) -> None:
    # Tests that sign share a machine with others; rate limits are not what is tried here.
    service = start("--workers", "2", "--rate-limit", "off")
    token = service.user("gopher")
    access = service.curl("POST", "/api/v1/access-keys", {}, token=token).json
    issuer = PlatformIssuer()
    admin = service.login(service.admin)
    trusted = {"issuer": issuer.issuer, "audience": issuer.audience, "jwks": issuer.jwks}
    role = {"role": "pods", "issuer": issuer.issuer, "claims": {"sub": "system:serviceaccount:ns:app"}}
    service.curl("POST", "/api/v1/issuers", trusted, token=admin)
    service.curl("POST", "/api/v1/issuer-roles", {**role, "client_id": "gopher"}, token=admin)
    (tmp_path / "token").write_text(issuer.token("system:serviceaccount:ns:app"))
    certificate = str(service.folder / "server.crt")
    environ = os.environ | {
        "VAULT_ADDR": service.url,
        "VAULT_TOKEN": token,
        "POD_TOKEN": str(tmp_path / "token"),
        "VAULT_CACERT": certificate,
        "AWS_ENDPOINT_URL": service.url,
        "AWS_CA_BUNDLE": certificate,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": access["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": access["secret_access_key"],
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }
    done = subprocess.run(
        ["go", "test", "-count=1", "./..."], cwd=PROGRAMS, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
