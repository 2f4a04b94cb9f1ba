"""Derived keys, and keys that come and go, with an unmodified hvac; Vault's own arithmetic is done beside it."""

from __future__ import annotations

import base64
import os
from typing import Any

import hvac
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)
from hvac.exceptions import InvalidRequest

from helpers.running import Running, Start
from helpers.support import b64, unb64

SHARED = "k" * 43  # what both installations know
DIGESTS: dict[str, hashes.HashAlgorithm] = {
    "SHA1": hashes.SHA1(),
    "SHA224": hashes.SHA224(),
    "SHA256": hashes.SHA256(),
    "SHA384": hashes.SHA384(),
    "SHA512": hashes.SHA512(),
}


@pytest.fixture(scope="module")
def service(start: Start) -> Running:
    return start("--workers", "2", "--rate-limit", "off", KMS_BACKUP_KEY=SHARED)


@pytest.fixture(scope="module")
def there(start: Start) -> hvac.Client:
    """A client of another installation, which shares nothing with the first but the key of backups."""
    service = start("--workers", "1", "--rate-limit", "off", KMS_BACKUP_KEY=SHARED)
    return hvac.Client(url=service.url, token=service.user("vera"), verify=str(service.folder / "server.crt"))


@pytest.fixture(scope="module")
def vault(service: Running) -> hvac.Client:
    return hvac.Client(url=service.url, token=service.user("vera"), verify=str(service.folder / "server.crt"))


def wrapped(vault: hvac.Client, material: bytes, hash_function: str = "SHA256") -> str:
    """As Vault's documentation has it done: an AES key by RSA-OAEP, and the key under that by AES-KWP."""
    public: Any = load_pem_public_key(vault.read("transit/wrapping_key")["data"]["public_key"].encode())
    assert public.key_size == 4096
    digest, kek = DIGESTS[hash_function], os.urandom(32)
    oaep = padding.OAEP(padding.MGF1(digest), digest, None)
    return b64(public.encrypt(kek, oaep) + aes_key_wrap_with_padding(kek, material))


def imported(vault: hvac.Client, name: str, material: bytes, hash_function: str = "SHA256", **more: Any) -> str:
    body = {"ciphertext": wrapped(vault, material, hash_function), "hash_function": hash_function, **more}
    vault.write_data(f"transit/keys/{name}/import", data=body)
    return name


def opened(vault: hvac.Client, name: str, ciphertext: str, **more: Any) -> bytes:
    data = vault.write_data(f"transit/decrypt/{name}", data={"ciphertext": ciphertext, **more})["data"]
    return unb64(data["plaintext"])


@pytest.mark.parametrize("key_type", ["aes128-gcm96", "aes256-gcm96", "chacha20-poly1305"])
def test_derived_keys(vault: hvac.Client, key_type: str) -> None:
    transit, name = vault.secrets.transit, f"derived-{key_type}"
    vault.write_data(f"transit/keys/{name}", data={"type": key_type, "derived": True})
    shown = transit.read_key(name=name)["data"]
    assert (shown["type"], shown["derived"], shown["kdf"], shown["convergent_encryption"]) == (
        key_type,
        True,
        "hkdf_sha256",
        False,
    )
    sealed = [
        transit.encrypt_data(name=name, plaintext=b64(b"x"), context=b64(b"tenant"))["data"]["ciphertext"]
        for _ in range(2)
    ]
    assert sealed[0] != sealed[1]
    assert opened(vault, name, sealed[0], context=b64(b"tenant")) == b"x"
    anew = transit.rewrap_data(name=name, ciphertext=sealed[0], context=b64(b"tenant"))["data"]["ciphertext"]
    assert opened(vault, name, anew, context=b64(b"tenant")) == b"x"
    data_key = transit.generate_data_key(name=name, key_type="plaintext", context=b64(b"tenant"))["data"]
    assert b64(opened(vault, name, data_key["ciphertext"], context=b64(b"tenant"))) == data_key["plaintext"]
    for wrong in ({}, {"context": b64(b"other")}, {"context": "!"}):
        with pytest.raises(InvalidRequest):
            opened(vault, name, sealed[0], **wrong)


