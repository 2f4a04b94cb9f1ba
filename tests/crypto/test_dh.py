"""Key agreement: the groups are those of RFC 7919, and peers cannot weaken the secret."""

from __future__ import annotations

import re
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric import dh, x25519
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from cryptography_vectors import open_vector_file

from kms.crypto import dh as groups
from kms.crypto.dh import DhKey, _jacobi, prime
from kms.crypto.mac import hkdf
from kms.crypto.montgomery import MontgomeryKey
from kms.crypto.pkcs8 import der_of_pem, load_public
from kms.crypto.primitives import Agreement
from kms.crypto.registry import KEY_TYPES, agreement_type
from kms.errors import ValidationFailed
from kms.keys.model import Usage

AGREEING = [name for name, kind in KEY_TYPES.items() if Usage.AGREE in kind.every_usage]


def load_peer(pem: str) -> PublicKeyTypes:
    return load_public(der_of_pem(pem, "peer_public_key"), "peer_public_key")


SIZES = (2048, 3072, 4096, 6144, 8192)


@pytest.mark.parametrize("bits", SIZES)
def test_primes_are_those_that_openssl_knows(bits: int) -> None:
    generate = ["openssl", "genpkey", "-algorithm", "DH", "-pkeyopt", f"group:ffdhe{bits}"]
    private = subprocess.check_output(generate)
    public = subprocess.check_output(["openssl", "pkey", "-pubout"], input=private).decode()
    assert groups.owns(bits, load_peer(public))


def test_the_prime_of_rfc_7919_section_a_1_ends_as_printed_there() -> None:
    assert f"{prime(2048):X}".endswith("886B423861285C97FFFFFFFFFFFFFFFF")


@pytest.mark.parametrize("name", AGREEING)
def test_both_sides_get_the_same_secret(name: str) -> None:
    kind = KEY_TYPES[name]
    material = [kind.generate(), kind.generate()]
    of_alice, of_bob = (load_der_public_key(kind.public_key(each) or b"") for each in material)
    alice, bob = (kind.load(each) for each in material)
    assert isinstance(alice, Agreement)
    assert isinstance(bob, Agreement)
    assert alice.exchange(of_bob) == bob.exchange(of_alice)
    assert agreement_type(of_alice) is kind
    assert [other for other in KEY_TYPES if KEY_TYPES[other].owns(of_alice)] == [name]
    if name.startswith("ffdhe"):
        assert len(alice.exchange(of_bob)) == int(name[5:]) // 8


def ffdhe_public(y: int, generator: int = 2) -> dh.DHPublicKey:
    return dh.DHPublicNumbers(y, dh.DHParameterNumbers(prime(2048), generator)).public_key()


@pytest.mark.parametrize("y", ["p-1", "p-2-nonsquare", "nonsquare", "1"])
def test_values_outside_the_subgroup_are_refused(y: str) -> None:
    p = prime(2048)
    nonsquare = next(n for n in range(2, 100) if _jacobi(n, p) == -1)
    value = {"p-1": p - 1, "p-2-nonsquare": p - 2, "nonsquare": nonsquare, "1": 1}[y]
    try:
        peer = ffdhe_public(value)
    except ValueError:
        return  # the library did not even take it
    with pytest.raises(ValidationFailed):
        DhKey(groups.generate(2048)).exchange(peer)


def test_the_jacobi_symbol_is_euler_s_criterion() -> None:
    p = prime(2048)
    for n in (2, 3, 5, 7, 11, 1 << 2000, p - 1, p - 2, p // 3):
        assert _jacobi(n, p) % p == pow(n, (p - 1) // 2, p)
    assert _jacobi(0, p) == 0


def test_low_order_points_of_curve25519_are_refused() -> None:
    order_eight = bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")
    key = MontgomeryKey(x25519.X25519PrivateKey.generate())
    for low in (bytes(32), b"\x01" + bytes(31), order_eight):
        with pytest.raises(ValidationFailed):
            key.exchange(x25519.X25519PublicKey.from_public_bytes(low))


def test_x25519_known_answer_of_rfc_7748() -> None:
    with open_vector_file("asymmetric/X25519/rfc7748.txt", "r") as file:
        values = re.findall(r"^(?:INPUT_SCALAR|INPUT_U|OUTPUT_U) = ([0-9a-f]{64})$", file.read(), re.MULTILINE)
    for scalar, point, expected in zip(values[0::3], values[1::3], values[2::3], strict=True):
        key = x25519.X25519PrivateKey.from_private_bytes(bytes.fromhex(scalar))
        peer = x25519.X25519PublicKey.from_public_bytes(bytes.fromhex(point))
        assert MontgomeryKey(key).exchange(peer).hex() == expected


def test_hkdf_known_answer_of_rfc_5869() -> None:
    okm = hkdf(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)), 42)
    assert okm.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"


@pytest.mark.parametrize("pem", ["", "no key", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_key_is_refused(pem: str) -> None:
    with pytest.raises(ValidationFailed):
        load_peer(pem)


def test_other_parameters_are_not_a_group_of_ours() -> None:
    pem = ffdhe_public(4, 5).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    assert agreement_type(load_peer(pem)) is None
