"""The pages for newcomers work as they are pasted: tutorial, files, library."""

from __future__ import annotations

import re
import sys

import pytest

from helpers.running import Running, Start
from helpers.shell import ROOT, run


@pytest.fixture(scope="module")
def service(start: Start) -> Running:
    """A service in whose folder somebody has logged in."""
    running = start("--workers", "1", login=False)
    run(running, "python -m kms login --credentials admin.json")
    return running


def pasted(page: str, language: str) -> list[str]:
    """The blocks of a page in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def test_encrypt_files(service: Running) -> None:
    printed = run(service, "".join(pasted("docs/how-to/encrypt-files.md", "sh")))
    assert "dump.sql\n" in printed
    assert '"host": "db1"' in printed
    assert (service.folder / "reports.back" / "dump.sql").read_bytes() == (service.folder / "dump.sql").read_bytes()


def test_the_client_library(service: Running) -> None:
    (service.folder / "pasted.py").write_text("".join(pasted("docs/how-to/client-library.md", "python")))
    printed = run(service, "umask 077\npython pasted.py")  # its files are those of the program
    for line in ("The ciphertext did not open", "verify", "['ada@example.org']", "reason='superseded'"):
        assert line in printed


def test_the_tutorial(service: Running) -> None:
    start, *rest = pasted("docs/tutorial.md", "sh")
    assert "pip install . && kms serve" in start  # tests/system/test_package.py does that
    script = "".join(rest).replace("kms login --credentials admin.json", "true")  # a code works once
    printed = run(service, f'kms() {{ "{sys.executable}" -m kms "$@"; }}\n' + script)
    assert printed.count("['ada@example.org']") == 1
    for line in (
        "a secret",
        "not in the database in clear",
        "['ada@example.org', 'ada@example.org']",
        "nobody reads it",
    ):
        assert line in printed
    assert b"ada@example.org" not in (service.folder / "shop.db").read_bytes()
