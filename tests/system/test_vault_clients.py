"""An unmodified hvac against the real service."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import hvac
import pyotp
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest

from helpers.running import Running, Start
from helpers.shell import blocks, run
from helpers.support import b64, unb64
from helpers.tokens import PlatformIssuer


@pytest.fixture(scope="module")
def service(start: Start) -> Running:
    return start("--workers", "2", "--rate-limit", "off")


def client_of(service: Running, token: str) -> hvac.Client:
    return hvac.Client(url=service.url, token=token, verify=str(service.folder / "server.crt"))


@pytest.fixture(scope="module")
def token(service: Running) -> str:
    return service.user("vera")


@pytest.fixture(scope="module")
def admin(service: Running) -> str:
    return service.login(service.admin)


@pytest.fixture(scope="module")
def issuer(service: Running, admin: str, token: str) -> PlatformIssuer:
    """An issuer whose tokens for `ci` let programs in as vera."""
    made = PlatformIssuer()
    trusted = {"issuer": made.issuer, "audience": made.audience, "jwks": made.jwks}
    assert service.curl("POST", "/api/v1/issuers", trusted, token=admin).status == 201
    role = {"role": "ci", "issuer": made.issuer, "claims": {"sub": "system:serviceaccount:ns:ci-*"}}
    assert service.curl("POST", "/api/v1/issuer-roles", {**role, "client_id": "vera"}, token=admin).status == 201
    return made


@pytest.mark.parametrize("way", ["approle", "kubernetes", "jwt"])
def test_programs_log_in_and_their_end_holds_at_once(
    service: Running, token: str, admin: str, issuer: PlatformIssuer, way: str
) -> None:
    program, path = client_of(service, ""), ""
    if way == "approle":
        access = service.curl("POST", "/api/v1/access-keys", {}, token=token).json
        path = f"/api/v1/access-keys/{access['access_key_id']}"
        program.auth.approle.login(role_id=access["access_key_id"], secret_id=access["secret_access_key"])
    elif way == "kubernetes":
        program.auth.kubernetes.login(role="ci", jwt=issuer.token("system:serviceaccount:ns:ci-7"))
    else:
        answer = program.auth.jwt.jwt_login(role="ci", jwt=issuer.token("system:serviceaccount:ns:ci-7"))
        program.token = answer["auth"]["client_token"]
    assert program.is_authenticated()
    key(program, f"by-{way}")
    child = program.auth.token.create(policies=[f"keys:encrypt@by-{way}"], ttl="5m")["auth"]
    assert child["lease_duration"] == 300
    narrow = client_of(service, child["client_token"])
    assert narrow.secrets.transit.encrypt_data(name=f"by-{way}", plaintext=b64(b"x"))["data"]["ciphertext"]
    with pytest.raises(Forbidden):
        key(narrow, "another")
    assert program.auth.token.lookup_accessor(child["accessor"])["data"]["orphan"] is False
    program.auth.token.revoke_accessor(child["accessor"])
    assert not narrow.is_authenticated()
    if way == "approle":
        assert service.curl("DELETE", path, token=token).status == 200
    else:
        program.auth.token.revoke_self()
    assert not program.is_authenticated()


@pytest.fixture(scope="module")
def vault(service: Running, token: str) -> hvac.Client:
    return client_of(service, token)


def key(vault: hvac.Client, name: str, key_type: str = "aes256-gcm96", **options: Any) -> str:
    vault.write_data(f"transit/keys/{name}", data={"type": key_type, **options})  # hvac does not know every type
    return name


@pytest.mark.parametrize("key_type", ["aes128-gcm96", "chacha20-poly1305", "xchacha20-poly1305", "rsa-2048"])
def test_encryption(vault: hvac.Client, key_type: str) -> None:
    transit, name = vault.secrets.transit, key(vault, f"e-{key_type}", key_type)
    sealed = transit.encrypt_data(name=name, plaintext=b64(b"hello"))["data"]
    assert sealed["ciphertext"].startswith("vault:v1:")
    assert transit.decrypt_data(name=name, ciphertext=sealed["ciphertext"])["data"]["plaintext"] == b64(b"hello")
    transit.rotate_key(name=name)
    assert transit.decrypt_data(name=name, ciphertext=sealed["ciphertext"])["data"]["plaintext"] == b64(b"hello")
    anew = transit.rewrap_data(name=name, ciphertext=sealed["ciphertext"])["data"]["ciphertext"]
    assert anew.startswith("vault:v2:")
    assert transit.decrypt_data(name=name, ciphertext=anew)["data"]["plaintext"] == b64(b"hello")
    for wrong in ("vault:v1:AAAA", "vault:v3:" + anew.split(":")[2], "hello", "vault:v1:!!"):
        with pytest.raises(InvalidRequest):
            transit.decrypt_data(name=name, ciphertext=wrong)


def test_associated_data(service: Running, vault: hvac.Client) -> None:
    name = key(vault, "bound")
    body = {"plaintext": b64(b"x"), "associated_data": b64(b"order 42")}
    sealed = vault.write_data(f"transit/encrypt/{name}", data=body)["data"]["ciphertext"]
    opened = {"ciphertext": sealed, "associated_data": b64(b"order 42")}
    assert vault.write_data(f"transit/decrypt/{name}", data=opened)["data"]["plaintext"] == b64(b"x")
    with pytest.raises(InvalidRequest, match="message authentication failed"):
        vault.write_data(f"transit/decrypt/{name}", data={"ciphertext": sealed})


def test_batches(service: Running, vault: hvac.Client, token: str) -> None:
    name = key(vault, "batches")
    plain = [{"plaintext": b64(bytes([n])), "reference": str(n)} for n in range(3)]
    sealed = vault.secrets.transit.encrypt_data(name=name, batch_input=plain)["data"]["batch_results"]
    assert [each["reference"] for each in sealed] == ["0", "1", "2"]
    given = [{"ciphertext": each["ciphertext"]} for each in sealed]
    opened = vault.secrets.transit.decrypt_data(name=name, batch_input=given)["data"]["batch_results"]
    assert [each["plaintext"] for each in opened] == [each["plaintext"] for each in plain]
    given[1]["ciphertext"] = "vault:v1:AAAA"
    path = f"/v1/transit/decrypt/{name}"
    answer = service.curl("POST", path, {"batch_input": given}, token=token)
    results = answer.json["data"]["batch_results"]
    assert (answer.status, [sorted(each) for each in results]) == (400, [["plaintext"], ["error"], ["plaintext"]])
    body = {"batch_input": given, "partial_failure_response_code": 207}
    assert service.curl("POST", path, body, token=token).status == 207


def test_data_keys(vault: hvac.Client) -> None:
    name = key(vault, "data-keys")
    for bits in (128, 256, 512):
        made = vault.secrets.transit.generate_data_key(name=name, key_type="plaintext", bits=bits)["data"]
        assert len(unb64(made["plaintext"])) == bits // 8
        opened = vault.secrets.transit.decrypt_data(name=name, ciphertext=made["ciphertext"])["data"]
        assert opened["plaintext"] == made["plaintext"]
    wrapped = vault.secrets.transit.generate_data_key(name=name, key_type="wrapped")["data"]
    assert "plaintext" not in wrapped


def public_key(shown: str) -> Any:
    """The public key that Vault shows so: in PEM, or an Ed25519 key by its bytes."""
    if shown.startswith("-----"):
        return serialization.load_pem_public_key(shown.encode())
    return Ed25519PublicKey.from_public_bytes(unb64(shown))


SIGNING = ["ed25519", "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048"]


@pytest.mark.parametrize("key_type", SIGNING)
def test_signatures(vault: hvac.Client, key_type: str) -> None:
    transit, name = vault.secrets.transit, key(vault, f"s-{key_type}", key_type)
    shown = transit.read_key(name=name)["data"]
    assert shown["supports_signing"] is True
    public = public_key(shown["keys"]["1"]["public_key"])
    options: list[dict[str, Any]] = [{}]
    if key_type.startswith("ecdsa"):
        options.append({"marshaling_algorithm": "jws"})
    if key_type.startswith("rsa"):
        options += [{"signature_algorithm": "pkcs1v15"}, {"hash_algorithm": "sha2-512"}]
    for option in options:
        made = transit.sign_data(name=name, hash_input=b64(b"message"), **option)["data"]["signature"]
        good = transit.verify_signed_data(name=name, hash_input=b64(b"message"), signature=made, **option)
        assert good["data"]["valid"] is True
        bad = transit.verify_signed_data(name=name, hash_input=b64(b"another"), signature=made, **option)
        assert bad["data"]["valid"] is False
    signature = unb64(transit.sign_data(name=name, hash_input=b64(b"message"))["data"]["signature"].split(":")[2])
    if key_type == "ecdsa-p256":
        public.verify(signature, b"message", ec.ECDSA(hashes.SHA256()))
    elif key_type == "ed25519":
        public.verify(signature, b"message")
    elif key_type == "rsa-2048":
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO)
        public.verify(signature, b"message", pss, hashes.SHA256())


def test_codes(vault: hvac.Client) -> None:
    transit, name = vault.secrets.transit, key(vault, "codes", "hmac")
    made = transit.generate_hmac(name=name, hash_input=b64(b"message"), algorithm="sha2-256")["data"]["hmac"]
    assert made.startswith("vault:v1:")
    for message, valid in ((b"message", True), (b"another", False)):
        answer = transit.verify_signed_data(name=name, hash_input=b64(message), hmac=made, hash_algorithm="sha2-256")
        assert answer["data"]["valid"] is valid
    longer = transit.generate_hmac(name=name, hash_input=b64(b"message"), algorithm="sha2-512")["data"]["hmac"]
    assert len(unb64(longer.split(":")[2])) == 64


def test_random_and_hashes(vault: hvac.Client) -> None:
    transit = vault.secrets.transit
    assert len(unb64(transit.generate_random_bytes(n_bytes=16)["data"]["random_bytes"])) == 16
    assert len(transit.generate_random_bytes(n_bytes=16, output_format="hex")["data"]["random_bytes"]) == 32
    digest = hashes.Hash(hashes.SHA256())
    digest.update(b"message")
    answer = transit.hash_data(hash_input=b64(b"message"), algorithm="sha2-256", output_format="hex")
    assert answer["data"]["sum"] == digest.finalize().hex()


def test_the_life_of_a_key(vault: hvac.Client) -> None:
    transit, name = vault.secrets.transit, key(vault, "life", exportable=False)
    for _ in range(3):
        transit.rotate_key(name=name)
    shown = transit.read_key(name=name)["data"]
    assert (shown["type"], shown["latest_version"], sorted(shown["keys"])) == (
        "aes256-gcm96",
        4,
        ["1", "2", "3", "4"],
    )
    assert name in transit.list_keys()["data"]["keys"]
    first = transit.encrypt_data(name=name, plaintext=b64(b"x"))["data"]["ciphertext"]
    transit.update_key_configuration(name=name, min_decryption_version=3, auto_rotate_period="720h")
    shown = transit.read_key(name=name)["data"]
    assert (shown["min_decryption_version"], shown["auto_rotate_period"]) == (3, 720 * 3600)
    transit.trim_key(name=name, min_version=3)
    assert sorted(transit.read_key(name=name)["data"]["keys"]) == ["3", "4"]
    with pytest.raises(InvalidRequest):
        transit.trim_key(name=name, min_version=4)
    with pytest.raises(InvalidRequest, match="deletion is not allowed"):
        transit.delete_key(name=name)
    transit.update_key_configuration(name=name, deletion_allowed=True)
    vault.write(f"transit/keys/{name}/soft-delete")
    with pytest.raises(InvalidRequest):
        transit.decrypt_data(name=name, ciphertext=first)
    assert name not in transit.list_keys()["data"]["keys"]
    vault.write(f"transit/keys/{name}/soft-delete-restore")
    assert transit.decrypt_data(name=name, ciphertext=first)["data"]["plaintext"] == b64(b"x")
    transit.delete_key(name=name)
    with pytest.raises(InvalidPath):
        transit.read_key(name=name)
    key(vault, name, "rsa-2048")
    assert transit.read_key(name=name)["data"]["type"] == "rsa-2048"


def test_backup(vault: hvac.Client) -> None:
    name = key(vault, "kept")
    saved = vault.secrets.transit.backup_key(name=name)["data"]["backup"]
    with pytest.raises(InvalidRequest, match="already"):
        vault.secrets.transit.restore_key(backup=saved)


def test_export(service: Running, vault: hvac.Client) -> None:
    name = key(vault, "portable", exportable=True)
    with pytest.raises(Forbidden):
        vault.secrets.transit.export_key(name=name, key_type="encryption-key")
    grant = {"permission": "keys:export-plaintext", "subject": "client:vera", "key_pattern": name, "owner": "vera"}
    assert service.curl("POST", "/api/v1/grants", grant).status == 201
    exported = vault.secrets.transit.export_key(name=name, key_type="encryption-key")["data"]
    assert len(unb64(exported["keys"]["1"])) == 32
    fixed = key(vault, "fixed")
    with pytest.raises(InvalidRequest):
        vault.secrets.transit.export_key(name=fixed, key_type="encryption-key")


def test_keys_are_the_same_in_every_dialect(service: Running, vault: hvac.Client, token: str) -> None:
    assert service.curl("POST", "/generate_symmetric_key", {}, token=token).status == 200
    sealed = vault.secrets.transit.encrypt_data(name="vera_symmetric", plaintext=b64(b"x"))["data"]["ciphertext"]
    version, raw = int(sealed.split(":")[1][1:]), sealed.split(":")[2]
    body = {"ciphertext": raw, "format": "raw", "version": version}
    opened = service.curl("POST", "/api/v1/keys/vera_symmetric/decrypt", body, token=token)
    assert opened.json["plaintext"] == b64(b"x")
    service.curl("POST", "/revoke_key", {"key_id": "vera_symmetric"}, token=token)
    with pytest.raises(InvalidRequest, match="revoked"):
        vault.secrets.transit.decrypt_data(name="vera_symmetric", ciphertext=sealed)


def test_a_key_is_made_where_there_is_none(vault: hvac.Client) -> None:
    sealed = vault.secrets.transit.encrypt_data(name="on-the-fly", plaintext=b64(b"x"))["data"]["ciphertext"]
    assert vault.secrets.transit.decrypt_data(name="on-the-fly", ciphertext=sealed)["data"]["plaintext"] == b64(b"x")
    with pytest.raises(InvalidRequest, match="encryption key not found"):
        vault.secrets.transit.decrypt_data(name="nothing", ciphertext=sealed)


def test_others_keys_are_not_there(service: Running, vault: hvac.Client) -> None:
    other, name = client_of(service, service.user("viktor")), key(vault, "private")
    sealed = vault.secrets.transit.encrypt_data(name=name, plaintext=b64(b"x"))["data"]["ciphertext"]
    calls: list[Callable[[], Any]] = [
        lambda: other.secrets.transit.read_key(name=name),
        lambda: other.secrets.transit.encrypt_data(name=name, plaintext=b64(b"x")),
        lambda: other.secrets.transit.decrypt_data(name=name, ciphertext=sealed),
        lambda: other.secrets.transit.rotate_key(name=name),
        lambda: other.secrets.transit.sign_data(name=name, hash_input=b64(b"x")),
        lambda: other.secrets.transit.update_key_configuration(name=name, deletion_allowed=True),
        lambda: other.secrets.transit.list_keys(),
    ]
    for call in calls:
        with pytest.raises((InvalidPath, InvalidRequest)) as refused:
            call()
        assert "private" not in str(refused.value.errors) or "There is no key" in str(refused.value.errors)


def test_tokens(service: Running) -> None:
    enrolled = service.enrol("vince")

    vault = client_of(service, "")
    code = pyotp.TOTP(enrolled["totp_secret"]).now()
    path = "auth/userpass/login/vince"
    with pytest.raises(InvalidRequest):
        vault.write_data(path, data={"password": enrolled["client_secret"]})
    with pytest.raises(Forbidden):
        vault.write_data(path, data={"password": "wrong", "totp": code})
    auth = vault.write_data(path, data={"password": enrolled["client_secret"], "totp": code})["auth"]
    with pytest.raises(Forbidden):  # a code works once
        vault.write_data(path, data={"password": enrolled["client_secret"], "totp": code})
    vault.token = auth["client_token"]
    assert vault.is_authenticated()
    shown = vault.auth.token.lookup_self()["data"]
    assert shown["meta"] == {"username": "vince"}
    assert 0 < shown["ttl"] <= 3600
    assert shown["id"] == vault.token
    with pytest.raises(InvalidRequest, match="lease is not renewable"):
        vault.auth.token.renew_self()
    key(vault, "of-vince")
    answer = vault.sys.get_capabilities(paths=["transit/encrypt/of-vince", "transit/encrypt/nothing", "secret/x"])
    assert answer["data"]["transit/encrypt/of-vince"] == ["update"]
    assert answer["data"]["transit/encrypt/nothing"] == answer["data"]["secret/x"] == ["deny"]
    vault.auth.token.revoke_self()
    assert not vault.is_authenticated()
    with pytest.raises(Forbidden):
        vault.secrets.transit.list_keys()


def test_the_system(service: Running, vault: hvac.Client) -> None:
    assert vault.sys.is_initialized()
    vault.secrets.transit.create_key(name="by-hvac", key_type="ecdsa-p256")
    assert vault.sys.is_sealed() is False
    assert vault.sys.read_health_status(method="GET")["sealed"] is False
    assert vault.sys.list_mounted_secrets_engines()["data"]["transit/"]["type"] == "transit"
    assert service.curl("GET", "/v1/sys/health", token="").status == 200
    assert service.curl("GET", "/v1/sys/mounts", token="").status == 403


def test_what_does_not_fit_is_refused(service: Running, vault: hvac.Client, token: str) -> None:
    name = key(vault, "odd")
    for body in ({}, {"plaintext": "!"}, {"plaintext": 5}, {"plaintext": "", "context": "AAAA"}, {"batch_input": []}):
        answer = service.curl("POST", f"/v1/transit/encrypt/{name}", body, token=token)
        assert (answer.status, list(answer.json)) == (400, ["errors"]), body
    for path, status in (
        ("/v1/transit/nothing", 404),
        ("/v1/secret/data/x", 404),
        ("/v1/transit/keys/%00", 404),
        ("/v1/transit/keys/" + "x" * 600, 404),
        ("/v1/transit/export/other-key/odd", 400),
    ):
        assert service.curl("GET", path, token=token).status == status, path
    for name_ in ("a%20b", "%00", "%C3%A9", "-x", "x" * 129):
        for made in (f"/v1/transit/keys/{name_}", f"/v1/transit/encrypt/{name_}"):
            assert service.curl("POST", made, {"plaintext": ""}, token=token).status in (400, 404), made
    for length in ("00000019999999999", "65537", "0", "-1", "9" * 50):
        assert service.curl("POST", f"/v1/transit/random/{length}", {}, token=token).status == 400, length
    garbage = service.curl("POST", f"/v1/transit/encrypt/{name}", None, "-d", "{", token=token)
    assert garbage.json == {"errors": ["error parsing JSON"]}
    assert service.curl("POST", f"/v1/transit/encrypt/{name}", {}, token="").status == 403
    long = ["-d", json.dumps({"password": "x" * 25_000})]
    assert service.curl("POST", "/v1/auth/userpass/login/x", None, *long, token="").status == 413
    with pytest.raises(InvalidRequest):
        key(vault, "neither", convergent_encryption=True)
    with pytest.raises(InvalidRequest):
        key(vault, "strange", "strange")


def test_an_entry_for_every_request(service: Running, vault: hvac.Client) -> None:
    name = key(vault, "recorded")
    vault.secrets.transit.encrypt_data(name=name, plaintext="")
    with pytest.raises(InvalidRequest):
        vault.secrets.transit.decrypt_data(name=name, ciphertext="x")
    entries = service.curl("GET", "/api/v1/audit/entries?limit=3").json["items"]
    assert [(each["operation"], each["outcome"]) for each in entries] == [
        ("create_key", "success"),
        ("encrypt", "success"),
        ("decrypt", "success"),
    ]
    assert (entries[2]["items"], entries[2]["refused"]) == (1, 1)


def test_the_how_to_is_run_as_it_is_pasted(service: Running) -> None:
    page = "docs/how-to/vault-clients.md"
    sections = ("Get a token", "With Python", "With curl")
    script = "".join(block for section in sections for block in blocks(page, section))
    script = script.replace("kms login\n", "kms login --credentials admin.json\n").replace("pip install hvac", ":")
    printed = run(service, script).splitlines()
    assert printed[-2] == "b'hello'"
    assert json.loads(printed[-1])["data"]["ciphertext"].startswith("vault:v1:")
