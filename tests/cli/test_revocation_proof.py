"""`kms revocations check --offline`: what a list and a proof of the audit log show, with no service at hand."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc.jwk import OKPKey

from helpers.support import Api, SteeredClock, World
from kms.audit.checkpoint import Checkpoint
from kms.audit.cosignature import Cosigner
from kms.audit.keys import log_key
from kms.audit.note import Ed25519Signer, Note, signed
from kms.audit.proof import proof_of
from kms.audit.tiles import Tiles
from kms.audit.tree import leaf_hash
from kms.cli import main

Check = Callable[..., str]
Kms = Callable[..., list[Any]]


@dataclass
class Kept:
    """What somebody keeps of a service in a folder: lists, proofs, a checkpoint and the key of its log."""

    world: World
    folder: Path

    @property
    def checkpoint(self) -> Note:
        """The newest checkpoint of the log."""
        return Note.parse((self.world.service.settings.audit_log_dir / "checkpoint").read_bytes())

    @property
    def tree(self) -> Checkpoint:
        """What it says."""
        return Checkpoint.parse(self.checkpoint.text)

    @property
    def signer(self) -> Ed25519Signer:
        """What signs it."""
        with self.world.service.vault.read() as snapshot:
            return Ed25519Signer(self.tree.origin, log_key(snapshot))

    def fetch(self, api: Api, name: str = "revocations.json") -> None:
        (self.folder / name).write_bytes(api.get("/revocation_list").data)
        (self.folder / "jwks.json").write_bytes(self.world.http.get("/.well-known/jwks.json").data)
        self.world.service.folder.fold()
        (self.folder / "kms.key").write_text(f"{self.signer.key}\n")
        (self.folder / "checkpoint").write_bytes(bytes(self.checkpoint))

    def prove(self, leaf: bytes, *witnesses: Cosigner) -> bytes:
        """The proof of the entry with this leaf, as the service makes it, with the witnesses' cosignatures."""
        note = self.checkpoint.with_signatures([each.sign(self.checkpoint.text) for each in witnesses])
        size = self.tree.size
        tiles = Tiles.in_directory(self.world.service.settings.audit_log_dir)
        (number,) = (n for n, line in enumerate(tiles.entries(0, size, size)) if leaf_hash(line) == leaf)
        return bytes(proof_of(number, tiles.at(size), note))

    def leaf_of(self, key_id: str) -> bytes:
        listed = json.loads((self.folder / "revocations.json").read_bytes())
        every = listed["revoked_keys"] + listed["no_longer_in_force"]
        return b64decode(next(each["audit_leaf"] for each in every if each["key_id"] == key_id))


@pytest.fixture
def kept(world: World, tmp_path: Path) -> Kept:
    return Kept(world, tmp_path)


