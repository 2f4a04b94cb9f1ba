"""Published answers, through the HTTP interface: each vector's key is imported and then used.

The vectors are those of the package cryptography-vectors (NIST CAVP, RFCs, OpenSSL's tests). Left out is what the
service refuses by intent: short tags and keys, nonces of other lengths, SHA-1, RSA below 2048 bits, PSS salts of
other lengths than the digest's; and RFC 9180's messages, which carry associated data that the library's public
interface does not take.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, mldsa, mlkem, rsa
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography_vectors import open_vector_file

from helpers.support import Api, World, b64, unb64
from kms.crypto.elliptic import CURVES
from kms.crypto.pkcs8 import der_of_pem, load_public, public_pem

Case = dict[str, str]
SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


@pytest.fixture(scope="module")
def user(unlimited_world: World) -> Api:
    return unlimited_world.user("alice")


def text_of(path: str) -> str:
    with open_vector_file(path, "r") as file:
        return str(file.read())


def cases_of(text: str, separator: str = r"^(?:COUNT|Count|count) ?= ?\d+$") -> list[Case]:
    """The `name = value` lines of each case, and `FAIL` where it stands alone."""
    found = []
    for block in re.split(separator, text, flags=re.MULTILINE)[1:]:
        values = dict(re.findall(r"^(\w+)[ \t]*=[ \t]*(.*?)[ \t]*$", block, re.MULTILINE))
        found.append({**values, **({"FAIL": "yes"} if re.search(r"^FAIL$", block, re.MULTILINE) else {})})
    return found


def spread(cases: list[Case], count: int) -> list[Case]:
    """About `count` of the cases, from all over."""
    return cases[:: max(1, len(cases) // count)]


def x(value: str) -> bytes:
    return bytes.fromhex(value if len(value) % 2 == 0 else "0" + value)


def text_or_hex(value: str) -> bytes:
    return value.strip('"').encode() if value.startswith('"') else x(value)


def imported(user: Api, name: str, material: bytes, form: str = "raw", **members: Any) -> str:
    """The path of a key of this material."""
    given = user.post("/api/v1/keys/import-wrapping-key", {"algorithm": "HPKE"}).json
    public: Any = load_public(der_of_pem(given["public_key"], ""), "")
    body = {
        "type": name, "wrapping_key_id": given["wrapping_key_id"], "format": form,
        "wrapped_key": b64(SUITE.encrypt(material, public, b"")), **members,
    }  # fmt: skip
    answer = user.post("/api/v1/keys/import", body)
    assert answer.status_code == 201, answer.json
    return str(answer.headers["Location"])


def public_only(user: Api, name: str, pem: str) -> str:
    answer = user.post("/api/v1/keys/import", {"type": name, "public_key": pem})
    assert answer.status_code == 201, answer.json
    return str(answer.headers["Location"])


def opened(user: Api, key: str, ciphertext: bytes, associated_data: bytes) -> bytes | None:
    """The plaintext, or None where the one refusal there is comes back."""
    body = {"ciphertext": b64(ciphertext), "associated_data": b64(associated_data), "format": "raw"}
    answer = user.post(f"{key}/decrypt", body)
    if answer.status_code == 200:
        return unb64(answer.json["plaintext"])
    assert answer.json["type"] == "/problems/decryption-failed"
    return None


@pytest.mark.parametrize("bits", [128, 256])
def test_aes_gcm_of_nist(user: Api, bits: int) -> None:
    sections = re.split(r"^\[Keylen", text_of(f"ciphers/AES/GCM/gcmDecrypt{bits}.rsp"), flags=re.MULTILINE)
    cases = [
        case for section in sections if "[IVlen = 96]" in section and "[Taglen = 128]" in section
        for case in cases_of(section)
    ]  # fmt: skip
    seen = {True: 0, False: 0}
    for case in spread(cases, 80):
        key = imported(user, f"aes-{bits}-gcm", x(case["Key"]))
        plaintext = opened(user, key, x(case["IV"]) + x(case["CT"]) + x(case["Tag"]), x(case["AAD"]))
        assert plaintext == (None if "FAIL" in case else x(case["PT"]))
        seen["FAIL" in case] += 1
    assert min(seen.values()) > 10


def test_chacha20_poly1305(user: Api) -> None:
    cases = [
        *cases_of(text_of("ciphers/ChaCha20Poly1305/openssl.txt")),
        *cases_of(text_of("ciphers/ChaCha20Poly1305/boringssl.txt")),
    ]
    seen = {True: 0, False: 0}
    for case in cases:
        values = {name.upper(): value for name, value in case.items()}
        nonce, ciphertext = values.get("IV", values.get("NONCE", "")), values.get("CIPHERTEXT", values.get("CT", ""))
        if len(nonce) != 24 or len(values["TAG"]) != 32:
            continue
        key = imported(user, "chacha20-poly1305", x(values["KEY"]))
        aad = values.get("AAD", values.get("AD", ""))
        plaintext = opened(user, key, x(nonce) + text_or_hex(ciphertext) + x(values["TAG"]), text_or_hex(aad))
        wrong = "RESULT" in values
        assert plaintext == (None if wrong else text_or_hex(values.get("PLAINTEXT", values.get("IN", ""))))
        seen[wrong] += 1
    assert seen[False] > 3
    assert seen[True] > 0


def test_aes_gcm_siv(user: Api) -> None:
    blocks = text_of("ciphers/AES/GCM-SIV/openssl.txt").split("#Cipher = ")
    cases = [cases_of(block)[0] for block in blocks if block.startswith("aes-256-gcm-siv")]
    assert len(cases) > 20
    for case in cases:
        key = imported(user, "aes-256-gcm-siv", x(case["Key"]))
        sealed = x(case["IV"]) + x(case.get("Ciphertext", "")) + x(case["Tag"])
        assert opened(user, key, sealed, x(case.get("AAD", ""))) == x(case.get("Plaintext", ""))


def test_aes_siv(user: Api) -> None:
    blocks = text_of("ciphers/AES/SIV/openssl.txt").split("# Cipher = ")
    cases = [cases_of(block)[0] for block in blocks if block.startswith("aes-256-siv")]
    cases = [case for case in cases if "AAD" in case and "AAD2" not in case]
    assert cases
    for case in cases:
        key = imported(user, "aes-256-siv", x(case["Key"]))
        sealed = x(case["Tag"]) + x(case["Ciphertext"])
        assert opened(user, key, sealed, x(case["AAD"])) == x(case["Plaintext"])
        body = {"plaintext": b64(x(case["Plaintext"])), "associated_data": b64(x(case["AAD"])), "format": "raw"}
        assert unb64(user.post(f"{key}/encrypt", body).json["ciphertext"]) == sealed


@pytest.mark.parametrize(
    ("key_byte", "aad", "sealed"),
    [
        (1, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (3, b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
    ],
)
def test_xaes_256_gcm_of_c2sp(user: Api, key_byte: int, aad: bytes, sealed: str) -> None:
    key = imported(user, "xaes-256-gcm", bytes([key_byte]) * 32)
    assert opened(user, key, b"ABCDEFGHIJKLMNOPQRSTUVWX" + x(sealed), aad) == b"XAES-256-GCM"
    assert opened(user, key, b"ABCDEFGHIJKLMNOPQRSTUVWY" + x(sealed), aad) is None


@pytest.mark.parametrize("bits", [128, 256])
@pytest.mark.parametrize("mode", ["KW", "KWP"])
def test_key_wrapping_of_sp_800_38f(user: Api, mode: str, bits: int) -> None:
    cases = cases_of(text_of(f"keywrap/kwtestvectors/{mode}_AD_{bits}.txt"))
    seen = {True: 0, False: 0}
    for case in spread(cases, 50):
        key = imported(user, f"aes-{bits}-{mode.lower()}", x(case["K"]))
        answer = user.post(f"{key}/unwrap", {"wrapped_key": b64(x(case["C"]))})
        if "FAIL" in case:
            assert answer.json["type"] == "/problems/decryption-failed"
        else:
            assert unb64(answer.json["key"]) == x(case["P"])
            wrapped = user.post(f"{key}/wrap", {"key": b64(x(case["P"]))}).json["wrapped_key"]
            assert unb64(wrapped) == x(case["C"])
        seen["FAIL" in case] += 1
    assert min(seen.values()) > 3


@pytest.mark.parametrize("bits", ["256", "384", "512"])
def test_hmac_of_rfc_4231(user: Api, bits: str) -> None:
    cases = cases_of(text_of(f"HMAC/rfc-4231-sha{bits}.txt"), r"^(?=Len = )")
    checked = 0
    for case in cases:
        if len(x(case["Key"])) < 14 or len(case["MD"]) < int(bits) // 4:
            continue
        key = imported(user, f"hmac-sha{bits}", x(case["Key"]))
        message = {"message": b64(x(case["Msg"])[: int(case["Len"]) // 8])}
        assert unb64(user.post(f"{key}/mac", message).json["mac"]) == x(case["MD"])
        altered = {**message, "mac": b64(x(case["MD"])[:-1] + b"\0")}
        assert user.post(f"{key}/verify-mac", altered).json["valid"] is (case["MD"][-2:] == "00")
        cut = {**message, "mac": b64(x(case["MD"])[:16])}
        assert user.post(f"{key}/verify-mac", cut).json["valid"] is False
        checked += 1
    assert checked >= 4


def test_hkdf_of_rfc_5869(user: Api) -> None:
    for case in cases_of(text_of("KDF/rfc-5869-HKDF-SHA256.txt")):
        key = imported(user, "hmac-sha256", x(case["IKM"]), usages=["derive"])
        body = {"salt": b64(x(case["salt"])), "context": b64(x(case["info"])), "length": int(case["L"])}
        assert unb64(user.post(f"{key}/derive", body).json["derived_key"]) == x(case["OKM"])


def test_kbkdf_is_what_sp_800_108_says(user: Api) -> None:
    """NIST's vectors fix the whole input; ours is counter ‖ label ‖ 0 ‖ context ‖ length, so it is spelled out."""
    import hmac

    key_bytes, label, context = bytes(range(32)), b"label", b"context"
    key = imported(user, "hmac-sha256", key_bytes, usages=["derive"])
    body = {"algorithm": "KBKDF-HMAC-SHA-256", "label": b64(label), "context": b64(context), "length": 50}
    fixed = label + b"\0" + context + (50 * 8).to_bytes(4)
    expected = b"".join(hmac.digest(key_bytes, n.to_bytes(4) + fixed, "sha256") for n in (1, 2))[:50]
    assert unb64(user.post(f"{key}/derive", body).json["derived_key"]) == expected


