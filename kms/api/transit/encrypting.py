"""Encryption, data keys, random bytes and digests in the Vault dialect."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from kms.access.ratelimit import RateClass
from kms.api.transit import types
from kms.api.transit.answers import Fault
from kms.api.transit.managing import new_key
from kms.api.transit.request import TransitRequest
from kms.api.transit.routes import WRITE, Body, Done, route
from kms.api.transit.units import (
    Unit,
    UseBody,
    answer,
    b64,
    bytes_of,
    context_of,
    each,
    failure,
    read,
    taken_apart,
    units,
)
from kms.errors import AlreadyExists, NotFound, Refusal
from kms.keys.ids import is_key_id
from kms.operations.use.encrypting import DecryptRequest, EncryptRequest, RewrapRequest
from kms.operations.use.random_and_hash import HashRequest, RandomRequest


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
def encrypt(transit: TransitRequest, body: UseBody, name: str) -> Done:
    """Encrypt; as with Vault, a key that is not there is made, if the caller may make keys."""
    requests = [read(_encrypt_request, unit) for unit in units(body)]
    try:
        results = each(transit, "encrypt", requests, name)
    except NotFound:
        if not is_key_id(name) or all(isinstance(each, Refusal) for each in requests):
            raise
        derived = any(unit.context for unit in units(body))
        if transit.service.key_cache.find(name) is None:
            with suppress(AlreadyExists):  # another request for the same new name was faster
                transit.make_key(new_key(body.type, name, derived=derived, convergent=body.convergent_encryption))
        results = each(transit, "encrypt", requests, name)
    return answer(body, _all_sealed(body, results))


@route(WRITE, "~/decrypt/<name>", UseBody, RateClass.USE)
def decrypt(transit: TransitRequest, body: UseBody, name: str) -> Done:
    """Decrypt what `encrypt` gave, here or in another installation for a key that was imported."""
    requests = [read(_decrypt_request, unit) for unit in units(body)]
    results = each(transit, "decrypt", requests, name)
    return answer(body, [failure(result) or {"plaintext": b64(result.plaintext)} for result in results])


@route(WRITE, "~/rewrap/<name>", UseBody, RateClass.USE)
def rewrap(transit: TransitRequest, body: UseBody, name: str) -> Done:
    """Encrypt anew with the latest version, without showing the plaintext."""
    requests = [read(_rewrap_request, unit) for unit in units(body)]
    return answer(body, _all_sealed(body, each(transit, "rewrap", requests, name)))


@route(WRITE, "~/datakey/<kind>/<name>", UseBody, RateClass.USE)
def datakey(transit: TransitRequest, body: UseBody, kind: str, name: str) -> Any:
    """Make a data key, encrypted; with `plaintext` in the path it is also returned in plaintext."""
    if body.batch_input is not None:
        raise Fault("batch_input: one data key is made at a time")
    if kind not in ("plaintext", "wrapped"):
        raise Fault("Invalid path, must be 'plaintext' or 'wrapped'")
    if body.bits not in (128, 256, 512):
        raise Fault("invalid bit length")
    context = context_of(body)
    plaintext = transit.run("random", RandomRequest(length=body.bits // 8)).random
    request = EncryptRequest(
        plaintext=plaintext,
        associated_data=bytes_of(body.associated_data, "associated_data"),
        context=context,
        format="raw",
    )
    done = answer(body, _all_sealed(body, each(transit, "encrypt", [request], name)))
    return {**({"plaintext": b64(plaintext)} if kind == "plaintext" else {}), **done.data}


@route(WRITE, "~/random", RandomBody, RateClass.USE)
@route(WRITE, "~/random/<length>", RandomBody, RateClass.USE)
@route(WRITE, "~/random/<source>/<length>", RandomBody, RateClass.USE)
def random(transit: TransitRequest, body: RandomBody, length: str | None = None, source: str = "platform") -> Any:
    """Give random bytes."""
    if source not in ("platform", "seal", "all"):
        raise Fault(f'unsupported entropy source "{source[:20]}"; must be "platform" or "seal", or "all"')
    text = length if length is not None else str(32 if body.bytes is None else body.bytes)
    if len(text) > 5 or not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65_536:
        raise Fault('"bytes" must be from 1 to 65536')
    return {"random_bytes": _form(transit.run("random", RandomRequest(length=int(text))).random, body.format)}


@route(WRITE, "~/hash", HashBody, RateClass.USE)
@route(WRITE, "~/hash/<hash_name>", HashBody, RateClass.USE)
def hash_input(transit: TransitRequest, body: HashBody, hash_name: str | None = None) -> Any:
    """Give a digest."""
    algorithm = types.HASHES.get(hash_name or body.algorithm or "sha2-256")
    if algorithm is None:
        raise Fault(f"unsupported algorithm {(hash_name or body.algorithm or '')[:20]}")
    request = msgspec.convert({"message": bytes_of(body.input, "input"), "algorithm": algorithm}, HashRequest)
    return {"sum": _form(transit.run("hash_message", request).digest, body.format)}


def _all_sealed(body: UseBody, results: Sequence[Any]) -> list[dict[str, Any]]:
    return [failure(made, unit) or _sealed(made) for unit, made in zip(units(body), results, strict=True)]


def _sealed(made: Any) -> dict[str, Any]:
    return {"ciphertext": f"vault:v{made.version}:{b64(made.ciphertext)}", "key_version": made.version}


def _encrypt_request(unit: Unit) -> EncryptRequest:
    if unit.plaintext is None:
        raise Fault("missing plaintext to encrypt")
    return EncryptRequest(
        plaintext=bytes_of(unit.plaintext, "plaintext"),
        associated_data=bytes_of(unit.associated_data, "associated_data"),
        context=context_of(unit),
        format="raw",
    )


def _decrypt_request(unit: Unit) -> DecryptRequest:
    version, sealed = taken_apart(unit.ciphertext, "ciphertext")
    associated_data = bytes_of(unit.associated_data, "associated_data")
    return DecryptRequest(
        ciphertext=sealed,
        version=version,
        associated_data=associated_data,
        context=context_of(unit),
        format="raw",
    )


def _rewrap_request(unit: Unit) -> RewrapRequest:
    version, sealed = taken_apart(unit.ciphertext, "ciphertext")
    return RewrapRequest(
        ciphertext=sealed,
        version=version,
        associated_data=bytes_of(unit.associated_data, "associated_data"),
        context=context_of(unit),
        format="raw",
    )


def _form(content: bytes, form: str) -> str:
    if form not in ("base64", "hex"):
        raise Fault(f'unsupported encoding format {form[:20]}; must be "hex" or "base64"')
    return content.hex() if form == "hex" else b64(content)