def test_convergent_keys(vault: hvac.Client) -> None:
    transit = vault.secrets.transit
    transit.create_key(name="convergent", convergent_encryption=True, derived=True)
    assert transit.read_key(name="convergent")["data"]["convergent_encryption"] is True
    items = [
        {"plaintext": b64(text), "context": b64(context)}
        for text, context in ((b"x", b"a"), (b"x", b"a"), (b"x", b"b"), (b"y", b"a"))
    ]
    results = transit.encrypt_data(name="convergent", batch_input=items)["data"]["batch_results"]
    first, again, elsewhere, another = (each["ciphertext"] for each in results)
    assert first == again
    assert len({first, elsewhere, another}) == 3
    assert opened(vault, "convergent", elsewhere, context=b64(b"b")) == b"x"
    with pytest.raises(InvalidRequest, match="derivation"):
        vault.write_data("transit/keys/neither", data={"convergent_encryption": True})
    with pytest.raises(InvalidRequest, match="not derived here"):
        transit.create_key(name="neither", key_type="ed25519", derived=True)


def test_a_context_makes_a_derived_key_where_there_is_none(vault: hvac.Client) -> None:
    body = {"plaintext": b64(b"x"), "context": b64(b"tenant"), "convergent_encryption": True}
    for _ in range(2):
        vault.write_data("transit/encrypt/on-the-fly", data=body)
    shown = vault.secrets.transit.read_key(name="on-the-fly")["data"]
    assert (shown["derived"], shown["convergent_encryption"]) == (True, True)


@pytest.mark.parametrize("hash_function", DIGESTS)
def test_what_another_vault_encrypted_opens_here(vault: hvac.Client, hash_function: str) -> None:
    for key_type, aead in (("aes256-gcm96", AESGCM), ("chacha20-poly1305", ChaCha20Poly1305)):
        material, nonce = os.urandom(32), os.urandom(12)
        name = imported(vault, f"{key_type}-{hash_function}", material, hash_function, type=key_type)
        elsewhere = "vault:v1:" + b64(nonce + aead(material).encrypt(nonce, b"hello", b""))
        assert opened(vault, name, elsewhere) == b"hello"
        assert vault.secrets.transit.read_key(name=name)["data"]["imported_key"] is True


def test_what_another_vault_derived_opens_here(vault: hvac.Client) -> None:
    material, nonce = os.urandom(32), os.urandom(12)
    name = imported(vault, "derived-elsewhere", material, type="aes256-gcm96", derived=True)
    key = HKDF(hashes.SHA256(), 32, None, b"tenant").derive(material)
    elsewhere = "vault:v1:" + b64(nonce + AESGCM(key).encrypt(nonce, b"hello", b""))
    assert opened(vault, name, elsewhere, context=b64(b"tenant")) == b"hello"


def test_key_pairs_and_public_keys_are_imported(vault: hvac.Client) -> None:
    pair = ec.generate_private_key(ec.SECP256R1())
    encoded = pair.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    imported(vault, "pair", encoded, type="ecdsa-p256")
    signed = vault.secrets.transit.sign_data(name="pair", hash_input=b64(b"m"))["data"]["signature"]
    pair.public_key().verify(unb64(signed.split(":")[2]), b"m", ec.ECDSA(hashes.SHA256()))
    public = pair.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    vault.write_data("transit/keys/public/import", data={"type": "ecdsa-p256", "public_key": public})
    transit = vault.secrets.transit
    assert transit.verify_signed_data(name="public", hash_input=b64(b"m"), signature=signed)["data"]["valid"]
    with pytest.raises(InvalidRequest):
        transit.sign_data(name="public", hash_input=b64(b"m"))


def test_versions_of_an_imported_key(vault: hvac.Client) -> None:
    transit, first = vault.secrets.transit, os.urandom(32)
    imported(vault, "versions", first, type="aes256-gcm96")
    sealed = transit.encrypt_data(name="versions", plaintext=b64(b"x"))["data"]["ciphertext"]
    with pytest.raises(InvalidRequest, match="allow_rotation"):
        transit.rotate_key(name="versions")
    body = {"ciphertext": wrapped(vault, os.urandom(32))}
    vault.write_data("transit/keys/versions/import_version", data=body)
    anew = transit.encrypt_data(name="versions", plaintext=b64(b"x"))["data"]["ciphertext"]
    assert anew.startswith("vault:v2:")
    assert opened(vault, "versions", sealed) == opened(vault, "versions", anew) == b"x"
    imported(vault, "rotates", os.urandom(32), type="aes256-gcm96", allow_rotation=True)
    transit.rotate_key(name="rotates")


