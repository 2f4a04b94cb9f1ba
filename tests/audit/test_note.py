"""Signed notes: the examples of their specification and of Go's implementation, and what must be refused."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from kms.audit.note import (
    MAX_NOTE_BYTES,
    MAX_SIGNATURES,
    Ed25519Key,
    Ed25519Signer,
    Note,
    NoteMalformed,
    Signature,
    SignatureRefused,
    key_id_of,
    signature_lines,
    signed,
)

# From c2sp.org/signed-note, "Example".
FOO_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
FOO_NOTE = """This is an example message.

— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=
"""

# From golang.org/x/mod, sumdb/note/note_test.go (BSD).
PETER_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_SEED = b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
ENOCH_KEY = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
ENOCH = "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"


def parsed(text: str) -> Note:
    return Note.parse(text.encode())


def test_the_specification_s_example() -> None:
    note = parsed(FOO_NOTE)
    key = Ed25519Key.parse(FOO_KEY)
    assert note.text == "This is an example message.\n"
    assert note.verified([key]) == {key: None}
    assert str(key) == FOO_KEY
    assert bytes(note) == FOO_NOTE.encode()


def test_go_s_examples() -> None:
    peter, enoch = Ed25519Key.parse(PETER_KEY), Ed25519Key.parse(ENOCH_KEY)
    note = parsed(f"{TEXT}\n{PETER}{ENOCH}")
    assert note.text == TEXT
    assert note.verified([peter]) == {peter: None}
    assert note.verified([peter, enoch]) == {peter: None, enoch: None}
    signer = Ed25519Signer("PeterNeumann", Ed25519PrivateKey.from_private_bytes(PETER_SEED))
    assert signer.key == peter
    assert bytes(signed(TEXT, signer)) == f"{TEXT}\n{PETER}".encode()


def test_a_note_that_no_known_key_has_signed_is_refused() -> None:
    note = parsed(f"{TEXT}\n{PETER}")
    with pytest.raises(SignatureRefused, match="No key that is known"):
        note.verified([])
    with pytest.raises(SignatureRefused, match="No key that is known"):
        note.verified([Ed25519Key.parse(ENOCH_KEY)])


def test_a_wrong_signature_of_a_known_key_refuses_the_note() -> None:
    """Even if another known key has signed it."""
    peter, enoch = Ed25519Key.parse(PETER_KEY), Ed25519Key.parse(ENOCH_KEY)
    for wrong in (
        PETER.replace("cAlZ", "cAlY").replace("ElZI", "ElYI"),
        PETER.replace("x08go/ZJkuBS", "x08go/ZJkuBSABCD"),  # as Go's tests have it: too long
        "— PeterNeumann x08gowA=\n",  # too short
    ):
        assert wrong != PETER
        with pytest.raises(SignatureRefused, match="The signature of PeterNeumann is wrong"):
            parsed(f"{TEXT}\n{ENOCH}{wrong}").verified([peter, enoch])
        with pytest.raises(SignatureRefused, match="The signature of PeterNeumann is wrong"):
            parsed(f"{TEXT}\n{PETER}{wrong}").verified([peter])
        assert parsed(f"{TEXT}\n{ENOCH}{wrong}").verified([enoch]) == {enoch: None}
    with pytest.raises(SignatureRefused):
        parsed(f"{TEXT.replace('don', 'Don')}\n{PETER}").verified([peter])


def test_signatures_that_repeat_count_once() -> None:
    peter = Ed25519Key.parse(PETER_KEY)
    note = parsed(f"{TEXT}\n{PETER}{PETER}{ENOCH}{ENOCH}")
    assert note == parsed(f"{TEXT}\n{PETER}{ENOCH}")
    assert note.verified([peter]) == {peter: None}
    assert note.with_signatures(note.signatures) == note
    more = signed(TEXT, Ed25519Signer("x", Ed25519PrivateKey.generate())).signatures
    assert note.with_signatures(more).signatures == (*note.signatures, *more)
    again = [replace(each, value=each.value[::-1]) for each in more]
    assert note.with_signatures(more).with_signatures(again).signatures == (*note.signatures, *again)


def test_keys_that_cannot_be_told_apart_are_refused() -> None:
    class Twin(Ed25519Key):
        @property
        def key_id(self) -> bytes:
            return Ed25519Key.parse(PETER_KEY).key_id

    peter = Ed25519Key.parse(PETER_KEY)
    twin = Twin("PeterNeumann", bytes(32))
    with pytest.raises(SignatureRefused, match="Two of the keys"):
        parsed(f"{TEXT}\n{PETER}").verified([peter, twin])
    assert parsed(f"{TEXT}\n{PETER}").verified([peter, peter]) == {peter: None}


def test_a_key_of_the_same_name_with_another_identifier_is_another() -> None:
    stranger = Ed25519Signer("PeterNeumann", Ed25519PrivateKey.generate())
    note = parsed(f"{TEXT}\n{PETER}{signed(TEXT, stranger).signatures[0].line}")
    assert note.verified([Ed25519Key.parse(PETER_KEY)]) == {Ed25519Key.parse(PETER_KEY): None}


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n",
        TEXT,  # these as in note_test.go
        f"{TEXT}\n",
        f"{TEXT}\n{PETER[:-1]}",
        f"\x01{TEXT}\n{PETER}",
        f"{TEXT}\n{PETER}".replace("PeterNeumann", "Bad Name"),
        f"{TEXT}\n{PETER}Unexpected line.\n",
        f"{TEXT}{PETER}",
        f"{TEXT}\n{PETER}\n",
        f"{TEXT}\t\n{PETER}",
        f"{TEXT}\r\n{PETER}",
        f"{TEXT}\n{PETER[:-1]} \n",
        f"{TEXT}\n{PETER.replace('— ', '—')}",
        f"{TEXT}\n{PETER.replace('—', '-')}",
        f"{TEXT}\n{PETER.replace('PeterNeumann', '')}",
        f"{TEXT}\n{PETER.replace('PeterNeumann', 'Peter+Neumann')}",
        f"{TEXT}\n{PETER}".replace("PeterNeumann", "Peter\u00a0Neumann"),
        f"{TEXT}\n{PETER}".replace("PeterNeumann", "Peter\u2003Neumann"),
        f"{TEXT}\n{PETER.replace('AM=', 'AN=')}",  # the same bytes in another base64
        f"{TEXT}\n{PETER.replace('AM=', 'AM')}",
        f"{TEXT}\n{PETER.replace('/ZJ', '_ZJ')}",  # base64url
        f"{TEXT}\n— PeterNeumann x08gow==\n",  # the identifier alone
        f"{TEXT}\n— PeterNeumann\n",
        f"{TEXT}\n— PeterNeumann \n",
    ],
)
def test_malformed_notes(note: str) -> None:
    with pytest.raises(NoteMalformed):
        parsed(note).verified([Ed25519Key.parse(PETER_KEY)])


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(NoteMalformed, match="UTF-8"):
        Note.parse(b"\xff" + f"{TEXT}\n{PETER}".encode())


def test_sizes_are_limited() -> None:
    line = "— x" + " " + b64encode(bytes(64)).decode() + "\n"
    most = "".join(line.replace("x", f"x{number}") for number in range(MAX_SIGNATURES))
    assert len(parsed(f"{TEXT}\n{most}").signatures) == MAX_SIGNATURES
    with pytest.raises(NoteMalformed, match="signatures"):
        parsed(f"{TEXT}\n{most}{line}")
    with pytest.raises(NoteMalformed, match="signatures"):
        parsed(f"{TEXT}\n{PETER * (MAX_SIGNATURES + 1)}")
    with pytest.raises(NoteMalformed, match="bytes"):
        parsed(f"{'x' * MAX_NOTE_BYTES}\n\n{PETER}")
    large = "".join(f"— x{number} {b64encode(bytes(4 + 4627)).decode()}\n" for number in range(MAX_SIGNATURES))
    assert len(parsed(f"{TEXT}\n{large}").signatures) == MAX_SIGNATURES  # ML-DSA-87's
    note = parsed(f"{TEXT}\n{most}")
    with pytest.raises(NoteMalformed, match="signatures"):
        note.with_signatures([Signature("y", b"keyi", b"value")])


def test_the_text_ends_at_the_last_empty_line() -> None:
    signer = Ed25519Signer("x", Ed25519PrivateKey.generate())
    for text in ("a\n\nb\n", "a\n\n", "\n", "— x AAAA\n\nb\n", "\u2028\n"):
        note = signed(text, signer)
        assert Note.parse(bytes(note)) == note
        assert note.verified([signer.key])
    for text in ("", "a", "a\x00\n", "a\x1f\n"):
        with pytest.raises(NoteMalformed):
            signed(text, signer)


@given(st.text("a+ \n\x00\x1f\x7f\u00a0é—\u2028🜁", max_size=30))
def test_what_is_signed_reads_back(text: str) -> None:
    signer = Ed25519Signer("x", Ed25519PrivateKey.from_private_bytes(bytes(32)))
    try:
        note = signed(f"{text}\n", signer)
    except NoteMalformed:
        assert any(each < " " for each in text)
        return
    assert Note.parse(bytes(note)) == note
    assert note.verified([signer.key]) == {signer.key: None}


@given(st.binary(max_size=200))
def test_nothing_that_is_read_breaks_it(content: bytes) -> None:
    for each in (content, content + b"\n\n" + PETER.encode(), TEXT.encode() + b"\n" + content + b"\n"):
        try:
            Note.parse(each).verified([Ed25519Key.parse(PETER_KEY)])
        except (NoteMalformed, SignatureRefused):
            continue


def test_every_mangled_verifier_key_is_refused() -> None:
    """As Go's TestNewVerifier does it: every part of a key, and every key with one other character."""
    for begin in range(len(PETER_KEY)):
        for end in range(begin + 1, len(PETER_KEY) + 1):
            if (begin, end) != (0, len(PETER_KEY)):
                with pytest.raises(NoteMalformed):
                    Ed25519Key.parse(PETER_KEY[begin:end])
    for place, each in enumerate(PETER_KEY):
        with pytest.raises(NoteMalformed):
            Ed25519Key.parse(PETER_KEY[:place] + chr(ord(each) + 1) + PETER_KEY[place + 1 :])
    for bad in (
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",  # another length
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",  # another algorithm
        PETER_KEY.replace("c74f20a3", "C74F20A3"),
        f"{PETER_KEY}\n",
        "",
    ):
        with pytest.raises(NoteMalformed):
            Ed25519Key.parse(bad)


def test_a_key_of_another_type_is_not_taken() -> None:
    key = bytes(32)
    text = f"x+{key_id_of('x', 4, key).hex()}+{b64encode(bytes([4]) + key).decode()}"
    with pytest.raises(NoteMalformed, match="0x01"):
        Ed25519Key.parse(text)
    with pytest.raises(NoteMalformed, match="must not be empty"):
        str(Ed25519Key("a b", key))


def test_a_public_key_that_is_no_point_refuses() -> None:
    key = Ed25519Key("x", b"\xff" * 32)
    line = Signature("x", key.key_id, bytes(64)).line
    with pytest.raises(SignatureRefused):
        parsed(f"{TEXT}\n{line}").verified([key])


def test_the_lines_of_a_witness_s_answer() -> None:
    assert [each.name for each in signature_lines(PETER + ENOCH + PETER)] == ["PeterNeumann", "EnochRoot"]
    for wrong in ("", "\n", PETER[:-1], f"\n{PETER}", f"{PETER}\n"):
        with pytest.raises(NoteMalformed):
            signature_lines(wrong)
