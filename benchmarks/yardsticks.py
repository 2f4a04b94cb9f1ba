"""Two servers to compare with, on the same Granian settings: a bare WSGI echo and a minimal Flask view.

`python -m benchmarks.yardsticks PORT CERTIFICATE KEY` serves both: the echo at `/echo`, the view at `/flask`.
The view is what a tutorial would write: JSON in, AES-256-GCM, JSON out, and none of what a service needs beside.
"""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from flask import Flask, jsonify, request
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server import Server


def _echo(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def application() -> Callable[..., Iterable[bytes]]:
    """Both of them in one WSGI application."""
    app, cipher = Flask("yardstick"), AESGCM(AESGCM.generate_key(256))

    @app.post("/flask")
    def encrypt() -> Any:
        nonce = os.urandom(12)
        sealed = nonce + cipher.encrypt(nonce, base64.b64decode(request.get_json()["plaintext"]), None)
        return jsonify(ciphertext=base64.b64encode(sealed).decode())

    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        handler = _echo if environ["PATH_INFO"] == "/echo" else app.wsgi_app
        return handler(environ, start_response)

    return serve


def main() -> None:
    """Serve until stopped."""
    port, certificate, key = sys.argv[1:]
    Server(
        "yardstick",
        address="127.0.0.1",
        port=int(port),
        interface=Interfaces.WSGI,
        workers=1,
        blocking_threads=16,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=10_000),
        websockets=False,
        log_level=LogLevels.error,
        ssl_cert=Path(certificate),
        ssl_key=Path(key),
    ).serve(target_loader=application, wrap_loader=False)


if __name__ == "__main__":
    main()
