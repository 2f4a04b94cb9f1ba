"""Further mounts with an unmodified hvac: each has its own names, and goes only if the keys in it allow that."""

from __future__ import annotations

import hvac
import pytest
from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest

from helpers.running import Running, Start
from helpers.support import b64


@pytest.fixture(scope="module")
def service(start: Start) -> Running:
    return start("--workers", "2", "--rate-limit", "off")


def client_of(service: Running, token: str) -> hvac.Client:
    return hvac.Client(url=service.url, token=token, verify=str(service.folder / "server.crt"))


@pytest.fixture(scope="module")
def admin(service: Running) -> hvac.Client:
    return client_of(service, service.token)


@pytest.fixture(scope="module")
def vault(service: Running) -> hvac.Client:
    return client_of(service, service.user("vera"))


def test_each_mount_has_its_own_names(service: Running, admin: hvac.Client, vault: hvac.Client) -> None:
    with pytest.raises(InvalidPath):
        vault.secrets.transit.create_key(name="orders", mount_point="team1")
    admin.sys.enable_secrets_engine("transit", path="team1", description="of team 1")
    listed = vault.sys.list_mounted_secrets_engines()["data"]
    assert {path: each["description"] for path, each in listed.items()} == {
        "transit/": "keys of this service",
        "team1/": "of team 1",
    }
    transit = vault.secrets.transit
    for mount in ("transit", "team1"):
        transit.create_key(name="orders", mount_point=mount)
        assert transit.read_key(name="orders", mount_point=mount)["data"]["name"] == "orders"
    sealed = transit.encrypt_data(name="orders", plaintext=b64(b"x"), mount_point="team1")["data"]["ciphertext"]
    opened = transit.decrypt_data(name="orders", ciphertext=sealed, mount_point="team1")["data"]["plaintext"]
    assert opened == b64(b"x")
    with pytest.raises(InvalidRequest):
        transit.decrypt_data(name="orders", ciphertext=sealed)
    assert transit.list_keys(mount_point="team1")["data"]["keys"] == ["orders"]
    assert set(transit.list_keys()["data"]["keys"]) == {"orders", "team1.orders"}
    paths = ["team1/encrypt/orders", "team2/encrypt/orders", "team1/encrypt/nothing"]
    allowed = vault.sys.get_capabilities(paths)["data"]
    assert [allowed[path] for path in paths] == [["update"], ["deny"], ["deny"]]
    assert service.curl("GET", "/v1/sys/internal/ui/mounts/team1/encrypt", token=service.token).status == 200
    assert service.curl("GET", "/v1/sys/internal/ui/mounts/team2/encrypt", token=service.token).status == 404
    with pytest.raises(InvalidRequest, match="in use"):
        admin.sys.enable_secrets_engine("transit", path="team1")


def test_removing_a_mount_removes_its_keys(service: Running, admin: hvac.Client, vault: hvac.Client) -> None:
    admin.sys.enable_secrets_engine("transit", path="going")
    transit = vault.secrets.transit
    for name in ("a", "b"):
        transit.create_key(name=name, mount_point="going")
    admin.sys.disable_secrets_engine("going")
    with pytest.raises(InvalidPath):
        transit.encrypt_data(name="a", plaintext="", mount_point="going")
    with pytest.raises(InvalidPath):
        transit.read_key(name="going.a")
    admin.sys.enable_secrets_engine("transit", path="going")
    with pytest.raises(InvalidPath):
        transit.list_keys(mount_point="going")


def test_only_administrators_mount(admin: hvac.Client, vault: hvac.Client) -> None:
    for act in (
        lambda: vault.sys.enable_secrets_engine("transit", path="mine"),
        lambda: vault.sys.disable_secrets_engine("team1"),
    ):
        with pytest.raises(Forbidden):
            act()
    for path, kind in (("sys", "transit"), ("a.b", "transit"), ("transit", "transit"), ("new", "kv")):
        with pytest.raises(InvalidRequest):
            admin.sys.enable_secrets_engine(kind, path=path)
    with pytest.raises(InvalidPath):
        admin.sys.disable_secrets_engine("nothing")


def test_names_cannot_leave_their_mount(service: Running, admin: hvac.Client, vault: hvac.Client) -> None:
    admin.sys.enable_secrets_engine("transit", path="inner")
    for path in ("inner/keys/..%2Forders", "inner.x/keys/y", "inner%2E/keys/y", "/keys/y", "inner/keys/"):
        answer = service.curl("POST", f"/v1/{path}", {}, token=service.token)
        assert answer.status in (307, 400, 404), path
    assert "inner.y" not in vault.secrets.transit.list_keys()["data"]["keys"]
