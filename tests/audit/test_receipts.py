"""Whoever gets an answer can prove that the audit log has its entry; and the log is readable by those who may."""

from __future__ import annotations

import json
import os
import random
import re
from base64 import b64decode, urlsafe_b64encode
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from helpers.aws_in_process import client
from helpers.support import Api, Template, World, b64, kind_of, settings_for
from helpers.vault_client import Vault
from kms.access.model import Role
from kms.api.faults import long_request_id
from kms.audit import looking_up, receipts
from kms.audit.checkpoint import Checkpoint, open_checkpoint
from kms.audit.looking_up import number_in
from kms.audit.note import Ed25519Key, Ed25519Signer, signed
from kms.audit.proof import TlogProof
from kms.audit.tiles import Tiles
from kms.audit.tree import leaf_hash
from kms.audit.verify import verify_log
from kms.operations import new_request_id
from kms.operations.system import transparency

KEY = "/api/v1/keys/k"


@pytest.fixture
def alice(world: World) -> Api:
    api = world.user("alice")
    assert api.post("/api/v1/keys", {"key_id": "k"}).status_code == 201
    return api


def path_of(leaf: bytes) -> str:
    return f"/audit/proof/{urlsafe_b64encode(leaf).decode().rstrip('=')}"


def leaf_of(headers: Any) -> bytes:
    (leaf,) = (value for name, value in dict(headers).items() if name.lower() == "audit-leaf")
    return b64decode(leaf, validate=True)


def key_of(world: World) -> Ed25519Key:
    answer = world.http.get("/.well-known/audit-key")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    assert answer.text.endswith("\n")
    return Ed25519Key.parse(answer.text.removesuffix("\n"))


def proven(world: World, api: Api, leaf: bytes) -> dict[str, Any]:
    """The entry with this leaf hash, after its receipt was checked and the entry was read from its bundle."""
    answer = api.get(path_of(leaf))
    assert answer.status_code == 200, answer.text
    proof = TlogProof.parse(answer.data)
    size = proof.check(leaf, key_of(world)).checkpoint.size
    directory = world.service.settings.audit_log_dir
    (entry,) = Tiles.in_directory(directory).entries(proof.index, proof.index + 1, size)
    assert leaf_hash(entry) == leaf
    return dict(json.loads(entry))


def test_answers_of_every_kind_have_a_leaf_that_is_proven(world: World, alice: Api) -> None:
    access = alice.post("/api/v1/access-keys", {}).json
    boto = client(world, "kms", access)
    arn = boto.describe_key(KeyId=alice.get(KEY).json["key_id"])["KeyMetadata"]["Arn"]
    vault = Vault.of(world, alice)
    slow = {**alice.headers}
    message = {"plaintext": b64(b"x")}
    answers: dict[str, tuple[Any, str, str]] = {
        "a change": (alice.post(f"{KEY}/rotate").headers, "rotate_key_version", "success"),
        "fast path": (alice.post(f"{KEY}/encrypt", message).headers, "encrypt", "success"),
        "Flask": (
            alice.http.post(f"{KEY}/encrypt?x", json=message, headers=slow).headers,
            "encrypt",
            "success",
        ),
        "a page": (alice.get("/api/v1/keys").headers, "list_keys", "success"),
        "a batch": (alice.post(f"{KEY}/encrypt", {"items": [message, {}]}).headers, "encrypt", "success"),
        "a refusal": (alice.get("/metrics").headers, "metrics", "permission-denied"),
        "no credentials": (world.http.get("/api/v1/keys").headers, "list_keys", "authentication-failed"),
        "AWS": (
            boto.encrypt(KeyId=arn, Plaintext=b"x")["ResponseMetadata"]["HTTPHeaders"],
            "encrypt",
            "success",
        ),
        "Transit": (
            vault.send("POST", "transit/encrypt/k", json.dumps(message).encode()).headers,
            "encrypt",
            "success",
        ),
        "STS": (
            client(world, "sts", access).get_session_token()["ResponseMetadata"]["HTTPHeaders"],
            "",
            "success",
        ),
    }
    world.service.folder.fold()
    for name, (headers, operation, outcome) in answers.items():
        entry = proven(world, alice, leaf_of(headers))
        assert (entry["operation"], entry["outcome"]) == (operation or entry["operation"], outcome), name
    assert verify_log(Tiles.in_directory(world.service.settings.audit_log_dir), key_of(world)).holds


