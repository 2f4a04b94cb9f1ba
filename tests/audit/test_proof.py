"""Checkpoints, cosignatures and proofs: as others have signed them, and hostile ones."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from helpers.naive_tree import mth
from helpers.tlog import ORIGIN, WrittenLog, entry
from kms.audit.checkpoint import Checkpoint, open_checkpoint
from kms.audit.cosignature import MLDSA44_COSIGNATURE, CosignatureKey, Cosigner, add_checkpoint_request
from kms.audit.note import Ed25519Key, Note, NoteMalformed, Signature, SignatureRefused, signature_lines, signed
from kms.audit.proof import MAX_PROOF_BYTES, ProofRefused, TlogProof, proof_of
from kms.audit.tree import EMPTY_ROOT, Unverified, consistency_proof, leaf_hash, verify_consistency

VECTORS = Path(__file__).parents[1] / "vectors"
ROOT = b64encode(bytes(32)).decode()

# From filippo.io/torchwood v0.10.0 (BSD), cmd/litewitness/testdata/sumdb.txt: a real head of sum.golang.org.
SUMDB_KEY = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
SUMDB = """go.sum database tree
35225469
vt5T6GaLCXvyHFl9VUvvItR43XZxfLgftEcTyO3eJCQ=

— sum.golang.org Az3grpukl5AXaVfYkLiDGORx/DN2nlcS5kZHR5uYOBV2KA2HgXpD+gu9HHONebHLAyaKbbTM75QTtPydhKCExixSfwQ=
"""

# From the same, litewitness.txt: what a witness is sent. The key is that of its `witnessctl add-sigsum-log`.
SIGSUM = "sigsum.org/v1/tree/4d6d8825a6bb689d459628312889dfbb0bcd41b5211d9e1ce768b0ff0309e562"
SIGSUM_KEY = Ed25519Key(SIGSUM, bytes.fromhex("ffdc2d4d98e4124d3feaf788c0c2f9abfd796083d1f0495437f302ec79cf100f"))
SIGSUM_REQUESTS = [
    f"""old 0

{SIGSUM}
1
KgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=

— {SIGSUM} UgIom7fPZTqpxWWhyjWduBvTvGVqsokMbqTArsQilegKoFBJQjUFAmQ0+YeSPM3wfUQMFSzVnnNuWRTYrajXpNUbIQY=
""",
    f"""old 1
KgEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
KgIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=

{SIGSUM}
3
RcCI1Nk56ZcSmIEfIn0SleqtV7uvrlXNccFx595Iwl0=

— {SIGSUM} UgIom2VbtIcdFbwFAy1n7s6IkAxIY6J/GQOTuZF2ORV39d75cbAj2aQYwyJre36kezNobZs4SUUdrcawfAB8WVrx6go=
""",
    f"""old 3
KgIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
KgMAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
wgiIFdZfYNv6WU1OllBKsWnLYIS/DBMqt8Uh/S4OukE=
KgQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=

{SIGSUM}
5
QrtXrQZCCvpIgsSmOsah7HdICzMLLyDfxToMql9WTjY=

