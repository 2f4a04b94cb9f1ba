"""docs/how-to/behind-a-proxy.md as it is written: a real nginx in front, and certificates under gunicorn."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from helpers.authority import Issued, issue
from helpers.installed import not_installed
from helpers.running import Running, process_of, wait_until
from helpers.shell import ROOT, blocks
from helpers.support import free_port
from kms.access.certificates import client_of, read_roots, thumbprint

pytestmark = pytest.mark.slow
PAGE = "docs/how-to/behind-a-proxy.md"
SHOWING = ROOT / "tests" / "helpers" / "showing_origin.py"
AUTHORITY = issue("Clients", is_ca=True)
BETWEEN = AUTHORITY.issue("Issuing", is_ca=True)
CLIENT = AUTHORITY.issue("pay-api")
UNDER = BETWEEN.issue("pay-api")
STRANGER = issue("Clients", is_ca=True).issue("pay-api")


def _environ(**given: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if "CA_BUNDLE" not in name and name != "SSL_CERT_FILE"}
    return {**kept, "PYTHONPATH": f"{ROOT}:{SHOWING.parent}", "PYTHONWARNINGS": "ignore", **given}


def _base64(*issued: Issued) -> list[str]:
    return [base64.b64encode(each.der).decode() for each in issued]


def _write(folder: Path, name: str, *chain: Issued) -> list[str]:
    """The options with which curl shows that certificate."""
    (folder / f"{name}.crt").write_text("".join(each.pem for each in chain))
    (folder / f"{name}.key").write_text(chain[0].key_pem)
    return ["--cert", str(folder / f"{name}.crt"), "--key", str(folder / f"{name}.key")]


def _shown(service: Running, *options: str) -> dict[str, Any]:
    answer = service.curl("GET", "/shown", None, *options, token="")
    assert answer.status == 200, answer.text
    return dict(answer.json)


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service under Granian that trusts the proxies of the page."""
    folder, port = tmp_path_factory.mktemp("granian"), free_port()
    (folder / "clients.pem").write_text(AUTHORITY.pem)
    environ = _environ(KMS_CLIENT_CA="clients.pem", **_proxies())
    command = [sys.executable, str(SHOWING), "--port", str(port), "--workers", "1", "--bootstrap-file", "admin.json"]
    service = Running(folder, port, process_of(command, folder, folder / "log", environ), folder / "log", environ)
    service.wait_until_ready()
    yield service
    service.stop()


def _proxies() -> dict[str, str]:
    """The variable of the page."""
    line, *_ = blocks(PAGE, "Say which proxies there are")
    name, _, value = line.removeprefix("export ").strip().partition("=")
    return {name: value}


@pytest.fixture(scope="module")
def behind(direct: Running) -> Iterator[Running]:
    """The same service behind the page's nginx."""
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None:
        not_installed("nginx")
    folder, front = direct.folder, free_port()
    proxy = process_of(
        [nginx, "-p", str(folder), "-c", _configuration(folder, direct.port, front)],
        folder,
        folder / "nginx.log",
        direct.environ,
    )

    def answers() -> bool:
        assert proxy.poll() is None, (folder / "nginx.log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", front)) == 0

    wait_until(answers)
    yield replace(direct, port=front)
    proxy.terminate()
    proxy.wait(timeout=30)


def _configuration(folder: Path, port: int, front: int) -> str:
    """The page's block in a configuration of this user's; only ports and paths are put in place of its own."""
    (block,) = re.findall(r"^```nginx\n(.*?)^```$", (ROOT / PAGE).read_text(), re.DOTALL | re.MULTILINE)
    for name in ("kms.example.org.crt", "service.crt"):  # nginx shows the pair that the service made for itself
        shutil.copy(folder / "server.crt", folder / name)
    shutil.copy(folder / "server.key", folder / "kms.example.org.key")
    placed = block.replace("127.0.0.1:8443", f"127.0.0.1:{port}").replace("listen 443 ", f"listen 127.0.0.1:{front} ")
    (folder / "kms.conf").write_text(placed.replace("/etc/nginx/kms", str(folder)))
    places = [f"{each}_temp_path {folder}/{each};" for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]
    own = "user root;" if os.getuid() == 0 else ""
    http = f"access_log off; {' '.join(places)} include {folder}/kms.conf;"
    (folder / "nginx.conf").write_text(
        f"{own} daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr;\n"
        f"events {{}}\nhttp {{ {http} }}\n"
    )
    return str(folder / "nginx.conf")


