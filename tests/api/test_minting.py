"""Every way to a credential asks for two factors: the ways are counted here, so that none is added unseen."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from helpers.authenticator import USER_PRESENT
from helpers.people import Person, by_passkey, request_options
from helpers.support import World, basic, kind_of
from kms.access.model import Role
from kms.api import examples
from kms.operations import OPERATIONS, FromAnswerOf
from kms.operations.accounts.sessions import TokenRequest

KMS = Path(__file__).parents[2] / "kms"
GRANT_TYPES = {
    "client_credentials",
    "urn:ietf:params:oauth:grant-type:jwt-bearer",
    "urn:ietf:params:oauth:grant-type:token-exchange",
    "urn:kms:params:oauth:grant-type:passkey",
}
LETS_IN = {
    "create_client", "reset_client_totp", "rotate_client_secret", "issue_token", "create_access_key", "add_passkey",
    "add_public_key", "add_issuer", "update_issuer", "add_issuer_role",
}  # fmt: skip
"""The operations after which somebody can log in who could not before."""


@cache
def calls() -> dict[str, set[str]]:
    """What each file calls, as it is written there."""
    return {
        path.relative_to(KMS).as_posix(): {
            ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
        }
        for path in KMS.rglob("*.py")
    }


def callers_of(*names: str) -> set[str]:
    return {path for path, called in calls().items() if any(each.endswith(names) for each in called)}


def test_sessions_and_access_keys_are_made_in_one_place_each() -> None:
    makers = {name for each in calls().values() for name in each if name.rpartition(".")[2] == "issue"}
    assert makers == {"sessions.issue", "service.authenticator.issue"}
    assert callers_of("sessions.issue") == {"access/authentication.py"}
    assert callers_of("authenticator.issue") == {"operations/accounts/sessions.py"}
    assert {path for path, called in calls().items() if "Token" in called} == {"access/sessions.py"}
    assert callers_of("access_keys.mint") == {"operations/accounts/access_keys.py", "api/aws/sts.py"}
    assert {path for path, called in calls().items() if "AccessKey" in called} == {"access/access_keys.py"}
    public = {path for path, called in calls().items() if "PublicKey" in called}
    assert public == {"operations/accounts/public_keys.py"}
    assert {path for path, called in calls().items() if "Passkey" in called} == {"access/passkey_logins.py"}


def test_the_ways_to_log_in_are_those() -> None:
    assert set(get_args(get_type_hints(TokenRequest)["grant_type"])) == GRANT_TYPES


def test_what_lets_somebody_in_is_known() -> None:
    verbs = re.compile("^(create|add|issue|reset|rotate|update|put)_")
    accounts = {name for name, each in OPERATIONS.items() if ".accounts." in each.function.__module__}
    assert {name for name in accounts if verbs.match(name)} - {
        "create_grant",  # lets clients do something that are in already
        "put_group",
        "add_group_member",
        "create_approval_rule",  # and these let nobody do anything more
        "update_approval_rule",
    } == LETS_IN


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_one_factor_opens_nothing(shared_world: World, name: str) -> None:
    """A secret alone, on each path that there is."""
    made = shared_world.enrol(f"half-{name.replace('_', '-')}", Role.ADMIN, Role.USER)
    operation = OPERATIONS[name]
    path = re.sub(r"<(?:int:)?(\w+)>", lambda found: "1" if found[1] == "version" else "half", operation.path)
    request = examples.request_of(operation) or {}
    body = {member: each for member, each in request.items() if not isinstance(each, FromAnswerOf)}
    headers = basic(made.client.client_id, made.client_secret)
    answer = shared_world.http.open(path, method=operation.method, json=body, headers=headers)
    if operation.is_public:
        assert (answer.status_code, set(answer.json) & {"access_token", "session_id"}) == (200, set())
    else:
        assert (answer.status_code, kind_of(answer)) == (401, "mfa-required")


@pytest.mark.parametrize("grant_type", sorted(GRANT_TYPES))
def test_no_grant_type_takes_a_secret_alone(shared_world: World, grant_type: str) -> None:
    made = shared_world.enrol(f"one-factor-{len(grant_type)}")
    client_id, secret = made.client.client_id, made.client_secret
    for auth in ((client_id, secret), None):
        form = {"grant_type": grant_type, "client_id": client_id, "client_secret": secret, "role": "x"}
        if auth is not None:
            form = {"grant_type": grant_type}
        answer = shared_world.http.post("/auth/token", data=form, auth=auth)
        assert answer.status_code in (401, 422), answer.text


def test_a_passkey_without_user_verification_is_one_factor(world: World) -> None:
    key = Person.of(world, "amy").with_passkey()
    key.flags = USER_PRESENT
    answer = by_passkey(world, key.get(request_options(world)))
    assert (answer.status_code, kind_of(answer)) == (401, "authentication-failed")
