"""The seal `kms`: a vault that another service of ours unseals, by either of its APIs, over TLS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from helpers.certificates import write_pair
from helpers.support import Api, World, free_port
from helpers.tls_world import served
from kms.config import Settings
from kms.errors import StartError
from kms.vault.opening import open_vault
from kms.vault.sealing import SealBroken
from kms.vault.seals.remote_kms import KmsSeal

CONTEXT = b"keyset of a vault"
APIS = ("aws", "vault")


@dataclass
class Other:
    """The other KMS: its URL, its certificate, the client that may use the key `seal` only, and who manages that."""

    url: str
    ca: Path
    world: World
    operator: Api
    credentials: dict[str, Any]

    def settings(self, data_dir: Path, api: str, **given: Any) -> Settings:
        """The settings of a service that it unseals."""
        usual = {
            "seal_kms_url": self.url,
            "seal_kms_api": api,
            "seal_kms_key": "seal",
            "seal_kms_ca": self.ca,
            "seal_kms_wait": timedelta(),
            **({"seal_kms_access_key_id": None} if api == "vault" else {}),
            **self.credentials[api],
        }
        return Settings(data_dir=data_dir, seal="kms", **{**usual, **given})


@pytest.fixture
def other(world: World, tmp_path: Path) -> Iterator[Other]:
    operator = world.user("operator")
    world.user("sealer")
    assert operator.post("/api/v1/keys", {"key_id": "seal", "type": "aes-256-gcm"}).status_code == 201
    for permission in ("keys:encrypt", "keys:decrypt"):
        grant = {"subject": "client:sealer", "permission": permission, "key_pattern": "seal", "owner": "operator"}
        assert operator.post("/api/v1/grants", grant).status_code == 201
    access = world.login("sealer").post("/api/v1/access-keys", {}).json
    credentials = {
        "aws": {
            "seal_kms_access_key_id": access["access_key_id"],
            "seal_kms_secret_access_key": access["secret_access_key"],
        },
        "vault": {"seal_kms_role_id": access["access_key_id"], "seal_kms_secret_id": access["secret_access_key"]},
    }
    (tmp_path / "tls").mkdir()
    with served(world, tmp_path / "tls") as (url, certificate):
        yield Other(url, Path(certificate), world, operator, credentials)


def refusal(settings: Settings) -> str:
    with pytest.raises(StartError) as refused:
        open_vault(settings)
    return str(refused.value)


@pytest.mark.parametrize("api", APIS)
def test_a_vault_is_unsealed_by_another_service(other: Other, tmp_path: Path, api: str) -> None:
    settings = other.settings(tmp_path / "sealed", api)
    vault = open_vault(settings)
    keyset = vault.derived_keys.keyset
    vault.close()
    again = open_vault(settings)
    assert again.derived_keys.keyset == keyset
    again.close()
    wrong = "vault" if api == "aws" else "aws"
    assert f"sealed by the API `{api}`" in refusal(other.settings(tmp_path / "sealed", wrong))


@pytest.mark.parametrize("api", APIS)
def test_what_was_wrapped_for_another_context_or_altered_does_not_open(
    other: Other, tmp_path: Path, api: str
) -> None:
    seal = KmsSeal(other.settings(tmp_path, api))
    parameters = seal.create()
    wrapped = seal.wrap(b"keyset", CONTEXT, parameters)
    assert seal.unwrap(wrapped, CONTEXT, parameters) == b"keyset"
    with pytest.raises(SealBroken):
        seal.unwrap(wrapped, b"keyset of another", parameters)
    for place in (20, 45, len(wrapped) - 1):
        altered = wrapped[:place] + bytes([wrapped[place] ^ 1]) + wrapped[place + 1 :]
        with pytest.raises(SealBroken):
            seal.unwrap(altered, CONTEXT, parameters)
    for cut in (b"", b"\x00\x00", wrapped[:60]):
        with pytest.raises(SealBroken):
            seal.unwrap(cut, CONTEXT, parameters)


@pytest.mark.parametrize("api", APIS)
def test_the_keyslot_of_another_vault_does_not_open(other: Other, tmp_path: Path, api: str) -> None:
    vaults = [open_vault(other.settings(tmp_path / name, api)) for name in ("one", "two")]
    with vaults[0].engine.connect() as connection:
        stolen = connection.exec_driver_sql("SELECT wrapped, seal FROM keyslots").one()
    with vaults[1].engine.begin() as connection:
        connection.exec_driver_sql("UPDATE keyslots SET wrapped = ?, seal = ?", tuple(stolen))
    for vault in vaults:
        vault.close()
    assert "gives another root key" in refusal(other.settings(tmp_path / "two", api))


@pytest.mark.parametrize("api", APIS)
def test_each_fault_is_a_sentence(other: Other, tmp_path: Path, api: str, capsys: pytest.CaptureFixture[str]) -> None:
    data, free = tmp_path / "sealed", free_port()
    good = other.settings(data, api)
    open_vault(good).close()
    (tmp_path / "stranger").mkdir()
    write_pair(tmp_path / "stranger")
    credentials: dict[str, Any] = (
        {"seal_kms_secret_access_key": "canary-of-a-secret"}
        if api == "aws"
        else {"seal_kms_secret_id": "canary-of-a-secret"}
    )
    missing: dict[str, Any] = dict.fromkeys(credentials)
    for given, said in (
        ({"seal_kms_url": None}, "needs KMS_SEAL_KMS_URL"),
        ({"seal_kms_api": None}, "needs KMS_SEAL_KMS_URL, KMS_SEAL_KMS_API"),
        ({"seal_kms_key": None}, "needs KMS_SEAL_KMS_URL"),
        ({"seal_kms_url": other.url.replace("https", "http")}, "write https://"),
        ({"seal_kms_url": f"https://localhost:{free}"}, "Connection refused; it was waited for"),
        ({"seal_kms_ca": None}, "its certificate is not trusted"),
        ({"seal_kms_ca": tmp_path / "stranger" / "server.crt"}, "its certificate is not trusted"),
        ({"seal_kms_ca": tmp_path / "nowhere"}, "KMS_SEAL_KMS_CA"),
        ({"seal_kms_key": "unknown"}, "unknown"),
        (credentials, "does not take the credentials" if api == "aws" else "login as an AppRole"),
        (missing, "The seal `kms` needs KMS_SEAL_KMS_SEC"),
        ({"seal_kms_url": f"{other.url}/elsewhere"}, "cannot be used"),
    ):
        text = refusal(other.settings(data, api, **given))
        print("####", api, given, text)
        assert said in text, text
        assert "canary-of-a-secret" not in text
    open_vault(good).close()


@pytest.mark.parametrize("api", APIS)
def test_a_key_that_is_not_used_any_more(other: Other, tmp_path: Path, api: str) -> None:
    settings = other.settings(tmp_path / "sealed", api)
    open_vault(settings).close()
    other.operator.post("/api/v1/keys/seal/rotate", {})
    open_vault(settings).close()
    other.operator.post("/api/v1/keys/seal/suspend", {})
    print("####", refusal(settings))
    other.operator.post("/api/v1/keys/seal/resume", {})
    open_vault(settings).close()
    grants = other.operator.get("/api/v1/grants").json["items"]
    other.operator.post("/api/v1/keys/seal/revoke", {})
    print("####", refusal(settings))
    for grant in grants:
        other.operator.delete(f"/api/v1/grants/{grant['grant_id']}")
    print("####", refusal(settings))
