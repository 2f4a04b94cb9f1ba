"""The description of the interface is valid, complete and true: its examples work."""

from __future__ import annotations

import base64
import re
from hashlib import sha256
from typing import Any

from openapi_spec_validator import validate

from helpers.support import Api, World, b64
from kms.api import examples, reference
from kms.api.groups import groups
from kms.operations import OPERATIONS, FromAnswerOf, Operation

BEFORE = [
    "get_public_key",
    "backup_key",
    "create_wrapping_key",
    "export_key",
]  # what others need, and what must come before the end
LAST = ["destroy_version", "trim_key", "revoke_key_versions", "delete_key", "cancel_deletion"]


def in_order() -> list[Operation]:
    """Every operation with an example, in an order in which each finds what it needs."""
    names = [name for name, each in OPERATIONS.items() if each.example is not None]
    middle = [name for name in names if name not in BEFORE + LAST + ["create_key", "restore_key"]]
    return [OPERATIONS[name] for name in ["create_key", *BEFORE, *middle, *LAST, "restore_key"]]


def test_the_description_is_valid(world: World) -> None:
    document = world.http.get("/openapi.json").json
    validate(document)
    assert document["openapi"].startswith("3.1")
    described = {each["operationId"] for path in document["paths"].values() for each in path.values()}
    assert described == set(OPERATIONS)


def filled(example: Any, answers: dict[str, Any]) -> dict[str, Any]:
    return {
        name: answers[value.operation][value.member] if isinstance(value, FromAnswerOf) else value
        for name, value in example.items()
    }


def test_the_examples_work(world: World) -> None:
    alice = world.user("alice")
    answers: dict[str, Any] = {}
    for operation in in_order():
        if operation.name == "create_key":
            assert alice.post("/api/v1/keys", dict(operation.example or {})).status_code == 201
            for key_id, body in examples.KEYS.items():
                assert alice.post("/api/v1/keys", {"key_id": key_id, **body}).status_code == 201
            continue
        if operation.name == "restore_key":
            forget(world, "orders")
        path = re.sub("<int:version>", "1", operation.path).replace("<key_id>", examples.key_of(operation.name))
        answer = perform(alice, operation, path.replace("<alias>", "current"), filled(operation.example, answers))
        assert answer.status_code == operation.status, (operation.name, answer.json)
        answers[operation.name] = answer.json
        if operation.batch is not None:
            items = {"items": [filled(operation.example, answers)] * 2}
            several = perform(alice, operation, path, items)
            assert [set(each) for each in several.json["items"]] == [set(answer.json)] * 2, operation.name
        if operation.name == "destroy_version":
            assert answers["destroy_version"]["versions"][0]["state"] == "destroyed"


def perform(api: Api, operation: Operation, path: str, body: dict[str, Any]) -> Any:
    if operation.method == "GET":
        return api.http.get(path, query_string=body, headers=api.headers)
    return api.http.open(path, method=operation.method, json=body, headers=api.headers)


def forget(world: World, key_id: str) -> None:
    from kms.operations.keys.state_changes import remove

    with world.service.vault.change() as change:
        key = change.key_by_id(key_id)
        assert key is not None
        remove(change, key)


def test_every_operation_with_a_body_has_an_example_or_needs_none() -> None:
    for operation in OPERATIONS.values():
        if "/keys" in operation.path and operation.method != "GET":
            assert operation.example is not None, operation.name


def test_the_page_works_without_scripts_and_without_the_network(world: World) -> None:
    answer = world.http.get("/docs")
    page = answer.get_data(as_text=True)
    policy = answer.headers["Content-Security-Policy"]
    assert policy == reference.CONTENT_SECURITY_POLICY
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    (script,) = re.findall("<script>(.*?)</script>", page, re.DOTALL)
    assert base64.b64encode(sha256(script.encode()).digest()).decode() in policy
    assert "hidden" in re.findall("<input[^>]*>", page)[0]  # a search that cannot work is not shown
    assert not re.search(r"<script |<link|<img|javascript:|\sstyle=|\son\w+=|https?://(?!localhost)", page)
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert set(ids) >= set(OPERATIONS)
    assert set(re.findall(r'href="#([^"]*)"', page)) <= set(ids)
    assert page.index("kms login") < page.index("curl -K")  # how to get what the examples need comes first
    (style,) = re.findall("<style>(.*?)</style>", page, re.DOTALL)
    assert style == reference._STYLE


def test_every_operation_is_in_one_group_and_after_what_it_needs() -> None:
    names = [name for group in groups() for name in group.names]
    assert sorted(names) == sorted(OPERATIONS)
    assert "More" not in [group.title for group in groups()], "put the operation into a group of kms/api/groups.py"
    for at, name in enumerate(names):
        for taken in re.findall(r'"\$([A-Z_]+)"\)', reference.curl_line(OPERATIONS[name])):
            assert names.index(taken.lower()) < at, name


def test_verification_keys_of_a_client_are_public(world: World) -> None:
    alice = world.user("alice")
    path = "/clients/alice/.well-known/jwks.json"
    assert world.http.get(path).json == world.http.get("/clients/nobody/.well-known/jwks.json").json == {"keys": []}
    for type_ in ("ec-p256", "ed25519", "ml-dsa-44", "x25519", "xaes-256-gcm"):
        alice.post("/api/v1/keys", {"type": type_, "key_id": type_})
    published = world.http.get(path).json["keys"]
    assert sorted(key["kty"] for key in published) == ["AKP", "EC", "OKP"]
    shown = alice.get("/api/v1/keys/ec-p256/public-key?format=jwk").json["jwk"]
    assert {**shown, "use": "sig"} in published
    assert not {"d", "priv", "k"} & {member for key in published for member in key}
    alice.post("/api/v1/keys/ec-p256/rotate")
    assert len(world.http.get(path).json["keys"]) == 4
    alice.post("/api/v1/keys/ec-p256/revoke")
    assert sorted(key["kty"] for key in world.http.get(path).json["keys"]) == ["AKP", "OKP"]
    signed = alice.post("/api/v1/keys/ed25519/sign", {"message": b64(b"text")}).json
    assert signed["algorithm"] == "Ed25519"