def test_what_a_client_writes_does_not_come_through(behind: Running) -> None:
    sent = [
        "-H",
        "X-Forwarded-For: 198.51.100.1",
        "-H",
        "Forwarded: for=198.51.100.2",
        "-H",
        "Client-Cert-Chain: :AA==:",
    ]
    forged = f":{_base64(CLIENT)[0]}:"
    sent += ["-H", f"Client-Cert: {forged}", "-H", f"Client_Cert: {forged}", "-H", "X_Forwarded_For: 198.51.100.3"]
    shown = _shown(behind, *sent)
    assert shown == {
        "source": "127.0.0.1", "path": "/shown", "host": f"localhost:{behind.port}", "certificates": [], "left": [],
        "length": 0,
    }  # fmt: skip


def test_the_source_is_the_client_s(behind: Running) -> None:
    """From another address of this host, as from another host."""
    shown = _shown(behind, "--interface", "127.0.0.2")
    assert shown["source"] == "127.0.0.2"
    refused = behind.curl("POST", "/auth/token", None, "-u", "nobody:x", "--interface", "127.0.0.3", token="")
    assert refused.status == 401
    wait_until(lambda: "127.0.0.3" in behind.log.read_text(), behind.log.read_text)


def test_nginx_passes_a_certificate_on(behind: Running) -> None:
    assert _shown(behind, *_write(behind.folder, "client", CLIENT))["certificates"] == _base64(CLIENT)
    stranger = behind.curl("GET", "/shown", None, *_write(behind.folder, "stranger", STRANGER), token="")
    assert (stranger.status, "SSL certificate error" in stranger.text) == (400, True)


def _logs_in_until_it_is_ended(service: Running, administered: Running, *options: str) -> None:
    """A certificate makes a session at both token endpoints, and its end holds at once."""
    admin = administered.login(administered.admin)
    administered.curl("POST", "/api/v1/clients", {"client_id": "pay-api"}, token=admin)
    form = ["-d", "client_id=pay-api"]
    native = service.curl("POST", "/auth/token", None, *options, *form, token="")
    assert native.status == 200, native.text
    vault = service.curl("POST", "/v1/auth/cert/login", {"name": "pay-api"}, *options, token="")
    tokens = [native.json["access_token"], vault.json["auth"]["client_token"]]
    assert {service.curl("GET", "/api/v1/keys", token=each).status for each in tokens} == {200}
    other = service.curl("POST", "/auth/token", None, *options, "-d", "client_id=admin", token="")
    assert other.status == 401
    path = f"/api/v1/clients/pay-api/certificates/{thumbprint(CLIENT.der)}"
    assert administered.curl("DELETE", path, token=admin).status == 200
    assert {service.curl("GET", "/api/v1/keys", token=each).status for each in tokens} == {401}
    assert service.curl("POST", "/auth/token", None, *options, *form, token="").status == 401


def test_a_certificate_logs_in_through_nginx(behind: Running, direct: Running) -> None:
    _logs_in_until_it_is_ended(behind, direct, *_write(behind.folder, "client", CLIENT))


def test_requests_of_every_size(behind: Running) -> None:
    """The largest that the service takes reaches it and is no file on its way; larger ones do not."""
    largest = 3 << 19
    (behind.folder / "body").write_bytes(b"x" * largest)
    post = ["-H", "Content-Type: application/json", "-H", "Expect:", "--data-binary", f"@{behind.folder / 'body'}"]
    answer = behind.curl("POST", "/shown", None, *post, token="")
    assert answer.json["length"] == largest
    (behind.folder / "body").write_bytes(b"x" * (largest + 1))
    assert behind.curl("POST", "/generate_ecc_key", None, *post, token="x").status == 413
    assert "buffered to a temporary file" not in (behind.folder / "nginx.log").read_text()


