"""The directions of dependence, the docstrings, and other promises about the source itself."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from kms.crypto import keytype, primitives

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "kms").rglob("*.py"))

# api → operations → (access, keyring, revocation, audit) → (vault, crypto) → keys
LEVELS = [
    {"client"},  # uses nothing of the service, and travels without it
    {"keys"},
    {"vault", "crypto"},
    {"access", "key_cache", "message_quota", "last_uses", "revocation", "audit", "metrics", "notices", "approvals"},
    {"operations"},
    {
        "api",
        "server",
        "wsgi",
        "cli",
        "tls",
        "log",
        "listening",
        "renewal",
        "sd_notify",
        "sealed",
        "unseal_socket",
        "answering",
        "workers",
        "__main__",
    },
]
# Inside operations: core ← accounts, keys ← use, transfer ← system
OPERATIONS = [{"core"}, {"accounts", "keys"}, {"use"}, {"transfer"}, {"system"}]
GROUND = {
    "errors",
    "clock",
    "secret",
    "files",
    "mounted",
    "process_protection",
    "allocator",
    "config",
    "enums",
    "encryption_context",
    "outgoing",
    "pacing",
    "sigv4",
}  # what everything may use


def package_of(module: str) -> str:
    return module.split(".")[1] if module.count(".") else ""


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("kms"):
            if node.module == "kms":
                found |= {alias.name for alias in node.names if alias.name != "__version__"}
            else:
                found.add(package_of(node.module))
        if isinstance(node, ast.Import):
            found |= {package_of(alias.name) for alias in node.names if alias.name.startswith("kms.")}
    return found


def level(package: str) -> int:
    if package in GROUND:
        return -1
    return next(number for number, packages in enumerate(LEVELS) if package in packages)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path: Path) -> None:
    inside = path.relative_to(ROOT / "kms").with_suffix("").parts[0]
    if inside == "__init__":
        assert not imports(path)
        return
    for package in imports(path):
        if package != inside:
            assert level(package) <= level(inside), f"{inside} uses {package}"


@pytest.mark.parametrize("path", sorted((ROOT / "kms" / "operations").glob("*/*.py")), ids=lambda path: path.stem)
def test_the_packages_of_operations_have_an_order(path: Path) -> None:
    inside = path.parent.name
    own = next(number for number, packages in enumerate(OPERATIONS) if inside in packages)
    for used in set(re.findall(r"kms\.operations\.(\w+)", path.read_text())) - {inside}:
        theirs = next(number for number, packages in enumerate(OPERATIONS) if used in packages)
        assert theirs < own, f"{inside} uses {used}"


def test_the_core_knows_neither_flask_nor_sql() -> None:
    for path in SOURCES:
        text = path.read_text()
        part = path.relative_to(ROOT / "kms").parts[0]
        if part in {"keys", "crypto"}:
            assert "sqlalchemy" not in text
        if part not in {"api", "wsgi.py"}:
            assert not re.search(r"^\s*(from|import) flask\b", text, re.MULTILINE), path


def test_the_metrics_library_is_imported_late() -> None:
    """It looks when it is imported where the workers' files are, which the service says only when it starts."""
    for path in SOURCES:
        assert not re.search(r"^(from|import) prometheus_client\b", path.read_text(), re.MULTILINE), path


@pytest.mark.parametrize("path", [*SOURCES, ROOT / "app.py"], ids=lambda path: str(path.relative_to(ROOT)))
def test_everything_public_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), path
    interface = {"create", "unseal"}  # of seals
    for described in (primitives, keytype):
        for kind in vars(described).values():
            if isinstance(kind, type):
                interface |= {name for name, each in vars(kind).items() if getattr(each, "__doc__", None)}
    for node in ast.walk(tree):
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        enclosing = [
            other
            for other in ast.walk(tree)
            if isinstance(other, (ast.FunctionDef, ast.ClassDef)) and node in ast.walk(other) and other is not node
        ]
        if any(isinstance(other, ast.FunctionDef) or other.name.startswith("_") for other in enclosing):
            continue
        if enclosing and node.name in interface and path.parent.name in {"crypto", "seals"}:
            continue  # described where the interface is
        assert ast.get_docstring(node), f"{path.name}: {node.name}"


def test_secrets_are_revealed_in_few_places() -> None:
    places = {path.relative_to(ROOT / "kms").as_posix() for path in SOURCES if ".reveal()" in path.read_text()}
    assert places == {
        "vault/sealing.py",
        "vault/keyset.py",
        "vault/seals/base.py",
        "vault/seals/pkcs11_token.py",  # the PIN, to the token
        "sigv4.py",
        "vault/recovery.py",
        "vault/shares.py",
        "tls.py",
    }
    doors = {
        path.relative_to(ROOT / "kms").as_posix()
        for path in SOURCES
        if re.search(r"\bsnapshot\.material\(|\bunwrapped\(", path.read_text())
    }
    assert doors == {
        "vault/transaction.py",
        "key_cache.py",
        "operations/transfer/exporting.py",
        "operations/transfer/backups.py",
    }


def test_nothing_names_a_machine_or_a_workplace() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not in a git checkout")
    for name in listed.stdout.split("\0"):
        if name and not name.endswith(".png"):
            text = (ROOT / name).read_text()
            assert not re.search(r"(?<![\w.])/(?:root|work|home)/", text), name


def test_files_stay_small() -> None:
    for path in SOURCES:
        if "migrations" not in path.parts:
            assert len(path.read_text().splitlines()) <= 350, path
