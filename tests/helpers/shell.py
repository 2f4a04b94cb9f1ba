"""Documentation is run as it is pasted: the shell blocks of a page, against a service of a test."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from helpers.running import Running

ROOT = Path(__file__).parents[2]


def blocks(page: str, section: str) -> list[str]:
    """The shell blocks under a heading of a page, both given from the root of the project."""
    text = (ROOT / page).read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


_PUBLIC = re.compile(r"server\.crt|cluster-keys\.json|.*\.pub")  # certificates and public keys
_OTHERS = 0o077


def open_to_others(folder: Path) -> set[str]:
    """The names of the files in `folder` that others can read or write, and that are not public."""
    files = (each for each in folder.rglob("*") if each.is_file() and not _PUBLIC.fullmatch(each.name))
    return {each.name for each in files if each.stat().st_mode & _OTHERS}


def run(service: Running, script: str, **env: str) -> str:
    """`script`, by bash, on the port of this test's service, with this Python as the one that is activated.

    What it writes must be for its user alone, although the shell would let others read it (umask 022).
    """
    before = open_to_others(service.folder)
    environ = {
        **service.environ,
        "HOME": str(service.folder),
        "PATH": f"{Path(sys.executable).parent}:{service.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "KMS_URL": service.url,
        **env,
    }
    environ.pop("XDG_CONFIG_HOME", None)
    script = script.replace("localhost:8443", f"localhost:{service.port}").replace(". .venv/bin/activate\n", "")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=service.folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        umask=0o022,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    assert open_to_others(service.folder) <= before, script
    return done.stdout


def variables_of(script: str, folder: Path, **env: str) -> dict[str, str]:
    """What the lines of a page before `python app.py` add to the environment."""
    shown = script.partition("python app.py")[0] + "\nenv -0"
    before = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **env}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", shown], cwd=folder, env=before, check=True, stdout=subprocess.PIPE
    )
    after = dict(line.split("=", 1) for line in done.stdout.decode().rpartition("\0")[0].split("\0") if "=" in line)
    return {name: value for name, value in after.items() if name.startswith(("KMS_", "SOFTHSM2_"))}


def objects(text: str) -> list[dict[str, object]]:
    """The JSON objects that stand one after the other in `text`."""
    found, at = [], 0
    decoder = json.JSONDecoder()
    while at < len(text.rstrip()):
        value, at = decoder.raw_decode(text, at)
        found.append(value)
        while at < len(text) and text[at].isspace():
            at += 1
    return found
