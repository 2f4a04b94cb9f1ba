"""What the openssl command makes we take, and what we make it takes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from helpers.support import Api, World, b64, unb64
from vectors.test_known_answers import imported, public_only

MESSAGE = b"a message"
GENPKEY = {
    "rsa-2048": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "rsa-4096": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096"],
    "ec-p256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "ec-p384": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
    "ec-p521": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"],
    "ec-secp256k1": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"],
    "ed25519": ["-algorithm", "ED25519"],
    "ed448": ["-algorithm", "ED448"],
    "x25519": ["-algorithm", "X25519"],
    "x448": ["-algorithm", "X448"],
    "ffdhe2048": ["-algorithm", "DH", "-pkeyopt", "group:ffdhe2048"],
    "ffdhe3072": ["-algorithm", "DH", "-pkeyopt", "group:ffdhe3072"],
}
PSS = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"]
SIGNING = [
    *(("rsa-2048", f"RS{bits}", ["dgst", f"-sha{bits}"], []) for bits in (256, 384, 512)),
    *(("rsa-2048", f"PS{bits}", ["dgst", f"-sha{bits}"], PSS) for bits in (256, 384, 512)),
    ("ec-p256", "ES256", ["dgst", "-sha256"], []),
    ("ec-p384", "ES384", ["dgst", "-sha384"], []),
    ("ec-p521", "ES512", ["dgst", "-sha512"], []),
    ("ec-secp256k1", "ES256K", ["dgst", "-sha256"], []),
]


@pytest.fixture(scope="module")
def user(unlimited_world: World) -> Api:
    return unlimited_world.user("alice")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "message").write_bytes(MESSAGE)
    return tmp_path


def openssl(folder: Path, *arguments: str, data: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *arguments], cwd=folder, input=data, capture_output=True, check=True).stdout


def pair(folder: Path, name: str) -> tuple[bytes, str]:
    """A key that openssl made: PKCS#8 DER, and its public half as PEM; both also in files."""
    openssl(folder, "genpkey", *GENPKEY[name], "-out", "key.pem")
    openssl(folder, "pkey", "-in", "key.pem", "-pubout", "-out", "public.pem")
    der = openssl(folder, "pkcs8", "-topk8", "-nocrypt", "-in", "key.pem", "-outform", "DER")
    return der, (folder / "public.pem").read_text()


def answer(user: Api, path: str, body: Any) -> Any:
    got = user.post(path, body)
    assert got.status_code == 200, got.json
    return got.json


@pytest.mark.parametrize("name", GENPKEY)
def test_keys_of_openssl_come_in_and_ours_can_be_read(user: Api, folder: Path, name: str) -> None:
    der, pem = pair(folder, name)
    path = imported(user, name, der, "pkcs8", exportable=True)
    assert user.get(f"{path}/public-key").json["public_key"] == pem
    if name.startswith(("rsa", "ec")):
        assert user.post("/api/v1/keys/import", {"type": name, "public_key": pem}).status_code == 201
    made = user.post("/api/v1/keys", {"type": name}).json["versions"][0]["public_key"]
    assert b"Public-Key" in openssl(folder, "pkey", "-pubin", "-text", "-noout", data=made.encode())


