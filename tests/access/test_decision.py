"""The decision and its explanation agree with a slow and obvious one, over worlds that hypothesis makes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from access import reference_policy as reference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kms.access import scope
from kms.access.circumstances import Circumstances
from kms.access.decision import FOR_EVER, allows, decide, may_see_key
from kms.access.explain import explain
from kms.access.model import Caller, ContextRule, Effect, Grant, Role
from kms.access.policy import Permission
from kms.access.scope import Scope
from kms.encryption_context import associated_data_of
from kms.keys.model import Key, Usage

NOW = datetime(2026, 6, 1, tzinfo=UTC)
CLIENTS = ["alice", "bob"]
KEYS = ["orders-1", "orders-2", "o", "pay"]
PATTERNS = ["orders-1", "orders-*", "o*", "*", "pay"]
PERMISSIONS = sorted(reference.AWS_ACTIONS)
SOURCES = ["10.0.0.1", "10.1.0.1", "2001:db8::1"]
NETWORKS = ["10.0.0.0/8", "10.0.0.0/24", "10.0.0.1/32", "2001:db8::/32"]
CONTEXTS: list[dict[str, str]] = [{}, {"app": "x"}, {"app": "x", "env": "p"}, {"app": "y"}]
moments = st.sampled_from([NOW + timedelta(minutes=minutes) for minutes in (-20, -1, 0, 1, 20)])

ARNS = [f"arn:aws:iam::{reference.ACCOUNT}:{each}" for each in ("root", "user/alice", "user/bob", "role/auditor")]
ACTIONS = ["kms:*", "kms:Encrypt", "kms:*crypt", "kms:ReEncrypt*", "kms:ReEncryptTo", "kms:Describe*", "kms:R*"]
CONDITIONS: list[dict[str, dict[str, object]]] = [
    {},
    {},
    {"StringEquals": {"kms:EncryptionContext:app": "x"}},
    {"StringNotEquals": {"kms:EncryptionContext:app": "x"}},
    {"StringEquals": {"kms:EncryptionContext:app": "x"}, "Bool": {"aws:MultiFactorAuthPresent": "true"}},
    {"Null": {"kms:EncryptionContext:env": "true"}},
    {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}},
    {"NotIpAddress": {"aws:SourceIp": "10.0.0.0/24"}},
    {"Bool": {"aws:MultiFactorAuthPresent": "false"}},
    {"NumericLessThan": {"aws:MultiFactorAuthAge": "120"}},
    {"DateLessThan": {"aws:CurrentTime": NOW.isoformat()}},
    {"StringEquals": {"kms:ViaService": "s3.eu-central-1.amazonaws.com"}},
]
statements = st.fixed_dictionaries(
    {
        "Effect": st.sampled_from(["Allow", "Allow", "Deny"]),
        "Principal": st.just("*")
        | st.lists(st.sampled_from(ARNS), min_size=1, max_size=2).map(lambda some: {"AWS": some}),
        "Action": st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=2),
        "Condition": st.sampled_from(CONDITIONS),
        "Resource": st.sampled_from(["*", "*", f"arn:aws:kms:eu:{reference.ACCOUNT}:key/o*"]),
    }
)
documents = st.just("") | st.lists(statements, min_size=1, max_size=3).map(
    lambda some: json.dumps({"Version": "2012-10-17", "Statement": some})
)

rules = st.builds(
    reference.Rule,
    to=st.sampled_from(["client:alice", "client:bob", "role:user", "role:auditor", "group:team"]),
    denies=st.booleans(),
    permissions=st.frozensets(st.sampled_from(PERMISSIONS), min_size=1, max_size=3),
    owner=st.sampled_from([*CLIENTS, "*"]),
    pattern=st.sampled_from(PATTERNS),
    networks=st.lists(st.sampled_from(NETWORKS), max_size=2).map(tuple),
    begins=st.none() | moments,
    ends=st.none() | moments,
    factor_within=st.none() | st.sampled_from([timedelta(minutes=5), timedelta(minutes=30)]),
    context=st.sampled_from(CONTEXTS),
    context_must=st.sampled_from(["none", "equals", "subset"]),
)
questions = st.builds(
    reference.Asked,
    client=st.sampled_from(CLIENTS),
    roles=st.frozensets(st.sampled_from(["admin", "user", "auditor"]), min_size=1),
    groups=st.frozensets(st.sampled_from(["team"])),
    scope=st.none()
    | st.lists(st.tuples(st.sampled_from(PERMISSIONS), st.sampled_from(PATTERNS)), min_size=1, max_size=3).map(tuple),
    permission=st.sampled_from(PERMISSIONS),
    key=st.sampled_from(KEYS),
    owner=st.sampled_from(CLIENTS),
    context=st.none() | st.sampled_from(CONTEXTS),
    source=st.sampled_from(SOURCES),
    now=moments,
    factor_at=st.none() | moments.map(lambda moment: min(moment, NOW)),
    policy=documents,
)


def grant_of(number: int, rule: reference.Rule) -> Grant:
    """The grant that a rule is: what denies has no context and no second factor."""
    first, *more = sorted(rule.permissions)
    return Grant(
        grant_id=f"{number:032x}",
        owner=rule.owner,
        subject=rule.to,
        permission=first,
        key_pattern=rule.pattern,
        created_at=NOW,
        more_permissions=frozenset(more),
        context_rule=ContextRule(rule.context_must),
        context=rule.context,
        effect=Effect.DENY if rule.denies else Effect.ALLOW,
        source=frozenset(rule.networks),
        not_before=rule.begins,
        not_after=rule.ends,
        second_factor_within=rule.factor_within,
    )


def as_made(rule: reference.Rule) -> reference.Rule:
    """A rule that could be made: what denies asks for places and times only; no other is about every owner."""
    if rule.denies:
        return replace(rule, factor_within=None, context={}, context_must="none")
    return replace(rule, owner="alice" if rule.owner == "*" else rule.owner)


def caller_of(asked: reference.Asked, given_rules: list[reference.Rule]) -> Caller:
    """The caller with the grants that are to it."""
    subjects = {f"client:{asked.client}", *(f"role:{role}" for role in asked.roles)}
    subjects |= {f"group:{group}" for group in asked.groups}
    held = tuple(grant_of(number, rule) for number, rule in enumerate(given_rules) if rule.to in subjects)
    return Caller(
        asked.client,
        frozenset(map(Role, asked.roles)),
        held,
        groups=asked.groups,
        scope=Scope(asked.scope) if asked.scope is not None else None,
        second_factor_at=asked.factor_at,
    )


def key_of(asked: reference.Asked) -> Key:
    """The key that is asked about."""
    usages = frozenset({Usage.ENCRYPT, Usage.DECRYPT})
    return Key(
        b"u" * 16,
        asked.key,
        "aes-256-gcm",
        asked.owner,
        usages,
        False,
        timedelta(1),
        None,
        None,
        1,
        NOW,
        policy=asked.policy,
    )


def circumstances(asked: reference.Asked) -> Circumstances:
    """The rest of the question."""
    return Circumstances(asked.source, asked.now, "", reference.ACCOUNT)


def data_of(asked: reference.Asked) -> bytes | None:
    """The associated data of the message."""
    return associated_data_of(asked.context) if asked.context is not None else None


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(rules, max_size=5).map(lambda some: list(map(as_made, some))), questions)
def test_it_agrees_with_the_obvious_one(given_rules: list[reference.Rule], asked: reference.Asked) -> None:
    caller, key = caller_of(asked, given_rules), key_of(asked)
    at = circumstances(asked)
    permission = Permission(asked.permission)
    expected = reference.is_allowed(asked, given_rules)
    assert allows(caller, permission, key, at, data_of(asked)) == expected
    told = explain(caller, permission, key, at, data_of(asked))
    assert told.allowed == expected
    assert told.because
    assert any(reason.matches and (reason.effect is Effect.ALLOW) == expected for reason in told.because)


@settings(max_examples=400, deadline=None)
@given(st.lists(rules, max_size=4).map(lambda some: list(map(as_made, some))), questions, moments)
def test_a_decision_holds_as_long_as_it_says(
    given_rules: list[reference.Rule], asked: reference.Asked, later: datetime
) -> None:
    caller, key, permission = caller_of(asked, given_rules), key_of(asked), Permission(asked.permission)
    made = decide(caller, permission, key, circumstances(asked))
    if asked.now <= later < made.until:
        again = replace(asked, now=later)
        assert made.admits(data_of(asked)) == reference.is_allowed(again, given_rules)


@given(questions, st.lists(rules, max_size=3).map(lambda some: list(map(as_made, some))))
@settings(max_examples=200, deadline=None)
def test_what_may_be_read_may_be_seen(asked: reference.Asked, given_rules: list[reference.Rule]) -> None:
    caller, key, at = caller_of(asked, given_rules), key_of(asked), circumstances(asked)
    if allows(caller, Permission.KEYS_READ, key, at):
        assert may_see_key(caller, key, at)


words = st.builds(
    lambda permission, pattern: f"{permission}@{pattern}", st.sampled_from(PERMISSIONS), st.sampled_from(PATTERNS)
)


@given(st.frozensets(words, min_size=1, max_size=3), st.frozensets(words, min_size=1, max_size=3))
def test_a_scope_within_another_allows_nothing_more(inner: frozenset[str], outer: frozenset[str]) -> None:
    narrow, wide = scope.parse(inner), scope.parse(outer)
    assert scope.parse(narrow.words) == narrow
    if narrow.within(wide):
        for permission in PERMISSIONS:
            for key in KEYS:
                assert not narrow.allows_on_key(permission, key) or wide.allows_on_key(permission, key)


def test_an_address_that_is_not_known_is_never_let_in_and_always_kept_out() -> None:
    asked = reference.Asked(
        "bob", frozenset({"user"}), frozenset(), None, "keys:encrypt", "pay", "alice", None, "?", NOW, None
    )
    inside = reference.Rule("client:bob", False, frozenset({"keys:encrypt"}), "alice", "*", ("0.0.0.0/0",))
    at = Circumstances("local", NOW)
    assert not allows(caller_of(asked, [inside]), Permission.KEYS_ENCRYPT, key_of(asked), at)
    mine = replace(asked, owner="bob")
    outside = replace(inside, denies=True, owner="*")
    assert not allows(caller_of(mine, [outside]), Permission.KEYS_ENCRYPT, key_of(mine), at)
    assert decide(caller_of(mine, []), Permission.KEYS_ENCRYPT, key_of(mine), at).until == FOR_EVER


def policy_of(*given: dict[str, object]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(given)})


EVERYBODY_EVERYTHING: dict[str, object] = {"Effect": "Allow", "Principal": "*", "Action": "kms:*"}
ALICE = reference.Asked(
    "alice", frozenset({"user"}), frozenset(), None, "keys:read", "pay", "alice", None, "10.0.0.1", NOW, None
)


def test_whom_a_key_policy_names_sees_the_key_and_no_deny_hides_it_from_its_owner() -> None:
    hidden = {"Effect": "Deny", "Principal": "*", "Action": "kms:DescribeKey"}
    elsewhere = {**EVERYBODY_EVERYTHING, "Resource": f"arn:aws:kms:eu:{reference.ACCOUNT}:key/other"}
    bob = replace(ALICE, client="bob")
    for asked, document, sees in (
        (bob, "", False),
        (bob, policy_of(EVERYBODY_EVERYTHING), True),
        (bob, policy_of(elsewhere), False),
        (bob, policy_of(EVERYBODY_EVERYTHING, hidden), False),
        (ALICE, policy_of(EVERYBODY_EVERYTHING, hidden), True),
    ):
        key = key_of(replace(asked, policy=document))
        assert may_see_key(caller_of(asked, []), key, circumstances(asked)) is sees


def test_a_key_policy_gives_nobody_what_only_administrators_or_a_role_give() -> None:
    for asked in (
        replace(ALICE, permission="keys:recover"),
        replace(ALICE, permission="keys:recover", client="bob"),
        replace(ALICE, permission="keys:wrap", client="bob"),
        replace(ALICE, permission="keys:encrypt", roles=frozenset({"auditor"})),
    ):
        key, caller = key_of(replace(asked, policy=policy_of(EVERYBODY_EVERYTHING))), caller_of(asked, [])
        assert not allows(caller, Permission(asked.permission), key, circumstances(asked))
        told = explain(caller, Permission(asked.permission), key, circumstances(asked))
        assert [each.rule for each in told.because if each.matches] == ["default"]


def test_a_second_factor_from_a_clock_that_is_ahead_does_not_count_for_a_key_policy() -> None:
    fresh = {**EVERYBODY_EVERYTHING, "Condition": {"NumericLessThan": {"aws:MultiFactorAuthAge": "300"}}}
    for minutes, counts in ((-1, True), (3, True), (10, False), (-5, False)):
        asked = replace(ALICE, factor_at=NOW + timedelta(minutes=minutes), policy=policy_of(fresh), client="bob")
        assert allows(caller_of(asked, []), Permission.KEYS_READ, key_of(asked), circumstances(asked)) is counts


def test_the_explanation_names_the_statement_that_decided_and_what_ownership_is_not_left() -> None:
    deny = {"Sid": "Not today", "Effect": "Deny", "Principal": "*", "Action": "kms:Encrypt"}
    encrypt = replace(ALICE, permission="keys:encrypt")

    def told(document: str) -> dict[str, bool]:
        found = explain(caller_of(ALICE, []), Permission.KEYS_ENCRYPT, key_of(replace(encrypt, policy=document)),
                        circumstances(ALICE))  # fmt: skip
        return {each.rule: each.matches for each in found.because}

    assert told(policy_of(EVERYBODY_EVERYTHING, deny)) == {
        "role user": False,
        "key policy statement 1": True,
        'key policy statement "Not today"': True,
    }
    only_bob = {**EVERYBODY_EVERYTHING, "Principal": {"AWS": ARNS[2]}}
    assert told(policy_of(only_bob)) == {"role user": False, "key policy statement 1": False, "default": True}
    assert told("") == {"role user": True}
