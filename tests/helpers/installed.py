"""What the tests need beside Python, and where it is not there."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def not_installed(name: str) -> NoReturn:
    """Skip the test for want of a program, but fail it in CI, which installs all of them."""
    message = f"{name} is not installed; .ci/install-services installs it"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
