"""OpenBao's own server: it is unsealed by the service, and it unseals the service."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.certificates import write_pair
from helpers.openbao import OpenBao
from helpers.running import Running, Start, process_of, wait_until
from helpers.shell import ROOT, blocks, run, variables_of
from helpers.support import free_port
from kms.config import load
from kms.errors import StartError
from kms.vault.opening import open_vault

pytestmark = pytest.mark.slow
PAGE = "docs/how-to/unseal-openbao.md"
HCL = re.findall(r"^```hcl\n(.*?)^```$", (ROOT / PAGE).read_text(), re.DOTALL | re.MULTILINE)
OFTEN = '  health_check_interval = "2s"\n  health_check_interval_unhealthy = "2s"\n'
StartBao = Callable[..., OpenBao]


@pytest.fixture
def start_bao(tmp_path: Path) -> Iterator[StartBao]:
    """Starts servers of OpenBao; stops what is still running when the test is over."""
    running: list[OpenBao] = []

    def go(name: str = "bao", **given: object) -> OpenBao:
        running.append(OpenBao.start(tmp_path / name, **given))  # type: ignore[arg-type]
        return running[-1]

    yield go
    for each in running:
        each.stop()


@pytest.fixture(scope="module")
def service(start: Start) -> Running:
    """A service where the page's lines made the key `openbao-unseal`, and an access key for it."""
    made = start("--workers", "1", login=False, KMS_ACCESS_KEY_LIFETIME="P365D")
    run(made, "python -m kms login --credentials admin.json")
    made.token = json.loads((made.folder / ".config/kms/session.json").read_text())["token"]
    for script in blocks(PAGE, "Make a key and a client for OpenBao"):
        run(made, script)
    assert (made.folder / "secret-id").stat().st_mode & 0o777 == 0o600
    return made


def initialize(bao: OpenBao) -> None:
    """As `bao operator init` does; afterwards a secret is kept in it."""
    made = bao.done("POST", "sys/init", {"recovery_shares": 1, "recovery_threshold": 1})
    bao.token = made["root_token"]
    wait_until(lambda: not bao.is_sealed, lambda: bao.log, every=0.1)
    status = bao.done("GET", "sys/seal-status")
    assert status["recovery_seal"]
    assert status["type"] == "transit"
    wait_until(lambda: bao.call("GET", "sys/health").status_code == 200, lambda: bao.log, every=0.1)
    bao.done("POST", "sys/mounts/kv", {"type": "kv"})
    bao.done("POST", "kv/kept", {"value": "42"})


def is_back(bao: OpenBao) -> bool:
    """Whether it unseals itself after another start, and still has the secret."""
    bao.stop()
    bao.start_again()
    wait_until(lambda: bao.call("GET", "sys/health").status_code == 200, lambda: bao.log, every=0.1)
    return bool(bao.done("GET", "kv/kept")["data"] == {"value": "42"})


def test_by_a_token(service: Running, start_bao: StartBao) -> None:
    """OpenBao tries its seal while it runs, here every two seconds, and says so in its log."""
    files = ("role_id", "role-id"), ("secret_id", "secret-id")
    login = {name: (service.folder / file).read_text().strip() for name, file in files}
    token = service.curl("POST", "/v1/auth/approle/login", login, token="").json["auth"]["client_token"]
    seal = (
        HCL[1]
        .replace('"http://127.0.0.1:8100"', f'"{service.url}"')
        .replace("\n}", f'\n  tls_ca_cert = "{service.folder / "server.crt"}"\n{OFTEN}}}')
    )
    bao = start_bao(more=seal, BAO_TOKEN=token)
    initialize(bao)
    assert is_back(bao)
    key = "/api/v1/keys/openbao-unseal"
    assert service.curl("POST", f"{key}/rotate", {}).status == 200
    assert is_back(bao)
    service.curl("POST", f"{key}/suspend", {})
    wait_until(lambda: "is suspended" in bao.log, lambda: bao.log, every=0.1)
    assert bao.done("GET", "kv/kept")
    bao.stop()
    with pytest.raises(AssertionError, match="is suspended"):
        bao.start_again()
    service.curl("POST", f"{key}/resume", {})
    assert is_back(bao)


