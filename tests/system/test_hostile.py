"""Requests that no client library would send, and a disk that is full."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.log_lines import log_entries
from helpers.running import Running, Start
from helpers.support import b64, new_database
from kms.config import Settings
from kms.vault.opening import open_vault


@pytest.fixture(scope="module")
def service(start: Start, postgres: str) -> Running:
    return start("--workers", "1", "--database-url", new_database(postgres), "--rate-limit", "off")


def raw(service: Running, content: bytes) -> bytes:
    context = ssl.create_default_context(cafile=str(service.folder / "server.crt"))
    with (
        socket.create_connection(("localhost", service.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(content)
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
                if b"\r\n\r\n" in answer:
                    break
        except OSError:
            pass
        return answer


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /livez HTTP/1.0\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a:b:c:d\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"G\x00T /livez HTTP/1.1\r\nHost: x\r\n\r\n",
        b"BREW /revoke_key HTTP/1.1\r\nHost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://elsewhere/livez HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /%00%ff%2e%2e/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /auth/token HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /auth/token HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST /auth/token HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /auth/token HTTP/1.1\r\nHost: x\r\nAuthorization: Basic \xff\xff\r\nX-TOTP: \xff\r\n\r\n",
        b"POST /auth/token HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xff\r\n\r\n",
        b"GET /api/v1/keys HTTP/1.1\r\nHost: x\r\nX-Vault-Token: \xc3\xa9\r\n\r\n",
    ],
)
def test_no_bytes_make_it_fail(service: Running, request_: bytes) -> None:
    answer = raw(service, request_)
    status = int(answer.split()[1]) if answer else 400
    assert status < 500, answer
    assert service.curl("GET", "/livez").status == 200


def test_names_that_a_database_would_choke_on(service: Running) -> None:
    for path in ("/api/v1/keys/%00", "/api/v1/keys/a%00b", "/api/v1/clients/%00", "/api/v1/clients/%C3%A9"):
        assert service.curl("GET", path).status == 404
    assert service.curl("POST", "/api/v1/keys/a%00/encrypt", {"plaintext": ""}).status == 404
    assert service.curl("GET", "/api/v1/keys?cursor=%00").status == 422
    for client_id in ("\0", "a\0b", "é", "x" * 500):
        basic = "Authorization: Basic " + b64(f"{client_id}:secret-that-is-wrong".encode())
        for factor in ("X-TOTP: 000000", "X-Recovery-Code: AAAA"):
            answer = service.curl("POST", "/auth/token", None, "-H", basic, "-H", factor, token="")
            assert answer.status == 401, answer.text
    labels = {"labels": {"a\0b": "\0"}}
    service.curl("POST", "/generate_ecc_key", {})
    assert service.curl("PATCH", "/api/v1/keys/admin_ecc", labels).json["labels"] == {"a\0b": "\0"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small file system, and not everywhere")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_refuses_and_goes_on_when_there_is_space_again(start: Start, small_disk: Path) -> None:
    service = start("--workers", "2", folder=small_disk, KMS_LOG_LEVEL="error")
    assert service.curl("POST", "/generate_symmetric_key", {}).status == 200
    made = service.curl("GET", "/api/v1/keys/admin_symmetric").json["latest_version"]
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size):
                    pass
    statuses = set()
    for _ in range(30):
        statuses.add(service.curl("POST", "/api/v1/keys/admin_symmetric/encrypt", {"plaintext": ""}).status)
        statuses.add(service.curl("POST", "/generate_symmetric_key", {}).status)
    assert statuses <= {200, 503}, statuses
    assert 503 in statuses
    filler.unlink()
    assert service.curl("POST", "/api/v1/keys/admin_symmetric/encrypt", {"plaintext": ""}).status == 200
    after = service.curl("POST", "/generate_symmetric_key", {})
    assert after.status == 200, after.text
    detail = service.curl("GET", "/api/v1/keys/admin_symmetric").json
    assert [each["version"] for each in detail["versions"]] == list(range(1, detail["latest_version"] + 1))
    assert detail["latest_version"] > made
    assert service.process.poll() is None
    service.stop()
    settings = Settings(data_dir=small_disk / "kms-data")
    vault = open_vault(settings)
    operations = [entry["operation"] for entry in log_entries(vault, settings) if entry["outcome"] == "success"]
    assert operations.count("generate_symmetric_key") == after.json["version"]
    vault.close()
