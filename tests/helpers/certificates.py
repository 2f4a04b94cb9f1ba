"""Certificates as an operator makes them."""

from __future__ import annotations

import subprocess
from pathlib import Path


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