@pytest.mark.parametrize(("name", "algorithm", "command", "options"), SIGNING, ids=[case[1] for case in SIGNING])
def test_signatures_both_ways(
    user: Api, folder: Path, name: str, algorithm: str, command: list[str], options: list[str]
) -> None:
    form = {"signature_format": "der"} if algorithm.startswith("ES") else {}
    key = user.post("/api/v1/keys", {"type": name}).headers["Location"]
    (folder / "ours.pem").write_text(user.get(f"{key}/public-key").json["public_key"])
    signed = answer(user, f"{key}/sign", {"message": b64(MESSAGE), "algorithm": algorithm, **form})
    (folder / "signature").write_bytes(unb64(signed["signature"]))
    verify = [*command, "-verify", "ours.pem", *options, "-signature", "signature", "message"]
    assert b"Verified OK" in openssl(folder, *verify)
    _, pem = pair(folder, name)
    theirs = openssl(folder, *command, "-sign", "key.pem", *options, "message")
    path = public_only(user, name, pem)
    body = {"message": b64(MESSAGE), "algorithm": algorithm, "signature": b64(theirs), **form}
    assert answer(user, f"{path}/verify", body)["valid"] is True
    digest = openssl(folder, *command, "-binary", "message")
    body = {"digest": b64(digest), "algorithm": algorithm, "signature": b64(theirs), **form}
    assert answer(user, f"{path}/verify", body)["valid"] is True


@pytest.mark.parametrize("name", ["ed25519", "ed448"])
def test_eddsa_both_ways(user: Api, folder: Path, name: str) -> None:
    key = user.post("/api/v1/keys", {"type": name}).headers["Location"]
    (folder / "ours.pem").write_text(user.get(f"{key}/public-key").json["public_key"])
    signed = answer(user, f"{key}/sign", {"message": b64(MESSAGE)})
    (folder / "signature").write_bytes(unb64(signed["signature"]))
    verify = ["pkeyutl", "-verify", "-pubin", "-inkey", "ours.pem", "-rawin", "-in", "message"]
    assert b"Verified Successfully" in openssl(folder, *verify, "-sigfile", "signature")
    _, pem = pair(folder, name)
    theirs = openssl(folder, "pkeyutl", "-sign", "-inkey", "key.pem", "-rawin", "-in", "message")
    body = {"message": b64(MESSAGE), "signature": b64(theirs)}
    assert answer(user, f"{public_only(user, name, pem)}/verify", body)["valid"] is True


@pytest.mark.parametrize("label", [b"", b"a label"])
def test_oaep_both_ways(user: Api, folder: Path, label: bytes) -> None:
    options = ["-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256"]
    options += ["-pkeyopt", "rsa_mgf1_md:sha256", *(["-pkeyopt", f"rsa_oaep_label:{label.hex()}"] if label else [])]
    der, pem = pair(folder, "rsa-2048")
    context = {"associated_data": b64(label), "format": "raw"}
    path = imported(user, "rsa-2048", der, "pkcs8")
    theirs = openssl(folder, "pkeyutl", "-encrypt", "-pubin", "-inkey", "public.pem", *options, data=MESSAGE)
    opened = answer(user, f"{path}/decrypt", {"ciphertext": b64(theirs), **context})
    assert unb64(opened["plaintext"]) == MESSAGE
    sealed = answer(user, f"{public_only(user, 'rsa-2048', pem)}/encrypt", {"plaintext": b64(MESSAGE), **context})
    assert openssl(
        folder, "pkeyutl", "-decrypt", "-inkey", "key.pem", *options, data=unb64(sealed["ciphertext"])
    ) == (MESSAGE)


@pytest.mark.parametrize("name", ["x25519", "x448", "ec-p256", "ec-p384", "ec-p521", "ec-secp256k1", "ffdhe2048"])
def test_both_agree_on_one_secret(user: Api, folder: Path, name: str) -> None:
    key = user.post("/api/v1/keys", {"type": name, "usages": ["agree"]}).headers["Location"]
    (folder / "ours.pem").write_text(user.get(f"{key}/public-key").json["public_key"])
    _, pem = pair(folder, name)
    pad = ["-pkeyopt", "pad:1"] if name.startswith("ffdhe") else []
    theirs = openssl(folder, "pkeyutl", "-derive", "-inkey", "key.pem", "-peerkey", "ours.pem", *pad)
    ours = answer(user, f"{key}/agree", {"peer_public_key": pem, "kdf": "none"})
    assert unb64(ours["derived_key"]) == theirs


