"""Keys of origin EXTERNAL with an unmodified boto3: material comes wrapped as AWS's tools wrap it."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_public_key,
)

from helpers.aws_client import Account, Kms
from helpers.running import Running, Start

FOREVER = {"ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE"}


@pytest.fixture(scope="module")
def account(start: Start) -> Account:
    service: Running = start("--workers", "2", "--rate-limit", "off")
    return Account(service, service.user("amy"))


@pytest.fixture(scope="module")
def kms(account: Account) -> Kms:
    return account.kms()


def parcel(
    kms: Kms, key: str, material: bytes, algorithm: str = "RSAES_OAEP_SHA_256", spec: str = "RSA_2048"
) -> dict[str, Any]:
    """What ImportKeyMaterial takes: the token, and the material as a client wraps it."""
    given = kms.get_parameters_for_import(KeyId=key, WrappingAlgorithm=algorithm, WrappingKeySpec=spec)
    public: Any = load_der_public_key(given["PublicKey"])
    assert public.key_size == int(spec[4:])
    digest = hashes.SHA1() if algorithm.endswith("SHA_1") else hashes.SHA256()
    oaep = padding.OAEP(padding.MGF1(digest), digest, None)
    if algorithm.startswith("RSAES"):
        wrapped = public.encrypt(material, oaep)
    else:
        kek = os.urandom(32)
        wrapped = public.encrypt(kek, oaep) + aes_key_wrap_with_padding(kek, material)
    return {"KeyId": key, "ImportToken": given["ImportToken"], "EncryptedKeyMaterial": wrapped}


def state(kms: Kms, key: str) -> str:
    return str(kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"])


@pytest.mark.parametrize("spec", ["RSA_2048", "RSA_3072", "RSA_4096"])
@pytest.mark.parametrize(
    "algorithm",
    ["RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256", "RSA_AES_KEY_WRAP_SHA_1", "RSA_AES_KEY_WRAP_SHA_256"],
)
def test_material_comes_under_every_wrapping(kms: Kms, algorithm: str, spec: str) -> None:
    key, material = kms.key(Origin="EXTERNAL"), os.urandom(32)
    assert state(kms, key) == "PendingImport"
    assert kms.refusal("encrypt", KeyId=key, Plaintext=b"x")[0] == "KMSInvalidStateException"
    kms.import_key_material(**parcel(kms, key, material, algorithm, spec), **FOREVER)
    shown = kms.describe_key(KeyId=key)["KeyMetadata"]
    assert (shown["KeyState"], shown["Origin"]) == ("Enabled", "EXTERNAL")
    assert shown["ExpirationModel"] == "KEY_MATERIAL_DOES_NOT_EXPIRE"
    sealed = kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    assert kms.decrypt(CiphertextBlob=sealed)["Plaintext"] == b"x"


def test_material_goes_and_comes_again(kms: Kms) -> None:
    key, material = kms.key(Origin="EXTERNAL"), os.urandom(32)
    kms.import_key_material(**parcel(kms, key, material), **FOREVER)
    sealed = kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    for _ in range(2):  # deleting what is gone changes nothing
        kms.delete_imported_key_material(KeyId=key)
    assert state(kms, key) == "PendingImport"
    grant = {"KeyId": key, "GranteePrincipal": "arn:aws:iam::000000000000:user/amy", "Operations": ["Encrypt"]}
    for name, given in (
        ("decrypt", {"CiphertextBlob": sealed}),
        ("disable_key", {"KeyId": key}),
        ("enable_key", {"KeyId": key}),
        ("create_grant", grant),
    ):
        assert kms.refusal(name, **given)[0] == "KMSInvalidStateException", name
    other = parcel(kms, key, os.urandom(32))
    assert kms.refusal("import_key_material", **other, **FOREVER)[0] == "IncorrectKeyMaterialException"
    kms.import_key_material(**parcel(kms, key, material), **FOREVER)
    assert kms.decrypt(CiphertextBlob=sealed)["Plaintext"] == b"x"


def test_material_expires(kms: Kms) -> None:
    key, until = kms.key(Origin="EXTERNAL"), datetime.now(UTC) + timedelta(days=1)
    kms.import_key_material(**parcel(kms, key, os.urandom(32)), ValidTo=until)
    shown = kms.describe_key(KeyId=key)["KeyMetadata"]
    assert shown["ExpirationModel"] == "KEY_MATERIAL_EXPIRES"
    assert abs(shown["ValidTo"] - until) < timedelta(seconds=1)


NEW = {"ImportType": "NEW_KEY_MATERIAL", **FOREVER}
ALL = {"IncludeKeyMaterial": "ALL_KEY_MATERIAL"}


def current(kms: Kms, key: str) -> str:
    return str(kms.describe_key(KeyId=key)["KeyMetadata"]["CurrentKeyMaterialId"])


def test_new_material_waits_for_a_rotation(kms: Kms) -> None:
    key = kms.key(Origin="EXTERNAL")
    made = kms.describe_key(KeyId=key)["KeyMetadata"]
    arn = made["Arn"]
    assert "CurrentKeyMaterialId" not in made
    assert kms.refusal("rotate_key_on_demand", KeyId=key) == (
        "KMSInvalidStateException",
        f"{arn} is pending import.",
    )
    materials = [os.urandom(32) for _ in range(3)]
    first = kms.import_key_material(**parcel(kms, key, materials[0]), **NEW)["KeyMaterialId"]
    old = kms.encrypt(KeyId=key, Plaintext=b"old")["CiphertextBlob"]
    assert kms.refusal("rotate_key_on_demand", KeyId=key) == (
        "KMSInvalidStateException",
        f"No available key material pending rotation for the key: {arn}.",
    )
    assert kms.refusal("import_key_material", **parcel(kms, key, materials[0]), **NEW)[0] == (
        "IncorrectKeyMaterialException"
    )
    second = kms.import_key_material(**parcel(kms, key, materials[1]), **NEW)["KeyMaterialId"]
    assert kms.import_key_material(**parcel(kms, key, materials[1]), **NEW)["KeyMaterialId"] == second
    assert current(kms, key) == first != second
    code, message = kms.refusal("import_key_material", **parcel(kms, key, materials[2]), **NEW)
    assert code == "KMSInvalidStateException"
    assert f"because another key material (id: {second}) is pending rotation." in message
    waiting, made = kms.list_key_rotations(KeyId=key, **ALL)["Rotations"]
    assert (waiting["KeyMaterialId"], waiting["KeyMaterialState"]) == (second, "PENDING_ROTATION")
    assert (made["KeyMaterialId"], made["KeyMaterialState"], made["ImportState"]) == (first, "CURRENT", "IMPORTED")
    assert not {"RotationDate", "RotationType"} & (set(waiting) | set(made))
    assert kms.list_key_rotations(KeyId=key)["Rotations"] == []
    page = kms.list_key_rotations(KeyId=key, Limit=1, **ALL)
    assert [each["KeyMaterialId"] for each in page["Rotations"]] == [second]
    page = kms.list_key_rotations(KeyId=key, Limit=1, Marker=page["NextMarker"], **ALL)
    assert ([each["KeyMaterialId"] for each in page["Rotations"]], page["Truncated"]) == ([first], False)

    assert kms.rotate_key_on_demand(KeyId=key) == {"KeyId": arn}
    assert current(kms, key) == second
    new = kms.encrypt(KeyId=key, Plaintext=b"new")["CiphertextBlob"]
    for sealed, plain, material in ((old, b"old", first), (new, b"new", second)):
        opened = kms.decrypt(CiphertextBlob=sealed)
        assert (opened["Plaintext"], opened["KeyMaterialId"]) == (plain, material)
    rotations = kms.list_key_rotations(KeyId=key, **ALL)["Rotations"]
    assert [(each["KeyMaterialState"], "RotationDate" in each) for each in rotations] == [
        ("CURRENT", True),
        ("NON_CURRENT", False),
    ]
    assert kms.refusal("rotate_key_on_demand", KeyId=key)[0] == "KMSInvalidStateException"


def test_each_material_goes_and_comes_again_by_its_id(kms: Kms) -> None:
    key, materials = kms.key(Origin="EXTERNAL"), [os.urandom(32) for _ in range(3)]
    first = kms.import_key_material(**parcel(kms, key, materials[0]), **FOREVER)["KeyMaterialId"]
    old = kms.encrypt(KeyId=key, Plaintext=b"old")["CiphertextBlob"]
    second = kms.import_key_material(**parcel(kms, key, materials[1]), **NEW)["KeyMaterialId"]
    # What waits can be deleted, and other material take its place.
    assert kms.delete_imported_key_material(KeyId=key, KeyMaterialId=second)["KeyMaterialId"] == second
    assert state(kms, key) == "Enabled"
    third = kms.import_key_material(**parcel(kms, key, materials[2]), **NEW)["KeyMaterialId"]
    kms.rotate_key_on_demand(KeyId=key)
    assert kms.delete_imported_key_material(KeyId=key, KeyMaterialId=first)["KeyMaterialId"] == first
    assert kms.refusal("decrypt", CiphertextBlob=old)[0] == "KMSInvalidStateException"
    listed = kms.list_key_rotations(KeyId=key, **ALL)["Rotations"]
    assert {each["KeyMaterialId"]: each["ImportState"] for each in listed} == {
        third: "IMPORTED",
        first: "PENDING_IMPORT",
    }
    again = parcel(kms, key, materials[0])
    assert kms.refusal("import_key_material", **again, **FOREVER, KeyMaterialId=third)[0] == (
        "IncorrectKeyMaterialException"
    )
    assert kms.refusal("import_key_material", **again, **FOREVER, KeyMaterialId="0" * 64)[0] == "NotFoundException"
    assert kms.import_key_material(**again, **FOREVER)["KeyMaterialId"] == first
    assert kms.decrypt(CiphertextBlob=old)["Plaintext"] == b"old"
    kms.delete_imported_key_material(KeyId=key)
    assert (state(kms, key), current(kms, key)) == ("PendingImport", third)
    assert kms.refusal("encrypt", KeyId=key, Plaintext=b"x")[0] == "KMSInvalidStateException"
    unknown = parcel(kms, key, os.urandom(32))
    assert kms.refusal("import_key_material", **unknown, **FOREVER)[0] == "IncorrectKeyMaterialException"
    kms.schedule_key_deletion(KeyId=key)
    kms.delete_imported_key_material(KeyId=key, KeyMaterialId=first)
    assert state(kms, key) == "PendingDeletion"


def test_which_keys_take_new_material(kms: Kms) -> None:
    key = kms.key(Origin="EXTERNAL", KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC")
    existing = {"ImportType": "EXISTING_KEY_MATERIAL", **FOREVER}
    first = parcel(kms, key, os.urandom(32))
    assert kms.refusal("import_key_material", **first, **existing)[0] == "IncorrectKeyMaterialException"
    assert "KeyMaterialId" not in kms.import_key_material(**first, **NEW)
    other = parcel(kms, key, os.urandom(32))
    assert kms.refusal("import_key_material", **other, **NEW)[0] == "UnsupportedOperationException"
    assert kms.refusal("import_key_material", **other, **NEW, KeyMaterialId="0" * 64)[0] == "ValidationException"
    too_late = datetime.now(UTC) + timedelta(days=366)
    assert kms.refusal("import_key_material", **other, ValidTo=too_late)[0] == "ValidationException"


def test_a_key_pair_comes_as_pkcs8(kms: Kms) -> None:
    pair = ec.generate_private_key(ec.SECP256R1())
    encoded = pair.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    key = kms.key(Origin="EXTERNAL", KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")
    kms.import_key_material(**parcel(kms, key, encoded, "RSA_AES_KEY_WRAP_SHA_256"), **FOREVER)
    signature = kms.sign(KeyId=key, Message=b"m", SigningAlgorithm="ECDSA_SHA_256")["Signature"]
    pair.public_key().verify(signature, b"m", ec.ECDSA(hashes.SHA256()))


def test_what_is_not_taken(kms: Kms) -> None:
    key, other, own = kms.key(Origin="EXTERNAL"), kms.key(Origin="EXTERNAL"), kms.key()
    parameters = {"WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_2048"}
    assert kms.refusal("get_parameters_for_import", KeyId=own, **parameters)[0] == "UnsupportedOperationException"
    for wrong in ({"WrappingAlgorithm": "RSAES_PKCS1_V1_5"}, {"WrappingKeySpec": "SM2"}):
        refused = kms.refusal("get_parameters_for_import", KeyId=key, **{**parameters, **wrong})
        assert refused[0] == "UnsupportedOperationException"
    good = parcel(kms, key, os.urandom(32))
    for code, wrong_import in (
        ("InvalidImportTokenException", {"KeyId": other, **FOREVER}),
        ("InvalidImportTokenException", {"ImportToken": b"x", **FOREVER}),
        ("ValidationException", {}),
        ("ValidationException", {"ValidTo": 1}),
        ("ValidationException", {"ValidTo": 4e9, **FOREVER}),
        ("InvalidCiphertextException", {"EncryptedKeyMaterial": b"x" * 256, **FOREVER}),
    ):
        assert kms.refusal("import_key_material", **{**good, **wrong_import})[0] == code, wrong_import
    short = parcel(kms, key, b"short")
    assert kms.refusal("import_key_material", **short, **FOREVER)[0] == "IncorrectKeyMaterialException"
    kms.import_key_material(**good, **FOREVER)
    assert kms.refusal("import_key_material", **good, **FOREVER)[0] == "ExpiredImportTokenException"
    assert kms.refusal("enable_key_rotation", KeyId=key)[0] == "UnsupportedOperationException"
