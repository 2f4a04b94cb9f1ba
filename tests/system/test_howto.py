"""The how-to pages work as they are pasted, for every key type."""

from __future__ import annotations

import re
from html import escape

import pytest

from helpers.running import Running, Start
from helpers.shell import ROOT, blocks, objects, run
from helpers.uses import IDS, PURPOSES, context_of
from kms.api import examples, matrix, reference
from kms.api.groups import groups
from kms.keys.model import Usage

PAGE = "docs/how-to/use-keys.md"
NAMES = re.findall(r"^```sh\n(.*?)^```$", (ROOT / PAGE).read_text(), re.DOTALL | re.MULTILINE)[0]
MARKS = {
    Usage.ENCRYPT: "encrypt", Usage.SIGN: "sign", Usage.MAC: "mac", Usage.WRAP: "wrap", Usage.DERIVE: "derive",
    Usage.AGREE: "agree", Usage.ENCAPSULATE: "encapsulate", Usage.SEAL: "seal",
}  # fmt: skip
CASES = [
    (key_id, name, "encrypt in a context" if context_of(name) else section)
    for key_id, (name, usages) in zip(IDS, PURPOSES, strict=True)
    for usage, section in MARKS.items()
    if usage in usages
]


@pytest.fixture(scope="module")
def service(start: Start) -> Running:
    """With two keys of each type and purpose."""
    running = start("--workers", "2", "--rate-limit", "off", login=False, KMS_NOTICE_HOSTS="localhost")
    run(running, "python -m kms login --credentials admin.json")
    made = [NAMES]
    for key_id, (name, usages) in zip(IDS, PURPOSES, strict=True):
        listed = ", ".join(f'"{usage}"' for usage in sorted(usages))
        for each in (key_id, f"{key_id}-peer"):
            made.append(f'kms keys \'{{"type": "{name}", "key_id": "{each}", "usages": [{listed}]}}\'')
    run(running, "\n".join(made))
    return running


@pytest.mark.parametrize(("key_id", "name", "section"), CASES, ids=[f"{case[1]}-{case[2]}" for case in CASES])
def test_each_use_of_each_type(service: Running, key_id: str, name: str, section: str) -> None:
    script = NAMES + "".join(block for block in blocks(PAGE, section) if not block.startswith("KEY="))
    printed = run(service, script, KEY=key_id, PEER=f"{key_id}-peer").splitlines()
    if section in ("sign", "mac"):
        assert printed[0] == "True"
    elif section.startswith("encrypt"):
        assert printed[0] == "aGVsbG8="
    elif section == "wrap":
        assert printed == ["AAECAwQFBgcICQoLDA0ODw=="]
    elif section == "seal":
        assert printed == ["aGVsbG8="]
    assert printed


def test_making_a_key_and_doing_without_one(service: Running) -> None:
    script = NAMES + "".join(blocks(PAGE, "Make a key")).replace("KEY=invoices", "KEY=bills")
    made, shown = objects(run(service, script))
    assert made == shown
    assert len(run(service, NAMES + "".join(blocks(PAGE, "Without a key"))).splitlines()) == 2


def test_the_whole_page_as_it_is_pasted(service: Running) -> None:
    script = "".join(re.findall(r"^```sh\n(.*?)^```$", (ROOT / PAGE).read_text(), re.DOTALL | re.MULTILINE))
    printed = run(service, script)
    assert printed.count("aGVsbG8=\n") == 3  # what was encrypted, encrypted in a context, and sealed
    assert printed.count("True\n") == 2


def test_every_example_of_the_reference_works_in_its_order(service: Running) -> None:
    """As somebody does who pastes the page at /docs from its top to its end, who may know a code only once."""
    lines = [reference.MEMBER]
    for group in groups():
        for operation in group.operations:
            lines.append(f"# {operation.name}\n{reference.curl_line(operation)}; echo")
            if operation.name == "create_key":
                lines += reference.keys_lines()
    script = "\n".join(lines).replace("X-TOTP: $CODE", f"X-Recovery-Code: {service.admin['recovery_codes'][1]}")
    text = run(service, "set -v\n" + script, SECRET=service.admin["client_secret"])
    run(service, "python -m kms login --credentials admin.json --recovery")  # the last example has logged out
    refused = re.findall(r'\{"type":"/problems/[^}]*\}', text)
    assert len(refused) == len(examples.ELSEWHERE) == 16, refused
    assert "/problems/already-exists" in refused[0]
    page = service.curl("GET", "/docs").text
    for group in groups():
        for operation in group.operations:
            assert escape(reference.curl_line(operation)) in page


def test_moving_keys(service: Running) -> None:
    page = "docs/how-to/move-keys.md"
    own, partner = blocks(page, "Bring a key of your own")
    imported, other = objects(run(service, NAMES + own)), objects(run(service, NAMES + partner))
    assert [each["origin"] for each in imported + other] == ["imported", "imported"]
    (export,) = blocks(page, "Take a key out")
    assert run(service, NAMES + export).splitlines()[-1] == "32"
    (backup,) = blocks(page, "Back up one key")
    run(service, NAMES + backup)
    assert (service.folder / "portable.backup").stat().st_size > 300


def test_the_page_of_key_types_is_what_the_registry_says() -> None:
    assert (ROOT / "docs/reference/key-types.md").read_text() == matrix.page()


@pytest.mark.slow
def test_a_program_that_logs_in_twice_waits_for_its_next_code(start: Start) -> None:
    service = start(login=False)
    login = "python -m kms login --credentials admin.json --url $KMS_URL 2>&1\n"
    printed = run(service, login * 3)  # of three in a row one waits, however slow the machine is
    assert printed.count("Logged in") == 3
    assert "the next one is there in" in printed
