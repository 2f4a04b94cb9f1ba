"""Operations a second of the bare primitive, in a loop of one process: `python -m benchmarks.primitives NAME`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kms.crypto.symmetric import Xaes256Gcm

_SECONDS = 0.5
_MESSAGE = bytes(32)


def _rsa() -> Callable[[], object]:
    key = rsa.generate_private_key(65537, 2048)
    scheme = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    return lambda: key.sign(_MESSAGE, scheme, hashes.SHA256())


def _p256() -> Callable[[], object]:
    key = ec.generate_private_key(ec.SECP256R1())
    return lambda: key.sign(_MESSAGE, ec.ECDSA(hashes.SHA256()))


def _ed25519() -> Callable[[], object]:
    key = ed25519.Ed25519PrivateKey.generate()
    return lambda: key.sign(_MESSAGE)


def _mldsa65() -> Callable[[], object]:
    key = mldsa.MLDSA65PrivateKey.generate()
    return lambda: key.sign(_MESSAGE)


def _xaes() -> Callable[[], object]:
    cipher = Xaes256Gcm(os.urandom(32))
    return lambda: cipher.encrypt(_MESSAGE, b"")


class _Items(msgspec.Struct):
    items: list[dict[str, bytes]]


def _batch() -> Callable[[], object]:
    """What an answer to a batch takes at least: JSON in, AES-256-GCM under one key, JSON out."""
    body = msgspec.json.encode({"items": [{"plaintext": _MESSAGE}] * 100})
    decode, cipher = msgspec.json.Decoder(_Items).decode, AESGCM(os.urandom(32))
    nonces = [os.urandom(12) for _ in range(100)]

    def answer() -> bytes:
        items = zip(nonces, decode(body).items, strict=True)
        sealed = [{"ciphertext": nonce + cipher.encrypt(nonce, each["plaintext"], None)} for nonce, each in items]
        return msgspec.json.encode({"items": sealed})

    return answer


PRIMITIVES = {
    "encrypt 32 B": _xaes,
    "encrypt 100 at once": _batch,
    "sign RSA-2048": _rsa,
    "sign P-256": _p256,
    "sign Ed25519": _ed25519,
    "sign ML-DSA-65": _mldsa65,
}


def main() -> None:
    """Print how often the primitive ran in a second."""
    run, done = PRIMITIVES[sys.argv[1]](), 0
    began = time.perf_counter()
    while time.perf_counter() - began < _SECONDS:
        run()
        done += 1
    print(done / (time.perf_counter() - began))


if __name__ == "__main__":
    main()
