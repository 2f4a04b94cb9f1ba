"""What deploy/ holds, read."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kms.config import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
_OF_THE_COMMAND_LINE = {"KMS_CONFIG", "KMS_URL", "KMS_CA_CERT", "KMS_HOME"}
_SETTINGS = {f"KMS_{name.upper()}" for name in Settings.__struct_fields__}
KNOWN_VARIABLES = _SETTINGS | {f"{name}_FILE" for name in _SETTINGS} | _OF_THE_COMMAND_LINE


def files() -> list[Path]:
    """Every file of deploy/."""
    return sorted(path for path in DEPLOY.rglob("*") if path.is_file())


def documents(name: str) -> Iterator[Any]:
    """Each YAML document of that file of deploy/."""
    return (each for each in yaml.safe_load_all((DEPLOY / name).read_text()) if each is not None)


def variables(text: str) -> set[str]:
    """Each KMS_* variable that `text` names."""
    return set(re.findall(r"\bKMS_[A-Z0-9_]+\b", text))


def unit() -> dict[str, list[str]]:
    """The directives of the systemd unit, each with its values in their order."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "kms.service").read_text().splitlines():
        name, is_directive, value = line.partition("=")
        if is_directive and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def tool(name: str) -> str:
    """The path of a program. Skips the test where it is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed here")
    return path
