"""Shamir's scheme, against the product as FIPS 197 defines it and a naive interpolation."""

from __future__ import annotations

import ast
import itertools
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kms.crypto import shamir

SECRET = bytes(range(32))


def product(a: int, b: int) -> int:
    """The polynomial product, then the remainder by 0x11B: as it is learnt at school."""
    wide = 0
    for bit in range(8):
        if b >> bit & 1:
            wide ^= a << bit
    for bit in range(15, 7, -1):
        if wide >> bit & 1:
            wide ^= 0x11B << (bit - 8)
    return wide


INVERSE = {a: b for a in range(1, 256) for b in range(1, 256) if product(a, b) == 1}


def interpolated(shares: dict[int, bytes], at: int) -> bytes:
    """The values at `at` of the polynomials of least degree through the shares, byte by byte."""
    value = []
    for position in range(len(next(iter(shares.values())))):
        total = 0
        for i, share in shares.items():
            term = share[position]
            for j in shares:
                if j != i:
                    term = product(term, product(at ^ j, INVERSE[i ^ j]))
            total ^= term
        value.append(total)
    return bytes(value)


def test_the_field_is_that_of_aes() -> None:
    assert product(0x57, 0x83) == 0xC1  # FIPS 197, section 4.2
    assert product(0x57, 0x13) == 0xFE  # and 4.2.1
    lanes = shamir._Lanes(256)
    every = int.from_bytes(range(256))
    for factor in range(256):
        assert lanes.times(every, factor).to_bytes(256) == bytes(product(value, factor) for value in range(256))
    assert {a: shamir._inverse(a) for a in range(1, 256)} == INVERSE


def test_each_choice_of_enough_shares_gives_the_secret_and_fewer_do_not() -> None:
    shares = shamir.split(SECRET, shares=5, threshold=3)
    assert sorted(shares) == [1, 2, 3, 4, 5]
    for count in (3, 4, 5):
        for numbers in itertools.permutations(shares, count):
            assert shamir.combine({number: shares[number] for number in numbers}) == SECRET
    for numbers in itertools.combinations(shares, 2):
        assert shamir.combine({number: shares[number] for number in numbers}) != SECRET


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=40), st.integers(1, 255), st.data())
def test_as_a_naive_implementation_has_it(secret: bytes, count: int, data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, min(count, 8)))
    shares = shamir.split(secret, shares=count, threshold=threshold)
    numbers = data.draw(
        st.lists(st.sampled_from(sorted(shares)), min_size=threshold, max_size=threshold, unique=True)
    )
    given_ = {number: shares[number] for number in numbers}
    assert shamir.combine(given_) == interpolated(given_, 0) == secret
    # All shares lie on the polynomials that any of them define.
    other = data.draw(st.sampled_from(sorted(shares)))
    assert interpolated(given_, other) == shares[other]


def test_shares_made_elsewhere() -> None:
    # draft-mcgrew-tss-03, section 9: the published test case for this field
    shares = {1: bytes.fromhex("b9fa07e185"), 2: bytes.fromhex("f5409b4511")}
    assert shamir.combine(shares) == b"test\x00"
    # p(x) = 0x53 + 0xCA x + x^2
    at = {x: bytes([0x53 ^ product(0xCA, x) ^ product(x, x)]) for x in (1, 2, 3)}
    assert shamir.combine(at) == b"\x53"


def test_two_of_three_shares_say_nothing() -> None:
    """Whatever the secret is, a pair of shares takes every value, as often as chance has it."""
    for secret in (b"\x00", b"\xff"):
        tries = 256 * 64
        seen: list[Counter[int]] = [Counter(), Counter(), Counter()]
        for _ in range(tries):
            shares = shamir.split(secret, shares=2, threshold=2)
            seen[0][shares[1][0]] += 1
            seen[1][shares[2][0]] += 1
        for _ in range(tries):
            shares = shamir.split(secret, shares=3, threshold=3)
            seen[2][product(shares[1][0], 3) ^ shares[2][0]] += 1  # some function of two of them
        for counts in seen:
            # Chi-square with 255 degrees of freedom: mean 255, standard deviation 22.6; nine of those away is never.
            chi_square = sum((counts[value] - 64) ** 2 / 64 for value in range(256))
            assert 60 < chi_square < 460


@pytest.mark.parametrize(("shares", "threshold"), [(5, 6), (5, 0), (0, 0), (256, 3), (3, -1)])
def test_shares_that_cannot_be(shares: int, threshold: int) -> None:
    with pytest.raises(ValueError, match="shares"):
        shamir.split(SECRET, shares=shares, threshold=threshold)


@pytest.mark.parametrize("shares", [{}, {0: b"a"}, {256: b"a"}, {1: b"a", 2: b"ab"}])
def test_shares_that_are_none(shares: dict[int, bytes]) -> None:
    with pytest.raises(ValueError, match="shares"):
        shamir.combine(shares)


def test_nothing_is_looked_up_by_a_secret() -> None:
    """Tables of logarithms tell by the cache what was looked up. Here nothing is indexed, and no value decides."""
    tree = ast.parse(Path(shamir.__file__).read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert {each.name for each in functions} == {
        "split", "combine", "_at_zero", "_inverse", "__init__", "times", "at", "_doubled",
    }  # fmt: skip
    arithmetic = [each for each in functions if each.name not in {"split", "combine"}]
    for function in arithmetic:
        for node in ast.walk(ast.Module(function.body, [])):
            assert not isinstance(node, (ast.Subscript, ast.If, ast.IfExp, ast.While, ast.BoolOp, ast.Compare)), (
                function.name,
                ast.unparse(node),
            )
    for function in functions:
        for node in ast.walk(ast.Module(function.body, [])):  # the only tests are of lengths and of numbers of shares
            if isinstance(node, ast.If):
                assert ast.unparse(node.test) in {
                    "not 1 <= threshold <= shares <= MOST_SHARES",
                    "len(lengths) != 1 or not all((1 <= number <= MOST_SHARES for number in shares))",
                }


def steps_of(call: Callable[[], object]) -> list[tuple[str, int]]:
    """Every line of the module that `call` goes through, in order."""
    steps: list[tuple[str, int]] = []

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        if frame.f_code.co_filename != shamir.__file__:
            return None
        if event == "line":
            steps.append((frame.f_code.co_name, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return steps


def test_every_secret_takes_the_same_steps() -> None:
    secrets = [bytes(16), b"\xff" * 16, b"\x01" + bytes(15), bytes(15) + b"\x80", bytes(range(16))]
    splitting, combining = set(), set()
    for secret in secrets:
        splitting.add(tuple(steps_of(partial(shamir.split, secret, shares=5, threshold=3))))
        shares = shamir.split(secret, shares=5, threshold=3)
        some = {number: shares[number] for number in (1, 3, 5)}
        combining.add(tuple(steps_of(partial(shamir.combine, some))))
    assert (len(splitting), len(combining)) == (1, 1)
    assert min(len(steps) for steps in splitting | combining) > 100
