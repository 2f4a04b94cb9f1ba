"""What a role demands of claims: exactly what its patterns match, and what they never cross."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms.access.claims import bound_claims, matches
from kms.access.jwt import Claims, Refused
from kms.errors import ValidationFailed


def allows(bound: dict[str, Any], claims: dict[str, Any]) -> bool:
    try:
        bound_claims(bound).require(Claims(claims))
    except Refused as refusal:
        assert refusal.verified
        return False
    return True


@pytest.mark.parametrize(
    ("pattern", "value", "does"),
    [
        ("system:serviceaccount:prod:pay-*", "system:serviceaccount:prod:pay-1", True),
        ("system:serviceaccount:prod:pay-*", "system:serviceaccount:prod:pay-a-b.c", True),
        ("system:serviceaccount:prod:pay-*", "system:serviceaccount:prod:pay-", False),  # one character at least
        ("system:serviceaccount:prod:pay-*", "system:serviceaccount:prod:pay-1:admin", False),
        ("system:serviceaccount:prod:pay-*", "system:serviceaccount:prod:pay-1/admin", False),
        ("system:serviceaccount:prod:pay-*", "system:serviceaccount:production:pay-1", False),
        ("system:serviceaccount:*:pay", "system:serviceaccount:a:b:pay", False),
        ("system:serviceaccount:*:pay", "system:serviceaccount::pay", False),
        ("repo:org/app:*", "repo:org/app:pull_request", True),
        ("repo:org/app:*", "repo:org/app:ref:refs/heads/main", False),
        ("repo:org/app:*", "repo:org/app-evil:pull_request", False),
        ("repo:org/app:ref:refs/heads/*", "repo:org/app:ref:refs/heads/main", True),
        ("repo:org/app:ref:refs/heads/*", "repo:org/app:ref:refs/heads/feature/x", False),
        ("repo:org/*:ref:refs/heads/main", "repo:org/x:ref:refs/heads/main", True),
        ("repo:org/*:ref:refs/heads/main", "repo:org/x:ref:refs/heads/x:ref:refs/heads/main", False),
        ("repo:org*/app:x", "repo:org-evil/app:x", True),  # a star right after a name is for all names that begin so
        ("repo:org/app:**", "repo:org/app:ref:refs/heads/main", True),
        ("repo:org/app:**", "repo:org/app:", False),
        ("repo:org/app:**", "repo:org/app", False),
        ("repo:org/app:**", "repo:org/app2:ref", False),
        ("repo:org/*:**", "repo:org/a/b:ref", False),
        ("repo:org/*:**", "repo:org/a:ref:b/c", True),
        ("a/**", "a//", True),
        ("*@example.com", "pay@example.com", True),
        ("*@example.com", "pay@evil.com/@example.com", False),
        ("*@example.com", "@example.com", False),
        ("*@example.com", "pay@example.com.evil", False),
        ("pay", "pay", True),
        ("pay", "Pay", False),
        ("pay", "pay ", False),
        ("pay", "pay\n", False),
        ("pay*", "pay\n", True),
        ("pay", "", False),
        ("a?c", "abc", False),
        ("a?c", "a?c", True),
        ("[ab]c", "ac", False),
        ("a.c", "abc", False),
        (".*c", "abc", False),
        ("^a$", "a", False),
        ("a\\*", "a*", False),  # nothing is escaped
        ("a\\*", "a\\x", True),
        ("a*b*c", "a1b2c", True),
        ("a*b*c", "abbbc", True),
        ("a*b*c", "abc", False),
        ("a*b*c", "abbc", False),
        ("a*bb", "abb", False),
        ("a*b", "a*b", True),
        ("é", "e\u0301", False),  # as it stands, without normalisation
    ],
)
def test_what_a_pattern_matches(pattern: str, value: str, does: bool) -> None:
    assert matches(pattern, value) is does
    assert allows({"sub": pattern}, {"sub": value}) is does


ALPHABET = "ab*:/."


@given(st.text(ALPHABET, max_size=12), st.text("ab:/.", max_size=12))
def test_patterns_are_as_a_regular_expression_says(pattern: str, value: str) -> None:
    try:
        bound_claims({"sub": pattern})
    except ValidationFailed:
        return
    whole = "".join(
        {"*": "[^:/]+", "**": ".+"}.get(part, re.escape(part)) for part in re.split(r"(\*\*$|\*)", pattern)
    )
    assert matches(pattern, value) is bool(re.fullmatch(whole, value, re.DOTALL))


def test_patterns_take_no_longer_for_being_wicked() -> None:
    assert not matches("*a" * 500 + "b", "a" * 16_000)  # by backtracking this would never end


@pytest.mark.parametrize(
    ("bound", "claim", "does"),
    [
        ("admin", ["user", "admin"], True),
        ("admin", ["user"], False),
        ("admin", [], False),
        ("admin", ["admin", 1], False),  # an array of nothing but strings
        ("admin", ["admin", ["admin"]], False),
        ("admin", [["admin"]], False),
        ("admin", {"admin": True}, False),
        ("admin", {"0": "admin"}, False),
        ("admin", None, False),
        (["a", "b-*"], "b-1", True),
        (["a", "b-*"], ["c", "b-1"], True),
        (["a", "b-*"], "c", False),
        (True, True, True),
        (True, 1, False),
        (True, "true", False),
        (True, [True], False),
        (False, False, True),
        (False, 0, False),
        (False, None, False),
        (1, 1, True),
        (1, 1.0, True),
        (1, True, False),
        (1, "1", False),
        (0, False, False),
        (1, [1], False),
        ("1", 1, False),
        ("true", True, False),
        ("None", None, False),
        (10**15, 10**15 + 1, False),
    ],
)
def test_values_are_of_one_type(bound: Any, claim: object, does: bool) -> None:
    assert allows({"groups": bound}, {"groups": claim}) is does


@pytest.mark.parametrize("bound", ["x", True, False, 0, ["x"]])
def test_a_claim_that_is_not_there_matches_nothing(bound: Any) -> None:
    assert not allows({"groups": bound}, {})
    assert not allows({"/a/b": bound}, {"a": {}})


@pytest.mark.parametrize("name", ["sub", "/sub", "iss"])
def test_subjects_and_issuers_are_no_arrays(name: str) -> None:
    assert not allows({name: "pay", "x": "y"}, {name.strip("/"): ["pay"], "x": "y"})


def test_every_bound_claim_is_demanded() -> None:
    bound = {"sub": "pay", "env": "prod"}
    assert allows(bound, {"sub": "pay", "env": "prod", "more": 1})
    for claims in ({"sub": "pay"}, {"env": "prod"}, {"sub": "pay", "env": "test"}, {"sub": "x", "env": "prod"}, {}):
        assert not allows(bound, claims)


def test_nested_claims_are_named_by_json_pointers() -> None:
    claims = {
        "kubernetes.io": {"namespace": "prod", "pod": {"name": "pay-1"}},
        "a/b": {"~c": "x", "": "empty"},
        "l": ["x"],
    }
    for name, value in (
        ("/kubernetes.io/namespace", "prod"),
        ("/kubernetes.io/pod/name", "pay-*"),
        ("/a~1b/~0c", "x"),
        ("/a~1b/", "empty"),
        ("/l", "x"),
    ):
        assert allows({name: value}, claims), name
    for name in (
        "/kubernetes.io/pod",
        "/kubernetes.io/namespace/0",
        "kubernetes.io/namespace",
        "kubernetes.io.namespace",
        "/kubernetes/io/namespace",
        "/l/0",
        "/l/-",
        "/a/b/~0c",
        "//kubernetes.io/namespace",
    ):
        assert not allows({name: ["prod", "x", "pay-1"]}, claims), name
    assert allows({"https://a.example/team": "x"}, {"https://a.example/team": "x"})  # a name, for it begins otherwise
    assert not allows({"a.b": "x"}, {"a": {"b": "x"}})


def test_the_reason_names_the_claim_and_no_pattern() -> None:
    with pytest.raises(Refused) as refusal:
        bound_claims({"env": "secret-pattern-*"}).require(Claims({"env": "theirs"}))
    assert "env" in refusal.value.reason
    assert "secret-pattern" not in refusal.value.reason and "theirs" not in refusal.value.reason


@pytest.mark.parametrize(
    "bound",
    [
        {},
        {"iss": "https://issuer.example"},
        {"aud": "kms"},
        {"iss": "x", "aud": "kms"},
        {"/aud": "kms", "/iss": "x"},
        {"sub": "pay", "/sub": "pay"},
        {"sub": "pay", "exp": 1},
        {"jti": "x"},
        {"/iat": 1},
        {"": "x"},
        {"sub": ""},
        {"sub": []},
        {"sub": [""]},
        {"sub": None},
        {"sub": {}},
        {"sub": ["x", 1]},
        {"sub": ["x", ["y"]]},
        {"sub": [True]},
        {"sub": "*"},
        {"sub": "**"},
        {"sub": "***"},
        {"sub": "*:*"},
        {"sub": "*/**"},
        {"sub": ["pay", "*"]},
        {"env": "*"},
        {"sub": "pay**"},
        {"sub": "a:**:b"},
        {"sub": "**pay"},
        {"sub": "a:***"},
        {"sub": "a**b:**"},
        {"sub": "x" * 1025},
        {"x" * 1025: "y"},
        {"/a~2": "x"},
        {"/a~": "x"},
        {f"claim{number}": "x" for number in range(33)},
        {"sub": ["x"] * 33},
    ],
)
def test_roles_that_bind_nobody_or_cannot_be_read(bound: dict[str, Any]) -> None:
    with pytest.raises(ValidationFailed, match="claims:"):
        bound_claims(bound)


def test_what_was_given_is_kept() -> None:
    given_claims = {"sub": ["a", "b:*"], "aud": "kms", "admin": False, "level": 2}
    assert bound_claims(given_claims).given == given_claims