@pytest.mark.parametrize("curve", ["P-256", "P-384", "P-521"])
def test_ecdsa_of_fips_186_3(user: Api, curve: str) -> None:
    bits = {"P-256": 256, "P-384": 384, "P-521": 512}[curve]
    section = text_of("asymmetric/ECDSA/FIPS_186-3/SigVer.rsp").split(f"[{curve},SHA-{bits}]")[1].split("\n[")[0]
    size = (CURVES[curve].key_size + 7) // 8
    seen = {True: 0, False: 0}
    for case in cases_of(section, r"^(?=Msg = )"):
        valid = case["Result"].startswith("P")
        point = b"\x04" + int(case["Qx"], 16).to_bytes(size) + int(case["Qy"], 16).to_bytes(size)
        key = ec.EllipticCurvePublicKey.from_encoded_point(CURVES[curve], point)
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        path = public_only(user, f"ec-{curve.lower().replace('-', '')}", pem)
        signature = int(case["R"], 16).to_bytes(size) + int(case["S"], 16).to_bytes(size)
        body = {"message": b64(x(case["Msg"])), "signature": b64(signature)}
        assert user.post(f"{path}/verify", body).json["valid"] is valid
        seen[valid] += 1
    assert min(seen.values()) >= 3


def test_ecdsa_on_secp256k1(user: Api) -> None:
    section = text_of("asymmetric/ECDSA/SECP256K1/SigGen.txt").split("[K-256,SHA-256]")[1].split("\n[")[0]
    cases = spread(cases_of(section, r"^(?=Msg = )"), 10)
    assert cases
    for case in cases:
        private = ec.derive_private_key(int(case["d"], 16), ec.SECP256K1())
        der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        path = imported(user, "ec-secp256k1", der, "pkcs8")
        signature = int(case["R"], 16).to_bytes(32) + int(case["S"], 16).to_bytes(32)
        body = {"message": b64(x(case["Msg"])), "signature": b64(signature)}
        assert user.post(f"{path}/verify", body).json["valid"] is True
        assert user.post(f"{path}/verify", {**body, "message": ""}).json["valid"] is False


