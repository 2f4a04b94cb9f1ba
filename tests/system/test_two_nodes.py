"""What deploy/compose.yaml starts, without containers: its settings, its nginx.conf and the secrets of the page."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from helpers.running import Running, Start, process_of, wait_until
from helpers.shell import ROOT, blocks
from helpers.support import free_port, new_database

pytestmark = pytest.mark.slow
_COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())


@dataclass
class Stack:
    """Two nodes, and one of them as it is reached through nginx."""

    nodes: list[Running]
    front: Running


def _program(name: str) -> str:
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed; .ci/install-services installs it")
    return path


def _secrets(folder: Path, database: str, counts: int) -> Path:
    """The files that the page has made; only the addresses in them are this host's."""
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", blocks("docs/how-to/deploy.md", "With compose")[0]], cwd=folder, check=True
    )
    secrets = folder / "deploy" / "secrets"
    (secrets / "database-url").write_text(database)
    url = (secrets / "valkey-url").read_text()
    (secrets / "valkey-url").write_text(url.replace("valkey:6379", f"127.0.0.1:{counts}"))
    with (secrets / "valkey.conf").open("a") as configuration:
        configuration.write(f"port {counts}\nbind 127.0.0.1\ndir {folder}\n")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-subj", "/CN=x", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", secrets / "proxy.key", "-out", secrets / "proxy.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    return secrets


def _nginx(folder: Path, secrets: Path, front: int, ports: list[int]) -> list[str | Path]:
    text = (ROOT / "deploy" / "nginx.conf").read_text().replace("/run/secrets", str(secrets))
    text = text.replace("listen 8443", f"listen 127.0.0.1:{front}")
    for number, port in enumerate(ports, 1):
        text = text.replace(f"172.30.84.1{number}:8443", f"127.0.0.1:{port}")
    (folder / "default.conf").write_text(text)
    places = [f"{each}_temp_path {folder}/{each};" for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]
    own = "user root;" if os.getuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{own} daemon off; pid {folder}/nginx.pid; error_log stderr;\nevents {{}}\n"
        f"http {{ access_log off; {' '.join(places)} include {folder}/default.conf; }}\n"
    )
    return [_program("nginx"), "-p", folder, "-c", folder / "nginx.conf"]


@pytest.fixture(scope="module")
def stack(start: Start, postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("compose")
    counts, front, ports = free_port(), free_port(), [free_port(), free_port()]
    secrets = _secrets(folder, new_database(postgres), counts)
    others = [
        process_of(
            [_program("redis-server"), str(secrets / "valkey.conf")], folder, folder / "valkey.log", dict(os.environ)
        )
    ]
    settings = {
        name: str(value).replace("/run/secrets", str(secrets))
        for name, value in _COMPOSE["services"]["kms-1"]["environment"].items()
    }
    settings["KMS_TRUSTED_PROXIES"] = "127.0.0.1"
    nodes = [start(port=port, login=False, **settings) for port in ports]
    command = [str(each) for each in _nginx(folder, secrets, front, ports)]
    others.append(process_of(command, folder, folder / "nginx.log", dict(os.environ)))
    shutil.copy(secrets / "proxy.crt", nodes[0].folder / "server.crt")
    reached = replace(nodes[0], port=front)
    wait_until(lambda: _answers(reached), (folder / "nginx.log").read_text)
    reached.token = reached.login(reached.admin)
    yield Stack(nodes, reached)
    for each in others:
        each.terminate()
        each.wait(timeout=30)


def _answers(service: Running) -> bool:
    try:
        return service.curl("GET", "/readyz", token="").status == 200
    except subprocess.CalledProcessError:
        return False


def test_only_the_first_node_makes_the_first_administrator(stack: Stack) -> None:
    first, second = stack.nodes
    assert first.admin["client_id"] == "admin"
    assert not (second.folder / "admin.json").exists()


def test_both_nodes_answer_for_one_vault(stack: Stack) -> None:
    assert stack.front.curl("POST", "/api/v1/keys", {"type": "xaes-256-gcm", "key_id": "orders"}).status == 201
    sealed = [stack.front.curl("POST", "/api/v1/keys/orders/encrypt", {"plaintext": "aGVsbG8="}) for _ in range(8)]
    assert {each.status for each in sealed} == {200}
    for each in sealed:
        opened = stack.front.curl("POST", "/api/v1/keys/orders/decrypt", {"ciphertext": each.json["ciphertext"]})
        assert opened.json["plaintext"] == "aGVsbG8="


def test_a_limit_counts_over_both_nodes(stack: Stack) -> None:
    """By Valkey's counts, and by the address of who asked, not by nginx's."""
    asked = [
        stack.front.curl(
            "POST", "/auth/token", None, "-u", f"nobody-{number}:x", "--interface", "127.0.0.7", token=""
        )
        for number in range(75)
    ]
    assert asked[0].status == 401
    assert asked[-1].status == 429
    assert 55 <= [each.status for each in asked].count(401) <= 65
    assert stack.front.curl("GET", "/api/v1/keys").status == 200


def test_a_node_that_stops_is_not_missed(stack: Stack) -> None:
    assert stack.nodes[1].stop() == 0
    answers = [stack.front.curl("POST", "/api/v1/keys/orders/encrypt", {"plaintext": "aGVsbG8="}) for _ in range(8)]
    assert {each.status for each in answers} == {200}