— {SIGSUM} UgIomw/EOJmWi0i1FQsOj+etB7F8IccFam/jgd6wzRns4QPVmyEZtdvl1U2KEmLOZ/ASRcWJi0tW90dJWAShei7sDww=
""",
]


def ed25519() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


# Checkpoints


def test_the_head_of_go_s_checksum_database() -> None:
    opened = open_checkpoint(SUMDB.encode(), Ed25519Key.parse(SUMDB_KEY), origin="go.sum database tree")
    assert opened.checkpoint.size == 35_225_469
    assert opened.checkpoint.root == b64decode("vt5T6GaLCXvyHFl9VUvvItR43XZxfLgftEcTyO3eJCQ=")
    with pytest.raises(SignatureRefused, match=r"not of sum\.golang\.org"):
        open_checkpoint(SUMDB.encode(), Ed25519Key.parse(SUMDB_KEY))


def test_what_a_witness_is_sent() -> None:
    """Published requests are made again byte for byte, and their consistency proofs verify."""
    before = Checkpoint(SIGSUM, 0, EMPTY_ROOT)
    for request in SIGSUM_REQUESTS:
        head, _, body = request.partition("\n\n")
        size, *lines = head.split("\n")
        path = [b64decode(line) for line in lines]
        opened = open_checkpoint(body.encode(), SIGSUM_KEY)
        now = opened.checkpoint
        assert size == f"old {before.size}"
        assert verify_consistency(before.size, before.root, now.size, now.root, path)
        assert add_checkpoint_request(before.size, path, opened.note) == request.encode()
        before = now
    with pytest.raises(ValueError, match="at most 63"):
        add_checkpoint_request(1, [bytes(32)] * 64, opened.note)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "log\n5\n",
        f"log\n5\n{ROOT}",
        f"\n5\n{ROOT}\n",
        f"log\n\n5\n{ROOT}\n",
        f"log\n05\n{ROOT}\n",
        f"log\n+5\n{ROOT}\n",
        f"log\n-5\n{ROOT}\n",
        f"log\n 5\n{ROOT}\n",
        f"log\n0x5\n{ROOT}\n",
        f"log\n5_0\n{ROOT}\n",
        f"log\n٥\n{ROOT}\n",  # an Arabic five
        f"log\nfive\n{ROOT}\n",
        f"log\n{1 << 63}\n{ROOT}\n",
        f"log\n{'9' * 5000}\n{ROOT}\n",
        f"log\n5\n{ROOT[:-4]}\n",
        f"log\n5\n{ROOT}AAAA\n",
        f"log\n5\n{ROOT[:-2]}B=\n",
        f"log\n5\n{ROOT} \n",
        f"log\n5\n{ROOT.replace('=', '')}\n",
        f"log\n5\n{ROOT}\n\n",
        f"log\n5\n{ROOT}\n\nextension\n",
        f"log\n0\n{ROOT}\n",
    ],
)
def test_malformed_checkpoints(text: str) -> None:
    with pytest.raises(NoteMalformed):
        Checkpoint.parse(text)


def test_checkpoints_read_back() -> None:
    for checkpoint in (
        Checkpoint("log", 0, EMPTY_ROOT),
        Checkpoint("log", (1 << 63) - 1, bytes(32)),
        Checkpoint("a log with spaces", 7, bytes(range(32)), ("extension", "— one more")),
    ):
        assert Checkpoint.parse(checkpoint.text) == checkpoint


# Cosignatures


def test_a_published_checkpoint_that_ml_dsa_has_signed() -> None:
    """By a log, whose signature states no time and is no witness's."""
    vector = json.loads((VECTORS / "mldsa44_checkpoint.json").read_text())
    key = CosignatureKey.parse(vector["key"])
    assert (key.name, key.kind) == ("example.com/mldsa-log", MLDSA44_COSIGNATURE)
    assert str(key) == vector["key"]
    content = vector["checkpoint"].encode()
    opened = open_checkpoint(content, key)
    assert (opened.checkpoint.size, dict(opened.cosigned)) == (1, {})
    for wrong in (content.replace(b"\n1\n", b"\n2\n"), content.replace(b"+zoE", b"+zoF")):
        with pytest.raises(SignatureRefused, match="is wrong"):
            open_checkpoint(wrong, key)


class MlDsaCosigner:
    """A witness of type 0x06, its message written as tlog-cosignature defines it."""

    def __init__(self, name: str, time: int) -> None:
        self.private_key = MLDSA44PrivateKey.generate()
        self.key = CosignatureKey(name, self.private_key.public_key().public_bytes_raw(), MLDSA44_COSIGNATURE)
        self.time = time

    def sign(self, text: str) -> Signature:
        origin, size, root, *_ = text.split("\n")
        message = b"subtree/v1\n\x00"
        message += bytes([len(self.key.name)]) + self.key.name.encode() + self.time.to_bytes(8, "big")
        message += bytes([len(origin)]) + origin.encode()
        message += bytes(8) + int(size).to_bytes(8, "big") + b64decode(root)
        value = self.time.to_bytes(8, "big") + self.private_key.sign(message)
        return Signature(self.key.name, self.key.key_id, value)