def test_through_the_proxy_of_the_page_which_logs_in_again(service: Running, start_bao: StartBao) -> None:
    """A token of the service is not renewable; the proxy gets one for the access key whenever one is needed."""
    port, folder = free_port(), service.folder
    (folder / "proxy.hcl").write_text(
        HCL[0].replace("localhost:8443", f"localhost:{service.port}").replace(":8100", f":{port}")
    )
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    proxy = process_of(["bao", "proxy", "-config=proxy.hcl"], folder, folder / "proxy-log", environ)
    try:
        wait_until(lambda: "authentication successful" in (folder / "proxy-log").read_text(), every=0.1)
        bao = start_bao(more=HCL[1].replace(":8100", f":{port}"))
        initialize(bao)
        assert is_back(bao)
    finally:
        proxy.terminate()
        proxy.wait(30)


def test_openbao_unseals_the_service(start: Start, start_bao: StartBao, tmp_path: Path) -> None:
    write_pair(tmp_path)
    bao = start_bao(pair=tmp_path)
    made = bao.done("POST", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
    bao.token = made["root_token"]
    bao.done("POST", "sys/unseal", {"key": made["keys"][0]})
    wait_until(lambda: bao.call("GET", "sys/health").status_code == 200, lambda: bao.log, every=0.1)
    shutil.copy(tmp_path / "server.crt", tmp_path / "openbao-ca.crt")
    made_by_page, settings_of_page = blocks("docs/how-to/seals.md", "`kms`")[4:]
    environ = {**bao.environ, "BAO_ADDR": bao.url, "BAO_TOKEN": bao.token, "BAO_CACERT": "openbao-ca.crt"}
    subprocess.run(["bash", "-euo", "pipefail", "-c", made_by_page], cwd=tmp_path, env=environ, check=True)
    secret_id = (tmp_path / "secret-id").read_text().strip()
    settings = variables_of(settings_of_page.replace(":8200", f":{bao.port}"), tmp_path)
    settings["KMS_SEAL_KMS_WAIT"] = "PT3S"
    for name, value in settings.items():
        if (tmp_path / value).is_file():
            settings[name] = str(tmp_path / value)
    service = start("--workers", "2", **settings)
    made_key = service.curl("POST", "/api/v1/keys", {"key_id": "kept", "type": "aes-256-gcm"})
    assert made_key.status == 201
    assert not list(service.folder.rglob("root.key"))

    service.stop()
    again = start("--workers", "2", folder=service.folder, login=False, **settings)
    assert again.curl("GET", "/api/v1/keys/kept", token=service.token).status == 200
    again.stop()
    assert secret_id not in service.log.read_text() + again.log.read_text()

    given = load({"data_dir": service.folder / "kms-data"}, settings)

    def opens() -> bool:
        open_vault(given, create=False).close()
        return True

    def refusal() -> str:
        with pytest.raises(StartError) as refused:
            opens()
        return str(refused.value)

    bao.done("POST", "transit/keys/kms-seal/rotate")
    assert opens()
    policy = "\n".join(
        f'path "transit/{verb}/kms-seal" {{ capabilities = ["update"] }}' for verb in ("encrypt", "decrypt")
    )
    policy_for_nothing = 'path "transit/encrypt/kms-seal" { capabilities = ["update"] }'
    bao.done("POST", "sys/policies/acl/kms-seal", {"policy": policy_for_nothing})
    assert "does not allow `update` on transit/decrypt/kms-seal" in refusal()
    bao.done("POST", "sys/policies/acl/kms-seal", {"policy": policy})
    bao.done("POST", "transit/keys/kms-seal/config", {"min_decryption_version": 2})
    assert "refuses transit/decrypt/kms-seal" in refusal()
    bao.done("POST", "transit/keys/kms-seal/config", {"min_decryption_version": 1})
    assert opens()
    bao.done("PUT", "sys/seal")
    assert "it answered 503; it was waited for" in refusal()
    bao.done("POST", "sys/unseal", {"key": made["keys"][0]})
    assert opens()
    bao.stop()
    assert "Connection refused; it was waited for" in refusal()
