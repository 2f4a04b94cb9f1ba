"""Entries show of addresses and associated data what the settings say, and what they show can be searched."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from helpers.aws_in_process import client
from helpers.support import Api, SteeredClock, Template, World, b64, settings_for
from kms.audit.disclosure import Disclosure
from kms.operations import Service

KEY = bytes(range(32))


def disclosure(shown: Any, key: bytes = KEY) -> Disclosure:
    return Disclosure(shown, hashes_associated_data=True, key=key)


@pytest.mark.parametrize(
    ("source", "network", "full"),
    [
        ("192.0.2.77", "192.0.2.0/24", "192.0.2.77"),
        ("::ffff:192.0.2.77", "192.0.2.0/24", "192.0.2.77"),
        ("2001:db8:1:2:3::4", "2001:db8:1::/48", "2001:db8:1:2:3::4"),
        ("fe80::1%eth0", "fe80::/48", "fe80::1"),
        *((same, same, same) for same in ("127.0.0.1", "127.9.9.9", "::1", "local", "unknown")),
    ],
)
def test_an_address_is_shown_as_the_setting_says(source: str, network: str, full: str) -> None:
    assert disclosure("network").source(source) == network
    assert disclosure("full").source(source) == full
    hidden = disclosure("none").source(source)
    assert hidden == (source if network == source else "none")


def test_hashes_tell_equal_addresses_to_those_without_the_key() -> None:
    hashed = disclosure("hashed")
    first = hashed.source("192.0.2.77")
    assert first == hashed.source("::ffff:192.0.2.77") == disclosure("hashed").source("192.0.2.77")
    assert len({first, hashed.source("192.0.2.78"), disclosure("hashed", bytes(32)).source("192.0.2.77")}) == 3
    assert len(first) == len("hashed:") + 22
    assert hashed.source("127.0.0.1") == "127.0.0.1"
    assert hashed.associated_data(b"\x7f\x00\x00\x01") != hashed.associated_data(b"\x7f\x00\x00\x02")
    assert hashed.associated_data(b"") is None
    # Both are keyed alike, and one never stands for the other.
    assert first != f"hashed:{hashed.associated_data(bytes([192, 0, 2, 77]))}"


def test_an_address_is_found_whatever_was_set_when_the_entry_was_written() -> None:
    found = disclosure("none").sources("192.0.2.77")
    assert found == {
        "192.0.2.77",
        "192.0.2.0/24",
        disclosure("hashed").source("192.0.2.77"),
    }
    assert disclosure("full").sources("local") == {"local"}


def test_many_addresses_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kms.audit.disclosure._SOURCES_REMEMBERED", 4)
    network = disclosure("network")
    for number in range(20):
        assert network.source(f"198.51.{number}.1") == f"198.51.{number}.0/24"
    assert len(network._remembered) <= 4


def use(api: Api, source: str, operation: str = "encrypt", **body: Any) -> Any:
    """A use of the key `orders` from an address."""
    return api.http.post(
        f"/api/v1/keys/orders/{operation}",
        json=body or {"plaintext": b64(b"x")},
        headers=api.headers,
        environ_overrides={"REMOTE_ADDR": source},
    )


def uses(world: World, query: str = "") -> list[dict[str, Any]]:
    found = world.admin.get(f"/api/v1/audit/entries?limit=1000{query}").json["items"]
    return [each for each in found if each["operation"] in {"encrypt", "decrypt"}]


@pytest.fixture
def hashing(template: Template, tmp_path: Path, clock: SteeredClock) -> Any:
    settings = settings_for(tmp_path / "hashing", audit_source="hashed", audit_associated_data="hashed")
    service = template.open(settings, clock)
    yield World.of(service)
    service.close()


def test_entries_show_networks_unless_asked_otherwise(world: World) -> None:
    alice = world.user("alice")
    alice.post("/api/v1/keys", {"key_id": "orders"})
    for source in ("198.51.100.7", "198.51.100.8", "203.0.113.1", "2001:db8:1:2::3", "127.0.0.1"):
        assert use(alice, source, plaintext=b64(b"x"), associated_data=b64(b"a")).status_code == 200
    assert [each["source"] for each in uses(world)] == [
        "198.51.100.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8:1::/48", "127.0.0.1",
    ]  # fmt: skip
    assert not any("associated_data" in each for each in uses(world))
    assert len(uses(world, "&source=198.51.100.200")) == len(uses(world, "&source=198.51.100.0/24")) == 2
    assert len(uses(world, "&source=127.0.0.1")) == 1


def test_hashed_entries_hold_neither_and_are_found_by_both(hashing: World) -> None:
    alice = hashing.user("alice")
    alice.post("/api/v1/keys", {"key_id": "orders"})
    given = [b"order 42", b"order 42", b"order 43", b""]
    for data in given:
        sealed = use(alice, "198.51.100.7", plaintext=b64(b"x"), associated_data=b64(data)).json["ciphertext"]
    assert use(alice, "198.51.100.8", "decrypt", ciphertext=sealed, associated_data=b64(b"wrong")).status_code == 400
    found = uses(hashing)
    hashes = [each.get("associated_data") for each in found]
    assert hashes[0] == hashes[1] is not None
    assert hashes[3] is None
    assert len(set(hashes)) == 4
    assert len(b64decode(f"{hashes[0]}==", altchars=b"-_", validate=True)) == 16
    assert list(found[0])[-1] == "associated_data"
    assert len(uses(hashing, "&source=198.51.100.7")) == 4
    assert len(uses(hashing, "&source=198.51.100.8")) == 1
    assert len(uses(hashing, f"&source={found[0]['source']}")) == 4
    written = b"".join(path.read_bytes() for path in hashing.service.settings.spool_dir.iterdir())
    assert b"198.51" not in written
    assert b64(b"order 42").encode() not in written


def test_a_batch_has_the_hash_that_all_of_its_items_have(hashing: World) -> None:
    alice = hashing.user("alice")
    alice.post("/api/v1/keys", {"key_id": "orders"})
    same = {"plaintext": "", "associated_data": b64(b"a")}
    assert use(alice, "local", **same).status_code == 200
    for items in ([same, same], [same, {"plaintext": "?"}], [same, {"plaintext": ""}]):
        assert use(alice, "local", items=items).status_code == 200
    alone, both, unreadable, different = (each.get("associated_data") for each in uses(hashing))
    assert alone == both == unreadable is not None
    assert different is None


def test_an_encryption_context_has_one_hash_in_any_order_and_dialect(hashing: World) -> None:
    alice = hashing.user("alice")
    alice.post("/api/v1/keys", {"key_id": "orders"})
    kms = client(hashing, "kms", alice.post("/api/v1/access-keys", {}).json)
    for context in ({"tenant": "t", "purpose": "p"}, {"purpose": "p", "tenant": "t"}):
        kms.encrypt(KeyId="orders", Plaintext=b"x", EncryptionContext=context)
    canonical = b'{"purpose":"p","tenant":"t"}'
    assert use(alice, "local", plaintext=b64(b"x"), associated_data=b64(canonical)).status_code == 200
    hashes = {each.get("associated_data") for each in uses(hashing)}
    assert hashes == {hashing.service.disclosure.associated_data(canonical)}


def test_the_service_hashes_alike_after_a_restart(hashing: World, clock: SteeredClock) -> None:
    before = hashing.service.disclosure.source("198.51.100.7")
    other = Service.open(hashing.service.settings, clock)
    assert other.disclosure.source("198.51.100.7") == before
    other.close()