def test_cosignatures_of_both_types_count(tmp_path: Path) -> None:
    log = WrittenLog(tmp_path)
    one = Cosigner("witness.example/one", ed25519(), lambda: 1_700_000_000)
    two = MlDsaCosigner("witness.example/two", 1_700_000_005)
    stranger = Cosigner("witness.example/three", ed25519(), lambda: 1)
    content = log.grow([entry(1)], one, two, stranger)
    opened = open_checkpoint(content, log.key, [one.key, two.key])
    assert opened.cosigned == {one.key: 1_700_000_000, two.key: 1_700_000_005}
    assert open_checkpoint(content, log.key).cosigned == {}
    for key in (one.key, two.key):
        assert CosignatureKey.parse(str(key)) == key


def test_a_cosignature_is_over_the_whole_checkpoint_and_its_time(tmp_path: Path) -> None:
    log = WrittenLog(tmp_path)
    content = log.grow([entry(1)])
    for witness in (Cosigner("w", ed25519(), lambda: 1_700_000_000), MlDsaCosigner("w", 1_700_000_000)):
        right = witness.sign(Note.parse(content).text)
        other = witness.sign(Checkpoint(ORIGIN, 2, log.root).text)
        later = Signature(right.name, right.key_id, (1_700_000_001).to_bytes(8, "big") + right.value[8:])
        never = Signature(right.name, right.key_id, b"\xff" * 8 + right.value[8:])
        short = Signature(right.name, right.key_id, right.value[:8])
        assert open_checkpoint(content + right.line.encode(), log.key, [witness.key]).cosigned
        for wrong in (other, later, never, short):
            with pytest.raises(SignatureRefused, match="signature of w"):
                open_checkpoint(content + wrong.line.encode(), log.key, [witness.key])


def test_a_witness_counts_once_and_with_its_latest_time(tmp_path: Path) -> None:
    log = WrittenLog(tmp_path)
    times = iter([5, 9, 7])
    witness = Cosigner("w", ed25519(), lambda: next(times))
    content = log.grow([entry(1)], witness, witness, witness)
    assert open_checkpoint(content, log.key, [witness.key, witness.key]).cosigned == {witness.key: 9}


def test_a_log_s_own_signature_is_no_witness_s(tmp_path: Path) -> None:
    """And a cosignature alone does not make a checkpoint."""
    log = WrittenLog(tmp_path)
    log.grow([entry(1)])
    witness = Cosigner(ORIGIN, log.signer.private_key, lambda: 5)
    only = bytes(signed(Checkpoint(ORIGIN, 1, log.root).text, witness))
    with pytest.raises(SignatureRefused, match=r"The log .* has not signed"):
        open_checkpoint(only, log.key, [witness.key])
    with pytest.raises(NoteMalformed, match="not a witness's"):
        CosignatureKey.parse(str(log.key))
    with pytest.raises(NoteMalformed, match="0x01"):
        Ed25519Key.parse(str(witness.key))


def test_the_answer_of_a_witness_is_added_to_the_checkpoint(tmp_path: Path) -> None:
    log = WrittenLog(tmp_path)
    content = log.grow([entry(1)])
    witness = Cosigner("w", ed25519(), lambda: 5)
    note = Note.parse(content)
    answer = witness.sign(note.text).line
    published = bytes(note.with_signatures(signature_lines(answer)))
    assert published == content + answer.encode()
    assert open_checkpoint(published, log.key, [witness.key]).cosigned == {witness.key: 5}


# Proofs


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> WrittenLog:
    written = WrittenLog(tmp_path_factory.mktemp("log"))
    written.grow([entry(number) for number in range(700)])
    return written


def note_of(log: WrittenLog) -> Note:
    return Note.parse(log.tiles.fetch("checkpoint"))


