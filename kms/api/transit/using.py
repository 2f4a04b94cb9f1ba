"""The use of keys in the Vault dialect: encrypt, decrypt, rewrap, data keys, sign, verify, hmac, random, hash."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from kms.access.policy import may_see_key, no_such_key
from kms.access.ratelimit import RateClass
from kms.api.asker import Asker
from kms.api.transit import types
from kms.api.transit.answers import Fault, fault_of
from kms.api.transit.routes import WRITE, Body, Done, route
from kms.errors import NotFound, Refusal, ValidationFailed
from kms.keys.ids import is_key_id
from kms.keys.model import Key
from kms.operations import Items
from kms.operations.encrypting import DecryptRequest, EncryptRequest, RewrapRequest
from kms.operations.keys import CreateKeyRequest
from kms.operations.signing import MacRequest, SignRequest, VerifyMacRequest, VerifyRequest
from kms.operations.stateless import HashRequest, RandomRequest

_CIPHERTEXT = re.compile(r"vault:v([1-9][0-9]{0,8}):([A-Za-z0-9+/_=-]*)")


class Unit(Body, kw_only=True):
    """One thing to encrypt, decrypt, sign, verify or authenticate."""

    plaintext: str | None = None
    ciphertext: str | None = None
    input: str | None = None
    signature: str | None = None
    hmac: str | None = None
    associated_data: str = ""
    context: str | None = None
    nonce: str | None = None
    key_version: int = 0
    reference: str | None = None


class UseBody(Unit, kw_only=True):
    """One thing, or several as `batch_input`."""

    batch_input: list[Unit] | None = None
    type: str = "aes256-gcm96"
    bits: int = 256
    partial_failure_response_code: int | None = None


class SignBody(UseBody, kw_only=True):
    """What to sign and how."""

    hash_algorithm: str | None = None
    algorithm: str | None = None
    prehashed: bool = False
    signature_algorithm: str = "pss"
    marshaling_algorithm: str = "asn1"


class RandomBody(Body, kw_only=True):
    """How many random bytes, and in which form."""

    bytes: int | None = None
    format: str = "base64"


class HashBody(Body, kw_only=True):
    """What to hash."""

    input: str
    algorithm: str | None = None
    format: str = "hex"


@route(WRITE, "~/encrypt/<name>", UseBody, RateClass.USE)
def encrypt(asker: Asker, body: UseBody, name: str) -> Done:
    """Encrypt; as with Vault, a key that is not there is made, if the caller may make keys."""
    units = _units(body)
    requests = [_read(_encrypt_request, unit) for unit in units]
    try:
        results = _each(asker, "encrypt", requests, name)
    except NotFound:
        if not is_key_id(name) or asker.service.keyring.exists(name):
            raise
        asker.do("create_key", CreateKeyRequest(type=_type(body.type), key_id=name))
        results = _each(asker, "encrypt", requests, name)
    shown = [_failure(each) or _sealed(each) for each in results]
    return _answer(body, shown)


@route(WRITE, "~/decrypt/<name>", UseBody, RateClass.USE)
def decrypt(asker: Asker, body: UseBody, name: str) -> Done:
    """Decrypt what `encrypt` gave, here or in another installation for a key that was imported."""
    requests = [_read(_decrypt_request, unit) for unit in _units(body)]
    results = _each(asker, "decrypt", requests, name)
    return _answer(body, [_failure(each) or {"plaintext": _b64(each.plaintext)} for each in results])


@route(WRITE, "~/rewrap/<name>", UseBody, RateClass.USE)
def rewrap(asker: Asker, body: UseBody, name: str) -> Done:
    """Encrypt anew with the latest version, without showing the plaintext."""
    requests = [_read(_rewrap_request, unit) for unit in _units(body)]
    return _answer(body, [_failure(each) or _sealed(each) for each in _each(asker, "rewrap", requests, name)])


@route(WRITE, "~/datakey/<kind>/<name>", UseBody, RateClass.USE)
def datakey(asker: Asker, body: UseBody, kind: str, name: str) -> Any:
    """Make a key for use outside, encrypted, and with `plaintext` also shown."""
    if kind not in ("plaintext", "wrapped"):
        raise Fault("Invalid path, must be 'plaintext' or 'wrapped'")
    if body.bits not in (128, 256, 512):
        raise Fault("invalid bit length")
    _plain_only(body)
    plaintext = asker.do("random", RandomRequest(length=body.bits // 8)).random
    (answer,) = _each(asker, "encrypt", [EncryptRequest(plaintext=plaintext, format="raw")], name)
    if isinstance(answer, Refusal):
        raise answer
    shown = {"plaintext": _b64(plaintext)} if kind == "plaintext" else {}
    return {**shown, **_sealed(answer)}


@route(WRITE, "~/sign/<name>", SignBody, RateClass.USE)
@route(WRITE, "~/sign/<name>/<hash_name>", SignBody, RateClass.USE)
def sign(asker: Asker, body: SignBody, name: str, hash_name: str | None = None) -> Done:
    """Sign."""
    key = _key(asker, name)
    prefix = [_sign_request(key, body, hash_name, _input(unit)) for unit in _units(body)]
    results = _each(asker, "sign", prefix, name)
    shown = []
    for each in results:
        failure = _failure(each)
        if failure is None:
            encoded = _b64(each.signature)
            if body.marshaling_algorithm == "jws":
                encoded = base64.urlsafe_b64encode(each.signature).rstrip(b"=").decode()
            failure = {"signature": f"vault:v{each.version}:{encoded}", "key_version": each.version}
        shown.append(failure)
    return _answer(body, shown)


@route(WRITE, "~/verify/<name>", SignBody, RateClass.USE)
@route(WRITE, "~/verify/<name>/<hash_name>", SignBody, RateClass.USE)
def verify(asker: Asker, body: SignBody, name: str, hash_name: str | None = None) -> Done:
    """Verify a signature or an HMAC."""
    key = _key(asker, name)
    units = _units(body)
    if any(unit.hmac is not None for unit in units):
        _require_code_hash(key, hash_name or body.hash_algorithm or body.algorithm)
        codes = [_read(_verify_mac_request, unit) for unit in units]
        results = _each(asker, "verify_mac", codes, name)
    else:
        signed = [_verify_request(key, body, hash_name, unit) for unit in units]
        results = _each(asker, "verify", signed, name)
    return _answer(body, [_failure(each) or {"valid": each.valid} for each in results])


@route(WRITE, "~/hmac/<name>", SignBody, RateClass.USE)
@route(WRITE, "~/hmac/<name>/<hash_name>", SignBody, RateClass.USE)
def hmac(asker: Asker, body: SignBody, name: str, hash_name: str | None = None) -> Done:
    """Make a message authentication code."""
    _require_code_hash(_key(asker, name), hash_name or body.algorithm or body.hash_algorithm)
    requests = [MacRequest(message=_bytes(_input(unit), "input")) for unit in _units(body)]
    results = _each(asker, "mac", requests, name)
    return _answer(body, [_failure(each) or {"hmac": f"vault:v{each.version}:{_b64(each.mac)}"} for each in results])


@route(WRITE, "~/random", RandomBody, RateClass.USE)
@route(WRITE, "~/random/<length>", RandomBody, RateClass.USE)
@route(WRITE, "~/random/<source>/<length>", RandomBody, RateClass.USE)
def random(asker: Asker, body: RandomBody, length: str | None = None, source: str = "platform") -> Any:
    """Give random bytes."""
    if source not in ("platform", "seal", "all"):
        raise Fault(f'unsupported entropy source "{source[:20]}"; must be "platform" or "seal", or "all"')
    text = length if length is not None else str(body.bytes or 32)
    if len(text) > 5 or not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65_536:
        raise Fault('"bytes" must be from 1 to 65536')
    return {"random_bytes": _form(asker.do("random", RandomRequest(length=int(text))).random, body.format)}


@route(WRITE, "~/hash", HashBody, RateClass.USE)
@route(WRITE, "~/hash/<hash_name>", HashBody, RateClass.USE)
def hash_input(asker: Asker, body: HashBody, hash_name: str | None = None) -> Any:
    """Give a digest."""
    algorithm = types.HASHES.get(hash_name or body.algorithm or "sha2-256")
    if algorithm is None:
        raise Fault(f"unsupported algorithm {(hash_name or body.algorithm or '')[:20]}")
    request = msgspec.convert({"message": _bytes(body.input, "input"), "algorithm": algorithm}, HashRequest)
    return {"sum": _form(asker.do("hash_message", request).digest, body.format)}


def _units(body: UseBody) -> Sequence[Unit]:
    if body.batch_input is None:
        return [body]
    if not 1 <= len(body.batch_input) <= 1000:
        raise Fault("missing batch input to process, or more than 1000 of them")
    return body.batch_input


def _each(asker: Asker, operation: str, requests: Sequence[Any], name: str) -> Sequence[Any]:
    """The answer or the refusal of each request, all in one operation."""
    if len(requests) == 1 and not isinstance(requests[0], Refusal):
        try:
            return [asker.do(operation, requests[0], key_id=name)]
        except Refusal as refusal:
            if not refusal.of_item:
                raise
            return [refusal]
    return list(asker.do(operation, Items(requests), key_id=name).items)


def _answer(body: UseBody, shown: list[dict[str, Any]]) -> Done:
    """The one answer, or all of a batch; a batch in which something failed says so by its status."""
    if body.batch_input is None:
        (only,) = shown
        if "error" in only:
            raise Fault(only["error"], problem=only.pop("problem", "validation-failed"))
        return Done(only)
    for unit, each in zip(body.batch_input, shown, strict=True):
        each.pop("problem", None)
        if unit.reference is not None:
            each["reference"] = unit.reference
    failed = any("error" in each for each in shown)
    status = (body.partial_failure_response_code or 400) if failed else 200
    if failed and not 200 <= status < 600:
        raise Fault("partial_failure_response_code must be an HTTP status")
    return Done({"batch_results": shown}, status=status)


def _failure(result: Any) -> dict[str, Any] | None:
    if isinstance(result, Refusal):
        return {"error": fault_of(result).message, "problem": result.problem}
    return None


def _sealed(answer: Any) -> dict[str, Any]:
    return {"ciphertext": f"vault:v{answer.version}:{_b64(answer.ciphertext)}", "key_version": answer.version}


def _read(read: Any, unit: Unit) -> Any:
    """The request of one unit, or what is wrong with it as a refusal of this item."""
    try:
        return read(unit)
    except Fault as fault:
        return ValidationFailed(fault.message)


def _encrypt_request(unit: Unit) -> EncryptRequest:
    _plain_only(unit)
    if unit.plaintext is None:
        raise Fault("missing plaintext to encrypt")
    return EncryptRequest(
        plaintext=_bytes(unit.plaintext, "plaintext"),
        associated_data=_bytes(unit.associated_data, "associated_data"),
        format="raw",
    )


def _decrypt_request(unit: Unit) -> DecryptRequest:
    _plain_only(unit)
    version, sealed = _taken_apart(unit.ciphertext, "ciphertext")
    associated_data = _bytes(unit.associated_data, "associated_data")
    return DecryptRequest(ciphertext=sealed, version=version, associated_data=associated_data, format="raw")


def _rewrap_request(unit: Unit) -> RewrapRequest:
    _plain_only(unit)
    version, sealed = _taken_apart(unit.ciphertext, "ciphertext")
    return RewrapRequest(
        ciphertext=sealed,
        version=version,
        associated_data=_bytes(unit.associated_data, "associated_data"),
        format="raw",
    )


def _sign_request(key: Key, body: SignBody, hash_name: str | None, input_: str) -> SignRequest:
    message = _bytes(input_, "input")
    return SignRequest(
        message=None if body.prehashed else message,
        digest=message if body.prehashed else None,
        algorithm=_algorithm(key, body, hash_name),
        signature_format="p1363" if body.marshaling_algorithm == "jws" or not key.type.startswith("ec-") else "der",
    )


def _verify_request(key: Key, body: SignBody, hash_name: str | None, unit: Unit) -> VerifyRequest:
    version, signature = _taken_apart(unit.signature, "signature")
    signed = _sign_request(key, body, hash_name, _input(unit))
    return VerifyRequest(
        signature=signature,
        version=version,
        message=signed.message,
        digest=signed.digest,
        algorithm=signed.algorithm,
        signature_format=signed.signature_format,
    )


def _verify_mac_request(unit: Unit) -> VerifyMacRequest:
    version, mac = _taken_apart(unit.hmac, "hmac")
    return VerifyMacRequest(message=_bytes(_input(unit), "input"), mac=mac, version=version)


def _algorithm(key: Key, body: SignBody, hash_name: str | None) -> str:
    asked = hash_name or body.hash_algorithm or body.algorithm or types.hash_of(key.type)
    found = types.algorithm_of(key.type, asked, body.signature_algorithm or "pss")
    if found is None:
        raise Fault(f"a key of type {types.name_of(key.type)} does not sign with {asked[:20]} here")
    if body.marshaling_algorithm not in ("asn1", "jws"):
        raise Fault("marshaling_algorithm must be asn1 or jws")
    return found


def _require_code_hash(key: Key, asked: str | None) -> None:
    own = types.code_hash_of(key.type)
    if asked not in (None, own) and key.type.startswith("hmac"):
        raise Fault(f"this key makes codes with {own}")


def _key(asker: Asker, name: str) -> Key:
    key = asker.service.keyring.key(name)
    if not may_see_key(asker.call.known_caller, key.owner, key.key_id):
        raise no_such_key(name)
    return key


def _plain_only(unit: Unit) -> None:
    if unit.context is not None or unit.nonce:
        raise Fault("derived and convergent keys are not supported: leave out context and nonce")


def _input(unit: Unit) -> str:
    if unit.input is None:
        raise Fault("missing input")
    return unit.input


def _taken_apart(text: str | None, member: str) -> tuple[int, bytes]:
    if text is None:
        raise Fault(f"missing {member}")
    found = _CIPHERTEXT.fullmatch(text)
    if found is None:
        raise Fault(f"invalid {member}: no prefix")
    encoded = found[2]
    if "-" in encoded or "_" in encoded or len(encoded) % 4:  # a signature as JWS has it
        encoded = encoded.replace("-", "+").replace("_", "/") + "=" * (-len(encoded) % 4)
    return int(found[1]), _bytes(encoded, member)


def _bytes(text: str, member: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Fault(f"failed to base64-decode {member}") from None


def _type(name: str) -> str:
    native = types.TYPES.get(name)
    if native is None:
        raise Fault(f"unknown key type {name[:40]}")
    return native


def _form(content: bytes, form: str) -> str:
    if form not in ("base64", "hex"):
        raise Fault(f'unsupported encoding format {form[:20]}; must be "hex" or "base64"')
    return content.hex() if form == "hex" else _b64(content)


def _b64(content: bytes) -> str:
    return base64.b64encode(content).decode()