@pytest.fixture
def check(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> Check:
    """`kms revocations check --offline revocations.json`, never logged in; gives all that is printed."""
    monkeypatch.chdir(kept.folder)
    monkeypatch.setenv("KMS_HOME", str(kept.folder / "home"))

    def run(*arguments: str, code: int = 0) -> str:
        given = ["revocations", "check", "--offline", "revocations.json", *arguments]
        done = CliRunner().invoke(main, given)
        assert done.exit_code == code, done.output
        return done.output

    return run


@pytest.fixture
def alice(world: World) -> Api:
    api = world.user("alice")
    for key_id in ("lost", "held", "fine"):
        assert api.post("/api/v1/keys", {"key_id": key_id}).status_code == 201
    return api


def moment(clock: SteeredClock) -> str:
    return clock().isoformat()


def test_what_was_revoked_when(kept: Kept, check: Check, alice: Api, clock: SteeredClock) -> None:
    times = [moment(clock)]
    for path in ("held/suspend", "held/resume", "lost/revoke"):
        clock.advance(hours=3)
        alice = kept.world.login("alice")
        assert alice.post(f"/api/v1/keys/{path}").status_code == 200
        clock.advance(seconds=2)
        times.append(moment(clock))
    clock.advance(hours=2)
    alice = kept.world.login("alice")
    kept.fetch(alice)
    before, on_hold, lifted, gone = times
    assert "held was not revoked at" in check("held", "--at", before)
    assert "certificateHold, entry 1 of the list, by audit entry" in check("held", "--at", on_hold, code=9)
    assert "held was not revoked at" in check("held", "--at", lifted)
    assert "lost was not revoked at" in check("lost", "--at", lifted)
    assert "lost was revoked" in check("lost", "--at", gone, code=9)
    assert "every entry up to number 3" in check("fine", "--at", gone)
    clock.advance(hours=2)
    assert "cannot be told. The list was made before" in check("fine", "--at", moment(clock), code=7)
    assert "not a time like" in check("fine", "--at", "2026-11-24", code=2)
    assert "not a time like" in check("fine", "--at", "yesterday", code=2)


def test_keys_from_beside_the_list_prove_nothing(kept: Kept, check: Check, alice: Api) -> None:
    kept.fetch(alice)
    keys = json.loads(Path("jwks.json").read_bytes())
    thumbprint = OKPKey.import_key(keys["keys"][0]).thumbprint()
    told = check("fine")
    assert "proves nothing" in told and thumbprint in told
    keys["keys"][0]["x5t"] = "x"  # what stands beside the key is anybody's word
    Path("jwks.json").write_text(json.dumps(keys))
    assert thumbprint in check("fine")
    assert "proves nothing" not in check("fine", "--jwks", "jwks.json")
    other = OKPKey.generate_key("Ed25519", private=False).as_dict() | {"kid": thumbprint}
    Path("jwks.json").write_text(json.dumps({"keys": [other]}))
    done = CliRunner().invoke(main, ["revocations", "check", "fine", "--offline", "revocations.json"])
    assert done.exit_code == 8


def test_a_revocation_is_proven_from_the_log(kept: Kept, check: Check, alice: Api) -> None:
    alice.post("/api/v1/keys/lost/revoke")
    alice.post("/api/v1/keys/held/revoke")
    kept.fetch(alice)
    Path("lost.proof").write_bytes(kept.prove(kept.leaf_of("lost")))
    proven = ["lost", "--receipts", "lost.proof", "--log-key", "kms.key"]
    told = check(*proven, code=9)
    assert f"of the audit log {kept.tree.origin}" in told and "lost is revoked up to version 1" in told
    assert "made by entry" in check(*proven, "--checkpoint", "checkpoint", code=9)
    Path("proofs").mkdir()
    Path("proofs/readme").write_text("not a proof")
    Path("proofs/2").write_bytes(kept.prove(kept.leaf_of("held")))
    in_folder = ["--receipts", "proofs", "--log-key", str(kept.signer.key)]
    assert "made by entry" in check("held", *in_folder, code=9)
    assert "does not prove" in check("lost", *in_folder, code=8)
    assert "not looked at" in check("fine", *in_folder)


def test_what_proves_nothing_is_refused(kept: Kept, check: Check, alice: Api) -> None:
    alice.post("/api/v1/keys/lost/revoke")
    alice.post("/api/v1/keys/held/revoke")
    kept.fetch(alice)
    proof = kept.prove(kept.leaf_of("lost"))
    Path("proof").write_bytes(proof)
    with_key = ["--receipts", "proof", "--log-key", "kms.key"]
    assert "kms audit receipt" in check("held", *with_key, code=8)  # the proof is of another entry
    other = Ed25519Signer(kept.tree.origin, Ed25519PrivateKey.generate())
    assert "does not prove" in check("lost", "--receipts", "proof", "--log-key", str(other.key), code=8)
    bait = Path(str(other.key))  # what has the form of a key is not the name of a file, also where one is there
    bait.parent.mkdir(parents=True)
    bait.write_text(f"{kept.signer.key}\n")
    assert "does not prove" in check("lost", "--receipts", "proof", "--log-key", str(other.key), code=8)
    Path("proof").write_bytes(proof.replace(b"index ", b"index 1"))
    check("lost", *with_key, code=8)
    Path("proof").write_bytes(b"nothing")
    assert "does not begin with" in check("lost", *with_key, code=8)
    assert "--log-key" in check("lost", "--receipts", "proof", code=2)
    assert "go with --receipts" in check("lost", "--log-key", "kms.key", code=2)
    assert "key cannot be read" in check("lost", "--receipts", "proof", "--log-key", "no", code=1)


def test_the_proof_leads_to_the_checkpoint_that_was_kept(kept: Kept, check: Check, alice: Api) -> None:
    alice.post("/api/v1/keys/lost/revoke")
    kept.fetch(alice)
    Path("proof").write_bytes(kept.prove(kept.leaf_of("lost")))
    proven = ["lost", "--receipts", "proof", "--log-key", "kms.key", "--checkpoint", "checkpoint"]
    check(*proven, code=9)
    now = kept.tree
    forked = Checkpoint(now.origin, now.size, bytes(32))
    Path("checkpoint").write_bytes(bytes(signed(forked.text, kept.signer)))
    assert "another log" in check(*proven, code=8)
    older = Checkpoint(now.origin, now.size - 1, bytes(32))
    Path("checkpoint").write_bytes(bytes(signed(older.text, kept.signer)))
    assert "continues the older" in check(*proven, code=1)
    Path("checkpoint").write_bytes(b"nothing")
    check(*proven, code=8)


def test_witnesses_must_have_cosigned(kept: Kept, check: Check, alice: Api) -> None:
    alice.post("/api/v1/keys/lost/revoke")
    kept.fetch(alice)
    leaf = kept.leaf_of("lost")
    witness = Cosigner("witness.test/w", Ed25519PrivateKey.generate(), lambda: 1_800_000_000)
    proven = ["lost", "--receipts", "proof", "--log-key", "kms.key", "--witness", str(witness.key)]
    Path("proof").write_bytes(kept.prove(leaf))
    assert "0 of the witnesses" in check(*proven, code=8)
    Path("proof").write_bytes(kept.prove(leaf, witness))
    assert "made by entry" in check(*proven, code=9)


def test_the_way_that_the_page_goes(kms: Kms, shared_world: World) -> None:
    """docs/how-to/prove-a-revocation.md, with a service over TLS."""
    kms("key", "create", "releases", by="alice")
    kms("key", "revoke", "releases", "--yes")
    kms("revocations", "fetch", "lists")
    (key,) = kms("audit", "key")
    Path("kms.key").write_text(key)
    listed = json.loads(Path("lists/revocations.json").read_bytes())["revoked_keys"]
    leaf = next(each["audit_leaf"] for each in listed if each["key_id"] == "releases")
    shared_world.service.folder.fold()
    (proof,) = kms("audit", "receipt", leaf)
    Path("lists/releases.proof").write_text(proof)
    offline = ("revocations", "check", "releases", "--offline", "lists/revocations.json", "--jwks", "lists/jwks.json")
    receipts = ("--receipts", "lists/releases.proof", "--log-key", "kms.key")
    at = ("--at", shared_world.service.clock().isoformat())
    (told,) = kms(*offline, *receipts, "--at", listed[-1]["revoked_at"], code=9)
    assert "releases was revoked up to version 1" in told
    assert "cannot be told" in kms("revocations", "check", "orders", *offline[3:], *at, code=7)[0]
