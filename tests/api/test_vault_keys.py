"""Uses and settings of keys in the Vault dialect, as Vault and OpenBao have them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from helpers.support import World, b64, unb64
from helpers.vault_client import Vault

MESSAGE = b64(b"message")


@pytest.fixture(scope="module")
def vault(unlimited_world: World) -> Vault:
    return Vault.of(unlimited_world, unlimited_world.user("vera"))


@pytest.mark.parametrize(
    ("use", "good", "key_type"),
    [
        ("sign", {"input": MESSAGE}, "ed25519"),
        ("hmac", {"input": MESSAGE}, "hmac"),
        ("encrypt", {"plaintext": MESSAGE}, "aes256-gcm96"),
    ],
)
def test_one_bad_item_leaves_the_others(vault: Vault, use: str, good: Any, key_type: str) -> None:
    name = vault.make(f"batch-{use}", key_type)
    (member,) = good
    bad = [{member: "!"}, {}]
    answer = vault.write(f"transit/{use}/{name}", batch_input=[good, *bad, good])
    assert answer.status == 400
    assert ["error" in each for each in answer.data["batch_results"]] == [False, True, True, False]


def test_one_bad_item_leaves_the_others_when_verifying(vault: Vault) -> None:
    name = vault.make("batch-verify", "ed25519")
    signature = vault.write(f"transit/sign/{name}", input=MESSAGE).data["signature"]
    items = [
        {"input": MESSAGE, "signature": signature},
        {"input": MESSAGE, "signature": "vault:x"},
        {"input": MESSAGE},
    ]
    results = vault.write(f"transit/verify/{name}", batch_input=items).data["batch_results"]
    assert [each.get("valid") for each in results] == [True, None, None]
    code = vault.write(f"transit/hmac/{name}", input=MESSAGE).data["hmac"]
    items = [{"input": MESSAGE, "hmac": code}, {"input": MESSAGE, "hmac": "x"}, {"hmac": code}]
    results = vault.write(f"transit/verify/{name}", batch_input=items).data["batch_results"]
    assert [each.get("valid") for each in results] == [True, None, None]


def test_what_becomes_exportable_stays_so(vault: Vault) -> None:
    name = vault.make("opened")
    shown = vault.write(f"transit/keys/{name}/config", exportable=True, allow_plaintext_backup=True).data
    assert (shown["exportable"], shown["allow_plaintext_backup"]) == (True, True)
    shown = vault.write(f"transit/keys/{name}/config", exportable=False, allow_plaintext_backup=False).data
    assert (shown["exportable"], shown["allow_plaintext_backup"]) == (True, True)
    refused = vault.world.login("vera").patch(f"/api/v1/keys/{name}", {"exportable": False})
    assert refused.status_code == 422


def test_the_lowest_versions(vault: Vault) -> None:
    name = vault.make("lowest")
    for _ in range(3):
        vault.write(f"transit/keys/{name}/rotate")

    def config(**members: int) -> tuple[int, int]:
        shown = vault.write(f"transit/keys/{name}/config", **members).data
        return shown["min_decryption_version"], shown["min_encryption_version"]

    assert config(min_decryption_version=2) == (2, 0)
    assert config(min_decryption_version=1) == (1, 0)
    assert config(min_encryption_version=3) == (1, 3)
    assert config(min_decryption_version=2) == (2, 3)
    assert config(min_encryption_version=0) == (2, 0)
    for wrong in (
        {"min_decryption_version": 5},
        {"min_encryption_version": 1},
        {"min_encryption_version": -1},
        {"min_decryption_version": 4, "min_encryption_version": 3},
    ):
        answer = vault.write(f"transit/keys/{name}/config", **wrong)
        assert (answer.status, "process" in answer.error) == (400, False)


def test_sizes_that_are_not_there(vault: Vault) -> None:
    assert vault.write("transit/keys/sized", type="hmac", key_size=64).status == 400
    assert vault.write("transit/keys/sized", type="aes256-gcm96", key_size=32).status == 400
    assert vault.write("transit/keys/sized", type="hmac", key_size=32).status == 200
    assert vault.write("transit/random", bytes=0).status == 400
    assert len(unb64(vault.write("transit/random").data["random_bytes"])) == 32


def test_a_key_version_to_protect_with(vault: Vault) -> None:
    name = vault.make("versions")
    vault.write(f"transit/keys/{name}/rotate")
    assert vault.write(f"transit/encrypt/{name}", plaintext="", key_version=2).data["key_version"] == 2
    assert vault.write(f"transit/encrypt/{name}", plaintext="", key_version=1).status == 400
    items = [{"plaintext": "", "key_version": 1}, {"plaintext": "", "key_version": "2"}]
    results = vault.write(f"transit/encrypt/{name}", batch_input=items).data["batch_results"]
    assert ["error" in each for each in results] == [True, False]


def test_what_is_missing_is_a_bad_request_to_whoever_writes(vault: Vault) -> None:
    for path in (
        "decrypt/nothing",
        "rewrap/nothing",
        "keys/nothing/rotate",
        "keys/nothing/config",
        "sign/nothing",
    ):
        assert vault.write(f"transit/{path}", ciphertext="vault:v1:AAAA", input="").status == 400, path
    assert vault.send("DELETE", "transit/keys/nothing").status == 400
    assert vault.read("transit/keys/nothing").status == 404


def test_public_keys_are_shown_as_vault_shows_them(vault: Vault) -> None:
    version = vault.read(f"transit/keys/{vault.make('p-ed', 'ed25519')}").data["keys"]["1"]
    key = Ed25519PublicKey.from_public_bytes(unb64(version["public_key"]))
    signature = vault.write("transit/sign/p-ed", input=MESSAGE).data["signature"]
    key.verify(unb64(signature.split(":")[2]), b"message")
    exported = vault.read("transit/export/public-key/p-ed").data["keys"]["1"]
    assert (version["name"], exported) == ("ed25519", version["public_key"])
    version = vault.read(f"transit/keys/{vault.make('p-ec', 'ecdsa-p384')}").data["keys"]["1"]
    assert version["name"] == "P-384"


def public_key_of(vault: Vault, name: str) -> Any:
    shown = vault.read(f"transit/keys/{name}").data["keys"]["1"]["public_key"]
    return load_pem_public_key(shown.encode())


@pytest.mark.parametrize(
    ("name", "digest"),
    [("sha2-224", hashes.SHA224()), ("sha2-512", hashes.SHA512()), ("sha3-256", hashes.SHA3_256())],
)
def test_ecdsa_with_another_hash(vault: Vault, name: str, digest: hashes.HashAlgorithm) -> None:
    key = vault.make("h-ec", "ecdsa-p256")
    signature = vault.write(f"transit/sign/{key}/{name}", input=MESSAGE).data["signature"]
    public_key_of(vault, key).verify(unb64(signature.split(":")[2]), b"message", ec.ECDSA(digest))
    verified = vault.write(f"transit/verify/{key}", input=MESSAGE, signature=signature, hash_algorithm=name)
    assert verified.data["valid"] is True
    assert vault.write(f"transit/verify/{key}", input=MESSAGE, signature=signature).data["valid"] is False


def test_rsa_with_sha1(vault: Vault) -> None:
    key = vault.make("h-rsa", "rsa-2048")
    for scheme, pad in (
        ("pkcs1v15", padding.PKCS1v15()),
        ("pss", padding.PSS(padding.MGF1(hashes.SHA1()), padding.PSS.DIGEST_LENGTH)),
    ):
        way = {"hash_algorithm": "sha1", "signature_algorithm": scheme, "input": MESSAGE}
        signature = vault.write(f"transit/sign/{key}", **way).data["signature"]
        raw = unb64(signature.split(":")[2])
        public_key_of(vault, key).verify(raw, b"message", pad, hashes.SHA1())
        assert vault.write(f"transit/verify/{key}", **way, signature=signature).data["valid"] is True


def test_rsa_without_a_hash(vault: Vault) -> None:
    key = vault.make("h-rsa", "rsa-2048")
    digest = hashes.Hash(hashes.SHA256())
    digest.update(b"message")
    # DigestInfo of SHA-256 (RFC 8017, section 9.2, note 1), which the program puts in front by itself.
    info = bytes.fromhex("3031300d060960864801650304020105000420") + digest.finalize()
    way = {"hash_algorithm": "none", "signature_algorithm": "pkcs1v15", "prehashed": True}
    signature = vault.write(f"transit/sign/{key}", **way, input=b64(info)).data["signature"]
    raw = unb64(signature.split(":")[2])
    public_key_of(vault, key).verify(raw, b"message", padding.PKCS1v15(), hashes.SHA256())
    for message, valid in ((info, True), (info[:-1], False)):
        answer = vault.write(f"transit/verify/{key}", **way, input=b64(message), signature=signature)
        assert answer.data["valid"] is valid
    for wrong in ({"prehashed": False}, {"signature_algorithm": "pss"}, {"input": b64(bytes(246))}):
        assert vault.write(f"transit/sign/{key}", **{**way, "input": b64(info), **wrong}).status == 400, wrong


def test_prehashed_input_of_the_wrong_length(vault: Vault) -> None:
    key = vault.make("h-ec", "ecdsa-p256")
    assert vault.write(f"transit/sign/{key}", input=b64(bytes(31)), prehashed=True).status == 400
    signed = vault.write(f"transit/sign/{key}", input=b64(bytes(32)), prehashed=True).data["signature"]
    way = ec.ECDSA(utils.Prehashed(hashes.SHA256()))
    public_key_of(vault, key).verify(unb64(signed.split(":")[2]), bytes(32), way)
    with pytest.raises(InvalidSignature):
        public_key_of(vault, key).verify(unb64(signed.split(":")[2]), bytes(31) + b"x", way)


def test_a_key_for_codes_with_another_hash(vault: Vault) -> None:
    name = vault.make("codes", "hmac", exportable=True)
    api = vault.world.admin
    grant = {
        "permission": "keys:export-plaintext",
        "subject": "client:vera",
        "key_pattern": name,
        "owner": "vera",
    }
    assert api.post("/api/v1/grants", grant).status_code == 201
    material = unb64(vault.read(f"transit/export/hmac-key/{name}").data["keys"]["1"])
    for asked, digest in (
        ("sha2-256", hashes.SHA256()),
        ("sha2-512", hashes.SHA512()),
        ("sha3-384", hashes.SHA3_384()),
    ):
        code = vault.write(f"transit/hmac/{name}/{asked}", input=MESSAGE).data["hmac"]
        expected = HMAC(material, digest)
        expected.update(b"message")
        assert unb64(code.split(":")[2]) == expected.finalize()
        checked = vault.write(f"transit/verify/{name}/{asked}", input=MESSAGE, hmac=code)
        assert checked.data["valid"] is True
        assert vault.write(f"transit/verify/{name}/sha2-224", input=MESSAGE, hmac=code).data["valid"] is False


@pytest.mark.parametrize(
    ("key_type", "members"),
    [
        ("aes256-gcm96", {}),
        ("ed25519", {}),
        ("rsa-2048", {}),
        ("ecdsa-p256", {}),
        ("aes256-gcm96", {"derived": True}),
    ],
)
def test_every_key_makes_codes(vault: Vault, key_type: str, members: dict[str, Any]) -> None:
    name = vault.make(f"code-{key_type}-{len(members)}", key_type, **members)
    code = vault.write(f"transit/hmac/{name}", input=MESSAGE).data["hmac"]
    assert vault.write(f"transit/hmac/{name}", input=MESSAGE).data["hmac"] == code
    assert vault.write(f"transit/hmac/{name}", input=b64(b"x")).data["hmac"] != code
    vault.write(f"transit/keys/{name}/rotate")
    assert vault.write(f"transit/hmac/{name}", input=MESSAGE).data["hmac"].startswith("vault:v2:")
    for message, valid in ((MESSAGE, True), (b64(b"x"), False)):
        assert vault.write(f"transit/verify/{name}", input=message, hmac=code).data["valid"] is valid
    assert vault.read(f"transit/export/hmac-key/{name}").status == 400
    api = vault.world.login("vera")
    api.post(f"/api/v1/keys/{name}/revoke")
    assert vault.write(f"transit/verify/{name}", input=MESSAGE, hmac=code).status == 400


def test_the_derived_key_for_codes_is_out_of_reach(vault: Vault) -> None:
    api = vault.world.login("vera")
    made = api.post("/api/v1/keys", {"key_id": "deriving", "type": "hmac-sha256", "usages": ["derive"]})
    assert made.status_code == 201
    answer = api.post("/api/v1/keys/deriving/mac", {"message": MESSAGE, "derived": True})
    assert answer.status_code == 400
    vault.make("signing", "ed25519")
    assert api.post("/api/v1/keys/signing/mac", {"message": MESSAGE}).status_code == 400


SUBJECT = x509.Name.from_rfc4514_string("CN=shop.example.org")
OTHER_NAMES: dict[str, x509.GeneralName] = {
    "an IP address": x509.IPAddress(ip_address("192.0.2.1")),
    "an IPv6 address": x509.IPAddress(ip_address("2001:db8::1")),
    "a network": x509.IPAddress(ip_network("10.0.0.0/8")),
    "a mail address": x509.RFC822Name("root@example.org"),
    "a URI": x509.UniformResourceIdentifier("urn:kms:client:admin"),
    "a directory name": x509.DirectoryName(SUBJECT),
    "another name": x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x05admin"),
    "a registered id": x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
    "an address as a name": x509.DNSName("192.0.2.1"),
    "an empty name": x509.DNSName(""),
    "a name with a null": x509.DNSName("shop.example.org\0.evil.example"),
    "a name with a space": x509.DNSName("shop.example.org evil.example"),
    "a wildcard within": x509.DNSName("a.*.example.org"),
}
EXTENSIONS: list[x509.ExtensionType] = [
    x509.BasicConstraints(ca=True, path_length=None),
    x509.KeyUsage(False, False, False, False, False, True, True, False, False),
    x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]),
    x509.NameConstraints([x509.DNSName("example.org")], None),
    x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\5\0"),
]


def template_with(*extensions: x509.ExtensionType) -> str:
    """What somebody asks to be signed, by a key of their own."""
    builder = x509.CertificateSigningRequestBuilder(SUBJECT)
    for each in extensions:
        builder = builder.add_extension(each, critical=False)
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize("name", OTHER_NAMES.values(), ids=OTHER_NAMES)
def test_a_request_carries_dns_names_and_no_others(vault: Vault, name: x509.GeneralName) -> None:
    """What is in a template is signed only where it is what the service could be asked for without one."""
    key = vault.make("certified", "ecdsa-p256")
    good = x509.DNSName("shop.example.org")
    signed = vault.write(f"transit/keys/{key}/csr", csr=template_with(x509.SubjectAlternativeName([good]))).data[
        "csr"
    ]
    assert [list(each.value) for each in x509.load_pem_x509_csr(signed.encode()).extensions] == [[good]]
    for names in ([name], [good, name]):
        answer = vault.write(f"transit/keys/{key}/csr", csr=template_with(x509.SubjectAlternativeName(names)))
        assert (answer.status, b"BEGIN" in answer.content) == (400, False)


@pytest.mark.parametrize("extension", EXTENSIONS, ids=lambda each: type(each).__name__)
def test_a_request_carries_no_other_extension(vault: Vault, extension: x509.ExtensionType) -> None:
    key = vault.make("constrained", "ecdsa-p256")
    names = x509.SubjectAlternativeName([x509.DNSName("shop.example.org")])
    for template in (template_with(extension), template_with(names, extension)):
        answer = vault.write(f"transit/keys/{key}/csr", csr=template)
        assert (answer.status, b"BEGIN" in answer.content) == (400, False)
