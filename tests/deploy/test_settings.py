"""Files for installing: what they set is a setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.deployed import DEPLOY, KNOWN_VARIABLES, files, variables


@pytest.mark.parametrize("path", files(), ids=[str(path.relative_to(DEPLOY)) for path in files()])
def test_every_variable_that_is_named_is_a_setting(path: Path) -> None:
    assert variables(path.read_text()) <= KNOWN_VARIABLES


def test_variables_are_found_at_all() -> None:
    assert {"KMS_DATA_DIR", "KMS_SEAL"} <= variables((DEPLOY / "kms.service").read_text())
    assert variables("KMS_SEAL_CREDENTAIL=x") - KNOWN_VARIABLES == {"KMS_SEAL_CREDENTAIL"}
