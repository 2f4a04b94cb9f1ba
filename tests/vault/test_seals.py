"""What every seal promises, whatever it is: what it wraps opens by the same seal, in the same context, unaltered."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from helpers.softhsm import SoftHsm
from helpers.support import World
from helpers.tls_world import served
from kms.config import Settings
from kms.errors import StartError
from kms.vault.sealing import SealBroken
from kms.vault.seals import SEALS, Seals, passphrase

CONTEXT = b"keyset of a vault"
LONG = os.urandom(5000)  # more than AWS KMS encrypts at once


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of a service with the seal that the test is for."""
    monkeypatch.setattr(passphrase, "_MEMORY_KIB", 64)
    name, _, api = str(request.param).partition("-")
    usual = {"data_dir": tmp_path / "data", "seal": name}
    (tmp_path / "data").mkdir()
    if name == "passphrase":
        return Settings(**usual, seal_passphrase="correct horse battery")  # type: ignore[arg-type]
    if name == "credential":
        (tmp_path / "credential").write_bytes(base64.b64encode(os.urandom(32)))
        (tmp_path / "credential").chmod(0o600)
        return Settings(**usual, seal_credential=tmp_path / "credential")  # type: ignore[arg-type]
    if name == "pkcs11":
        pytest.importorskip("pkcs11")
        hsm = SoftHsm.in_folder(tmp_path / "hsm")
        monkeypatch.setenv("SOFTHSM2_CONF", str(hsm.configuration))
        hsm.make_token()
        return hsm.settings(tmp_path / "data")
    if name == "kms":
        url, ca, access = request.getfixturevalue("other_kms")
        credentials = {"aws": ("access_key_id", "secret_access_key"), "vault": ("role_id", "secret_id")}[api]
        given = {f"seal_kms_{each}": value for each, value in zip(credentials, access, strict=True)}
        given |= {"seal_kms_url": url, "seal_kms_ca": ca, "seal_kms_api": api, "seal_kms_key": "seal"}
        return Settings(**usual, **given, seal_kms_wait=timedelta())
    return Settings(**usual)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def other_kms(shared_world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, list[str]]]:
    """The URL and certificate of another service, and an access key of the owner of its key `seal`."""
    owner = shared_world.user("owner")
    assert owner.post("/api/v1/keys", {"key_id": "seal", "type": "aes-256-gcm"}).status_code == 201
    access = owner.post("/api/v1/access-keys", {}).json
    folder = tmp_path_factory.mktemp("tls")
    with served(shared_world, folder) as (url, _):
        yield url, folder / "server.crt", [access["access_key_id"], access["secret_access_key"]]


ALL = ["file", "passphrase", "credential", "pkcs11", "kms-aws", "kms-vault"]


def test_no_seal_is_left_out() -> None:
    """`shamir` has tests of its own: people give it their shares."""
    assert {each.partition("-")[0] for each in ALL} == set(SEALS) - {"shamir"}


@pytest.mark.parametrize("settings", ALL, indirect=True)
def test_what_every_seal_promises(settings: Settings) -> None:
    seal = Seals(settings).named(settings.seal)
    parameters = seal.create()
    assert all(isinstance(value, (str, int)) for value in parameters.values())
    for keyset in (b"k", LONG):
        wrapped = seal.wrap(keyset, CONTEXT, parameters)
        assert keyset not in wrapped or len(keyset) == 1
        assert seal.wrap(keyset, CONTEXT, parameters) != wrapped
        assert seal.unwrap(wrapped, CONTEXT, parameters) == keyset
        assert Seals(settings).named(settings.seal).unwrap(wrapped, CONTEXT, parameters) == keyset
        for context in (b"", b"keyset of another", CONTEXT + b"\x00"):
            with pytest.raises(SealBroken):
                seal.unwrap(wrapped, context, parameters)
    step = max(1, len(wrapped) // 12)
    altered = [wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :] for at in range(0, len(wrapped), step)]
    for broken in (*altered, wrapped[:-1], wrapped + b"\x00", wrapped[:20], b"\x01", b""):
        with pytest.raises((SealBroken, StartError)):
            seal.unwrap(broken, CONTEXT, parameters)
    assert seal.create() is not None  # a start that ended before the vault was written begins again
    assert seal.unwrap(wrapped, CONTEXT, parameters) == LONG
