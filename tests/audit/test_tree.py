"""The Merkle tree against published hashes, and against a second implementation of RFC 6962."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.naive_tree import mth, path, proof
from kms.audit import tree
from kms.audit.tree import (
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    leaf_hashes,
    root_at,
    root_of,
    verify_consistency,
    verify_inclusion,
)

# From transparency-dev/merkle, testonly/constants.go (Apache 2.0): Certificate Transparency's own.
ENTRIES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
NODES = {
    (0, 3): "07506a85fd9dd2f120eb694f86011e5bb4662e5c415a62917033d4a9624487e7",
    (0, 5): "4271a26be0d8a84f0bd54c8c302e7cb3a3b5d1fa6780a40bcce2873477dab658",
    (1, 1): "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    (1, 2): "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
    (1, 3): "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    (2, 0): "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    (2, 1): "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
}


def subtree_of(entries: list[bytes]) -> tree.Subtree:
    return lambda level, index: mth(entries[index << level : (index + 1) << level])


@pytest.mark.parametrize("size", range(len(ROOTS)))
def test_published_roots(size: int) -> None:
    assert root_of(b"".join(leaf_hashes(ENTRIES[:size]))).hex() == ROOTS[size]
    assert root_at(size, subtree_of(ENTRIES)).hex() == ROOTS[size]


def test_published_nodes() -> None:
    for (level, index), node in NODES.items():
        hashes = b"".join(leaf_hashes(ENTRIES[index << level : (index + 1) << level]))
        assert tree.complete_root(hashes).hex() == node


def test_published_proofs() -> None:
    """Those that RFC 6962, section 2.1.3 writes down for a tree of seven entries, by the names of their nodes."""
    seven = ENTRIES[:7]
    leaves = leaf_hashes(seven)
    a, b, c, d, _e, f, j = leaves
    g, h, i = tree.node_hash(a, b), tree.node_hash(c, d), tree.node_hash(leaves[4], f)
    k, el = tree.node_hash(g, h), tree.node_hash(i, j)
    subtree = subtree_of(seven)
    assert inclusion_proof(0, 7, subtree) == [b, h, el]
    assert inclusion_proof(3, 7, subtree) == [c, g, el]
    assert inclusion_proof(4, 7, subtree) == [f, j, k]
    assert inclusion_proof(6, 7, subtree) == [i, k]
    assert consistency_proof(3, 7, subtree) == [c, d, g, el]
    assert consistency_proof(4, 7, subtree) == [el]
    assert consistency_proof(6, 7, subtree) == [i, j, k]


@given(st.lists(st.binary(max_size=40), max_size=70), st.data())
@settings(deadline=None, max_examples=150)
def test_it_is_the_tree_of_the_definition(entries: list[bytes], data: st.DataObject) -> None:
    size, subtree = len(entries), subtree_of(entries)
    root = root_of(b"".join(leaf_hashes(entries)))
    assert root == root_at(size, subtree) == mth(entries)
    old = data.draw(st.integers(0, size))
    continued = consistency_proof(old, size, subtree)
    assert continued == (proof(old, entries) if old else [])
    old_root = mth(entries[:old])
    assert verify_consistency(old, old_root, size, root, continued)
    if entries:
        index = data.draw(st.integers(0, size - 1))
        audit_path = inclusion_proof(index, size, subtree)
        assert audit_path == path(index, entries)
        assert verify_inclusion(leaf_hash(entries[index]), index, size, audit_path, root)


@given(st.integers(1, 70), st.data())
@settings(deadline=None, max_examples=150)
def test_no_other_proof_is_taken(size: int, data: st.DataObject) -> None:
    """Every hash of a proof counts, none may be missing or added, and it is for one place and one size only."""
    entries = [b"%d" % number for number in range(size)]
    root, subtree = mth(entries), subtree_of(entries)
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size))
    leaf, old_root = leaf_hash(entries[index]), mth(entries[:old])
    audit_path, continued = inclusion_proof(index, size, subtree), consistency_proof(old, size, subtree)
    for other in altered(audit_path):
        assert not verify_inclusion(leaf, index, size, other, root)
    for other in altered(continued):
        assert not verify_consistency(old, old_root, size, root, other)
    wrong = bytes(32)
    assert not verify_inclusion(wrong, index, size, audit_path, root)
    assert not verify_inclusion(leaf, index, size, audit_path, wrong)
    for number in {*range(size)} - {index}:
        assert not verify_inclusion(leaf, number, size, audit_path, root)
    assert not verify_consistency(old, wrong, size, root, continued)
    if old:
        assert not verify_consistency(old, old_root, size, wrong, continued)
    for number in {*range(1, size)} - {old}:
        assert not verify_consistency(number, old_root, size, root, continued)


def altered(hashes: list[bytes]) -> list[list[bytes]]:
    """Every proof with a bit turned, a hash left out, added, or shortened."""
    others = [[*hashes, bytes(32)], [bytes(32), *hashes]]
    for place, each in enumerate(hashes):
        before, after = hashes[:place], hashes[place + 1 :]
        others += [[*before, bytes([each[0] ^ 1]) + each[1:], *after], before + after, [*before, each[:31], *after]]
    return others


@pytest.mark.parametrize(("index", "size"), [(-1, 4), (4, 4), (0, 0), (0, 1 << 63)])
def test_entries_that_no_tree_has(index: int, size: int) -> None:
    assert not verify_inclusion(bytes(32), index, size, [], bytes(32))
    if size < 1 << 63:
        with pytest.raises(ValueError, match="is not in a tree"):
            inclusion_proof(index, size, subtree_of([]))


def test_an_empty_tree_and_one_of_the_same_size() -> None:
    assert verify_consistency(0, tree.EMPTY_ROOT, 5, bytes(32), [])
    assert not verify_consistency(0, bytes(32), 5, bytes(32), [])
    assert not verify_consistency(0, tree.EMPTY_ROOT, 5, bytes(32), [bytes(32)])
    assert verify_consistency(0, tree.EMPTY_ROOT, 0, tree.EMPTY_ROOT, [])
    assert not verify_consistency(0, bytes(32), 0, bytes(32), [])
    assert verify_consistency(5, bytes(32), 5, bytes(32), [])
    assert not verify_consistency(5, bytes(32), 5, b"1" * 32, [])
    assert not verify_consistency(5, bytes(32), 6, bytes(32), [])
    assert not verify_consistency(6, bytes(32), 5, bytes(32), [])
    with pytest.raises(ValueError, match="does not continue"):
        consistency_proof(6, 5, subtree_of(ENTRIES))
