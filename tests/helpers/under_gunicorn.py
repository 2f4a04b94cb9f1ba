"""The service under gunicorn, with the shipped configuration."""

from __future__ import annotations

import sys
from pathlib import Path

from helpers.running import Running, process_of
from helpers.shell import ROOT

GUNICORN = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "app:app"]


def under_gunicorn(folder: Path, port: int, environ: dict[str, str]) -> Running:
    """Start it in `folder`, where its log is too, on `port`. It may take a moment until it `answers`."""
    environ = {**environ, "PYTHONPATH": str(ROOT), "KMS_PORT": str(port)}
    log = folder / "gunicorn.log"
    return Running(folder, port, process_of(GUNICORN, folder, log, environ), log, environ)
