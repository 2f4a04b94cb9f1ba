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


def calls_in(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


def texts_put_together(path: Path) -> list[str]:
    """What a file writes as text that is not one literal: f-strings, `+` and `%` of texts, `format` and `join`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        is_sum = isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mod))
        is_method = (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in {"format", "join", "replace"}
        )
        if isinstance(node, ast.JoinedStr) or is_sum or is_method:
            found.append(ast.unparse(node))
    return found


SQL = re.compile(
    r"\b(SELECT\b.*\bFROM|INSERT\b.*\bINTO|UPDATE\b.*\bSET|DELETE FROM|(CREATE|DROP|ALTER) (TABLE|INDEX|TRIGGER|VIEW)"
    r"|PRAGMA|ATTACH|SAVEPOINT|SET (LOCAL|SESSION))\b",
    re.DOTALL,
)


def test_no_sql_is_put_together() -> None:
    """Texts of SQL are literals. What varies is bound; the two exceptions take their part from the source."""
    assert SQL.search("f'SELECT x FROM {table}'") and SQL.search("'DROP TABLE ' + name")
    made = {
        (path.relative_to(ROOT / "kms").as_posix(), text)
        for path in SOURCES
        for text in texts_put_together(path)
        if SQL.search(text)
    }
    assert made == {
        ("audit/index_file.py", "f'PRAGMA user_version = {FORMAT}'"),  # a number of the source
        ("vault/first_release.py", "f'DROP TABLE IF EXISTS {name}'"),  # of two names that stand above it
    }


STATEMENTS = {
    "audit/index.py": {"of_part", "statement"},
    "audit/index_check.py": {"statement"},
    "audit/index_file.py": {"statement", "_CACHE_SIZE"},
    "audit/places.py": {"statement"},
    "operations/accounts/approvals.py": {"query"},
    "operations/system/gauges.py": {"query"},
    "operations/system/status_sections.py": {"query"},
    "vault/checking.py": {"query"},
    "vault/claims.py": {"query"},
    "vault/root_keys.py": {"this"},
    "vault/sealed_columns.py": {"query"},
    "vault/statements.py": {"self._sql"},
    "vault/transaction.py": {"query"},
}
"""Where a statement comes to the database by a name: of SQLAlchemy's making, or out of a tuple of literals nearby."""


def test_what_a_database_carries_out_is_known() -> None:
    """A text that somebody sent would come to it by a name, so each such name is counted here."""
    by_name: dict[str, set[str]] = {}
    for path in SOURCES:
        place = path.relative_to(ROOT / "kms").as_posix()
        text = path.read_text()
        assert not re.search(r"\b(literal_column|TextClause|DDL|exec_driver_sql|executescript)\b", text), place
        for call in calls_in(path):
            is_text = isinstance(call.func, ast.Name) and call.func.id == "text" and "sqlalchemy" in text
            if is_text and "kms.api.console.requested import" not in text:
                assert isinstance(call.args[0], (ast.Constant, ast.JoinedStr)), ast.unparse(call)
            is_run = isinstance(call.func, ast.Attribute) and call.func.attr in {"execute", "executemany"}
            if is_run and isinstance(call.args[0], (ast.Name, ast.Attribute)):
                by_name.setdefault(place, set()).add(ast.unparse(call.args[0]))
    assert by_name == STATEMENTS


LOADS = {
    "allocator.py": {"import ctypes"},
    "process_protection.py": {"import ctypes"},
    "cli/commands.py": {"from importlib import import_module"},  # of places that stand in the source
    "client/operations.py": {"from importlib.resources import files"},
    "vault/seals/pkcs11_token.py": {"from importlib.util import find_spec"},  # whether a package is there
}
"""What loads code or libraries, none of it by a name that the interface takes."""


def test_nothing_is_loaded_or_run_by_a_name_that_somebody_gives() -> None:
    modules = re.compile(r"(subprocess|importlib|imp|runpy|code|pickle|marshal|shelve|ctypes|cffi|pty)(\.|$)")
    runs = re.compile(r"(eval|exec|compile|__import__|os\.(system|popen|exec\w*|spawn\w*|posix_spawn\w*))$")
    found: dict[str, set[str]] = {}
    for path in SOURCES:
        place = path.relative_to(ROOT / "kms").as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            if any(map(modules.match, names)):
                found.setdefault(place, set()).add(ast.unparse(node))
            if isinstance(node, ast.Call):
                assert not runs.match(ast.unparse(node.func)), f"{place}: {ast.unparse(node)}"
    assert found == LOADS
