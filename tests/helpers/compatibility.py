"""docs/reference/compatibility.md, made from what unmodified clients got done in the tests."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

from helpers.running import Running
from kms.api.aws import middleware as aws_middleware  # noqa: F401  # it fills the table of actions
from kms.api.aws.request import ACTIONS
from kms.api.transit import middleware as transit_middleware  # noqa: F401  # and this the routes
from kms.api.transit.routes import ROUTES

PAGE = Path(__file__).parents[2] / "docs/reference/compatibility.md"
RESULTS = "KMS_TEST_RESULTS"
"""The variable that names the directory in which the results of this run are gathered."""

AWS_CLIENTS = {
    "boto3": ("test_aws", "test_aws_grants", "test_aws_import", "test_aws_regions"),
    "AWS CLI, Encryption SDK": ("test_aws_tools",),
    "as moto, but where AWS differs": ("test_moto",),
}
VAULT_CLIENTS = {"hvac": ("test_vault_clients", "test_vault_transfer", "test_vault_mounts")}
MODULES = {module for modules in (*AWS_CLIENTS.values(), *VAULT_CLIENTS.values()) for module in modules}
_SUCCESS = re.compile(r'kms_requests_total\{operation="((?:aws|transit):\w+)",outcome="success"\}')
_HEAD = """\
# Compatibility

Made from the results of the tests by `python -m pytest -n 2 --dist loadfile tests/system --tables`; a run of all
tests fails where the page is not as it comes out. ● says that unmodified clients, as their makers publish them, got
the operation done by the real service, and that every test with them passed. What an operation does not do is said
with the [AWS](aws.md) and the [Vault](vault.md) dialect.
"""


def gather(service: Running, module: str) -> None:
    """Note which operations of the dialects succeeded at the service of a module of tests."""
    if RESULTS not in os.environ or module not in MODULES or service.process.poll() is not None:
        return
    time.sleep(1.2)  # until then every worker has put into its metrics what it counted
    seen = sorted(set(_SUCCESS.findall(service.curl("GET", "/metrics").text)))
    (Path(os.environ[RESULTS]) / f"{module}-{service.port}.json").write_text(json.dumps(seen))


def gathered() -> dict[str, set[str]]:
    """The operations that succeeded, by module."""
    found: dict[str, set[str]] = {}
    for path in Path(os.environ[RESULTS]).glob("*.json"):
        found.setdefault(path.name.partition("-")[0], set()).update(json.loads(path.read_text()))
    return found


def page(results: dict[str, set[str]]) -> str:
    """The page for these results."""
    aws = [(f"`{name}`", f"aws:{name}") for name in sorted(ACTIONS)]
    paths: dict[str, list[str]] = {}
    for route in ROUTES:
        paths.setdefault(f"transit:{route.function.__name__.rstrip('_')}", []).append(f"`{route.shown}`")
    vault = [("<br>".join(sorted(listed)), operation) for operation, listed in paths.items()]
    tables = [_table("AWS KMS", AWS_CLIENTS, aws, results), _table("Vault", VAULT_CLIENTS, sorted(vault), results)]
    return "\n".join([_HEAD, *tables])


def _table(
    title: str, clients: dict[str, tuple[str, ...]], rows: list[tuple[str, str]], results: dict[str, set[str]]
) -> str:
    done = {client: set().union(*(results[module] for module in modules)) for client, modules in clients.items()}
    lines = [f"## {title}", "", f"| | {' | '.join(clients)} |", "|---|" + "---|" * len(clients)]
    lines += [
        f"| {shown} | {' | '.join('●' if operation in done[client] else '' for client in clients)} |"
        for shown, operation in rows
    ]
    return "\n".join([*lines, ""])
