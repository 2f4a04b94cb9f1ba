"""Signatures that somebody altered, and what only looks like one: invalid, never a fault, in both dialects."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from helpers.support import SteeredClock, World, b64, unb64
from helpers.vault_client import Vault
from helpers.wsgi import answer_of, signed

MESSAGE = b"message"
# Orders of the groups: SP 800-186, section 3.2.1; RFC 8032, section 5.1; SEC 2, section 2.4.1.
ORDERS = {
    "ec-p256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "ec-p384": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    "ec-p521": 2**521 - 657877501894328237357444332315020117536923257219387276263472201219103398051,
    "ec-secp256k1": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
}  # fmt: skip
L = 2**252 + 27742317777372353535851937790883648493
AWS = {
    "ec-p256": "ECDSA_SHA_256", "ec-p384": "ECDSA_SHA_384", "ec-p521": "ECDSA_SHA_512",
    "ec-secp256k1": "ECDSA_SHA_256", "rsa-2048": "RSASSA_PSS_SHA_256", "ml-dsa-44": "ML_DSA_SHAKE_256",
    "ed25519": "ED25519_SHA_512",
}  # fmt: skip
VAULT = {"ec-p256", "ec-p384", "ec-p521", "rsa-2048", "ed25519"}


@dataclass
class Signer:
    """A key, and the signature that it made of the message; `verify` gives whether a dialect takes another for it."""

    key_type: str
    signature: bytes
    verify: Callable[[bytes], bool]


def of_vault(world: World, key_type: str) -> Signer:
    vault = Vault.of(world, world.login("signer"))

    def verify(signature: bytes) -> bool:
        answer = vault.write(f"transit/verify/{key_type}", input=b64(MESSAGE), signature=f"vault:v1:{b64(signature)}")
        assert answer.status == 200, answer.content
        return bool(answer.data["valid"])

    made = vault.write(f"transit/sign/{key_type}", input=b64(MESSAGE)).data["signature"]
    return Signer(key_type, unb64(made.split(":")[2]), verify)


def of_aws(world: World, key_type: str) -> Signer:
    clock = world.service.clock
    assert isinstance(clock, SteeredClock)
    access = world.login("signer").post("/api/v1/access-keys", {}).json

    def call(action: str, **members: Any) -> tuple[int, Any]:
        way = {"KeyId": key_type, "Message": b64(MESSAGE), "SigningAlgorithm": AWS[key_type]}
        body = json.dumps({**way, **members}).encode()
        status, content = answer_of(world, signed(access, clock, action, body), body)
        return status, json.loads(content)

    def verify(signature: bytes) -> bool:
        status, answer = call("Verify", Signature=b64(signature))
        if status == 200:
            return bool(answer["SignatureValid"])
        # An empty one and one that is too long are no signatures for AWS's model.
        assert answer["__type"] in ("KMSInvalidSignatureException", "ValidationException"), answer
        return False

    return Signer(key_type, unb64(call("Sign")[1]["Signature"]), verify)


@pytest.fixture(scope="module")
def signing_world(unlimited_world: World) -> World:
    api = unlimited_world.user("signer")
    for key_type in AWS:
        usages = ["sign", "verify"]
        assert api.post("/api/v1/keys", {"key_id": key_type, "type": key_type, "usages": usages}).status_code == 201
    return unlimited_world


CASES = [(of_vault, key_type) for key_type in sorted(VAULT)] + [(of_aws, key_type) for key_type in AWS]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0].__name__}-{case[1]}")
def signer(request: pytest.FixtureRequest, signing_world: World) -> Signer:
    dialect, key_type = request.param
    return Signer(**vars(dialect(signing_world, key_type)))


def test_what_was_signed_is_valid(signer: Signer) -> None:
    assert signer.verify(signer.signature)


def test_any_altered_byte_is_noticed(signer: Signer) -> None:
    step = max(1, len(signer.signature) // 40)
    for at in range(0, len(signer.signature), step):
        altered = bytearray(signer.signature)
        altered[at] ^= 1 << (at % 8)
        assert not signer.verify(bytes(altered)), at


def test_any_other_length_is_noticed(signer: Signer) -> None:
    signature = signer.signature
    wrong = [b"\0", signature[:-1], signature[1:], signature + b"\0", b"\0" + signature, signature * 2]
    wrong += [bytes(len(signature)), b"\xff" * len(signature)]
    for each in wrong:
        assert not signer.verify(each), len(each)


def der(*integers: bytes, tag: int = 0x30, length: bytes | None = None) -> bytes:
    content = b"".join(b"\x02" + len_of(each) + each for each in integers)
    return bytes([tag]) + (length if length is not None else len_of(content)) + content


def len_of(content: bytes) -> bytes:
    return bytes([len(content)]) if len(content) < 128 else bytes([0x81, len(content)])


def integer(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, signed=True)


def forged_ecdsa(signature: bytes, order: int) -> Iterator[bytes]:
    """Other encodings of the same numbers, and numbers that no signature has."""
    r, s = decode_dss_signature(signature)
    plain = integer(r), integer(s)
    content = der(*plain)[1 + len(len_of(der(*plain)[2:])) :]
    yield der(b"\0" + plain[0], plain[1])  # a zero in front that is not needed
    yield der(plain[0], b"\0\0" + plain[1])
    yield der(*plain, length=b"\x82\x00" + bytes([len(content)]))  # a length in more bytes than it needs
    yield der(*plain, length=b"\x80") + b"\0\0"  # of indefinite length
    yield der(*plain, tag=0x31)
    yield der(*plain, integer(1))
    yield der(plain[0])
    yield der(plain[1], plain[0])
    yield der()
    yield plain[0] + plain[1]
    for wrong in (0, 1, -1, order, order - 1, order + 1, r + order, 2**1000, -r):
        yield der(integer(wrong), plain[1])
        yield der(plain[0], integer(wrong))
    for zero in ((0, 0), (1, 0), (0, 1), (order, order)):
        yield encode_dss_signature(*zero)
    yield der(b"", b"")
    yield der(integer(r + order), integer(s + order))


@pytest.mark.parametrize("key_type", ORDERS)
@pytest.mark.parametrize("dialect", [of_vault, of_aws])
def test_ecdsa_has_one_encoding(signing_world: World, dialect: Any, key_type: str) -> None:
    if dialect is of_vault and key_type not in VAULT:
        return
    signer = dialect(signing_world, key_type)
    for number, forged in enumerate(forged_ecdsa(signer.signature, ORDERS[key_type])):
        assert not signer.verify(forged), number


@pytest.mark.parametrize("dialect", [of_vault, of_aws])
def test_ed25519_is_not_malleable(signing_world: World, dialect: Any) -> None:
    signer = dialect(signing_world, "ed25519")
    r, s = signer.signature[:32], int.from_bytes(signer.signature[32:], "little")
    for wrong in (s + L, s + 2 * L, L - s, L, 0, 2**256 - 1):  # RFC 8032, section 5.1.7: 0 <= s < L
        assert not signer.verify(r + (wrong % 2**256).to_bytes(32, "little")), wrong
    small = ["01" + 31 * "00", "ec" + 30 * "ff" + "7f", 32 * "00", "ee" + 30 * "ff" + "7f", "ed" + 30 * "ff" + "ff"]
    for point in small:  # of small order, or not canonical
        assert not signer.verify(bytes.fromhex(point) + bytes(32)), point
        assert not signer.verify(bytes.fromhex(point) + signer.signature[32:]), point


@pytest.mark.parametrize("dialect", [of_vault, of_aws])
def test_rsa_takes_no_other_representative(signing_world: World, dialect: Any) -> None:
    signer = dialect(signing_world, "rsa-2048")
    number = int.from_bytes(signer.signature)
    for forged in (0, 1, 2, 2**2047, 2**2048 - 1, number + 1, number - 1):
        assert not signer.verify((forged % 2**2048).to_bytes(256)), forged
    assert not signer.verify(signer.signature[::-1])


def test_pkcs1_v1_5_is_read_to_its_end(signing_world: World) -> None:
    """The forgeries of Bleichenbacher need what follows the digest, or the padding, to be passed over."""
    vault = Vault.of(signing_world, signing_world.login("signer"))
    digest_info = bytes.fromhex("3031300d060960864801650304020105000420")
    without_null = bytes.fromhex("302f300b0609608648016503040201" + "0420")
    digest = unb64(vault.write("transit/hash/sha2-256", input=b64(MESSAGE), format="base64").data["sum"])
    raw = {"hash_algorithm": "none", "prehashed": True, "signature_algorithm": "pkcs1v15"}
    way = {"signature_algorithm": "pkcs1v15", "hash_algorithm": "sha2-256", "input": b64(MESSAGE)}
    for content, valid in (
        (digest_info + digest, True),
        (without_null + digest, False),
        (digest_info + digest + b"\0", False),
        (b"\0" + digest_info + digest, False),
        (digest_info[:-1] + b"\x1f" + digest[:-1], False),
        (digest, False),
    ):
        made = vault.write("transit/sign/rsa-2048", input=b64(content), **raw).data["signature"]
        assert vault.write("transit/verify/rsa-2048", signature=made, **way).data["valid"] is valid, content.hex()


@pytest.mark.parametrize("key_type", sorted(VAULT))
def test_a_signature_is_good_for_its_own_key_and_algorithm(signing_world: World, key_type: str) -> None:
    signer = of_vault(signing_world, key_type)
    vault = Vault.of(signing_world, signing_world.login("signer"))
    text = f"vault:v1:{b64(signer.signature)}"
    for other in sorted(VAULT - {key_type}):
        answer = vault.write(f"transit/verify/{other}", input=b64(MESSAGE), signature=text)
        assert (answer.status, answer.data["valid"]) == (200, False), other
    for version in (2, 9):
        answer = vault.write(
            f"transit/verify/{key_type}", input=b64(MESSAGE), signature=f"vault:v{version}:{b64(signer.signature)}"
        )
        assert answer.status == 400, version
    if key_type != "ed25519":
        answer = vault.write(f"transit/verify/{key_type}/sha3-256", input=b64(MESSAGE), signature=text)
        assert answer.data["valid"] is False