def test_much_that_waits_is_looked_through_once_in_a_while(
    world: World, alice: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.service.folder.fold()
    with world.service.vault.change() as change:
        for number in range(300):
            change.record(f'{{"v":1,"request_id":"{number}"}}')
    read = []
    unchecked = receipts.spool_reading.unchecked
    monkeypatch.setattr(receipts.spool_reading, "unchecked", lambda *given: read.append(1) or unchecked(*given))
    monkeypatch.setattr(receipts, "_MUCH_SECONDS", 1000.0)
    unknown = [leaf_hash(b"%d" % number) for number in range(10)]
    answers = [alice.get(path_of(leaf)).status_code for leaf in unknown]
    assert answers == [404] + [503] * 9  # which waits to be looked through again
    assert len(read) == 1
    assert alice.get(path_of(leaf_hash(b'{"v":1,"request_id":"7"}'))).status_code == 503
    used = leaf_of(alice.post(f"{KEY}/encrypt", {"plaintext": ""}).headers)
    assert alice.get(path_of(used)).status_code == 503
    assert len(read) == 1
    monkeypatch.setattr(receipts, "_MUCH_SECONDS", -1.0)
    assert alice.get(path_of(used)).status_code == 503
    monkeypatch.setattr(receipts, "_MUCH_SECONDS", 1000.0)
    assert [alice.get(path_of(leaf)).status_code for leaf in unknown] == [404] * 10
    assert len(read) == 2
    world.service.folder.fold()
    assert proven(world, alice, used)["operation"] == "encrypt"


def test_a_receipt_is_given_once_the_entry_is_in_the_tree(world: World, alice: Api) -> None:
    changed = leaf_of(alice.post(f"{KEY}/rotate").headers)
    used = leaf_of(alice.post(f"{KEY}/encrypt", {"plaintext": ""}).headers)
    for leaf in (changed, used):
        answer = alice.get(path_of(leaf))
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    world.service.folder.fold()
    for leaf in (changed, used):
        assert proven(world, alice, leaf)["key_id"] == "k"
    bob = world.user("bob")  # whoever has the leaf hash was given it
    assert proven(world, bob, used)["client_id"] == "alice"
    for leaf in (bytes(32), leaf_hash(b"")):
        assert kind_of(alice.get(path_of(leaf))) == "not-found"
    assert world.http.get(path_of(used)).status_code == 401
    for wrong in ("x", "A" * 44, "A" * 42, "A" * 42 + "!", "A" * 42 + "%2F"):
        assert alice.get(f"/audit/proof/{wrong}").status_code in {404, 422}, wrong


def test_no_receipt_is_given_that_is_not_right(world: World, alice: Api) -> None:
    """Whoever can write the files of the log cannot have wrong receipts given out."""
    leaf = leaf_of(alice.post(f"{KEY}/encrypt", {"plaintext": ""}).headers)
    world.service.folder.fold()
    directory, key = world.service.settings.audit_log_dir, key_of(world)
    size = open_checkpoint((directory / "checkpoint").read_bytes(), key).checkpoint.size
    forger = Ed25519Signer(key.name, Ed25519PrivateKey.generate())
    published = (directory / "checkpoint").read_bytes()
    wrong = (bytes(signed(Checkpoint(key.name, size, bytes(32)).text, forger)), b"")
    for content in wrong:
        (directory / "checkpoint-cosigned").write_bytes(content)
        assert proven(world, alice, leaf)["operation"] == "encrypt"
        (directory / "checkpoint").write_bytes(content)
        assert kind_of(alice.get(path_of(leaf))) == "unavailable"
        (directory / "checkpoint").write_bytes(published)
    (tile,) = (directory / "tile/0/000.p").glob("*")
    tile.write_bytes(bytes(32) + tile.read_bytes()[32:])
    assert kind_of(alice.get(path_of(leaf))) == "unavailable"


def test_an_entry_between_its_commit_and_its_tree_is_waited_for(world: World, alice: Api, monkeypatch: Any) -> None:
    leaf = leaf_of(alice.post(f"{KEY}/rotate").headers)
    sequencer = world.service.folder._sequencer
    monkeypatch.setattr(type(sequencer), "_apply", lambda *_: None)
    world.service.folder.fold()
    assert alice.get(path_of(leaf)).status_code == 503
    monkeypatch.undo()
    world.service.folder.fold()
    assert proven(world, alice, leaf)["operation"] == "rotate_key_version"


def test_what_waits_on_another_host_is_waited_for_a_while(world: World, alice: Api, monkeypatch: Any) -> None:
    vault, nodes = world.service.vault, world.service.vault.nodes.all
    monkeypatch.setattr(vault.nodes, "all", lambda snapshot: nodes(snapshot) * 2)
    assert alice.get(path_of(bytes(32))).status_code == 503
    monkeypatch.setattr(receipts, "_ON_OTHER_HOSTS_SECONDS", 0.0)
    assert alice.get(path_of(bytes(32))).status_code == 404


def test_so_much_that_waits_is_not_searched(world: World, alice: Api, monkeypatch: Any) -> None:
    assert alice.get(path_of(bytes(32))).status_code == 404
    monkeypatch.setattr(receipts, "_MOST_WAITING_ROWS", 1)
    assert alice.get(path_of(bytes(32))).status_code == 503


def test_the_look_up_is_limited(template: Template, tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "data", rate_limit_manage="3/minute")
    with closing(template.open(settings)) as service:
        alice = World.of(service).user("alice")
        assert [alice.get(path_of(bytes(32))).status_code for _ in range(4)] == [404, 404, 404, 429]


def test_an_entry_is_found_in_any_tile(monkeypatch: Any) -> None:
    leaves = [leaf_hash(b"%d" % number) for number in range(600)]
    leaves[3] = bytes([7]) * 16 + leaves[4][:16]  # so that a hash also stands across two others
    leaves[5] = leaves[4][:16] + bytes([7]) * 16
    leaves[2] = bytes(16) + bytes([7]) * 16
    content = b"".join(leaves)
    tiles = Tiles(lambda path: content[int(path[7:10]) * 8192 :][:8192])
    for number in (0, 2, 3, 5, 255, 256, 511, 512, 599):
        assert number_in(tiles, 0, 600, leaves[number]) == number
    across = leaves[2][16:] + leaves[3][:16]
    assert across in content
    assert number_in(tiles, 0, 600, across) is None
    assert number_in(tiles, 0, 600, bytes(32)) is None
    monkeypatch.setattr(looking_up, "MOST_SEARCHED_TILES", 2)
    assert number_in(tiles, 0, 600, leaves[0]) is None
    assert number_in(tiles, 0, 600, leaves[256]) == 256


@pytest.mark.parametrize("role", [Role.ADMIN, Role.AUDITOR])
def test_the_log_is_read_over_http(world: World, alice: Api, role: Role) -> None:
    for _ in range(300):
        alice.post(f"{KEY}/encrypt", {"plaintext": ""})
    world.service.folder.fold()
    reader: Api = world.login("admin", role) if role is Role.ADMIN else world.user("eve", role)

    def fetch(path: str) -> bytes:
        answer = reader.get(f"/audit/{path}")
        if answer.status_code == 404:
            raise FileNotFoundError(path)
        assert answer.status_code == 200, answer.text
        immutable = path == "tile/0/000"
        assert ("immutable" in answer.headers["Cache-Control"]) == immutable, path
        assert immutable or answer.headers["Cache-Control"] == "no-store"
        return bytes(answer.data)

    verdict = verify_log(Tiles(fetch), key_of(world))
    assert verdict.holds
    assert verdict.checkpoint is not None and verdict.checkpoint.size > 300


def test_users_do_not_read_the_log(world: World, alice: Api) -> None:
    world.service.folder.fold()
    for path in ("checkpoint", "checkpoint-cosigned", "tile/0/000", "tile/entries/000", "tile/entries/000.p/1"):
        assert kind_of(alice.get(f"/audit/{path}")) == "permission-denied"
        assert world.http.get(f"/audit/{path}").status_code == 401


NO_TILES = (
    "tile/../checkpoint tile/0/../../../kms.db tile/%2e%2e/%2e%2e/kms.db tile/..%2F..%2Fkms.db tile//etc/passwd "
    "tile/0/ tile/0 tile/0/000/ tile/0/000.p/256 tile/0/000.p/0 tile/0/000.p tile/0/1 tile/64/000 tile/00/000 "
    "tile/entries/000.p/001 tile/entries/%00 tile/entries/x000/000 tile/entries/%D9%A000 tile/0/000%0A index.db "
    "staging/lock key"
)


def test_no_other_path_reaches_the_file_system(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(path: Any) -> bytes:
        raise AssertionError(path)

    monkeypatch.setattr(transparency, "_content", never)
    admin = world.admin
    for path in (*NO_TILES.split(), ""):
        assert admin.get(f"/audit/{path}").status_code == 404, path


def test_a_log_that_has_not_begun(world: World) -> None:
    assert kind_of(world.admin.get("/audit/checkpoint")) == "not-found"
    assert kind_of(world.admin.get("/audit/tile/0/000")) == "not-found"
    key = key_of(world)
    assert key.name == "localhost:8443/audit"
    world.service.folder.fold()
    assert world.admin.get("/audit/checkpoint").text.startswith("localhost:8443/audit\n")
    assert key_of(world) == key


def test_ids_of_requests_do_not_follow_from_others() -> None:
    """Or whoever knows some of their own could guess leaf hashes of others."""
    given = []
    for _ in range(2):
        random.seed(7)
        given += [each() for _ in range(700) for each in (new_request_id, long_request_id)]
    assert len(set(given)) == len(given) == 2800
    assert all(re.fullmatch("[0-9a-f]{16}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", each) for each in given)
    read, write = os.pipe()
    child = os.fork()
    if not child:  # forked with ids that are made already, as workers are
        os.write(write, new_request_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 16).decode() not in {new_request_id() for _ in range(600)}
    os.close(read)
    os.close(write)
