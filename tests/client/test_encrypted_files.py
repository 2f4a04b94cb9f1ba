"""Files and trees: whole or not there, rewrapped in place, whatever happens between two lines."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kms.client import Client, errors, files
from kms.client.envelope_format import read_header
from kms.client.files import Outcome
from kms.client.streams import decrypt_stream, encrypt_stream

Made = Callable[..., Client]


def error_of(outcomes: list[Outcome]) -> str:
    (only,) = outcomes
    return str(only.error)


def header_of(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        header = read_header(file.read)
    return header.key_id, header.version


def test_a_tree_there_and_back(alice: Client, tmp_path: Path) -> None:
    source, sealed, back = tmp_path / "source", tmp_path / "sealed", tmp_path / "back"
    contents = {"a.txt": b"a", "sub/b.bin": bytes(100_000), "sub/deep/c": b""}
    contents |= {f"many/{number:03}": str(number).encode() for number in range(230)}
    for name, content in contents.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    (source / "link").symlink_to("a.txt")
    os.mkfifo(source / "pipe")
    context = {"tree": "source"}
    read: list[int] = []
    pairs = files.in_tree(source, sealed, encrypting=True)
    done = list(files.encrypt_files(alice, "orders", pairs, context=context, progress=read.append))
    assert (len(done), {each.error for each in done}) == (len(contents), {None})
    assert sum(read) == sum(map(len, contents.values()))
    assert {str(path.relative_to(sealed)) for path in sealed.rglob("*") if path.is_file()} == {
        f"{name}.kms" for name in contents
    }
    assert (sealed / "a.txt.kms").stat().st_mode & 0o777 == 0o600
    (sealed / "not-ours").write_text("stays")
    (sealed / "foreign.kms").write_text("not an envelope at all")
    pairs = files.in_tree(sealed, back, encrypting=False)
    failed = [each for each in files.decrypt_files(alice, pairs, context=context) if each.error]
    assert [each.source.name for each in failed] == ["foreign.kms"]
    assert {str(path.relative_to(back)): path.read_bytes() for path in back.rglob("*") if path.is_file()} == contents


def test_nothing_appears_that_is_not_whole(alice: Client, tmp_path: Path) -> None:
    plain, sealed, out = tmp_path / "plain", tmp_path / "plain.kms", tmp_path / "out"
    plain.write_bytes(bytes(50_000))
    list(files.encrypt_files(alice, "orders", [(plain, sealed)], context={"a": "b"}))
    good = sealed.read_bytes()
    assert "is there already" in error_of(list(files.encrypt_files(alice, "orders", [(plain, sealed)])))
    assert "a=c" in error_of(list(files.decrypt_files(alice, [(sealed, out)], context={"a": "c"})))
    sealed.write_bytes(good[:-1])
    assert "altered or cut off" in error_of(list(files.decrypt_files(alice, [(sealed, out)])))
    assert "No such file" in error_of(list(files.decrypt_files(alice, [(tmp_path / "none", out)])))
    assert "No such file" in error_of(list(files.encrypt_files(alice, "orders", [(tmp_path / "none", out)])))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain", "plain.kms"]
    out.write_text("mine")
    sealed.write_bytes(good)
    assert "is there already" in error_of(list(files.decrypt_files(alice, [(sealed, out)])))
    assert out.read_text() == "mine"
    list(files.decrypt_files(alice, [(sealed, out)], replace=True))
    assert out.read_bytes() == plain.read_bytes()
    with pytest.raises(errors.NotFound):
        alice.data_key("nothing")
    assert "no key nothing" in error_of(list(files.encrypt_files(alice, "nothing", [(plain, tmp_path / "n")])))


def test_a_source_that_has_nothing_for_now_is_not_at_its_end(alice: Client) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.write(writing, b"the beginning")
    with os.fdopen(reading, "rb") as source, pytest.raises(errors.KmsError, match="non-blocking"):
        encrypt_stream(alice, "orders", source, io.BytesIO())
    os.close(writing)


def test_the_key_can_be_demanded(alice: Client, client_of: Made, tmp_path: Path) -> None:
    """Who lets me use a key of his could else give me files of his."""
    mallory = client_of("mallory")
    mallory.create_key("hers")
    grant = {"subject": "client:alice", "permission": "keys:decrypt", "key_pattern": "hers"}
    mallory.call("create_grant", **grant)
    out = io.BytesIO()
    encrypt_stream(mallory, "hers", io.BytesIO(b"DROP TABLE users"), out, context={"host": "db1"})
    out.seek(0)
    with pytest.raises(errors.NotAuthentic, match="under hers, not under orders"):
        decrypt_stream(alice, out, io.BytesIO(), key_id="orders", context={"host": "db1"})
    (tmp_path / "f.kms").write_bytes(out.getvalue())
    (done,) = files.decrypt_files(alice, [(tmp_path / "f.kms", tmp_path / "f")], key_id="orders")
    assert isinstance(done.error, errors.NotAuthentic)


def test_files_of_several_keys_fail_apart(alice: Client, tmp_path: Path) -> None:
    for key_id in ("one", "two"):
        alice.create_key(key_id)
        (tmp_path / key_id).write_text(key_id)
        list(files.encrypt_files(alice, key_id, [(tmp_path / key_id, tmp_path / f"{key_id}.kms")]))
    alice.revoke("one")
    pairs = [(tmp_path / f"{key_id}.kms", tmp_path / f"{key_id}.back") for key_id in ("one", "two")]
    first, second = files.decrypt_files(alice, pairs)
    assert isinstance(first.error, errors.KeyRevoked)
    assert (second.error, (tmp_path / "two.back").read_text()) == (None, "two")


def test_rewrapping_changes_the_header_alone(alice: Client, tmp_path: Path) -> None:
    alice.create_key("turning")
    plain, sealed, linked = tmp_path / "plain", tmp_path / "plain.kms", tmp_path / "linked"
    plain.write_bytes(os.urandom(100_000))
    list(files.encrypt_files(alice, "turning", [(plain, sealed)]))
    linked.hardlink_to(sealed)
    before = sealed.read_bytes()
    alice.rotate("turning")
    (done,) = files.rewrap_files(alice, [sealed])
    assert done.error is None
    after = linked.read_bytes()  # the same file still, not another one in its place
    with sealed.open("rb") as file:
        read_header(file.read)
        body_at = file.tell()
    assert (after[body_at:], after[:body_at] != before[:body_at]) == (before[body_at:], True)
    assert header_of(sealed) == ("turning", 2)
    list(files.decrypt_files(alice, [(sealed, tmp_path / "back")]))
    assert (tmp_path / "back").read_bytes() == plain.read_bytes()
    assert "No such file" in error_of(list(files.rewrap_files(alice, [tmp_path / "none"])))


@pytest.mark.parametrize("written", [0, 1, 60, 120, 10_000])
def test_a_rewrap_that_was_killed_is_finished_by_the_next(alice: Client, tmp_path: Path, written: int) -> None:
    """However many bytes of the new header were on disk when the machine went down."""
    key_id = f"killed-{written}"
    alice.create_key(key_id)
    plain, sealed, journal = tmp_path / "plain", tmp_path / "plain.kms", tmp_path / "plain.kms.rewrap"
    plain.write_bytes(b"text")
    list(files.encrypt_files(alice, key_id, [(plain, sealed)]))
    before = sealed.read_bytes()
    alice.rotate(key_id)
    list(files.rewrap_files(alice, [sealed]))
    after = sealed.read_bytes()
    length = len(before) - 76  # the body: salt, commitment, four bytes and their tag
    journal.write_bytes(before[:length] + after[:length])
    torn = after[: min(written, length)] + before[min(written, length) :]
    sealed.write_bytes(torn)
    alice.rotate(key_id)
    (done,) = files.rewrap_files(alice, [sealed])
    assert (done.error, journal.exists(), header_of(sealed)) == (None, False, (key_id, 3))
    (opened,) = files.decrypt_files(alice, [(sealed, tmp_path / "back")])
    assert (opened.error, (tmp_path / "back").read_bytes()) == (None, b"text")


def test_a_journal_of_another_file_is_not_believed(alice: Client, tmp_path: Path) -> None:
    plain, sealed = tmp_path / "plain", tmp_path / "plain.kms"
    plain.write_bytes(b"text")
    list(files.encrypt_files(alice, "orders", [(plain, sealed)]))
    kept = sealed.read_bytes()
    for strange in (bytes(200), kept + b"x", b""):
        (tmp_path / "plain.kms.rewrap").write_bytes(strange)
        assert "remove it" in error_of(list(files.rewrap_files(alice, [sealed])))
    assert "remove it" in error_of(list(files.rewrap_files(alice, [sealed])))
    assert sealed.read_bytes() == kept
