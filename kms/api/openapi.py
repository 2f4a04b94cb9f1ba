"""The OpenAPI 3.1 description, made from the operation table and nothing else."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, get_args, get_type_hints

import msgspec

from kms import __version__
from kms.api import examples
from kms.api.groups import groups, title_of
from kms.api.problems import MEDIA_TYPE, Problem
from kms.keys.ids import CLIENT_ID_PATTERN, KEY_ID_PATTERN, MOUNT_PATTERN
from kms.operations import OPERATIONS, BytesAnswer, Operation, TextAnswer
from kms.operations.core.approving import PendingCall
from kms.operations.core.asking import can_be_covered
from kms.operations.core.declare import MOST_ITEMS, EmptyRequest

_REFERENCE = "#/components/schemas/{name}"
_PATH_VARIABLES: dict[str, dict[str, Any]] = {
    "key_id": {"type": "string", "pattern": f"^{KEY_ID_PATTERN}$"},
    "alias": {"type": "string", "pattern": f"^{KEY_ID_PATTERN}$"},
    "client_id": {"type": "string", "pattern": f"^{CLIENT_ID_PATTERN}$"},
    "grant_id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    "access_key_id": {"type": "string", "pattern": "^[A-Z0-9]{20}$"},
    "group": {"type": "string", "pattern": f"^{CLIENT_ID_PATTERN}$"},
    "role": {"type": "string", "pattern": f"^{CLIENT_ID_PATTERN}$"},
    "passkey_id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    "kid": {"type": "string", "pattern": "^[A-Za-z0-9_-]{43}$"},
    "thumbprint": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    "session_id": {"type": "string", "pattern": "^[0-9a-f]{24}$"},
    "issuer_id": {"type": "string", "pattern": "^[0-9a-f]{24}$"},
    "notice_id": {"type": "string", "pattern": "^[0-9a-f]{24}$"},
    "delivery_id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    "rule": {"type": "string", "pattern": f"^{CLIENT_ID_PATTERN}$"},
    "approval_id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    "mount": {"type": "string", "pattern": f"^{MOUNT_PATTERN}$"},
    "leaf": {"type": "string", "pattern": "^[A-Za-z0-9_-]{43}=?$"},
    "tile": {
        "type": "string",
        "pattern": "^(entries|[0-9]|[1-5][0-9]|6[0-3])/(x[0-9]{3}/)*[0-9]{3}(\\.p/[0-9]{1,3})?$",
    },
    "version": {"type": "integer", "minimum": 1, "maximum": 2**31 - 1},
}
_NOT_JSON = (TextAnswer, BytesAnswer)
_INTRODUCTION = """\
Bytes travel as standard base64 with padding, times as RFC 3339 in UTC, periods as ISO 8601 durations. Refusals are \
problem documents (RFC 9457). Operations that say so also take `{"items": [request, …]}` and then answer \
`{"items": [answer or {"error": problem}, …]}` in the same order."""


@cache
def description() -> dict[str, Any]:
    """The document; see https://spec.openapis.org/oas/v3.1.1.html."""
    types: list[Any] = [Problem, PendingCall]
    for operation in OPERATIONS.values():
        types += [operation.request, *([operation.batch] if operation.batch else []), *_answer_types(operation)]
    used = list({repr(kind): kind for kind in types if kind not in _NOT_JSON}.values())
    _, schemas = msgspec.json.schema_components(used, ref_template=_REFERENCE)
    for operation in OPERATIONS.values():
        if operation.batch is not None:
            _tolerant(schemas[operation.batch.__name__])
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS.values():
        path = re.sub(r"<(?:int:|path:)?(\w+)>", r"{\1}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "KMS", "version": __version__, "description": _INTRODUCTION, "license": {"name": "MIT"}},
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"basic": [], "totp": []}],
        "tags": [{"name": group.title, "description": group.about} for group in groups()],
        "paths": paths,
        "components": {
            "schemas": {name: _standard(schema) for name, schema in schemas.items()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic", "description": "client id and secret"},
                "totp": {"type": "apiKey", "in": "header", "name": "X-TOTP", "description": "six digits"},
            },
        },
    }


def summary(operation: Operation) -> str:
    """One sentence about the operation."""
    return inspect.cleandoc(operation.function.__doc__ or "").partition("\n")[0]


def example_of(operation: Operation) -> dict[str, Any] | None:
    """The example request, with samples for what comes from earlier answers."""
    example = examples.request_of(operation)
    return None if example is None else {name: examples.sample(value) for name, value in example.items()}


