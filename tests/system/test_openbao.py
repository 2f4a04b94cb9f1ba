"""OpenBao's own server: it is unsealed by the service, and it unseals the service."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.certificates import write_pair
from helpers.openbao import OpenBao
from helpers.running import Running, Start, process_of, wait_until
from helpers.support import free_port
from kms.config import load
from kms.errors import StartError
from kms.vault.opening import open_vault

pytestmark = pytest.mark.slow
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


def make_key(service: Running, owner: str, key_id: str, user: str) -> None:
    """A key that `user` may encrypt and decrypt with, and nothing else."""
    body = {"key_id": key_id, "type": "aes-256-gcm"}
    assert service.curl("POST", "/api/v1/keys", body, token=owner).status == 201
    for permission in ("keys:encrypt", "keys:decrypt"):
        grant = {"subject": f"client:{user}", "permission": permission, "key_pattern": key_id, "owner": "operator"}
        assert service.curl("POST", "/api/v1/grants", grant, token=owner).status == 201


@pytest.fixture(scope="module")
def service(start: Start) -> Running:
    """A service with a user `operator` and one `openbao`, whose sessions and access keys live long."""
    made = start("--workers", "1", KMS_TOKEN_LIFETIME="P30D", KMS_ACCESS_KEY_LIFETIME="P365D")
    made.operator, made.openbao = made.user("operator"), made.user("openbao")  # type: ignore[attr-defined]
    return made


def transit_seal(address: str, key_id: str, ca: Path | None) -> str:
    """The seal of OpenBao, which it tries every two seconds while it runs."""
    trusted = f'tls_ca_cert = "{ca}"' if ca else ""
    return f"""seal "transit" {{
  address    = "{address}"
  key_name   = "{key_id}"
  mount_path = "transit/"
  {trusted}
  health_check_interval           = "2s"
  health_check_interval_unhealthy = "2s"
}}"""


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


def test_the_service_unseals_openbao(service: Running, start_bao: StartBao) -> None:
    operator, token = service.operator, service.openbao  # type: ignore[attr-defined]
    make_key(service, operator, "openbao-unseal", "openbao")
    seal = transit_seal(service.url, "openbao-unseal", service.folder / "server.crt")
    bao = start_bao(more=seal, BAO_TOKEN=token)
    initialize(bao)
    assert is_back(bao)
    rotated = service.curl("POST", "/api/v1/keys/openbao-unseal/rotate", {}, token=operator)
    assert rotated.status == 200
    assert is_back(bao)
    service.curl("POST", "/api/v1/keys/openbao-unseal/suspend", {}, token=operator)
    wait_until(lambda: "is suspended" in bao.log, lambda: bao.log, every=0.1)  # it tries its seal while it runs
    assert bao.done("GET", "kv/kept")
    bao.stop()
    with pytest.raises(AssertionError, match="is suspended"):
        bao.start_again()
    service.curl("POST", "/api/v1/keys/openbao-unseal/resume", {}, token=operator)
    assert is_back(bao)


def test_openbao_is_unsealed_through_its_proxy_which_logs_in_again(
    service: Running, start_bao: StartBao, tmp_path: Path
) -> None:
    """A token of the service is not renewable; the proxy gets one for an access key whenever one is needed."""
    operator, token = service.operator, service.openbao  # type: ignore[attr-defined]
    make_key(service, operator, "openbao-by-proxy", "openbao")
    access = service.curl("POST", "/api/v1/access-keys", {}, token=token).json
    (tmp_path / "role-id").write_text(access["access_key_id"])
    (tmp_path / "secret-id").write_text(access["secret_access_key"])
    port = free_port()
    (tmp_path / "proxy.hcl").write_text(f"""vault {{
  address = "{service.url}"
  ca_cert = "{service.folder / "server.crt"}"
}}
auto_auth {{
  method "approle" {{
    config = {{
      role_id_file_path                   = "{tmp_path / "role-id"}"
      secret_id_file_path                 = "{tmp_path / "secret-id"}"
      remove_secret_id_file_after_reading = false
    }}
  }}
}}
api_proxy {{
  use_auto_auth_token = "force"
}}
listener "tcp" {{
  address     = "127.0.0.1:{port}"
  tls_disable = true
}}
""")
    command = ["bao", "proxy", f"-config={tmp_path / 'proxy.hcl'}"]
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    proxy = process_of(command, tmp_path, tmp_path / "proxy-log", environ)
    try:
        wait_until(lambda: "authentication successful" in (tmp_path / "proxy-log").read_text(), every=0.1)
        bao = start_bao(more=transit_seal(f"http://127.0.0.1:{port}", "openbao-by-proxy", None))
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
    bao.done("POST", "sys/mounts/transit", {"type": "transit"})
    bao.done("POST", "transit/keys/kms-seal", {"type": "aes256-gcm96"})
    policy = "\n".join(
        f'path "transit/{verb}/kms-seal" {{ capabilities = ["update"] }}' for verb in ("encrypt", "decrypt")
    )
    bao.done("POST", "sys/policies/acl/kms-seal", {"policy": policy})
    bao.done("POST", "sys/auth/approle", {"type": "approle"})
    bao.done("POST", "auth/approle/role/kms-seal", {"token_policies": "kms-seal", "token_ttl": "5m"})
    role_id = bao.done("GET", "auth/approle/role/kms-seal/role-id")["data"]["role_id"]
    secret_id = bao.done("POST", "auth/approle/role/kms-seal/secret-id", {})["data"]["secret_id"]
    (tmp_path / "secret-id").write_text(f"{secret_id}\n")
    settings = {
        "KMS_SEAL": "kms",
        "KMS_SEAL_KMS_URL": bao.url,
        "KMS_SEAL_KMS_API": "vault",
        "KMS_SEAL_KMS_KEY": "kms-seal",
        "KMS_SEAL_KMS_CA": str(tmp_path / "server.crt"),
        "KMS_SEAL_KMS_ROLE_ID": role_id,
        "KMS_SEAL_KMS_SECRET_ID_FILE": str(tmp_path / "secret-id"),
        "KMS_SEAL_KMS_WAIT": "PT3S",
    }
    service = start("--workers", "2", **settings)
    user = service.user("user1")
    made_key = service.curl("POST", "/api/v1/keys", {"key_id": "kept", "type": "aes-256-gcm"}, token=user)
    assert made_key.status == 201
    assert not list(service.folder.rglob("root.key"))

    service.stop()
    again = start("--workers", "2", folder=service.folder, login=False, **settings)
    assert again.curl("GET", "/api/v1/keys/kept", token=user).status == 200
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