def test_a_proof_has_the_form_of_tlog_proof(log: WrittenLog) -> None:
    content = bytes(proof_of(42, log.tiles.at(700), note_of(log)))
    lines = content.decode().split("\n")
    assert lines[:2] == ["c2sp.org/tlog-proof@v1", "index 42"]
    hashes = lines[2 : lines.index("")]
    assert [len(b64decode(line)) for line in hashes] == [32] * 10
    assert b64decode(hashes[0]) == leaf_hash(entry(43))
    assert content.endswith(b"\n\n" + bytes(note_of(log)))
    extra = bytes(proof_of(42, log.tiles.at(700), note_of(log), b"more"))
    assert extra.split(b"\n")[:3] == [b"c2sp.org/tlog-proof@v1", b"extra bW9yZQ==", b"index 42"]
    assert TlogProof.parse(extra).extra == b"more"
    assert bytes(proof_of(42, log.tiles.at(700), note_of(log), b"")) == content


def test_the_specification_s_example_is_read() -> None:
    """c2sp.org/tlog-proof, with whole base64 in place of what it shortens."""
    text = """c2sp.org/tlog-proof@v1
extra YWdlLXYxLjIuMS1kYXJ3aW4tYXJtNjQudGFyLmd6
index 73894
gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=
EKNzoDWG8LGC0Yp9o+sv3qllpMP9uHQ9B20KNL+Q1zs=
RoopEkOdqkYqMB4MJXrbt/hMjOxsVn0IrWjpz1ZMMes=
AHCioX9nLjsrse6YhjRRmk1WUEirVOLLRoOQ6vfO5vk=

example.com/fancylog
109482
sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=

— example.com/fancylog hI2DJwAAAAA=
"""
    proof = TlogProof.parse(text.encode())
    assert (proof.index, len(proof.path), proof.extra) == (73_894, 5, b"age-v1.2.1-darwin-arm64.tar.gz")
    assert bytes(proof) == text.encode()


@pytest.mark.parametrize("index", [0, 255, 256, 511, 512, 699])
def test_an_entry_is_proven_offline(log: WrittenLog, index: int) -> None:
    proof = TlogProof.parse(bytes(proof_of(index, log.tiles.at(700), note_of(log))))
    assert proof.check(leaf_hash(entry(index)), log.key).checkpoint == Checkpoint(ORIGIN, 700, log.root)
    with pytest.raises(ProofRefused, match=f"does not show that the entry is number {index} of"):
        proof.check(leaf_hash(entry(index + 1)), log.key)
    with pytest.raises(ProofRefused):
        TlogProof(index ^ 1, proof.path, proof.checkpoint).check(leaf_hash(entry(index)), log.key)
    with pytest.raises(ProofRefused):
        TlogProof(index, proof.path[:-1], proof.checkpoint).check(leaf_hash(entry(index)), log.key)
    with pytest.raises(SignatureRefused):
        proof.check(leaf_hash(entry(index)), WrittenLog(log.directory).key)


def test_a_log_of_one_entry_needs_no_hash(tmp_path: Path) -> None:
    log = WrittenLog(tmp_path)
    log.grow([b"only"])
    content = bytes(proof_of(0, log.tiles.at(1), note_of(log)))
    assert content.startswith(b"c2sp.org/tlog-proof@v1\nindex 0\n\nkms.example")
    TlogProof.parse(content).check(leaf_hash(b"only"), log.key)
    with pytest.raises(ValueError, match="is not in a tree of 1 entries"):
        proof_of(1, log.tiles.at(1), note_of(log))


def test_so_many_witnesses_as_are_needed(tmp_path: Path) -> None:
    log = WrittenLog(tmp_path)
    witnesses = [Cosigner(f"w{number}", ed25519(), lambda: 5) for number in range(3)]
    log.grow([b"only"], *witnesses[:2], witnesses[0])
    proof = proof_of(0, log.tiles.at(1), note_of(log))
    keys = [each.key for each in witnesses]
    assert set(proof.check(leaf_hash(b"only"), log.key, keys, needed=2).cosigned) == set(keys[:2])
    with pytest.raises(SignatureRefused, match=r"2 of the witnesses .* have cosigned the checkpoint, 3 must"):
        proof.check(leaf_hash(b"only"), log.key, keys, needed=3)
    with pytest.raises(SignatureRefused, match=r"1 of the witnesses"):
        proof.check(leaf_hash(b"only"), log.key, keys[:1], needed=2)
    twin = MlDsaCosigner("w0", 5)  # the same witness by another key
    log.grow([], witnesses[0], twin)
    proof = proof_of(0, log.tiles.at(1), note_of(log))
    assert len(proof.check(leaf_hash(b"only"), log.key, [keys[0], twin.key], needed=1).cosigned) == 2
    with pytest.raises(SignatureRefused, match=r"1 of the witnesses"):
        proof.check(leaf_hash(b"only"), log.key, [keys[0], twin.key], needed=2)