def test_ed25519_of_its_authors(user: Api) -> None:
    lines = text_of("asymmetric/Ed25519/sign.input").splitlines()
    for line in lines[::64]:
        secret, public, message, signed, *_ = line.split(":")
        path = imported(user, "ed25519", x(secret)[:32])
        assert jwk_of(user, path)["x"] == urlsafe(x(public))
        signature = user.post(f"{path}/sign", {"message": b64(x(message))}).json["signature"]
        assert unb64(signature) == x(signed)[:64]
        altered = {"message": b64(x(message) + b"x"), "signature": signature}
        assert user.post(f"{path}/verify", altered).json["valid"] is False


def test_ed448_of_rfc_8032(user: Api) -> None:
    checked = 0
    for case in cases_of(text_of("asymmetric/Ed448/rfc8032.txt")):
        if "CONTEXT" in case:
            continue
        path = imported(user, "ed448", x(case["SECRET"]))
        signed = user.post(f"{path}/sign", {"message": b64(x(case["MESSAGE"]))}).json
        assert unb64(signed["signature"]) == x(case["SIGNATURE"])
        checked += 1
    assert checked >= 8


def jwk_of(user: Api, path: str) -> dict[str, str]:
    return dict(user.get(f"{path}/public-key?format=jwk").json["jwk"])


