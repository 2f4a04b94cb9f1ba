"""The audit log, read by an implementation that is not ours: Go's own, which guards the modules of the go command."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from helpers.tlog import WrittenLog, entry
from kms.audit.growing import outdated
from kms.audit.note import Note
from kms.audit.proof import proof_of
from kms.audit.tiles import bundle_of, bundle_path
from kms.audit.tree import leaf_hash

PROGRAM = Path(__file__).parents[1] / "clients" / "go" / "tlog"


def run(*arguments: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run the go command beside the program."""
    return subprocess.run(
        ["go", *arguments], cwd=PROGRAM, capture_output=True, text=True, check=False, timeout=timeout
    )


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Go's reader, built."""
    if shutil.which("go") is None:
        pytest.skip("Go is not installed")
    found = re.search(r"go(\d+)\.(\d+)", run("version").stdout)
    if found is None or tuple(map(int, found.groups())) < (1, 26):
        pytest.skip("Go 1.26 or later is not installed")
    try:
        fetched = run("mod", "download", timeout=120)
    except subprocess.TimeoutExpired:
        pytest.skip("Go's modules cannot be fetched: no answer")
    if fetched.returncode:
        pytest.skip(f"Go's modules cannot be fetched: {fetched.stderr.strip()[:200]}")
    built = tmp_path_factory.mktemp("go") / "reader"
    compiled = run("test", "-c", "-o", str(built))
    assert compiled.returncode == 0, compiled.stdout + compiled.stderr
    return built


@pytest.mark.slow
@pytest.mark.parametrize(
    "steps",
    [
        (1, 1),
        (255, 1),
        (256, 256),
        (300, 1, 500),
        (1000, 64_536, 1),  # one entry above a full tile of level 1
        (70_000, 3000, 0, 777),
    ],
)
def test_go_reads_the_log(program: Path, tmp_path: Path, steps: tuple[int, ...]) -> None:
    log = WrittenLog(tmp_path / "log")
    older = tmp_path / "older"
    for number, step in enumerate(steps):
        before = log.size
        checkpoint = log.grow([entry(before + place) for place in range(step)])
        if number < len(steps) - 1 and step:
            older.write_bytes(checkpoint)
        for path in outdated(before, log.size):
            shutil.rmtree(log.directory / path, ignore_errors=True)
    proofs = tmp_path / "proofs"
    proofs.mkdir()
    note = Note.parse(log.tiles.fetch("checkpoint"))
    subtree = log.tiles.at(log.size)
    for index in {0, log.size // 2, log.size - 1}:
        name = urlsafe_b64encode(leaf_hash(entry(index))).decode().rstrip("=")
        (proofs / f"{name}.tlog-proof").write_bytes(bytes(proof_of(index, subtree, note)))
    environ = os.environ | {
        "TLOG": str(log.directory),
        "TLOG_KEY": str(log.key),
        "TLOG_OLDER": str(older),
        "TLOG_PROOFS": str(proofs),
    }
    done = subprocess.run([program, "-test.v"], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("--- PASS") == 4, done.stdout
    entries = log.tiles.bundle(0, log.size)
    log.write(bundle_path(0, min(256, log.size)), bundle_of([*entries[:-1], b"forged"]))
    done = subprocess.run([program, "-test.v"], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"entry {len(entries) - 1} is another" in done.stdout