def test_a_key_goes_from_one_key_store_to_another(there: hvac.Client, vault: hvac.Client) -> None:
    wrapping = there.read("transit/wrapping_key")["data"]["public_key"]
    vault.write_data("transit/keys/there/import", data={"type": "rsa-4096", "public_key": wrapping})
    transit = vault.secrets.transit
    transit.create_key(name="moving", exportable=True)
    sealed = transit.encrypt_data(name="moving", plaintext=b64(b"x"))["data"]["ciphertext"]
    parcels = vault.read("transit/byok-export/there/moving")["data"]
    assert (parcels["name"], parcels["type"], list(parcels["keys"])) == ("moving", "aes256-gcm96", ["1"])
    body = {"type": "aes256-gcm96", "ciphertext": parcels["keys"]["1"]}
    there.write_data("transit/keys/moved/import", data=body)
    assert opened(there, "moved", sealed) == b"x"
    latest = vault.read("transit/byok-export/there/moving/latest")["data"]["keys"]
    assert list(latest) == ["1"]


def test_a_backup_is_restored_elsewhere(there: hvac.Client, vault: hvac.Client) -> None:
    transit = vault.secrets.transit
    transit.create_key(name="saved", exportable=True, allow_plaintext_backup=True)
    sealed = transit.encrypt_data(name="saved", plaintext=b64(b"x"))["data"]["ciphertext"]
    backup = transit.backup_key(name="saved")["data"]["backup"]
    there.secrets.transit.restore_key(backup=backup)
    assert opened(there, "saved", sealed) == b"x"
    with pytest.raises(InvalidRequest):
        transit.restore_key(backup=backup)


def test_a_certificate_is_asked_for(vault: hvac.Client) -> None:
    vault.write_data("transit/keys/shop", data={"type": "ecdsa-p256"})
    made = vault.write_data("transit/keys/shop/csr", data={})["data"]
    assert (made["name"], made["type"]) == ("shop", "ecdsa-p256")
    assert x509.load_pem_x509_csr(made["csr"].encode()).subject.rfc4514_string() == "CN=shop"
    other = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name.from_rfc4514_string("CN=shop.example.org,O=Example")
    names = x509.SubjectAlternativeName([x509.DNSName("shop.example.org")])
    template = x509.CertificateSigningRequestBuilder(subject).add_extension(names, critical=False)
    pem = template.sign(other, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    asked = vault.write_data("transit/keys/shop/csr", data={"csr": pem})["data"]["csr"]
    request = x509.load_pem_x509_csr(asked.encode())
    assert request.is_signature_valid
    assert (request.subject, [each.value for each in request.extensions]) == (subject, [names])
    shown = vault.secrets.transit.read_key(name="shop")["data"]["keys"]["1"]["public_key"]
    assert request.public_key() == load_pem_public_key(shown.encode())
    constrained = template.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    wrong = constrained.sign(other, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    for body in ({"csr": "x"}, {"csr": wrong}, {"version": 2}):
        with pytest.raises(InvalidRequest):
            vault.write_data("transit/keys/shop/csr", data=body)


def test_what_is_not_imported_or_given_out(vault: hvac.Client) -> None:
    transit = vault.secrets.transit
    good = wrapped(vault, os.urandom(32))
    small = rsa.generate_private_key(65537, 2048).public_key()
    pem = small.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    for wrong in (
        {"ciphertext": good[:-8]},
        {"ciphertext": "!"},
        {"ciphertext": b64(bytes(600))},
        {},
        {"ciphertext": good, "hash_function": "MD5"},
        {"ciphertext": good, "hash_function": "SHA512"},
        {"ciphertext": good, "type": "aes128-gcm96"},
        {"ciphertext": good, "type": "nothing"},
        {"ciphertext": good, "public_key": pem, "type": "rsa-2048"},
        {"public_key": pem},
        {"public_key": "x", "type": "rsa-2048"},
    ):
        with pytest.raises(InvalidRequest):
            vault.write_data("transit/keys/wrong/import", data=wrong)
    assert "wrong" not in transit.list_keys()["data"]["keys"]
    transit.create_key(name="kept")
    vault.write_data("transit/keys/small/import", data={"type": "rsa-2048", "public_key": pem})
    for path in ("small/kept", "kept/kept", "small/kept/9"):
        with pytest.raises(InvalidRequest):
            vault.read(f"transit/byok-export/{path}")


def test_base64_of_a_context_is_checked_item_by_item(vault: hvac.Client) -> None:
    vault.secrets.transit.create_key(name="items", derived=True)
    items = [
        {"plaintext": b64(b"x"), "context": b64(b"a")},
        {"plaintext": b64(b"x")},
        {"plaintext": "", "context": "!"},
    ]
    body = {"batch_input": items, "partial_failure_response_code": 200}
    results = vault.write_data("transit/encrypt/items", data=body)["data"]["batch_results"]
    assert [sorted(each) for each in results] == [["ciphertext", "key_version"], ["error"], ["error"]]
    assert base64.b64decode(results[0]["ciphertext"].split(":")[2])