def urlsafe(content: bytes) -> str:
    return b64(content).replace("+", "-").replace("/", "_").rstrip("=")


@pytest.mark.parametrize("name", ["X25519", "X448"])
def test_montgomery_curves_of_rfc_7748(user: Api, name: str) -> None:
    prefix = {"X25519": "302a300506032b656e032100", "X448": "3042300506032b656f033900"}[name]
    cases = [case for case in cases_of(text_of(f"asymmetric/{name}/rfc7748.txt")) if "OUTPUT_U" in case]
    assert len(cases) >= 2
    for case in cases[:2]:
        path = imported(user, name.lower(), x(case["INPUT_SCALAR"]), usages=["agree"])
        body = {"peer_public_key": public_pem(x(prefix) + x(case["INPUT_U"])), "kdf": "none"}
        assert unb64(user.post(f"{path}/agree", body).json["derived_key"]) == x(case["OUTPUT_U"])


def test_ecdh_of_nist(user: Api) -> None:
    """Static unified, ZZ only. Of the invalid cases those with a bad public key are refused as such."""
    text = text_of("asymmetric/ECDH/KASValidityTest_ECCStaticUnified_NOKC_ZZOnly_init.fax")
    seen = {True: 0, False: 0}
    for label, curve in (("EC", "P-256"), ("ED", "P-384"), ("EE", "P-521")):
        section = re.split(rf"^\[{label} - SHA\d+\]", text, flags=re.MULTILINE)[1].split("\n[")[0]
        size = (CURVES[curve].key_size + 7) // 8
        for case in cases_of(section):
            try:
                private = ec.derive_private_key(int(case["dsIUT"], 16), CURVES[curve])
                numbers = ec.EllipticCurvePublicNumbers(
                    int(case["QsCAVSx"], 16), int(case["QsCAVSy"], 16), CURVES[curve]
                )
                peer = numbers.public_key()
            except ValueError:
                assert not case["Result"].startswith("P")
                continue
            der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
            name = f"ec-{curve.lower().replace('-', '')}"
            path = imported(user, name, der, "pkcs8", usages=["agree"])
            pem = peer.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
            secret = unb64(user.post(f"{path}/agree", {"peer_public_key": pem, "kdf": "none"}).json["derived_key"])
            valid = case["Result"].startswith("P")
            if valid:
                assert secret == int(case["Z"], 16).to_bytes(size)
            seen[valid] += 1
    assert seen[True] >= 30