HASH = b64encode(bytes(32)).decode()
HEAD = "c2sp.org/tlog-proof@v1"


@pytest.mark.parametrize(
    "head",
    [
        "",
        "index 5",
        f"{HEAD}",
        f"{HEAD}\n",
        f"{HEAD} \nindex 5",
        f"{HEAD}\r\nindex 5",
        f"c2sp.org/tlog-proof@v2\nindex 5\n{HASH}",
        f"{HEAD}\nindex 05",
        f"{HEAD}\nindex -5",
        f"{HEAD}\nindex",
        f"{HEAD}\nindex  5",
        f"{HEAD}\nindex 5 ",
        f"{HEAD}\nindex {1 << 63}",
        f"{HEAD}\nIndex 5",
        f"{HEAD}\n{HASH}\nindex 5",
        f"{HEAD}\nindex 5\nindex 5",
        f"{HEAD}\nindex 5\nextra AAAA",
        f"{HEAD}\nextra AAAA\nextra AAAA\nindex 5",
        f"{HEAD}\nextra \nindex 5",
        f"{HEAD}\nextra AAA\nindex 5",
        f"{HEAD}\nextra AAB=\nindex 5",
        f"{HEAD}\nextra",
        f"{HEAD}\nindex 5\n{HASH[:-4]}",
        f"{HEAD}\nindex 5\n{HASH[:-2]}B=",
        f"{HEAD}\nindex 5\n{HASH}{HASH}",
        f"{HEAD}\nindex 5\n{HASH.replace('A', '_')}",
        f"{HEAD}\nindex 5\n{HASH} ",
        f"{HEAD}\nindex 5" + f"\n{HASH}" * 64,
    ],
)
def test_malformed_proofs(log: WrittenLog, head: str) -> None:
    with pytest.raises(NoteMalformed):
        TlogProof.parse(head.encode() + b"\n\n" + log.tiles.fetch("checkpoint"))


def test_other_malformed_proofs(log: WrittenLog) -> None:
    checkpoint = log.tiles.fetch("checkpoint")
    right = f"{HEAD}\nindex 5\n".encode()
    most = f"{HEAD}\nindex 5".encode() + f"\n{HASH}".encode() * 63 + b"\n\n"
    assert len(TlogProof.parse(most + checkpoint).path) == 63
    for wrong in (
        b"",
        right,
        right + b"\n",
        right + b"\n\n" + checkpoint[:40],
        right + checkpoint,
        b"\xff" + right + b"\n" + checkpoint,
        right + b"\n" + b"\xff" + checkpoint,
        right + b"\n" + checkpoint + b" ",
        right + b"\n" + b"x" * MAX_PROOF_BYTES + checkpoint,
    ):
        with pytest.raises(NoteMalformed):
            TlogProof.parse(wrong)


@given(st.data())
def test_no_altered_proof_is_taken(log: WrittenLog, data: st.DataObject) -> None:
    """Any byte of a proof replaced: it is refused, by a named refusal, or it was a byte that nobody reads."""
    content = bytes(proof_of(300, log.tiles.at(700), note_of(log)))
    at = data.draw(st.integers(0, len(content) - 1))
    other = data.draw(st.binary(min_size=0, max_size=3))
    altered = content[:at] + other + content[at + 1 :]
    try:
        TlogProof.parse(altered).check(leaf_hash(entry(300)), log.key)
    except Unverified:
        return
    assert altered == content


def test_a_consistency_proof_between_two_checkpoints(log: WrittenLog) -> None:
    entries = [entry(number) for number in range(700)]
    path = consistency_proof(300, 700, log.tiles.at(700))
    assert verify_consistency(300, mth(entries[:300]), 700, log.root, path)
