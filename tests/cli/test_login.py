"""Logging in by hand: what is asked, in which order, and what is shown of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from kms.cli import main

NOWHERE = ["--url", "https://localhost:1"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_secret_is_asked_for_first_and_never_shown() -> None:
    """It is what people have just copied, and so what they paste at the first question."""
    done = CliRunner().invoke(main, ["login", *NOWHERE], input="the-secret\nalice\n123456\n")
    questions = ["Client secret (it is not shown)", "no secret", "six digits"]
    places = [done.output.index(question) for question in questions]
    assert places == sorted(places)
    assert "the-secret" not in done.output
    assert "cannot be reached" in done.output


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"totp_secret": "?"}', "\\ud800"])
def test_a_file_that_holds_no_credentials_is_refused_in_a_sentence(content: str) -> None:
    Path("file").write_text(content)
    done = CliRunner().invoke(main, ["login", *NOWHERE, "--credentials", "file"])
    assert done.exit_code == 1
    assert done.output == "Error: file is not a file of credentials that can be read.\n"