@pytest.mark.parametrize("size", [44, 65, 87])
def test_ml_dsa(user: Api, size: int) -> None:
    private = {44: mldsa.MLDSA44PrivateKey, 65: mldsa.MLDSA65PrivateKey, 87: mldsa.MLDSA87PrivateKey}[size]
    for case in spread(cases_of(text_of(f"asymmetric/MLDSA/kat_MLDSA_{size}_det_pure.rsp")), 12):
        path = imported(user, f"ml-dsa-{size}", x(case["xi"]))
        assert jwk_of(user, path)["pub"] == urlsafe(x(case["pk"]))
        message, context = x(case["msg"]), x(case.get("ctx", ""))
        signature = x(case["sm"])[: int(case["smlen"]) - int(case["mlen"])]
        body = {"message": b64(message), "context": b64(context), "signature": b64(signature)}
        assert user.post(f"{path}/verify", body).json["valid"] is True
        for wrong in ({"context": b64(context + b"x")}, {"message": b64(message + b"x")}, {"signature": "AAAA"}):
            assert user.post(f"{path}/verify", {**body, **wrong}).json["valid"] is False
    mu = b64(bytes(64))
    signed = user.post(f"{path}/sign", {"digest": mu}).json["signature"]
    key = private.from_seed_bytes(x(case["xi"]))
    key.public_key().verify_mu(unb64(signed), bytes(64))
    assert user.post(f"{path}/verify", {"digest": mu, "signature": signed}).json["valid"] is True


@pytest.mark.parametrize("size", [768, 1024])
def test_ml_kem(user: Api, size: int) -> None:
    for case in spread(cases_of(text_of(f"asymmetric/MLKEM/kat_MLKEM_{size}.rsp")), 15):
        path = imported(user, f"ml-kem-{size}", x(case["d"]) + x(case["z"]))
        assert jwk_of(user, path)["pub"] == urlsafe(x(case["pk"]))
        secret = user.post(f"{path}/decapsulate", {"ciphertext": b64(x(case["ct"]))}).json["shared_secret"]
        assert unb64(secret) == x(case["ss"])
        altered = user.post(f"{path}/decapsulate", {"ciphertext": b64(x(case["ct_n"]))}) if "ct_n" in case else None
        if altered is not None:
            assert unb64(altered.json["shared_secret"]) == x(case["ss_n"])
    kem = {768: mlkem.MLKEM768PrivateKey, 1024: mlkem.MLKEM1024PrivateKey}[size]
    made = user.post(f"{path}/encapsulate", {}).json
    private = kem.from_seed_bytes(x(case["d"]) + x(case["z"]))
    assert private.decapsulate(unb64(made["ciphertext"])) == unb64(made["shared_secret"])


