"""RSA against NIST's vectors, the OAEP vectors of cryptography, and the openssl command."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa as library
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography_vectors import open_vector_file

from kms.crypto.pkcs8 import load_private, private_der, public_der
from kms.crypto.primitives import Scheme
from kms.crypto.rsa import RsaKey, generate
from kms.errors import DecryptionFailed, ValidationFailed


@pytest.fixture(scope="module")
def pkcs8() -> bytes:
    return private_der(generate(2048))


def _key_of(n: int, e: int, d: int, p: int = 0, q: int = 0) -> RsaKey:
    if not p:
        p, q = library.rsa_recover_prime_factors(n, e, d)
    dp, dq, qi = library.rsa_crt_dmp1(d, p), library.rsa_crt_dmq1(d, q), library.rsa_crt_iqmp(p, q)
    numbers = library.RSAPrivateNumbers(p, q, d, dp, dq, qi, library.RSAPublicNumbers(e, n))
    return RsaKey(numbers.private_key(unsafe_skip_rsa_key_validation=True))


def test_pkcs1_v1_5_signatures_of_fips_186_3() -> None:
    with open_vector_file("asymmetric/RSA/FIPS_186-2/SigVer15_186-3.rsp", "r") as file:
        text = file.read()
    seen = {True: 0, False: 0}
    for section in re.split(r"^\[mod = ", text, flags=re.MULTILINE)[1:]:
        for block in section.split("n = ")[1:]:
            n, p, q = (int(value, 16) for value in re.findall(r"[0-9a-f]{100,}", block)[:3])
            if n.bit_length() < 2048:
                continue
            for case in re.findall(r"SHAAlg = SHA(256|384|512)\n(.*?)Result = (P|F)", block, re.DOTALL):
                fields = dict(re.findall(r"(\w+) = ([0-9a-f]+)", case[1]))
                e, d = int(fields["e"], 16), int(fields["d"], 16)
                expected = case[2] == "P"
                try:
                    key = _key_of(n, e, d, p, q)
                except ValueError:  # the vector altered the exponent: there is no such key
                    assert not expected
                    continue
                message, signature = bytes.fromhex(fields["Msg"]), bytes.fromhex(fields["S"])
                assert key.verify(message, signature, Scheme(f"RS{case[0]}")) is expected
                seen[expected] += 1
    assert seen[True] >= 6
    assert seen[False] >= 6


def test_oaep_known_answers() -> None:
    with open_vector_file("asymmetric/RSA/oaep-custom/oaep-sha256-sha256.txt", "r") as file:
        text = file.read()
    checked = 0
    for example in text.split("# =============================================")[1:]:
        parts = {
            name.strip(): value for name, value in re.findall(r"^# ([\w ]+):\n([0-9a-f]+)$", example, re.MULTILINE)
        }
        if "Modulus" not in parts or int(parts["Modulus"], 16).bit_length() < 2048:
            continue
        key = _key_of(*(int(parts[name], 16) for name in ("Modulus", "Public exponent", "Exponent")))
        for message, encrypted in re.findall(
            r"# Message:\n([0-9a-f]+)\n.*?# Encryption:\n([0-9a-f]+)", example, re.DOTALL
        ):
            assert key.decrypt(bytes.fromhex(encrypted), b"").hex() == message
            checked += 1
    assert checked


@pytest.mark.parametrize("algorithm", RsaKey.algorithms)
def test_openssl_verifies_our_signatures(tmp_path: Path, pkcs8: bytes, algorithm: str) -> None:
    (tmp_path / "key.der").write_bytes(pkcs8)
    (tmp_path / "message").write_bytes(b"a message")
    (tmp_path / "signature").write_bytes(RsaKey(_private(pkcs8)).sign(b"a message", Scheme(algorithm)))
    options = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"] if algorithm[0] == "P" else []
    command = ["openssl", "dgst", f"-sha{algorithm[2:]}", "-prverify", "key.der", "-keyform", "DER", *options]
    done = subprocess.run(
        [*command, "-signature", "signature", "message"], cwd=tmp_path, capture_output=True, check=True
    )
    assert b"Verified OK" in done.stdout


def test_openssl_encrypts_to_our_key(tmp_path: Path, pkcs8: bytes) -> None:
    (tmp_path / "pub.der").write_bytes(public_der(_private(pkcs8)))
    label = b"associated data"
    options = ["rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_mgf1_md:sha256", f"rsa_oaep_label:{label.hex()}"]
    command = ["openssl", "pkeyutl", "-encrypt", "-pubin", "-inkey", "pub.der", "-keyform", "DER"]
    for option in options:
        command += ["-pkeyopt", option]
    encrypted = subprocess.run(command, cwd=tmp_path, input=b"secret", capture_output=True, check=True).stdout
    assert RsaKey(_private(pkcs8)).decrypt(encrypted, label) == b"secret"


def _private(pkcs8: bytes) -> library.RSAPrivateKey:
    return load_private(pkcs8, library.RSAPrivateKey)


def test_the_label_is_bound(pkcs8: bytes) -> None:
    key = RsaKey(_private(pkcs8))
    sealed = key.encrypt(b"secret", b"one")
    for ciphertext, label in (
        (sealed, b"two"),
        (sealed[:-1], b"one"),
        (sealed[:-1] + bytes([sealed[-1] ^ 1]), b"one"),
        (b"", b"one"),
    ):
        with pytest.raises(DecryptionFailed):
            key.decrypt(ciphertext, label)


def test_lengths_are_checked(pkcs8: bytes) -> None:
    key = RsaKey(_private(pkcs8))
    assert key.decrypt(key.encrypt(bytes(190), b""), b"") == bytes(190)
    with pytest.raises(ValidationFailed):
        key.encrypt(bytes(191), b"")
    with pytest.raises(ValidationFailed):
        key.sign(bytes(31), Scheme("PS256", prehashed=True))


def test_a_digest_signs_like_its_message(pkcs8: bytes) -> None:
    import hashlib

    key = RsaKey(_private(pkcs8))
    digest = hashlib.sha256(b"a message").digest()
    assert key.verify(b"a message", key.sign(digest, Scheme("PS256", prehashed=True)), Scheme("PS256"))


def test_the_private_key_is_pkcs8(pkcs8: bytes) -> None:
    assert _private(pkcs8).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()) == pkcs8
