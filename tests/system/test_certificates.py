"""Certificates and TLS: what a key may be written in, what is offered, and what is loaded while it runs."""

from __future__ import annotations

import http.client
import os
import signal
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from helpers.certificates import write_pair, write_pair_of
from helpers.running import Running, Start, wait_until


def _served_certificate(service: Running) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("localhost", service.port, context=context, timeout=10)
    connection.connect()
    certificate = connection.sock.getpeercert(binary_form=True)  # type: ignore[union-attr]
    connection.close()
    assert certificate
    return certificate


def _is_served(service: Running, wanted: bytes) -> bool:
    """Whether a dozen handshakes in a row get that certificate: each worker has its own."""
    return all(_served_certificate(service) == wanted for _ in range(12))


def test_certificates_are_loaded_while_connections_go_on(start: Start) -> None:
    service = start("--workers", "2")
    before, workers = _served_certificate(service), set(service.worker_pids())
    context = ssl.create_default_context(cafile=str(service.folder / "server.crt"))
    connection = http.client.HTTPSConnection("localhost", service.port, context=context, timeout=10)

    def closes() -> bool:
        connection.request("GET", "/livez")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"ok\n")
        return answer.getheader("Connection") == "close"

    assert not closes()
    (service.folder / "server.crt").write_text("garbage")
    service.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "old certificate stays" in service.log.read_text(), service.log.read_text)
    write_pair_of(service.folder, ec.generate_private_key(ec.SECP521R1()))
    service.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "secp521r1" in service.log.read_text(), service.log.read_text)
    assert _is_served(service, before)
    assert not closes()
    write_pair(service.folder)
    new = x509.load_pem_x509_certificate((service.folder / "server.crt").read_bytes()).public_bytes(Encoding.DER)
    service.process.send_signal(signal.SIGHUP)
    wait_until(lambda: _is_served(service, new), service.log.read_text)
    assert closes()  # after an answer, so that the client comes again and sees the new one
    newer = write_pair_of(service.folder, ec.generate_private_key(ec.SECP384R1())).public_bytes(Encoding.DER)
    wait_until(lambda: _is_served(service, newer), service.log.read_text)  # without being told
    assert set(service.worker_pids()) == workers
    for _ in range(3):  # as a terminal or a supervisor sends it, to each of them, and not only once
        for pid in (*workers, service.process.pid):
            os.kill(pid, signal.SIGTERM)
    assert service.process.wait(timeout=60) == 0
    assert "stopped, with every request answered" in service.log.read_text()


@pytest.mark.parametrize("form", ["pkcs1", "encrypted", "encrypted-pkcs1"])
def test_every_form_of_key_that_openssl_writes(start: Start, tmp_path: Path, form: str) -> None:
    (tmp_path / "pass").write_text("open sesame\n")
    write_pair(tmp_path, form, "open sesame")
    service = start("--workers", "1", folder=tmp_path, KMS_TLS_KEY_PASSPHRASE_FILE="pass")
    assert service.curl("GET", "/readyz", token="").text == "ok\n"
    found = subprocess.run(["grep", "-rl", "PRIVATE KEY", str(tmp_path)], capture_output=True, text=True, check=False)
    assert [Path(line).name for line in found.stdout.split()] == ["server.key"]


def test_tls_1_2_when_asked_for_offers_only_forward_secrecy(start: Start) -> None:
    service = start("--workers", "1", KMS_TLS_MIN_VERSION="1.2")

    def offered(*options: str) -> bool:
        command = ["openssl", "s_client", "-connect", f"localhost:{service.port}", *options]
        return subprocess.run(command, input="", capture_output=True, text=True, check=False).returncode == 0

    assert not offered("-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    names = subprocess.check_output(["openssl", "ciphers", "-tls1_2", "-s", "ALL:@SECLEVEL=0"], text=True).strip()
    taken = {name for name in names.split(":") if offered("-tls1_2", "-cipher", f"{name}:@SECLEVEL=0")}
    assert taken
    assert all(name.startswith("ECDHE-") for name in taken), taken
