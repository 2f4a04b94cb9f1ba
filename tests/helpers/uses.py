"""How each usage is called: its operation, and a body that works."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from cryptography.x509 import load_pem_x509_csr

from helpers.support import b64
from kms.crypto.keytype import KeyType, SecretKeyType
from kms.crypto.pkcs8 import public_pem
from kms.crypto.registry import KEY_TYPES, key_type
from kms.keys.model import Usage

Post = Callable[[str, Any], Any]
"""Sends a body to an operation of the key; gives the JSON of the answer."""

PURPOSES = [(name, purpose) for name, kind in KEY_TYPES.items() for purpose in kind.purposes]
IDS = [f"{name}-{'-'.join(sorted(purpose))}" for name, purpose in PURPOSES]
PAIRS = [name for name, kind in KEY_TYPES.items() if not isinstance(kind, SecretKeyType)]
"""The types whose keys have a public half."""


def context_of(name: str) -> dict[str, str]:
    """The context that keys of that type need, if they do."""
    return {"context": b64(b"tenant 7")} if name.endswith(("-derived", "-convergent")) else {}


@cache
def material_of(name: str, which: str = "one") -> bytes:
    """The material of a key of that type, made when it is first asked for: an RSA key takes up to seconds."""
    return key_type(name).generate()


def peer_of(kind: KeyType) -> str:
    """The PEM of another key of that type."""
    spki = kind.public_key(material_of(kind.name, "peer"))
    assert spki is not None
    return public_pem(spki)


def exercise(post: Post, name: str, usages: frozenset[Usage], message: bytes, associated_data: bytes = b"") -> None:
    """Do everything that a key of that type with these usages does, and undo it."""
    kind = key_type(name)
    text, bound = b64(message), {"associated_data": b64(associated_data), **context_of(name)}
    if Usage.ENCRYPT in usages:
        sealed = post("encrypt", {"plaintext": text, **bound})
        assert post("decrypt", {"ciphertext": sealed["ciphertext"], **bound})["plaintext"] == text
        again = post("rewrap", {"ciphertext": sealed["ciphertext"], **bound})["ciphertext"]
        assert post("decrypt", {"ciphertext": again, **bound})["plaintext"] == text
        raw = post("encrypt", {"plaintext": text, "format": "raw", **bound})["ciphertext"]
        assert post("decrypt", {"ciphertext": raw, "format": "raw", **bound})["plaintext"] == text
        data_key = post("data-key", {**bound})
        opened = post("decrypt", {"ciphertext": data_key["ciphertext"], **bound})
        assert opened["plaintext"] == data_key["plaintext"]
        assert "plaintext" not in post("data-key", {"with_plaintext": False, **bound})
    if Usage.SIGN in usages:
        signed = post("sign", {"message": text})
        check = {"message": text, "signature": signed["signature"], "algorithm": signed["algorithm"]}
        assert post("verify", check)["valid"] is True
        assert post("verify", {**check, "message": b64(message + b"x")})["valid"] is False
        request = post("certificate-request", {"subject": "CN=x"})["certificate_request"]
        assert load_pem_x509_csr(request.encode()).is_signature_valid
    if Usage.MAC in usages:
        code = post("mac", {"message": text})["mac"]
        assert post("verify-mac", {"message": text, "mac": code})["valid"] is True
        assert post("verify-mac", {"message": b64(message + b"x"), "mac": code})["valid"] is False
    if Usage.WRAP in usages:
        key = b64(bytes(range(32)))
        wrapped = post("wrap", {"key": key})
        assert post("unwrap", {"wrapped_key": wrapped["wrapped_key"]})["key"] == key
    if Usage.DERIVE in usages:
        first = post("derive", {"context": text})["derived_key"]
        assert first == post("derive", {"context": text})["derived_key"]
        assert first != post("derive", {"context": b64(message + b"x")})["derived_key"]
    if Usage.AGREE in usages:
        peer = {"peer_public_key": peer_of(kind), "info": text}
        assert post("agree", peer)["derived_key"] == post("agree", peer)["derived_key"]
    if Usage.ENCAPSULATE in usages:
        made = post("encapsulate", {})
        assert post("decapsulate", {"ciphertext": made["ciphertext"]})["shared_secret"] == made["shared_secret"]
    if Usage.SEAL in usages:
        sealed = post("seal", {"plaintext": text, "info": bound["associated_data"]})
        opened = post("open", {"ciphertext": sealed["ciphertext"], "info": bound["associated_data"]})
        assert opened["plaintext"] == text


OPERATION_OF: dict[str, tuple[Usage, dict[str, Any]]] = {
    "encrypt": (Usage.ENCRYPT, {"plaintext": ""}),
    "decrypt": (Usage.DECRYPT, {"ciphertext": ""}),
    "rewrap": (Usage.DECRYPT, {"ciphertext": ""}),
    "data-key": (Usage.ENCRYPT, {}),
    "data-key-pair": (Usage.ENCRYPT, {"type": "x25519"}),
    "sign": (Usage.SIGN, {"message": ""}),
    "certificate-request": (Usage.SIGN, {"subject": "CN=x"}),
    "verify": (Usage.VERIFY, {"message": "", "signature": ""}),
    "mac": (Usage.MAC, {"message": ""}),
    "verify-mac": (Usage.VERIFY_MAC, {"message": "", "mac": ""}),
    "wrap": (Usage.WRAP, {"key": ""}),
    "unwrap": (Usage.UNWRAP, {"wrapped_key": ""}),
    "derive": (Usage.DERIVE, {}),
    "agree": (Usage.AGREE, {"peer_public_key": peer_of(key_type("x25519"))}),
    "encapsulate": (Usage.ENCAPSULATE, {}),
    "decapsulate": (Usage.DECAPSULATE, {"ciphertext": ""}),
    "seal": (Usage.SEAL, {"plaintext": ""}),
    "open": (Usage.OPEN, {"ciphertext": ""}),
}
