"""A published entry names its key to the vault, whatever id that has by now, and to nobody else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import OKPKey

from helpers.backups import another_host, backup_of, restored
from helpers.support import Api, SteeredClock, World, kind_of
from kms.client.revocations import RevocationList
from kms.operations import Service
from kms.revocation.evidence import of_signed_list
from kms.revocation.published import signing_key
from kms.revocation.references import KeyReferences
from kms.revocation.rollback import Judge
from kms.vault.checking import wrong_tables

MESSAGE = {"plaintext": "AAAA"}


@pytest.fixture
def before(world: World) -> Iterator[tuple[Api, bytes, dict[str, str]]]:
    """A caller with two keys, the backup of the vault with them, and a ciphertext of each."""
    alice = world.user("alice")
    ciphertexts = {}
    for key_id in ("gone", "reused"):
        assert alice.post("/api/v1/keys", {"key_id": key_id}).status_code == 201
        ciphertexts[key_id] = alice.post(f"/api/v1/keys/{key_id}/encrypt", MESSAGE).json["ciphertext"]
    yield alice, backup_of(world.service.vault), ciphertexts


def release(alice: Api, key_id: str) -> str:
    deleted = alice.delete(f"/api/v1/keys/{key_id}", {"waiting_period": "P1D", "release_name": True})
    return str(deleted.json["key_id"])


def revoke(alice: Api, key_id: str) -> None:
    assert alice.post(f"/api/v1/keys/{key_id}/revoke", {"reason": "keyCompromise"}).status_code == 200


def published(alice: Api) -> bytes:
    return bytes(alice.get("/revocation_list").data)


def decrypt(alice: Api, key_id: str, ciphertext: str) -> str:
    answer = alice.post(f"/api/v1/keys/{key_id}/decrypt", {"ciphertext": ciphertext})
    return str(answer.json["plaintext"]) if answer.status_code == 200 else kind_of(answer)


def as_older_releases_made_it(service: Service, document: bytes) -> bytes:
    """The same list without references and without what is listed a second time, signed by the same key."""
    with service.vault.read() as snapshot:
        key: OKPKey = signing_key(snapshot)
    content = json.loads(document)
    del content["jws"]
    content["revoked_keys"] = [each for each in content["revoked_keys"] if each["key_id"] != "gone"]
    for each in content["revoked_keys"]:
        del each["key_reference"]
    header = {"alg": "Ed25519", "kid": key.thumbprint(), "typ": "kms-revocation-list+jws"}
    content["jws"] = jws.serialize_compact(header, json.dumps(content), key, algorithms=["Ed25519"])
    return json.dumps(content).encode()


@pytest.fixture
def go_back(world: World, before: Any, tmp_path: Any) -> Iterator[Any]:
    """Restores the backup elsewhere with a list as the only evidence."""
    services = []

    def go(document: bytes) -> tuple[World, Judge]:
        folder = tmp_path / f"restored-{len(services)}"
        settings = another_host(world.service.settings.data_dir, folder)
        _, judge = restored(settings, before[1], partial(of_signed_list, document=document), accepting=True)
        services.append(Service.open(settings, SteeredClock()))
        return World.of(services[-1]), judge

    yield go
    for service in services:
        service.close()


def test_a_key_that_gave_its_name_back_is_revoked_again(before: Any, go_back: Any) -> None:
    alice, _, ciphertexts = before
    deleted = release(alice, "gone")
    revoke(alice, deleted)
    after, judge = go_back(published(alice))
    assert [(each.entry.key_id, each.is_key_here) for each in judge.applied] == [(deleted, True), ("gone", True)]
    again = after.login("alice")
    assert decrypt(again, "gone", ciphertexts["gone"]) == "key-revoked"
    assert decrypt(again, "reused", ciphertexts["reused"]) == "AAAA"
    # Whoever checks the list offline finds it under the id that the key has now.
    checked = RevocationList.checked(published(again), after.http.get("/.well-known/jwks.json").data)
    assert checked.revocation_of("gone", 1) is not None
    assert checked.revocation_of(deleted, 1) is not None
    assert wrong_tables(after.service.vault) == []


def test_another_key_of_the_same_name_is_not_meant(before: Any, go_back: Any) -> None:
    alice, _, ciphertexts = before
    release(alice, "reused")
    assert alice.post("/api/v1/keys", {"key_id": "reused"}).status_code == 201
    revoke(alice, "reused")
    after, judge = go_back(published(alice))
    assert [each.is_key_here for each in judge.applied] == [False]
    assert judge.shown_again()[0].endswith("(the backup does not have this key)")
    assert decrypt(after.login("alice"), "reused", ciphertexts["reused"]) == "AAAA"


def test_two_keys_that_were_revoked_under_one_name_are_both(before: Any, go_back: Any) -> None:
    """Within one second, as seconds are all that a list has."""
    alice, _, ciphertexts = before
    revoke(alice, "reused")
    release(alice, "reused")
    assert alice.post("/api/v1/keys", {"key_id": "reused"}).status_code == 201
    revoke(alice, "reused")
    after, judge = go_back(published(alice))
    assert sorted(each.is_key_here for each in judge.applied) == [False, True, True]  # one of them under two ids
    assert decrypt(after.login("alice"), "reused", ciphertexts["reused"]) == "key-revoked"


def test_a_list_of_an_older_release_stays_readable(world: World, before: Any, go_back: Any) -> None:
    alice, _, ciphertexts = before
    revoke(alice, "reused")
    revoke(alice, release(alice, "gone"))
    old = as_older_releases_made_it(world.service, published(alice))
    after, judge = go_back(old)
    again = after.login("alice")
    assert decrypt(again, "reused", ciphertexts["reused"]) == "key-revoked"
    assert decrypt(again, "gone", ciphertexts["gone"]) == "AAAA"  # nothing in it says so, and the operator is told
    assert any("2 of its entries name their key by its id alone" in sentence for sentence in judge.report)
    assert any("former one" in line for line in judge.shown_again())
    assert RevocationList.checked(old, world.http.get("/.well-known/jwks.json").data).revocation_of("reused")


def test_a_repeated_restore_finds_nothing_new(world: World, before: Any, go_back: Any) -> None:
    alice, _, _ = before
    revoke(alice, release(alice, "gone"))
    after, _ = go_back(published(alice))
    settings = another_host(world.service.settings.data_dir, world.service.settings.data_dir.parent / "twice")
    _, judge = restored(settings, backup_of(after.service.vault), partial(of_signed_list, document=published(alice)))
    assert judge.applied == [] and not judge.is_rollback


def test_a_reference_tells_nobody_which_entries_are_of_one_key(world: World, before: Any) -> None:
    alice, _, _ = before
    deleted = release(alice, "gone")
    revoke(alice, deleted)
    assert alice.post(f"/api/v1/keys/{deleted}/cancel-deletion").status_code == 200
    one, other = json.loads(published(alice))["revoked_keys"]
    with world.service.vault.read() as snapshot:
        key = snapshot.key_by_id("gone")
        references = KeyReferences(signing_key(snapshot))
    assert key is not None
    assert one["key_reference"] != other["key_reference"]
    for entry in (one, other):
        assert len(entry["key_reference"]) == 43
        assert references.uid(entry["serial"], entry["key_reference"]) == key.uid
    assert references.uid(other["serial"], one["key_reference"]) is None
    assert KeyReferences(OKPKey.generate_key("Ed25519")).uid(one["serial"], one["key_reference"]) is None
    for wrong in (None, "", "A", "?", "é", "AAAA", one["key_reference"][:-2]):
        assert references.uid(one["serial"], wrong) is None
