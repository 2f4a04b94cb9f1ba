"""docs/how-to/inventory.md as it is pasted."""

from __future__ import annotations

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from helpers.running import Start
from helpers.shell import blocks, objects, run

PAGE = "docs/how-to/inventory.md"


@pytest.mark.slow
def test_the_page_as_it_is_pasted(start: Start) -> None:
    service = start(login=False)
    run(service, "python -m kms login --credentials admin.json")
    run(service, "python -m kms key create orders; python -m kms key create old --type rsa-2048")
    run(service, "printf hello | python -m kms call encrypt orders --plaintext @-")
    (document,) = blocks(PAGE, "A bill of materials")
    run(service, document)
    text = (service.folder / "cbom.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert all(f'"key/{key_id}/1"' in text for key_id in ("orders", "old"))
    (due,) = blocks(PAGE, "What is due")
    assert run(service, due) == ""
    (weak,) = blocks(PAGE, "What quantum computers will break, and who uses it")
    assert [each["key_id"] for each in objects(run(service, weak))] == ["old"]
    (hurt,) = blocks(PAGE, "Who is hurt by one key")
    whole, part = objects(run(service, hurt))
    assert [each["operations"] for each in whole["used_by"]] == [{"encrypt": 1}]
    assert whole["used_by"] == part["used_by"]
