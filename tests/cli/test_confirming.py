"""What asks for a fresh second factor is asked for on a terminal, in the middle of the command."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyotp

from helpers.support import World
from helpers.tokens import new_key, public_pem

Kms = Callable[..., list[Any]]
ROOT = Path(__file__).parents[2]


def test_a_code_is_asked_for_and_the_command_goes_on(kms: Kms, shared_world: World) -> None:
    made = shared_world.enrol("carla")
    Path("app.pub").write_text(public_pem(new_key()))
    kms("client", "keys", by="carla")
    code = pyotp.TOTP(made.totp_secret).at(shared_world.service.clock())
    command = [sys.executable, "-m", "kms", "client", "add-key", "carla", "app.pub"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    on_a_terminal = subprocess.run(
        ["script", "-qec", shlex.join(command), "/dev/null"],
        input=f"{code}\n", env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert on_a_terminal.returncode == 0, on_a_terminal.stdout
    assert "six digits" in on_a_terminal.stdout
    assert len(kms("client", "keys")) == 1
    (told,) = kms("client", "add-key", "carla", "app.pub", code=6)  # which goes on to be refused for another reason
    assert "already" in told
