"""Certificates as an operator makes them."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


def write_pair(folder: Path, form: str = "pkcs8", passphrase: str = "") -> None:
    """A new self-signed pair, as the openssl command writes it."""
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "new.key", "-out", "server.crt"]
    request += ["-days", "30", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(request, cwd=folder, check=True, capture_output=True)
    output = ["-out", "server.key", "-passout", f"pass:{passphrase}"]
    convert = {
        "pkcs8": ["cp", "new.key", "server.key"],
        "pkcs1": ["openssl", "rsa", "-in", "new.key", "-traditional", "-out", "server.key"],
        "encrypted": ["openssl", "pkcs8", "-topk8", "-in", "new.key", *output],
        "encrypted-pkcs1": ["openssl", "rsa", "-in", "new.key", "-traditional", "-aes256", *output],
    }[form]
    subprocess.run(convert, cwd=folder, check=True, capture_output=True)
    (folder / "new.key").unlink()


def write_pair_of(folder: Path, key: CertificateIssuerPrivateKeyTypes, prefix: bytes = b"") -> x509.Certificate:
    """A new self-signed pair with that key, each file with a prefix; the certificate."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, None if isinstance(key, (Ed25519PrivateKey, Ed448PrivateKey)) else hashes.SHA256())
    )
    (folder / "server.crt").write_bytes(prefix + made.public_bytes(Encoding.PEM))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "server.key").write_bytes(prefix + private)
    return made
