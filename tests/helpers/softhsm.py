"""Debian's SoftHSM2: a token of PKCS #11 in a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.installed import not_installed
from kms.config import Settings

PIN = "1234"
_MODULES = "/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so", "/usr/lib64/libsofthsm2.so"


@dataclass(frozen=True)
class SoftHsm:
    """Tokens in a folder of their own, which the variable SOFTHSM2_CONF leads to."""

    module: Path
    configuration: Path

    @classmethod
    def in_folder(cls, folder: Path) -> SoftHsm:
        """With no token yet. Skips the test where SoftHSM2 is not installed, and fails it so in CI."""
        module = next((Path(path) for path in _MODULES if Path(path).exists()), None)
        if module is None or shutil.which("softhsm2-util") is None:
            not_installed("SoftHSM2")
        (folder / "tokens").mkdir(parents=True)
        configuration = folder / "softhsm2.conf"
        configuration.write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
        return cls(module, configuration)

    @property
    def environ(self) -> dict[str, str]:
        """The variable by which the module finds the tokens."""
        return {"SOFTHSM2_CONF": str(self.configuration)}

    def make_token(self, label: str = "kms", pin: str = PIN) -> None:
        """A new token."""
        self.run("softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", "12345678", "--pin", pin)

    def run(self, *command: str) -> None:
        """Run a program of SoftHSM on the tokens."""
        subprocess.run(command, env=os.environ | self.environ, check=True, capture_output=True)

    def settings(self, data_dir: Path, **given: Any) -> Settings:
        """The settings of a service that is sealed by the token `kms`, unless others are `given`."""
        usual = {"seal_pkcs11_module": self.module, "seal_pkcs11_token": "kms", "seal_pkcs11_pin": PIN}
        return Settings(data_dir=data_dir, seal="pkcs11", **{**usual, **given})
