"""The audit log of a service that is killed in the middle: whole, provable, and any tampering with it is named."""

from __future__ import annotations

import http.client
import json
import signal
import ssl
import subprocess
import sys
import threading
import time
from base64 import b64decode, b64encode, urlsafe_b64encode
from pathlib import Path
from shutil import copytree

import pytest

from helpers.running import Running, Start, wait_until
from helpers.support import b64
from helpers.witness import TestWitness, witnessing
from kms.audit.note import Ed25519Key
from kms.audit.tiles import TILE_WIDTH, Tiles, bundle_path
from kms.audit.tree import leaf_hashes

ROOT = Path(__file__).parents[2]
FLAGS = ("--workers", "2", "--rate-limit", "off")


class User(threading.Thread):
    """Encrypts all the time and keeps the leaf hash of every answer, until it is told to stop."""

    def __init__(self, service: Running, token: str) -> None:
        super().__init__(daemon=True)
        self.service, self.token = service, token
        self.leaves: list[bytes] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        context = ssl.create_default_context(cafile=str(self.service.folder / "server.crt"))
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        body = json.dumps({"plaintext": b64(b"x")})
        while not self.stopping.is_set():
            connection = http.client.HTTPSConnection("localhost", self.service.port, context=context, timeout=30)
            try:
                while not self.stopping.is_set():
                    connection.request("POST", "/api/v1/keys/k/encrypt", body, headers)
                    answer = connection.getresponse()
                    answer.read()
                    if answer.status == 200:
                        self.leaves.append(b64decode(answer.headers["Audit-Leaf"]))
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)
            finally:
                connection.close()


def use(service: Running, token: str, count: int) -> list[bytes]:
    """The leaf hashes of at least so many uses by two users at once."""
    users = [User(service, token) for _ in range(2)]
    for each in users:
        each.start()
    wait_until(lambda: all(len(each.leaves) >= count // 2 for each in users), service.log.read_text)
    service.stop(signal.SIGKILL)  # while they go on
    for each in users:
        each.stopping.set()
    for each in users:
        each.join(timeout=60)
    return [leaf for each in users for leaf in each.leaves]


def kms(service: Running, *arguments: object, code: int = 0) -> str:
    """What `kms audit` prints, in the folder of the service."""
    command = [sys.executable, "-m", "kms", "audit", *map(str, arguments)]
    environ = {**service.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=service.folder, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def receipt_of(service: Running, token: str, leaf: bytes) -> str:
    """The proof, once the entry is in the tree."""
    path = f"/audit/proof/{urlsafe_b64encode(leaf).decode().rstrip('=')}"
    answers = []

    def is_there() -> bool:
        answers.append(service.curl("GET", path, token=token))
        assert answers[-1].status in {200, 503}, answers[-1].text
        return answers[-1].status == 200

    wait_until(is_there, every=0.3)
    return answers[-1].text


@pytest.mark.slow
def test_a_service_that_is_killed_has_a_log_that_is_whole(start: Start, tmp_path: Path) -> None:
    with witnessing(tmp_path / "witness") as witness:
        settings = {
            "KMS_WITNESS_URLS": witness.url,
            "KMS_WITNESS_KEYS": str(witness.cosigner.key),
            "KMS_WITNESS_CA": str(witness.ca),
        }
        service = start(*FLAGS, **settings)
        key_text = service.curl("GET", "/.well-known/audit-key", token="").text
        (tmp_path / "key").write_text(key_text)
        key = Ed25519Key.parse(key_text.strip())
        witness.logs[key.name] = key
        token = service.user("alice")
        assert service.curl("POST", "/api/v1/keys", {"key_id": "k"}, token=token).status == 201
        checkpoint = service.folder / "kms-data/audit-log/checkpoint"
        wait_until(
            checkpoint.exists, service.log.read_text, every=0.1
        )  # the process that folds comes up after the workers
        leaves = use(service, token, 600)
        old = tmp_path / "old"
        old.write_bytes(checkpoint.read_bytes())
        service = start(*FLAGS, folder=service.folder, port=service.port, login=False, **settings)
        _every_leaf_comes(service, leaves)
        leaves += use(service, token, 300)
        service = start(*FLAGS, folder=service.folder, port=service.port, login=False, **settings)
        _every_leaf_comes(service, leaves)
        _receipts_hold(service, token, leaves, tmp_path)
        told = kms(service, "verify", "--data-dir", "kms-data", "--key", tmp_path / "key", "--checkpoint", old)
        assert "are as its checkpoint says" in told
        assert "continues the older checkpoint" in told
        _is_cosigned(service, witness, tmp_path)
        service.stop()
        copytree(service.folder / "kms-data/audit-log", tmp_path / "copy")
    _tampering_is_named(service, tmp_path)


def _every_leaf_comes(service: Running, leaves: list[bytes]) -> None:
    """Wait until each entry that was acknowledged is in the tree, and see that it is there once."""
    tiles = Tiles.in_directory(service.folder / "kms-data/audit-log")

    def missing() -> set[bytes]:
        return set(leaves) - set(leaf_hashes(tiles.entries(0, size := _size(tiles), size)))

    wait_until(lambda: not missing(), service.log.read_text, every=0.5)
    size = _size(tiles)
    found = leaf_hashes(tiles.entries(0, size, size))
    assert len(found) == len(set(found))


def _size(tiles: Tiles) -> int:
    return int(tiles.fetch("checkpoint").split(b"\n")[1])


def _receipts_hold(service: Running, token: str, leaves: list[bytes], folder: Path) -> None:
    for leaf in (leaves[0], leaves[len(leaves) // 2], leaves[-1]):
        (folder / "receipt").write_text(receipt_of(service, token, leaf))
        arguments = ("verify", "--receipt", folder / "receipt", "--key", folder / "key", "--entry")
        assert "The entry is number" in kms(service, *arguments, b64encode(leaf).decode())
        kms(service, *arguments, b64encode(bytes(32)).decode(), code=8)


def _is_cosigned(service: Running, witness: TestWitness, folder: Path) -> None:
    path = service.folder / "kms-data/audit-log/checkpoint"
    wait_until(lambda: witness.cosigner.name in path.read_text(encoding="utf-8"), service.log.read_text)
    arguments = ("--key", folder / "key", "--witness", witness.cosigner.key)
    assert "Cosigned by" in kms(service, "verify", "--data-dir", "kms-data", *arguments)


def _tampering_is_named(service: Running, folder: Path) -> None:
    arguments = ("verify", "--from", folder / "copy", "--key", folder / "key")
    kms(service, *arguments)
    bundle = folder / "copy" / bundle_path(1)
    content = bundle.read_bytes()
    at = content.index(b'"operation":"encrypt"', len(content) // 2)
    bundle.write_bytes(content[:at] + content[at:].replace(b"encrypt", b"decrypt", 1))
    number = TILE_WIDTH + content[:at].count(b'"operation":')
    told = kms(service, *arguments, code=8)
    assert f"The first wrong entry: {number}." in told
    assert "decrypt, alice" in told
    original = service.folder / "kms-data/audit-log" / bundle_path(1)
    original.write_bytes(bundle.read_bytes())
    assert f"The first wrong entry: {number}." in kms(service, "verify", "--data-dir", "kms-data", code=8)
