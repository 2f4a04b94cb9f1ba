"""Key policies of AWS: what they mean here, and which are refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kms.access.key_policy import ACTIONS, Asked, Circumstances, KeyPolicy, Malformed, actions_for, parse
from kms.access.key_policy.malformed import INVALID_PRINCIPALS, LOCKS_OUT
from kms.access.key_policy.patterns import like
from kms.access.policy import Permission
from tests.access import reference_key_policy as reference

ACCOUNT = "111122223333"
ROOT = f"arn:aws:iam::{ACCOUNT}:root"
BOB = f"arn:aws:iam::{ACCOUNT}:user/bob"
LOGS = {"Service": "logs.eu-central-1.amazonaws.com"}
OWNER = frozenset({"client:alice", "role:user"})
DEFAULT = {"Sid": "Enable IAM User Permissions", "Effect": "Allow", "Principal": {"AWS": ROOT}, "Action": "kms:*"}


def policy(*statements: dict[str, Any], version: str = "2012-10-17") -> KeyPolicy:
    return parse(json.dumps({"Version": version, "Statement": list(statements)}), ACCOUNT)


def statement(effect: str = "Allow", who: Any = "*", action: Any = "kms:*", **more: Any) -> dict[str, Any]:
    return {"Effect": effect, "Principal": who if isinstance(who, dict) or who == "*" else {"AWS": who},
            "Action": action, "Resource": "*", **more}  # fmt: skip


def asks(action: str, who: str = "client:bob", **more: Any) -> Asked:
    mine = who == "client:alice"
    return Asked(action, frozenset({who, "role:user"}), is_owner=mine, key_id="orders", **more)


def effect(of: KeyPolicy, asked: Asked, **now: Any) -> str | None:
    return of.decide(asked, Circumstances(**now)).effect


def test_the_account_as_a_whole_is_the_owner_where_it_is_allowed_and_everybody_where_it_is_denied() -> None:
    allowed, denied = policy(DEFAULT), policy(DEFAULT, statement("Deny", ACCOUNT, "kms:Encrypt"))
    assert effect(allowed, asks("Encrypt", "client:alice")) == "allow"
    assert effect(allowed, asks("Encrypt")) is None
    assert effect(denied, asks("Encrypt")) == effect(denied, asks("Encrypt", "client:alice")) == "deny"


def test_the_four_statements_of_the_console() -> None:
    carol = f"arn:aws:iam::{ACCOUNT}:role/carol"
    uses = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"]
    grants = ["kms:CreateGrant", "kms:ListGrants", "kms:RevokeGrant"]
    of = policy(
        DEFAULT,
        statement(who=carol, action=["kms:Create*", "kms:Put*", "kms:ScheduleKeyDeletion", "kms:TagResource"]),
        statement(who=[BOB], action=uses),
        statement(who=[BOB], action=grants, Condition={"Bool": {"kms:GrantIsForAWSResource": "true"}}),
    )
    assert effect(of, asks("PutKeyPolicy", "client:carol")) == "allow"
    assert effect(of, asks("CreateGrant", "issuer-role:carol")) == "allow"
    assert effect(of, asks("Encrypt", "client:carol")) is None
    assert all(effect(of, asks(each)) == "allow" for each in ("ReEncryptFrom", "GenerateDataKeyPair", "Decrypt"))
    assert effect(of, asks("CreateGrant")) is effect(of, asks("PutKeyPolicy")) is None  # nobody here is a service


@pytest.mark.parametrize(
    "of_a_service",
    [
        statement(who=LOGS, action=["kms:Encrypt*", "kms:Describe*"],
                  Condition={"ArnLike": {"kms:EncryptionContext:aws:logs:arn": f"arn:aws:logs:eu:{ACCOUNT}:*"}}),
        statement(who="*", action="kms:Decrypt",
                  Condition={"StringEquals": {"kms:ViaService": "s3.eu-central-1.amazonaws.com",
                                              "kms:CallerAccount": ACCOUNT}}),
        statement(who=f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoS",
                  action="kms:CreateGrant", Condition={"Bool": {"kms:GrantIsForAWSResource": True}}),
        statement(who={"Service": "eks.amazonaws.com"}, Condition={"StringEquals": {"aws:PrincipalOrgID": "o-1"}}),
        statement(who="arn:aws:iam::999999999999:root"),
    ],
)  # fmt: skip
def test_what_services_and_other_accounts_are_allowed_nobody_is_allowed_here(of_a_service: dict[str, Any]) -> None:
    of = policy(DEFAULT, of_a_service)
    of.require_principals(lambda word: False)
    for action in ("Encrypt", "Decrypt", "CreateGrant", "DescribeKey"):
        assert effect(of, asks(action), context={"aws:logs:arn": f"arn:aws:logs:eu:{ACCOUNT}:x"}) is None


def test_a_deny_by_encryption_context_is_for_each_message() -> None:
    of = policy(
        statement(),
        statement("Deny", action=["kms:Encrypt", "kms:Decrypt"], Sid="Team",
                  Condition={"StringNotEquals": {"kms:EncryptionContext:team": "red"}}),
    )  # fmt: skip
    rules = of.rules_for(asks("Encrypt"))
    assert rules.settled is None
    denied = rules.decide(Circumstances(context={"team": "blue"}))
    assert denied.effect == "deny" and denied.statement is not None and denied.statement.name == "Team"
    assert rules.decide(Circumstances(context={"team": "red"})).effect == "allow"
    assert rules.decide(Circumstances()).effect == "deny"  # AWS: a negated operator is met where the key is absent
    assert (settled := of.rules_for(asks("Sign")).settled) is not None and settled.effect == "allow"


def test_names_of_an_encryption_context_that_differ_by_case_help_nobody() -> None:
    condition = {"StringEquals": {"kms:EncryptionContext:Team": "red"}}
    both = {"team": "red", "TEAM": "blue"}
    assert effect(policy(statement(Condition=condition)), asks("Encrypt"), context=both) is None
    assert effect(policy(statement("Deny", Condition=condition)), asks("Encrypt"), context=both) == "deny"


def test_source_addresses() -> None:
    of = policy(statement(), statement("Deny", Condition={"NotIpAddress": {"aws:sourceip": "192.0.2.0/24"}}))
    assert of.needs_source and not policy(DEFAULT).needs_source
    assert (
        effect(of, asks("Sign", source="192.0.2.7")) == effect(of, asks("Sign", source="::ffff:192.0.2.7")) == "allow"
    )
    assert effect(of, asks("Sign", source="198.51.100.1")) == effect(of, asks("Sign")) == "deny"


def test_the_time_and_the_second_factor() -> None:
    until = policy(statement(Condition={"DateLessThan": {"aws:CurrentTime": "2026-12-01T00:00:00Z"}}))
    assert effect(until, asks("Sign"), now=datetime(2026, 11, 30, tzinfo=UTC)) == "allow"
    assert effect(until, asks("Sign"), now=datetime(2026, 12, 1, tzinfo=UTC)) is None
    fresh = policy(
        statement(),
        statement("Deny", Condition={"BoolIfExists": {"aws:MultiFactorAuthPresent": "false"}}),
        statement("Deny", Condition={"NumericGreaterThanEquals": {"aws:MultiFactorAuthAge": 300}}),
    )
    assert effect(fresh, asks("Sign"), second_factor_age=299.5) == "allow"
    assert effect(fresh, asks("Sign"), second_factor_age=300) == "deny"
    assert effect(fresh, asks("Sign")) == effect(fresh, asks("Sign"), is_session=False) == "deny"


def test_all_but_some_are_exempt_only_where_the_account_is() -> None:
    def but(*who: str) -> KeyPolicy:
        return policy({"Effect": "Deny", "NotPrincipal": {"AWS": list(who)}, "Action": "kms:Sign", "Resource": "*"})

    assert effect(but(BOB, ROOT), asks("Sign")) is effect(but(BOB, ROOT), asks("Sign", "client:alice")) is None
    assert effect(but(BOB, ROOT), asks("Sign", "client:eve")) == effect(but(BOB), asks("Sign")) == "deny"


def test_what_aws_has_no_action_for_is_for_the_owner_alone_and_only_wildcards_mean_it() -> None:
    of = policy(statement())
    assert effect(of, asks("Wrap")) is None
    assert effect(of, asks("Wrap", "client:alice")) == "allow"
    assert effect(policy(statement("Deny", BOB, "kms:W*")), asks("Wrap")) == "deny"
    with pytest.raises(ValueError, match="no action"):
        of.rules_for(asks("Fly"))


def test_every_permission_on_keys_is_an_action() -> None:
    about_no_key = {"primitives", "revocations", "sessions", "mounts", "clients", "secrets", "audit", "metrics"}
    about_keys = {each for each in Permission if each.partition(":")[0] in ("keys", "grants")}
    assert about_keys <= ACTIONS.keys()
    assert not any(each.partition(":")[0] in about_no_key for each in ACTIONS)
    known = policy(statement())
    for each in about_keys:
        for action in actions_for("", each):
            known.rules_for(asks(action))
    assert actions_for("rewrap", "keys:rewrap") == ("ReEncryptFrom", "ReEncryptTo")


def test_resources_are_keys_in_whatever_region() -> None:
    def about(*arns: str) -> str | None:
        return effect(policy(statement(Resource=list(arns))), asks("Sign"))

    assert about(f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/ord*") == about("arn:aws:kms:*:*:key/orders") == "allow"
    assert about(f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/other") is about("arn:aws:s3:::orders") is None


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (statement(Condition={"StringEquals": {"aws:PrincipalOrgID": "o-1"}}), "aws:PrincipalOrgID"),
        (statement("Deny", Condition={"StringEquals": {"kms:KeySpec": "RSA_2048"}}), "kms:KeySpec"),
        (statement(Condition={"BinaryEquals": {"kms:CallerAccount": "eA=="}}), "BinaryEquals"),
        (statement(Condition={"IpAddress": {"kms:CallerAccount": "192.0.2.1"}}), "IpAddress"),
        (statement(Condition={"IpAddress": {"aws:SourceIp": "192.0.2.1/33"}}), "no address"),
        (statement(Condition={"ArnLike": {"aws:SourceArn": "orders"}}), "no ARN"),
        (statement(Condition={"Bool": {"aws:SecureTransport": "yes"}}), "neither true nor false"),
        (statement(Condition={"StringEquals": {"kms:CallerAccount": []}}), "no values"),
        (statement(Condition={"StringLike": {"kms:EncryptionContext:u": "${aws:username}"}}), "policy variables"),
        (statement(Condition=None), "Condition must be"),
        (statement(action="kms:Encrpyt"), "no action"),
        (statement(action="kms:Wrap"), "no action"),
        (statement(action="s3:*"), "no action"),
        (statement(action=[]), "Action is empty"),
        (statement(NotAction="kms:Sign"), "one of Action"),
        (statement(NotResource="*"), "NotResource"),
        (statement(effect="allow"), "Effect"),
        (statement(who="arn:aws:iam::111122223333:user/*"), "invalid principals"),
        (statement(who={}), "invalid principals"),
        (statement(who={"AWS": []}), "invalid principals"),
        (statement(who={"AWS": [1]}), "invalid principals"),
        (statement(Sid=5), "Sid must be text"),
        ({"Effect": "Allow", "NotPrincipal": {"AWS": BOB}, "Action": "kms:*"}, "NotPrincipal"),
        (None, "must be an object"),
    ],
)
def test_what_cannot_be_enforced_is_refused_and_named(wrong: Any, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        policy(DEFAULT, wrong)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "null", "{}", '{"Statement": []}', "[" * 30_000, '{"Statement": NaN}', "1" * 10_000,
        '{"Version": "2020-01-01", "Statement": []}', " " * 32_769,
        json.dumps({"Statement": DEFAULT})[:-1] + ', "Statement": []}', '{"\\ud800": 1}',
    ],
)  # fmt: skip
def test_what_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(Malformed) as refused:
        parse(text, ACCOUNT)
    refused.value.reason.encode()


def test_variables_are_text_in_the_older_language() -> None:
    condition = {"StringEquals": {"kms:EncryptionContext:u": "${aws:username}"}}
    of = policy(statement(Condition=condition), version="2008-10-17")
    assert effect(of, asks("Encrypt"), context={"u": "${aws:username}"}) == "allow"


def test_principals_have_to_exist() -> None:
    of = policy(DEFAULT, statement(who=[BOB, f"arn:aws:iam::{ACCOUNT}:role/admin"]))
    of.require_principals(lambda word: word == "client:bob")
    with pytest.raises(Malformed, match=INVALID_PRINCIPALS):
        of.require_principals(lambda word: False)


@pytest.mark.parametrize(
    ("statements", "kept"),
    [
        ([DEFAULT], True),
        ([statement(who=f"arn:aws:iam::{ACCOUNT}:user/alice", action="kms:put*")], True),
        ([statement(who=f"arn:aws:iam::{ACCOUNT}:role/user")], False),
        ([statement(who=BOB)], False),
        ([statement(who=ROOT, action="kms:Encrypt")], False),
        ([statement(Condition={"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}})], False),
        ([statement(Condition={"StringEquals": {"kms:CallerAccount": ACCOUNT}})], True),
        ([statement(Resource=f"arn:aws:kms:eu:{ACCOUNT}:key/other")], False),
        ([DEFAULT, statement("Deny", Condition={"NotIpAddress": {"aws:SourceIp": "192.0.2.0/24"}})], False),
        ([DEFAULT, statement("Deny", f"arn:aws:iam::{ACCOUNT}:role/user")], False),
        ([DEFAULT, statement("Deny", BOB)], True),
        ([DEFAULT, statement("Deny", Condition={"StringEquals": {"kms:EncryptionContext:a": "b"}})], True),
        ([DEFAULT, statement("Deny", Condition={"StringNotEquals": {"kms:EncryptionContext:a": "b"}})], False),
        ([DEFAULT, statement("Deny", Condition={"StringLike": {"kms:ViaService": "s3.*"}})], True),
    ],
)
def test_the_owner_keeps_the_way_to_change_the_policy(statements: list[dict[str, Any]], kept: bool) -> None:
    of = policy(*statements)
    assert of.keeps_owner(OWNER, "orders") is kept
    if not kept:
        with pytest.raises(Malformed, match=LOCKS_OUT):
            of.require_kept_by(OWNER, "orders")


def test_a_key_without_an_id_yet_is_kept_by_what_is_about_all_keys() -> None:
    arn = f"arn:aws:kms:eu:{ACCOUNT}:key/orders"
    assert policy(DEFAULT).keeps_owner(OWNER, None)
    assert not policy(statement(who=ROOT, Resource=arn)).keeps_owner(OWNER, None)
    assert not policy(DEFAULT, statement("Deny", Resource=arn)).keeps_owner(OWNER, None)


@given(st.text("ab*?", max_size=8), st.text("ab\n", max_size=8))
def test_patterns_match_what_a_naive_reading_matches(pattern: str, text: str) -> None:
    assert like(pattern)(text) is reference.glob(pattern, text)


_ARNS = (
    "*", ROOT, ACCOUNT, BOB, f"arn:aws:iam::{ACCOUNT}:user/team/alice", f"arn:aws:iam::{ACCOUNT}:role/user",
    f"arn:aws:iam::{ACCOUNT}:role/ci", f"arn:aws:sts::{ACCOUNT}:assumed-role/ci/run",
    "arn:aws:iam::999999999999:root",
)  # fmt: skip
_PRINCIPALS = st.one_of(
    st.just("*"),
    st.fixed_dictionaries({"AWS": st.lists(st.sampled_from(_ARNS), min_size=1, max_size=3)}),
    st.just(LOGS),
)
_ACTIONS = st.lists(
    st.sampled_from(["*", "kms:*", "KMS:encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:W*", "kms:Create?rant"]),
    min_size=1,
    max_size=2,
)
_SETS, _ENDS = st.sampled_from(["", "ForAllValues:", "ForAnyValue:"]), st.sampled_from(["", "IfExists"])


def _condition(operators: list[str], keys: list[str], values: list[Any]) -> st.SearchStrategy[Any]:
    operator = st.builds(lambda *parts: "".join(parts), _SETS, st.sampled_from(operators), _ENDS)
    found = st.lists(st.sampled_from(values), min_size=1, max_size=2)
    return st.tuples(operator, st.dictionaries(st.sampled_from(keys), found, min_size=1, max_size=2))


_TEXT_KEYS = ["kms:EncryptionContext:team", "kms:encryptioncontextkeys", "kms:ViaService", "kms:CallerAccount",
              "kms:GrantOperations", "kms:GranteePrincipal", "aws:SourceArn"]  # fmt: skip
_CONDITIONS = st.lists(
    st.one_of(
        _condition(
            ["StringEquals", "StringNotEquals", "StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase", "StringLike",
             "StringNotLike"],
            _TEXT_KEYS,
            ["red", "r*", "team", "TEAM", ACCOUNT, "Decrypt", "*", BOB],
        ),
        _condition(["ArnLike", "ArnNotLike", "ArnEquals"], _TEXT_KEYS, ["*", BOB, "arn:aws:iam::*:user/b?b"]),
        _condition(["Bool"], ["kms:GrantIsForAWSResource", "aws:SecureTransport", "aws:MultiFactorAuthPresent"],
                   ["true", "false", True]),
        _condition(["IpAddress", "NotIpAddress"], ["aws:SourceIp"],
                   ["192.0.2.0/24", "198.51.100.7", "2001:db8::/32"]),
        _condition(["NumericLessThan", "NumericGreaterThanEquals"], ["aws:MultiFactorAuthAge"], [60, "300", "1.5"]),
        st.tuples(st.just("Null"), st.dictionaries(st.sampled_from([*_TEXT_KEYS, "aws:SourceIp"]),
                                                   st.sampled_from(["true", "false"]), min_size=1, max_size=2)),
    ),
    max_size=2,
).map(dict)  # fmt: skip


@st.composite
def _statements(draw: st.DrawFn) -> dict[str, Any]:
    made = {"Effect": draw(st.sampled_from(["Allow", "Deny"])), "Condition": draw(_CONDITIONS)}
    whom = "NotPrincipal" if made["Effect"] == "Deny" and draw(st.booleans()) else "Principal"
    made[whom] = draw(_PRINCIPALS)
    made["NotAction" if draw(st.integers(0, 4)) == 0 else "Action"] = draw(_ACTIONS)
    made["Resource"] = draw(
        st.sampled_from(["*", "*", f"arn:aws:kms:eu:{ACCOUNT}:key/orders", f"arn:aws:kms:eu:{ACCOUNT}:key/other"])
    )
    return made


_WORDS = st.sampled_from(["client:alice", "client:bob", "client:ci", "issuer-role:ci", "role:user", "role:admin"])
_ASKED = st.builds(
    Asked,
    action=st.sampled_from(["Encrypt", "Decrypt", "ReEncryptTo", "Wrap", "CreateGrant", "PutKeyPolicy"]),
    principals=st.frozensets(_WORDS, min_size=1, max_size=3),
    is_owner=st.booleans(),
    key_id=st.just("orders"),
    source=st.sampled_from([None, "192.0.2.1", "198.51.100.7", "2001:db8::1"]),
    grant_operations=st.sampled_from([None, frozenset({"Decrypt"}), frozenset({"Decrypt", "Encrypt"})]),
    grantee=st.sampled_from([None, BOB, f"arn:aws:iam::{ACCOUNT}:user/eve"]),
)
_NOW = st.builds(
    Circumstances,
    context=st.none() | st.dictionaries(st.sampled_from(["team", "TEAM", "x"]), st.sampled_from(["red", "RED", "b"])),
    second_factor_age=st.sampled_from([None, 1.0, 60.0, 400.0]),
    is_session=st.booleans(),
)


@settings(max_examples=400)
@given(st.lists(_statements(), min_size=1, max_size=4), _ASKED, _NOW)
def test_the_engine_decides_as_the_reference_does(
    made: list[dict[str, Any]], asked: Asked, now: Circumstances
) -> None:
    text = json.dumps({"Version": "2012-10-17", "Statement": made})
    rules = parse(text, ACCOUNT).rules_for(asked)
    found = rules.decide(now).effect
    assert found == reference.decide(text, ACCOUNT, asked, now)
    assert rules.settled is None or rules.settled.effect == found
