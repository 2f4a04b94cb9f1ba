"""Signatures and message authentication codes in the Vault dialect."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
from cryptography import x509

from kms.access.policy import no_such_key
from kms.access.ratelimit import RateClass
from kms.api.transit import types
from kms.api.transit.answers import Fault
from kms.api.transit.request import TransitRequest
from kms.api.transit.routes import WRITE, Body, Done, route
from kms.api.transit.units import Unit, UseBody, answer, b64, bytes_of, each, failure, read, taken_apart, units
from kms.keys.model import Key
from kms.operations.use.certifying import CertificateRequestRequest
from kms.operations.use.signing import MacRequest, SignRequest, VerifyMacRequest, VerifyRequest


class SignBody(UseBody, kw_only=True):
    """What to sign and how."""

    hash_algorithm: str | None = None
    algorithm: str | None = None
    prehashed: bool = False
    signature_algorithm: str = "pss"
    marshaling_algorithm: str = "asn1"


class CsrBody(Body, kw_only=True):
    """A template, and the version."""

    csr: str = ""
    version: int = 0


@route(WRITE, "~/sign/<name>", SignBody, RateClass.USE)
@route(WRITE, "~/sign/<name>/<hash_name>", SignBody, RateClass.USE)
def sign(transit: TransitRequest, body: SignBody, name: str, hash_name: str | None = None) -> Done:
    """Sign."""
    key = _key(transit, name)
    prefix = [_sign_request(key, body, hash_name, _input(unit)) for unit in units(body)]
    results = each(transit, "sign", prefix, name)
    shown = []
    for result in results:
        one = failure(result)
        if one is None:
            encoded = b64(result.signature)
            if body.marshaling_algorithm == "jws":
                encoded = base64.urlsafe_b64encode(result.signature).rstrip(b"=").decode()
            one = {"signature": f"vault:v{result.version}:{encoded}", "key_version": result.version}
        shown.append(one)
    return answer(body, shown)


@route(WRITE, "~/keys/<name>/csr", CsrBody, RateClass.USE)
def csr(transit: TransitRequest, body: CsrBody, name: str) -> Any:
    """Ask for a certificate with the subject and the names of a template, or else with the name of the key."""
    if body.version:
        raise Fault("version: a request is signed by the latest version")
    shown = transit.name_of(name)
    subject, names = _template(body.csr) if body.csr else (f"CN={shown}", [])
    try:
        request = msgspec.convert({"subject": subject, "dns_names": names}, CertificateRequestRequest)
    except msgspec.ValidationError as error:
        raise Fault(str(error)) from None
    answer = transit.run("certificate_request", request, key_id=name)
    return {"name": shown, "type": types.name_of(_key(transit, name).type), "csr": answer.certificate_request}


def _template(pem: str) -> tuple[str, list[str]]:
    """Subject and DNS names of a request. Raises Fault."""
    try:
        template = x509.load_pem_x509_csr(pem.encode())
        others = [each for each in template.extensions if not isinstance(each.value, x509.SubjectAlternativeName)]
        found = [each.value for each in template.extensions if isinstance(each.value, x509.SubjectAlternativeName)]
        subject = template.subject.rfc4514_string()
    except ValueError:
        raise Fault("csr: not a certificate signing request in PEM") from None
    names = [name for each in found for name in each]
    if others or any(not isinstance(name, x509.DNSName) for name in names):
        raise Fault("csr: a template has a subject and DNS names, and nothing else")
    return subject, [str(name.value) for name in names]


@route(WRITE, "~/verify/<name>", SignBody, RateClass.USE)
@route(WRITE, "~/verify/<name>/<hash_name>", SignBody, RateClass.USE)
def verify(transit: TransitRequest, body: SignBody, name: str, hash_name: str | None = None) -> Done:
    """Verify a signature or an HMAC."""
    key = _key(transit, name)
    given = units(body)
    if any(unit.hmac is not None for unit in given):
        _require_code_hash(key, hash_name or body.hash_algorithm or body.algorithm)
        codes = [read(_verify_mac_request, unit) for unit in given]
        results = each(transit, "verify_mac", codes, name)
    else:
        signed = [_verify_request(key, body, hash_name, unit) for unit in given]
        results = each(transit, "verify", signed, name)
    return answer(body, [failure(result) or {"valid": result.valid} for result in results])


@route(WRITE, "~/hmac/<name>", SignBody, RateClass.USE)
@route(WRITE, "~/hmac/<name>/<hash_name>", SignBody, RateClass.USE)
def hmac(transit: TransitRequest, body: SignBody, name: str, hash_name: str | None = None) -> Done:
    """Make a message authentication code."""
    _require_code_hash(_key(transit, name), hash_name or body.algorithm or body.hash_algorithm)
    requests = [MacRequest(message=bytes_of(_input(unit), "input")) for unit in units(body)]
    results = each(transit, "mac", requests, name)
    shown = [failure(made) or {"hmac": f"vault:v{made.version}:{b64(made.mac)}"} for made in results]
    return answer(body, shown)


def _sign_request(key: Key, body: SignBody, hash_name: str | None, input_: str) -> SignRequest:
    message = bytes_of(input_, "input")
    return SignRequest(
        message=None if body.prehashed else message,
        digest=message if body.prehashed else None,
        algorithm=_algorithm(key, body, hash_name),
        signature_format="p1363" if body.marshaling_algorithm == "jws" or not key.type.startswith("ec-") else "der",
    )


def _verify_request(key: Key, body: SignBody, hash_name: str | None, unit: Unit) -> VerifyRequest:
    version, signature = taken_apart(unit.signature, "signature")
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
    version, mac = taken_apart(unit.hmac, "hmac")
    return VerifyMacRequest(message=bytes_of(_input(unit), "input"), mac=mac, version=version)


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


def _key(transit: TransitRequest, name: str) -> Key:
    key = transit.visible_key(name)
    if key is None:
        raise no_such_key(name)
    return key


def _input(unit: Unit) -> str:
    if unit.input is None:
        raise Fault("missing input")
    return unit.input
