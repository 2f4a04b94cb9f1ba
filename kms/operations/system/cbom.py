"""Keys and algorithms as a cryptography bill of materials in CycloneDX 1.6 (ECMA-424).

The library writes the document and the algorithms. Of keys there can be a hundred thousand, and each would take it
more than a millisecond: they are written here, and the tests have the library read them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from cyclonedx.model import Property as LibraryProperty
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.crypto import (
    AlgorithmProperties,
    CryptoAssetType,
    CryptoFunction,
    CryptoMode,
    CryptoPrimitive,
    CryptoProperties,
)
from cyclonedx.output.json import JsonV1Dot6
from msgspec import UNSET, UnsetType

from kms import __version__
from kms.crypto.elliptic import CURVES
from kms.crypto.keytype import KeyType, SecretKeyType
from kms.crypto.quantum import Strength
from kms.crypto.registry import key_type
from kms.keys.lifecycle import effective_state
from kms.keys.model import Key, KeyVersion, Usage
from kms.operations.system.post_quantum import secret_bits, strength_of

_PRIMITIVES = (
    (Usage.ENCAPSULATE, CryptoPrimitive.KEM),
    (Usage.AGREE, CryptoPrimitive.KEY_AGREE),
    (Usage.SEAL, CryptoPrimitive.PKE),
    (Usage.MAC, CryptoPrimitive.MAC),
    (Usage.DERIVE, CryptoPrimitive.KDF),
    (Usage.WRAP, CryptoPrimitive.KEY_WRAP),
    (Usage.SIGN, CryptoPrimitive.SIGNATURE),
)
_FUNCTIONS = {
    Usage.ENCRYPT: CryptoFunction.ENCRYPT,
    Usage.DECRYPT: CryptoFunction.DECRYPT,
    Usage.SIGN: CryptoFunction.SIGN,
    Usage.VERIFY: CryptoFunction.VERIFY,
    Usage.MAC: CryptoFunction.TAG,
    Usage.VERIFY_MAC: CryptoFunction.VERIFY,
    Usage.WRAP: CryptoFunction.ENCRYPT,
    Usage.UNWRAP: CryptoFunction.DECRYPT,
    Usage.DERIVE: CryptoFunction.KEYDERIVE,
    Usage.AGREE: CryptoFunction.KEYDERIVE,
    Usage.ENCAPSULATE: CryptoFunction.ENCAPSULATE,
    Usage.DECAPSULATE: CryptoFunction.DECAPSULATE,
    Usage.SEAL: CryptoFunction.ENCRYPT,
    Usage.OPEN: CryptoFunction.DECRYPT,
}
_CURVE_OF = {"ed25519": "Ed25519", "ed448": "Ed448", "x25519": "Curve25519", "x448": "Curve448"}
_CURVE_OF |= {f"ec-{curve.lower().replace('-', '')}": curve for curve in CURVES}
_SERVICE = "kms"


@dataclass(frozen=True, slots=True)
class _Algorithm:
    """An algorithm as keys use it: a type, for one purpose, at one strength."""

    kind: str
    primitive: CryptoPrimitive
    functions: frozenset[CryptoFunction]
    strength: Strength

    @property
    def ref(self) -> str:
        """Its reference, the same in every page."""
        functions = "+".join(sorted(each.value for each in self.functions))
        return f"algorithm/{self.kind}/{functions}/{self.strength.classical_bits}-{self.strength.category}"


class _Property(msgspec.Struct, frozen=True):
    name: str
    value: str


class _SecuredBy(msgspec.Struct, frozen=True, rename="camel"):
    mechanism: str
    algorithm_ref: str


class _Material(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    type: str
    id: str
    state: str
    size: int
    algorithm_ref: str
    secured_by: _SecuredBy | UnsetType
    creation_date: datetime
    activation_date: datetime
    update_date: datetime | UnsetType
    expiration_date: datetime


class _CryptoProperties(msgspec.Struct, frozen=True, rename="camel"):
    related_crypto_material_properties: _Material
    asset_type: str = CryptoAssetType.RELATED_CRYPTO_MATERIAL.value


class _Component(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    bom_ref: str = msgspec.field(name="bom-ref")
    type: str = ComponentType.CRYPTOGRAPHIC_ASSET.value
    name: str
    version: str
    crypto_properties: _CryptoProperties
    properties: list[_Property]


class _Dependency(msgspec.Struct, frozen=True, rename="camel"):
    ref: str
    depends_on: list[str]


_AT_REST = key_type("aes-256-gcm")
"""What seals material in the vault (kms/vault/sealing.py)."""


def bill_of_materials(
    held: Sequence[tuple[Key, KeyVersion]], last_used: dict[bytes, datetime], now: datetime
) -> dict[str, Any]:
    """The document about these versions, with every algorithm that they use, and that which seals them."""
    at_rest = _algorithm(_AT_REST, frozenset({Usage.ENCRYPT, Usage.DECRYPT}), _AT_REST.strength)
    algorithms = {at_rest.ref: at_rest}
    components, dependencies = [], []
    for key, version in held:
        algorithm = _algorithm(key_type(version.type), key.usages, strength_of(key, version))
        algorithms[algorithm.ref] = algorithm
        component = _key(key, version, algorithm, at_rest, last_used.get(key.uid), now)
        components.append(component)
        dependencies.append(_Dependency(component.bom_ref, [algorithm.ref]))
    document = _document(algorithms.values(), now)
    document["components"] += components
    document["dependencies"] += dependencies
    return document


def _document(algorithms: Iterable[_Algorithm], now: datetime) -> dict[str, Any]:
    """What the library writes: the frame, the service itself, and the algorithms."""
    service = Component(name=_SERVICE, version=__version__, type=ComponentType.APPLICATION, bom_ref=_SERVICE)
    components = [_described(each) for each in algorithms]
    bom = Bom(metadata=BomMetaData(timestamp=now, component=service), components=components)
    bom.register_dependency(service, components)
    document: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    return document


def _algorithm(kind: KeyType, usages: frozenset[Usage], strength: Strength) -> _Algorithm:
    functions = frozenset(_FUNCTIONS[usage] for usage in usages)
    return _Algorithm(kind.name, _primitive(kind, usages), functions, strength)


def _primitive(kind: KeyType, usages: frozenset[Usage]) -> CryptoPrimitive:
    if usages & {Usage.ENCRYPT, Usage.DECRYPT}:
        return CryptoPrimitive.AE if isinstance(kind, SecretKeyType) else CryptoPrimitive.PKE
    halves = {Usage.UNWRAP: Usage.WRAP, Usage.VERIFY: Usage.SIGN, Usage.VERIFY_MAC: Usage.MAC}
    halves |= {Usage.DECAPSULATE: Usage.ENCAPSULATE, Usage.OPEN: Usage.SEAL}
    whole = {halves.get(usage, usage) for usage in usages}
    return next((primitive for usage, primitive in _PRIMITIVES if usage in whole), CryptoPrimitive.UNKNOWN)


def _described(algorithm: _Algorithm) -> Component:
    kind, strength = key_type(algorithm.kind), algorithm.strength
    return Component(
        name=kind.name,
        description=kind.title,
        type=ComponentType.CRYPTOGRAPHIC_ASSET,
        bom_ref=algorithm.ref,
        properties=[
            LibraryProperty(name="kms:standard", value=kind.standard),
            LibraryProperty(name="kms:strength_source", value=strength.source),
        ],
        crypto_properties=CryptoProperties(
            asset_type=CryptoAssetType.ALGORITHM,
            algorithm_properties=AlgorithmProperties(
                primitive=algorithm.primitive,
                parameter_set_identifier=_parameter_set(kind),
                curve=_CURVE_OF.get(kind.name),
                mode=_mode(kind),
                crypto_functions=algorithm.functions,
                classical_security_level=strength.classical_bits,
                nist_quantum_security_level=strength.category,
            ),
        ),
    )


def _parameter_set(kind: KeyType) -> str | None:
    if isinstance(kind, SecretKeyType):
        return str(kind.secret_bits)
    found = re.search(r"(?:rsa-|ffdhe|ml-\w+-)(\d+)", kind.name)
    return found[1] if found else None


def _mode(kind: KeyType) -> CryptoMode | None:
    if not isinstance(kind, SecretKeyType) or "aes" not in kind.name:
        return None
    return CryptoMode.GCM if "-gcm" in kind.name and "siv" not in kind.name else CryptoMode.OTHER


def _key(
    key: Key, version: KeyVersion, algorithm: _Algorithm, at_rest: _Algorithm, used: datetime | None, now: datetime
) -> _Component:
    ref = f"key/{key.key_id}/{version.version}"
    is_secret = isinstance(key_type(version.type), SecretKeyType)
    is_public_only = version.material is None and version.public_key is not None
    material = _Material(
        type="secret-key" if is_secret else "public-key" if is_public_only else "private-key",
        id=f"{key.uid.hex()}/{version.version}",
        state=str(effective_state(version, now)),
        size=secret_bits(version),
        algorithm_ref=algorithm.ref,
        secured_by=_SecuredBy("Software", at_rest.ref) if version.material is not None else UNSET,
        creation_date=version.created_at,
        activation_date=version.activate_at,
        update_date=version.changed_at or UNSET,
        expiration_date=version.expires_at,
    )
    return _Component(
        bom_ref=ref,
        name=key.key_id,
        version=str(version.version),
        crypto_properties=_CryptoProperties(material),
        properties=list(_properties(key, version, used)),
    )


def _properties(key: Key, version: KeyVersion, used: datetime | None) -> Iterable[_Property]:
    """What CycloneDX has no words for."""
    yield _Property("kms:owner", key.owner)
    yield _Property("kms:origin", str(key.origin))
    yield _Property("kms:usages", " ".join(sorted(key.usages)))
    yield _Property("kms:exportable", "true" if key.exportable else "false")
    yield _Property("kms:latest", "true" if version.version == key.latest_version else "false")
    yield _Property("kms:process_until", version.process_until.isoformat())
    if key.deletion_at is not None:
        yield _Property("kms:deletion_at", key.deletion_at.isoformat())
    if used is not None:
        yield _Property("kms:key_last_used_at", used.isoformat())
