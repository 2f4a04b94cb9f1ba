"""The inventory: a bill of materials that the library reads, what is due, what is not post-quantum safe, and for whom."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from cyclonedx.model.bom import Bom
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from helpers.support import Api, SteeredClock, World, kind_of
from kms.access.model import Role
from kms.crypto.registry import KEY_TYPES

PATH = "/api/v1/inventory"


def everything(api: Api, path: str = PATH, **query: Any) -> list[dict[str, Any]]:
    """The answers of all pages."""
    pages, cursor = [], None
    while True:
        asked = {**query, "cursor": cursor} if cursor else query
        answer = api.get(f"{path}?{'&'.join(f'{name}={value}' for name, value in asked.items())}")
        assert answer.status_code == 200, answer.json
        pages.append(dict(answer.json))
        cursor = answer.json["next_cursor"]
        if cursor is None:
            return pages


def versions(api: Api, **query: Any) -> list[dict[str, Any]]:
    return [item for page in everything(api, f"{PATH}/versions", **query) for item in page["items"]]


def test_smoke(world: World) -> None:
    alice = world.user("alice")
    for name in ("aes-256-gcm", "ec-p256"):
        alice.post("/api/v1/keys", {"key_id": name, "type": name})
    (page,) = everything(alice)
    print(json.dumps(page, indent=1))
    print(json.dumps(versions(alice), indent=1))
    print(JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(page["bom"])))
    print(alice.get("/api/v1/keys/ec-p256/blast-radius").json, world.admin.get("/api/v1/keys/ec-p256/blast-radius").json)
    assert 0
