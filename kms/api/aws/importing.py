"""Keys of origin EXTERNAL in the AWS dialect: their material comes wrapped, can be deleted, and can come again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta

from kms.access.ratelimit import RateClass
from kms.api.aws import specs
from kms.api.aws.faults import Fault
from kms.api.aws.request import AwsRequest, action, seconds
from kms.api.aws.shapes import Ciphertext, KeyInput
from kms.crypto.pkcs8 import der_of_pem
from kms.errors import Conflict, DecryptionFailed, KeyStateConflict, NotFound, ValidationFailed
from kms.keys.model import ExternalMaterial, Key, Origin
from kms.operations.keys.views import KeyView, VersionView
from kms.operations.transfer.external import DeleteMaterialRequest, ImportMaterialRequest
from kms.operations.transfer.importing import WrappingKeyRequest

_ALGORITHMS = {
    "RSAES_OAEP_SHA_1": "RSA-OAEP",
    "RSAES_OAEP_SHA_256": "RSA-OAEP-256",
    "RSA_AES_KEY_WRAP_SHA_1": "RSA_AES_KEY_WRAP_SHA_1",
    "RSA_AES_KEY_WRAP_SHA_256": "RSA_AES_KEY_WRAP_SHA_256",
}
_BITS = {"RSA_2048": 2048, "RSA_3072": 3072, "RSA_4096": 4096}
_LONGEST_LOAN = timedelta(days=365)
MaterialId = Annotated[str, Meta(min_length=64, max_length=64, pattern=r"^[a-f0-9]+\Z")]


class GetParametersForImportInput(KeyInput, kw_only=True):
    """GetParametersForImport."""

    wrapping_algorithm: Literal[
        "RSAES_PKCS1_V1_5", "RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256", "RSA_AES_KEY_WRAP_SHA_1",
        "RSA_AES_KEY_WRAP_SHA_256", "SM2PKE",
    ]  # fmt: skip
    wrapping_key_spec: Literal["RSA_2048", "RSA_3072", "RSA_4096", "SM2"]


class ImportKeyMaterialInput(KeyInput, kw_only=True):
    """ImportKeyMaterial."""

    import_token: Ciphertext
    encrypted_key_material: Ciphertext
    valid_to: float | None = None
    expiration_model: Literal["KEY_MATERIAL_EXPIRES", "KEY_MATERIAL_DOES_NOT_EXPIRE"] = "KEY_MATERIAL_EXPIRES"
    import_type: Literal["NEW_KEY_MATERIAL", "EXISTING_KEY_MATERIAL"] | None = None
    key_material_description: Annotated[str, Meta(max_length=256)] | None = None
    key_material_id: MaterialId | None = None


class DeleteImportedKeyMaterialInput(KeyInput, kw_only=True):
    """DeleteImportedKeyMaterial."""

    key_material_id: MaterialId | None = None


@action("GetParametersForImport", GetParametersForImportInput, RateClass.GENERATE)
def get_parameters_for_import(aws: AwsRequest, given: GetParametersForImportInput) -> Mapping[str, Any]:
    """Give a public key under which the material of this key can come, once, within a day."""
    key = _external(aws, given.key_id)
    aws.require_no_denial(key)
    aws.require_no_deletion(key)
    algorithm, bits = _ALGORITHMS.get(given.wrapping_algorithm), _BITS.get(given.wrapping_key_spec)
    if algorithm is None or bits is None:
        wanted = f"{given.wrapping_algorithm} with {given.wrapping_key_spec}"
        raise Fault("UnsupportedOperationException", f"Keys are not wrapped with {wanted} here.")
    request = WrappingKeyRequest(algorithm=algorithm, bits=bits)  # type: ignore[arg-type]  # both come from the tables
    answer = aws.run("create_wrapping_key", request)
    return {
        "KeyId": aws.names.key_arn(key.key_id),
        "ImportToken": f"{answer.wrapping_key_id}/{key.uid.hex()}".encode(),
        "PublicKey": der_of_pem(answer.public_key, "public_key"),
        "ParametersValidTo": seconds(answer.expires_at),
    }


@action("ImportKeyMaterial", ImportKeyMaterialInput, RateClass.GENERATE)
def import_key_material(aws: AwsRequest, given: ImportKeyMaterialInput) -> Mapping[str, Any]:
    """Give a key its material: any at first, later the same again, or new material for its next rotation."""
    key = _external(aws, given.key_id)
    aws.require_no_deletion(key)
    arn = aws.names.key_arn(key.key_id)
    _require_expiration(given)
    if given.key_material_description is not None:
        raise Fault("UnsupportedOperationException", "KeyMaterial has no description here.")
    view = aws.view(key)
    is_new = given.import_type == "NEW_KEY_MATERIAL"
    _require_type(aws, key, view, given)
    token, _, uid = given.import_token.partition(b"/")
    if uid != key.uid.hex().encode() or not token.isalnum():
        raise Fault("InvalidImportTokenException", f"The import token is not one for {arn}.")
    request = ImportMaterialRequest(
        wrapping_key_id=token.decode("ascii"),
        wrapped_key=given.encrypted_key_material,
        valid_until=_moment(aws, given.valid_to) if given.valid_to is not None else None,
        next_version=is_new,
        version=_named(aws, key, view, given.key_material_id).version if given.key_material_id else None,
    )
    try:
        made = aws.run("import_material", request, key_id=key.key_id)
    except NotFound:
        raise Fault("ExpiredImportTokenException", "The import token was used, or it has expired.") from None
    except DecryptionFailed:
        raise Fault("InvalidCiphertextException", "", problem="decryption-failed") from None
    except ValidationFailed as refusal:
        raise Fault("IncorrectKeyMaterialException", refusal.detail) from None
    except Conflict as refusal:
        raise Fault("IncorrectKeyMaterialException", refusal.detail, problem=refusal.problem) from None
    except KeyStateConflict as refusal:
        raise _other_is_pending(aws, key) or refusal from None
    return {"KeyId": arn, **aws.material(key, made.imported_version)}


@action("DeleteImportedKeyMaterial", DeleteImportedKeyMaterialInput)
def delete_imported_key_material(aws: AwsRequest, given: DeleteImportedKeyMaterialInput) -> Mapping[str, Any]:
    """Forget material of a key at once; it can come again. What waits for a rotation is forgotten altogether."""
    key = _external(aws, given.key_id)
    view = aws.view(key)
    version = _named(aws, key, view, given.key_material_id) if given.key_material_id else view.versions[-1]
    told = {"KeyId": aws.names.key_arn(key.key_id), **aws.material(key, version.version)}
    if version.external_material is ExternalMaterial.PRESENT:
        aws.run("delete_material", DeleteMaterialRequest(version=version.version), key_id=key.key_id)
    return told


def is_external(view: KeyView) -> bool:
    """Whether the material of a key is kept elsewhere."""
    return view.versions[-1].external_material is not UNSET


def expiration(view: KeyView) -> dict[str, Any]:
    """The members of KeyMetadata about the material of an external key that has it: the first that expires."""
    if view.pending_import or view.origin is not Origin.IMPORTED:
        return {}
    ends = [end for each in view.versions if isinstance(end := each.material_expires_at, datetime)]
    return _model(min(ends, default=None))


def expiration_of(version: VersionView) -> dict[str, Any]:
    """The members of a list of rotations about the material of one version."""
    until = version.material_expires_at
    return _model(until if isinstance(until, datetime) else None)


def _model(until: datetime | None) -> dict[str, Any]:
    if until is None:
        return {"ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE"}
    return {"ExpirationModel": "KEY_MATERIAL_EXPIRES", "ValidTo": seconds(until)}


def _named(aws: AwsRequest, key: Key, view: KeyView, material_id: str) -> VersionView:
    """The version of a key whose material has that name. Raises Fault."""
    pending = [] if view.pending_rotation is UNSET else [view.pending_rotation]
    for each in (*view.versions, *pending):
        if aws.names.material_id(key, each.version) == material_id:
            return each
    arn = aws.names.key_arn(key.key_id)
    raise Fault("NotFoundException", f"{arn} has no material {material_id}.", problem="not-found")


def _require_type(aws: AwsRequest, key: Key, view: KeyView, given: ImportKeyMaterialInput) -> None:
    """Raise Fault for an ImportType that does not go with the key, or with what else is given."""
    is_first = view.versions[-1].external_material is ExternalMaterial.AWAITED
    if given.import_type == "EXISTING_KEY_MATERIAL" and is_first:
        raise Fault("IncorrectKeyMaterialException", "No material was imported into this key before.")
    if given.import_type != "NEW_KEY_MATERIAL":
        return
    if given.key_material_id is not None:
        raise Fault("ValidationException", "KeyMaterialId cannot be specified with ImportType NEW_KEY_MATERIAL.")
    aws.require_primary(key)
    if not is_first and specs.spec_of(key.type) != specs.SYMMETRIC:
        raise Fault("UnsupportedOperationException", "Only symmetric encryption keys take new material.")


def _other_is_pending(aws: AwsRequest, key: Key) -> Fault | None:
    """The fault of new material where other waits for its rotation already, None where none does."""
    pending = aws.view(key).pending_rotation
    if pending is UNSET:
        return None
    waiting = aws.names.material_id(key, pending.version)
    return Fault(
        "KMSInvalidStateException",
        f"New key material cannot be imported into KMS key {aws.names.key_arn(key.key_id)}, because another key "
        f"material (id: {waiting}) is pending rotation.",
        problem="key-state",
    )


def _require_expiration(given: ImportKeyMaterialInput) -> None:
    """Raise Fault for a date without the model that has one, and for that model without a date."""
    expires = given.expiration_model == "KEY_MATERIAL_EXPIRES"
    if expires and given.valid_to is None:
        raise Fault(
            "ValidationException", "A validTo date must be set if the ExpirationModel is KEY_MATERIAL_EXPIRES"
        )
    if not expires and given.valid_to is not None:
        raise Fault(
            "ValidationException", f"A validTo date cannot be set if the ExpirationModel is {given.expiration_model}"
        )


def _external(aws: AwsRequest, given: str) -> Key:
    key = aws.key_without_alias(given)
    if key.origin is not Origin.IMPORTED:
        raise aws.wrong_origin(key)
    return key


def _moment(aws: AwsRequest, at: float) -> datetime:
    now = aws.service.clock()
    if not now.timestamp() < at <= (now + _LONGEST_LOAN).timestamp():
        raise Fault("ValidationException", "ValidTo must be a time in the future, and within 365 days.")
    return datetime.fromtimestamp(at, UTC)