@pytest.mark.parametrize("bits", ["256", "384", "512"])
def test_codes_and_derived_keys(user: Api, folder: Path, bits: str) -> None:
    key = bytes(range(64))
    path = imported(user, f"hmac-sha{bits}", key)
    code = openssl(
        folder, "dgst", f"-sha{bits}", "-mac", "HMAC", "-macopt", f"hexkey:{key.hex()}", "-binary", "message"
    )
    assert unb64(answer(user, f"{path}/mac", {"message": b64(MESSAGE)})["mac"]) == code
    path = imported(user, f"hmac-sha{bits}", key, usages=["derive"])
    hkdf = ["-keylen", "77", "-kdfopt", f"digest:SHA2-{bits}", "-kdfopt", f"hexkey:{key.hex()}"]
    hkdf += ["-kdfopt", f"hexsalt:{b'salt'.hex()}", "-kdfopt", f"hexinfo:{b'context'.hex()}", "-binary", "HKDF"]
    body = {"salt": b64(b"salt"), "context": b64(b"context"), "length": 77}
    assert unb64(answer(user, f"{path}/derive", body)["derived_key"]) == openssl(folder, "kdf", *hkdf)
    kbkdf = [
        "-keylen",
        "77",
        "-kdfopt",
        "mac:HMAC",
        "-kdfopt",
        f"digest:SHA2-{bits}",
        "-kdfopt",
        f"hexkey:{key.hex()}",
    ]
    kbkdf += ["-kdfopt", f"hexsalt:{b'label'.hex()}", "-kdfopt", f"hexinfo:{b'context'.hex()}", "-binary", "KBKDF"]
    body = {
        "algorithm": f"KBKDF-HMAC-SHA-{bits}", "label": b64(b"label"), "context": b64(b"context"), "length": 77,
    }  # fmt: skip
    assert unb64(answer(user, f"{path}/derive", body)["derived_key"]) == openssl(folder, "kdf", *kbkdf)


@pytest.mark.parametrize(
    ("name", "cipher"), [("aes-256-kwp", "id-aes256-wrap-pad"), ("aes-128-kw", "id-aes128-wrap")]
)
def test_wrapped_keys(user: Api, folder: Path, name: str, cipher: str) -> None:
    kek, key = bytes(range(int(name[4:7]) // 8)), bytes(32)
    path = imported(user, name, kek)
    iv = {"aes-256-kwp": "A65959A6", "aes-128-kw": "A6A6A6A6A6A6A6A6"}[name]
    theirs = openssl(folder, "enc", f"-{cipher}", "-e", "-K", kek.hex(), "-iv", iv, data=key)
    assert unb64(answer(user, f"{path}/wrap", {"key": b64(key)})["wrapped_key"]) == theirs
    assert unb64(answer(user, f"{path}/unwrap", {"wrapped_key": b64(theirs)})["key"]) == key


def test_an_exported_key_is_one_that_openssl_reads(user: Api, folder: Path) -> None:
    pair(folder, "rsa-4096")
    recipient = (folder / "public.pem").read_text()
    key = user.post("/api/v1/keys", {"type": "ec-p384", "exportable": True}).headers["Location"]
    given = answer(user, f"{key}/export", {"recipient_public_key": recipient})
    blob = unb64(given["wrapped_key"])
    options = [
        "-pkeyopt",
        "rsa_padding_mode:oaep",
        "-pkeyopt",
        "rsa_oaep_md:sha256",
        "-pkeyopt",
        "rsa_mgf1_md:sha256",
    ]
    kek = openssl(folder, "pkeyutl", "-decrypt", "-inkey", "key.pem", *options, data=blob[:512])
    der = openssl(folder, "enc", "-id-aes256-wrap-pad", "-d", "-K", kek.hex(), "-iv", "A65959A6", data=blob[512:])
    public = openssl(folder, "pkey", "-inform", "DER", "-pubout", data=der)
    assert public.decode() == user.get(f"{key}/public-key").json["public_key"]
