"""CBOR of authenticators: the examples of RFC 8949, appendix A, that CTAP2 allows, and all the others refused."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webauthn.helpers import encode_cbor

from kms.access import cbor
from kms.access.cbor import MalformedCbor

GOOD: list[tuple[str, Any]] = [
    ("00", 0),
    ("17", 23),
    ("1818", 24),
    ("1903e8", 1000),
    ("1a000f4240", 1_000_000),
    ("1bffffffffffffffff", 18_446_744_073_709_551_615),
    ("3bffffffffffffffff", -18_446_744_073_709_551_616),
    ("3863", -100),
    ("f4", False),
    ("f5", True),
    ("f6", None),
    ("40", b""),
    ("4401020304", b"\x01\x02\x03\x04"),
    ("6449455446", "IETF"),
    ("62c3bc", "ü"),
    ("80", []),
    ("8301820203820405", [1, [2, 3], [4, 5]]),
    ("98190102030405060708090a0b0c0d0e0f101112131415161718181819", list(range(1, 26))),
    ("a201020304", {1: 2, 3: 4}),
    ("826161a161626163", ["a", {"b": "c"}]),
]
BAD = {
    "a big number": "c249010000000000000000",
    "a float": "f93c00",
    "a double": "fb3ff199999999999a",
    "undefined": "f7",
    "a simple value": "f820",
    "a date": "c074323031332d30332d32315432303a30343a30305a",
    "bytes in parts": "5f42010243030405ff",
    "a list with an open end": "9fff",
    "a map with an open end": "bf61610161629f0203ffff",
    "reserved": "1c",
    "nothing": "",
    "too little": "1900",
    "bytes that are not there": "43ffff",
    "values that are not there": "8201",
    "more values than bytes": "9b7fffffffffffffff",
    "a value twice": "a201020103",
    "true as a key": "a1f501",
    "a list as a key": "a18001",
    "something behind it": "0000",
    "text that is none": "62c328",
    "deep": "818181818180",
}


@pytest.mark.parametrize(("text", "value"), GOOD)
def test_what_authenticators_write_is_read(text: str, value: Any) -> None:
    assert cbor.decoded(bytes.fromhex(text)) == value


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(MalformedCbor):
        cbor.decoded(bytes.fromhex(text))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.binary(max_size=300) | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers(-99, 99) | st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(VALUES)
def test_it_reads_what_the_library_writes(value: Any) -> None:
    with contextlib.suppress(MalformedCbor):  # deeper than CTAP2 has it
        assert cbor.decoded(encode_cbor(value)) == value


@given(st.binary(max_size=200))
def test_nothing_else_is_raised(data: bytes) -> None:
    with contextlib.suppress(MalformedCbor):
        cbor.decoded(data)
