"""Certificates and TLS: what a key may be written in, what is offered, and what SIGHUP loads."""

from __future__ import annotations

import http.client
import signal
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from helpers.certificates import write_pair
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


def test_sighup_loads_a_new_certificate_and_keeps_the_old_one_when_it_is_bad(start: Start) -> None:
    service = start("--workers", "2")
    before, workers = _served_certificate(service), set(service.worker_pids())
    (service.folder / "server.crt").write_text("garbage")
    service.process.send_signal(signal.SIGHUP)
    service.wait_for_workers(2, without=workers)  # each was replaced by one that took the pair anew
    assert _served_certificate(service) == before
    assert "old certificate stays" in service.log.read_text()
    workers = set(service.worker_pids())
    write_pair(service.folder)
    service.process.send_signal(signal.SIGHUP)
    service.wait_for_workers(2, without=workers)
    wanted = x509.load_pem_x509_certificate((service.folder / "server.crt").read_bytes())

    def is_served() -> bool:
        # Workers are replaced one by one: done when a dozen handshakes in a row get the new certificate.
        return all(x509.load_der_x509_certificate(_served_certificate(service)) == wanted for _ in range(12))

    wait_until(is_served, every=0.2)
    assert service.curl("GET", "/api/v1/keys").status == 200  # the session has gone on


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