def test_the_hybrid_has_the_public_keys_of_its_draft(user: Api) -> None:
    with open_vector_file("HPKE/hpke-pq-test-vectors.json", "r") as file:
        vectors = [each for each in json.load(file) if each["kem_id"] == 0x647A and each["mode"] == 0]
    assert vectors
    for vector in vectors:
        path = imported(user, "ml-kem-768-x25519", x(vector["skRm"]))
        spki = der_of_pem(user.get(f"{path}/public-key").json["public_key"], "")
        assert spki.endswith(x(vector["pkRm"]))
        assert len(x(vector["pkRm"])) == 1216


def rsa_private(n: int, e: int, d: int) -> bytes:
    p, q = rsa.rsa_recover_prime_factors(n, e, d)
    dp, dq, qi = rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q)
    numbers = rsa.RSAPrivateNumbers(p, q, d, dp, dq, qi, rsa.RSAPublicNumbers(e, n))
    return numbers.private_key().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def test_rsa_pkcs1_v1_5_of_fips_186_3(user: Api) -> None:
    seen = {True: 0, False: 0}
    sections = re.split(r"^\[mod = ", text_of("asymmetric/RSA/FIPS_186-2/SigVer15_186-3.rsp"), flags=re.MULTILINE)
    for block in (block for section in sections[1:] for block in section.split("n = ")[1:]):
        n = int(block.split()[0], 16)
        if n.bit_length() not in (2048, 3072):
            continue
        for bits, case, result in re.findall(r"SHAAlg = SHA(256|384|512)\n(.*?)Result = (P|F)", block, re.DOTALL):
            fields = dict(re.findall(r"(\w+) = ([0-9a-f]+)", case))
            e = int(fields["e"], 16)
            pem = (
                rsa.RSAPublicNumbers(e, n).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            )
            name = f"rsa-{n.bit_length()}"
            answer = user.post("/api/v1/keys/import", {"type": name, "public_key": pem.decode()})
            if answer.status_code == 422:
                assert e <= 65536
                continue
            body = {"message": b64(x(fields["Msg"])), "signature": b64(x(fields["S"])), "algorithm": f"RS{bits}"}
            valid = user.post(f"{answer.headers['Location']}/verify", body).json["valid"]
            assert valid is (result == "P")
            seen[valid] += 1
    assert seen[False] >= 3, seen


def test_rsa_oaep_with_sha_256(user: Api) -> None:
    checked = 0
    for example in text_of("asymmetric/RSA/oaep-custom/oaep-sha256-sha256.txt").split("# " + "=" * 45)[1:]:
        pairs = re.findall(r"^# ([\w ]+):\n([0-9a-f]+)$", example, re.MULTILINE)
        parts = {name.strip(): value for name, value in pairs}
        if "Modulus" not in parts or int(parts["Modulus"], 16).bit_length() != 2048:
            continue
        der = rsa_private(*(int(parts[name], 16) for name in ("Modulus", "Public exponent", "Exponent")))
        path = imported(user, "rsa-2048", der, "pkcs8")
        vectors = re.findall(r"# Message:\n([0-9a-f]+)\n.*?# Encryption:\n([0-9a-f]+)", example, re.DOTALL)
        for message, encrypted in vectors:
            assert opened(user, path, x(encrypted), b"") == x(message)
            assert opened(user, path, x(encrypted)[:-1] + b"\0", b"") is None
            checked += 1
    assert checked


@pytest.mark.parametrize("name", ["SHA-256", "SHA-512", "SHA3-256", "SHA3-512"])
def test_digests_of_nist(user: Api, name: str) -> None:
    folder = "SHA3" if name.startswith("SHA3") else "SHA2"
    file = name.replace("-", "_") if folder == "SHA3" else name.replace("SHA-", "SHA")
    cases = cases_of(text_of(f"hashes/{folder}/{file}ShortMsg.rsp"), r"^(?=Len = )")
    assert len(cases) > 20
    messages = [{"message": b64(x(case["Msg"])[: int(case["Len"]) // 8]), "algorithm": name} for case in cases]
    answers = user.post("/api/v1/hash", {"items": messages}).json["items"]
    assert [unb64(each["digest"]) for each in answers] == [x(case["MD"]) for case in cases]