def _operation(operation: Operation) -> dict[str, Any]:
    about = inspect.cleandoc(operation.function.__doc__ or "")
    needs = f"Needs the permission `{operation.permission}`." if operation.permission else ""
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": summary(operation),
        "description": "\n\n".join(filter(None, [about, needs])),
        "tags": [title_of(operation)],
        "parameters": _parameters(operation),
        "responses": {
            str(operation.status): _response(operation),
            "default": {
                "description": "A refusal, with a page that explains its `type`",
                "content": {MEDIA_TYPE: {"schema": _reference(Problem)}},
            },
        },
    }
    if can_be_covered(operation):
        described["responses"]["202"] = {
            "description": inspect.cleandoc(PendingCall.__doc__ or ""),
            "headers": {"Location": {"description": "Where the approval is shown", "schema": {"type": "string"}}},
            "content": {"application/json": {"schema": _reference(PendingCall)}},
        }
    if operation.is_token_endpoint:
        described["security"] = [{"basic": [], "totp": []}, {}]
    if operation.is_public:
        described["security"] = [{}]
    if operation.method not in {"GET"}:
        described["requestBody"] = _body(operation)
    return described


def _tolerant(batch: dict[str, Any]) -> None:
    """Say of the items of a batch what is true: one that is wrong does not refuse the whole."""
    items = batch["properties"]["items"]
    items["items"] = {"anyOf": [items["items"], {"description": "anything else gets an error at its place"}]}


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": _PATH_VARIABLES[name],
            "example": examples.sample(examples.variable_of(operation, name)),
        }
        for name in re.findall(r"<(?:int:|path:)?(\w+)>", operation.path)
    ]
    if operation.method == "GET":
        _, components = msgspec.json.schema_components([operation.request], ref_template=_REFERENCE)
        members = components[operation.request.__name__].get("properties", {})
        for name, each in members.items():
            without_null = [kind for kind in each.get("anyOf", []) if kind != {"type": "null"}]
            shown = without_null[0] if len(without_null) == 1 else {k: v for k, v in each.items() if k != "default"}
            found.append({"name": name, "in": "query", "required": False, "schema": _standard(shown)})
    return found


def _body(operation: Operation) -> dict[str, Any]:
    schemas = [_reference(kind) for kind in (operation.request, operation.batch) if kind is not None]
    media: dict[str, Any] = {"schema": {"oneOf": schemas} if len(schemas) > 1 else schemas[0]}
    example = example_of(operation)
    if example is not None:
        media["example"] = example
    required = any(field.required for field in msgspec.structs.fields(operation.request))
    return {"required": required and operation.request is not EmptyRequest, "content": {"application/json": media}}


def _response(operation: Operation) -> dict[str, Any]:
    kinds = _answer_types(operation)
    if kinds == (TextAnswer,):
        return {"description": "TextAnswer", "content": {"text/plain": {"schema": {"type": "string"}}}}
    if kinds == (BytesAnswer,):
        return {"description": "BytesAnswer", "content": {"application/octet-stream": {}}}
    answers = [_reference(kind) for kind in kinds if kind not in _NOT_JSON]
    schema = answers[0] if len(answers) == 1 else {"anyOf": answers}
    described: dict[str, Any] = {
        "description": inspect.cleandoc(kinds[0].__doc__ or ""),
        "content": {"application/json": {"schema": schema}},
    }
    if operation.batch is not None:
        failed = {"type": "object", "properties": {"error": _reference(Problem)}, "required": ["error"]}
        items = {"type": "array", "maxItems": MOST_ITEMS, "items": {"anyOf": [schema, failed]}}
        several = {"type": "object", "properties": {"items": items}, "required": ["items"]}
        described["content"]["application/json"]["schema"] = {"anyOf": [schema, several]}
    if operation.location is not None:
        header = {"description": "The path of what was made", "schema": {"type": "string"}}
        described["headers"] = {"Location": header}
    return described


def _answer_types(operation: Operation) -> tuple[Any, ...]:
    answer = get_type_hints(operation.function)["return"]
    return get_args(answer) or (answer,)


def _reference(kind: Any) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(name=kind.__name__)}


def _standard(schema: Any) -> Any:
    """What is true in the words of the standard.

    Patterns are as ECMA-262 writes them, which knows no \\Z; prose is without the indentation of its source; what is
    a set here may name a member twice.
    """
    if isinstance(schema, Mapping):
        return {
            name: inspect.cleandoc(value) if name == "description" and isinstance(value, str) else _standard(value)
            for name, value in schema.items()
            if name != "uniqueItems"
        }
    if isinstance(schema, list):
        return [_standard(each) for each in schema]
    if isinstance(schema, str) and schema.endswith(r"\Z"):
        return schema.removesuffix(r"\Z") + "$"
    return schema