def test_keys_are_used_through_connections_that_stay(behind: Running, direct: Running) -> None:
    behind.token = behind.login(behind.admin)
    assert behind.curl("GET", "/readyz", token="").text == "ok\n"
    assert behind.curl("POST", "/generate_symmetric_key", {}).status == 200
    assert _connections(direct.port)


def _connections(port: int) -> list[str]:
    """Those that are open to that port, by their other ends."""
    return re.findall(rf"^ *\d+: (\S+) \w+:{port:04X} 01 ", Path("/proc/net/tcp").read_text(), re.MULTILINE)


def test_the_certificates_that_the_page_makes(behind: Running) -> None:
    make, *_ = blocks(PAGE, "Client certificates")
    folder = behind.folder / "made"
    folder.mkdir()
    subprocess.run(["bash", "-euc", make], cwd=folder, check=True, capture_output=True)
    leaf = x509.load_pem_x509_certificate((folder / "pay-api.crt").read_bytes())
    roots = read_roots(folder / "clients.pem")
    assert client_of(leaf.public_bytes(Encoding.DER), [], roots, datetime.now(UTC)) == "pay-api"


@pytest.fixture(scope="module")
def gunicorn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The same under gunicorn."""
    folder, port = tmp_path_factory.mktemp("gunicorn"), free_port()
    (folder / "clients.pem").write_text(AUTHORITY.pem)
    environ = _environ(
        KMS_CLIENT_CA="clients.pem",
        KMS_PORT=str(port),
        KMS_WORKERS="1",
        KMS_BOOTSTRAP_FILE="admin.json",
        **_proxies(),
    )
    command = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "showing_origin:app"]
    service = Running(folder, port, process_of(command, folder, folder / "log", environ), folder / "log", environ)

    def answers() -> bool:
        assert service.process.poll() is None, service.log.read_text()
        with suppress(subprocess.CalledProcessError):  # not listening yet
            return service.curl("GET", "/readyz", token="").status == 200
        return False

    wait_until(answers, service.log.read_text, every=0.2)
    yield service
    service.stop()


ELSEWHERE = ("--interface", "127.0.0.2")  # an address that is no proxy's


def test_gunicorn_hands_on_what_tls_has_verified(gunicorn: Running) -> None:
    assert _shown(gunicorn, *ELSEWHERE)["certificates"] == []
    client = _write(gunicorn.folder, "client", CLIENT)
    under = _write(gunicorn.folder, "under", UNDER, BETWEEN)
    stranger = _write(gunicorn.folder, "stranger", STRANGER)
    assert _shown(gunicorn, *ELSEWHERE, *client)["certificates"] == _base64(CLIENT)
    assert _shown(gunicorn, *ELSEWHERE, *under)["certificates"] == _base64(UNDER, BETWEEN)
    with pytest.raises(subprocess.CalledProcessError):
        gunicorn.curl("GET", "/shown", None, *ELSEWHERE, *stranger, token="")
    forged = f":{_base64(CLIENT)[0]}:"
    shown = _shown(gunicorn, *ELSEWHERE, "-H", f"Client-Cert: {forged}", "-H", "X-Forwarded-For: 198.51.100.1")
    assert (shown["source"], shown["certificates"], shown["left"]) == ("127.0.0.2", [], [])


def test_a_connection_that_takes_up_another_brings_all_its_certificates(gunicorn: Running) -> None:
    _write(gunicorn.folder, "again", UNDER, BETWEEN)
    context = ssl.create_default_context(cafile=str(gunicorn.folder / "server.crt"))
    context.load_cert_chain(gunicorn.folder / "again.crt", gunicorn.folder / "again.key")
    session = None
    for _ in range(2):
        with (
            socket.create_connection(("127.0.0.1", gunicorn.port), source_address=("127.0.0.2", 0)) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as made,
        ):
            assert _answer(made)["certificates"] == _base64(UNDER, BETWEEN)
            session = made.session


def test_gunicorn_does_not_take_the_proxy_s_certificate_for_a_client_s(gunicorn: Running) -> None:
    client = _write(gunicorn.folder, "proxy", CLIENT)
    assert _shown(gunicorn, *client, "-H", "X-Forwarded-For: 203.0.113.9")["certificates"] == []


def test_a_certificate_logs_in_under_gunicorn(gunicorn: Running) -> None:
    _logs_in_until_it_is_ended(gunicorn, gunicorn, *ELSEWHERE, *_write(gunicorn.folder, "client", CLIENT))


def test_gunicorn_takes_another_ca_while_it_runs(gunicorn: Running) -> None:
    client, under = _write(gunicorn.folder, "a", CLIENT), _write(gunicorn.folder, "b", UNDER)
    (gunicorn.folder / "clients.pem").write_text(BETWEEN.pem)
    assert _shown(gunicorn, *ELSEWHERE, *under)["certificates"] == _base64(UNDER)
    with pytest.raises(subprocess.CalledProcessError):
        gunicorn.curl("GET", "/shown", None, *ELSEWHERE, *client, token="")
    (gunicorn.folder / "clients.pem").write_text("garbage")
    assert _shown(gunicorn, *ELSEWHERE, *under)["certificates"] == _base64(UNDER)
    assert "the old certificate stays in use" in gunicorn.log.read_text()
    (gunicorn.folder / "clients.pem").write_text(AUTHORITY.pem)
    assert _shown(gunicorn, *ELSEWHERE, *client)["certificates"] == _base64(CLIENT)


def test_gunicorn_moves_no_path_by_a_header(gunicorn: Running) -> None:
    """It would take SCRIPT_NAME from whoever is on this host."""
    assert _handed_on(gunicorn, "Script_Name: /shown", "X-Forwarded-For: 203.0.113.9")["path"] == "/shown"


@pytest.mark.parametrize("name", ["direct", "gunicorn"])
def test_headers_that_come_twice(request: pytest.FixtureRequest, name: str) -> None:
    service: Running = request.getfixturevalue(name)
    written, added = "X-Forwarded-For: 198.51.100.1", "X-Forwarded-For: 203.0.113.9"
    certificate = f"Client-Cert: :{_base64(CLIENT)[0]}:"
    assert _handed_on(service, written, added)["source"] == "203.0.113.9"
    assert _handed_on(service, "Forwarded: for=198.51.100.1", "Forwarded: for=203.0.113.9")["source"] == "203.0.113.9"
    assert _handed_on(service, added, certificate)["certificates"] == _base64(CLIENT)
    assert _handed_on(service, added, certificate, certificate)["status"] == 400
    assert _handed_on(service, f"{written}\xe9", added).get("source", "refused") in ("203.0.113.9", "refused")
    assert _handed_on(service, "X-Forwarded-For: \xe9, 203.0.113.9").get("source", "refused") in (
        "203.0.113.9",
        "refused",
    )


def test_granian_takes_underscores_for_dashes(direct: Running) -> None:
    """Why the page asks of proxies to drop them. When this fails, the sentence there can go."""
    shown = _handed_on(direct, "X-Forwarded-For: 203.0.113.9", "X_Forwarded_For: 198.51.100.1")
    assert shown["source"] == "198.51.100.1"


def _handed_on(service: Running, *lines: str) -> dict[str, Any]:
    """What is handed on, or the refusal, of a request of a trusted proxy with just these header lines."""
    context = ssl.create_default_context(cafile=str(service.folder / "server.crt"))
    with (
        socket.create_connection(("127.0.0.1", service.port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as made,
    ):
        return _answer(made, *lines)


def _answer(made: ssl.SSLSocket, *lines: str) -> dict[str, Any]:
    head = "\r\n".join(["GET /shown HTTP/1.1", "Host: localhost", "Connection: close", *lines])
    made.sendall(f"{head}\r\n\r\n".encode("latin-1"))
    answer = b"".join(iter(lambda: made.recv(65536), b""))
    return dict(json.loads(answer.partition(b"\r\n\r\n")[2]))
