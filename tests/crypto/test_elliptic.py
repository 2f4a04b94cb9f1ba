"""ECDSA against NIST's vectors and the openssl command; signatures are exactly R ‖ S."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography_vectors import open_vector_file

from kms.crypto.elliptic import CURVES, EcKey, generate
from kms.crypto.pkcs8 import private_der
from kms.crypto.primitives import Scheme
from kms.errors import ValidationFailed

HASH = {"P-256": 256, "P-384": 384, "P-521": 512, "secp256k1": 256}


@pytest.mark.parametrize("curve", ["P-256", "P-384", "P-521"])
def test_signatures_of_fips_186_3(curve: str) -> None:
    with open_vector_file("asymmetric/ECDSA/FIPS_186-3/SigGen.txt", "r") as file:
        section = file.read().split(f"[{curve},SHA-{HASH[curve]}]")[1].split("\n[")[0]
    cases = re.findall(r"Msg = (\w+)\nd = (\w+)\n.*?R = (\w+)\nS = (\w+)", section, re.DOTALL)
    assert len(cases) == 15
    for message, d, r, s in cases:
        key = EcKey(ec.derive_private_key(int(d, 16), CURVES[curve]))
        length = (CURVES[curve].key_size + 7) // 8
        signature = int(r, 16).to_bytes(length) + int(s, 16).to_bytes(length)
        (algorithm,) = key.algorithms
        scheme = Scheme(algorithm)
        assert key.verify(bytes.fromhex(message), signature, scheme)
        altered = signature[:-1] + bytes([signature[-1] ^ 1])
        for wrong in (altered, signature + b"\0", signature[:-1], b"", bytes(2 * length), b"\xff" * 2 * length):
            assert not key.verify(bytes.fromhex(message), wrong, scheme)
        der = encode_dss_signature(int(r, 16), int(s, 16))
        assert not key.verify(bytes.fromhex(message), der, scheme)


@pytest.mark.parametrize("curve", CURVES)
def test_openssl_verifies_our_signatures(tmp_path: Path, curve: str) -> None:
    private = generate[curve]()
    key, pkcs8 = EcKey(private), private_der(private)
    signature = key.sign(b"a message", Scheme(key.algorithms[0]))
    half = len(signature) // 2
    der = encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))
    assert decode_dss_signature(der)
    (tmp_path / "key.der").write_bytes(pkcs8)
    (tmp_path / "message").write_bytes(b"a message")
    (tmp_path / "signature").write_bytes(der)
    command = ["openssl", "dgst", f"-sha{HASH[curve]}", "-prverify", "key.der", "-keyform", "DER"]
    done = subprocess.run(
        [*command, "-signature", "signature", "message"], cwd=tmp_path, capture_output=True, check=True
    )
    assert b"Verified OK" in done.stdout


def test_digests_of_another_length_are_refused() -> None:
    key = EcKey(generate["P-256"]())
    with pytest.raises(ValidationFailed):
        key.sign(bytes(48), Scheme("ES256", prehashed=True))
    with pytest.raises(ValidationFailed):
        key.verify(bytes(20), bytes(64), Scheme("ES256", prehashed=True))
