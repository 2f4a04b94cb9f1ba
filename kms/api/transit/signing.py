"""Signatures and message authentication codes in the Vault dialect."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from cryptography import x509

from kms.access.decision import no_such_key
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
    options = _SigningOptions(_key(transit, name), body, hash_name)
    asked = [read(options.sign_request, unit) for unit in units(body)]
    shown = []
    for unit, result in zip(units(body), each(transit, "sign", asked, name), strict=True):
        one = failure(result, unit)
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
    options, given = _SigningOptions(_key(transit, name), body, hash_name), units(body)
    if any(unit.hmac is not None for unit in given):
        operation, asked = "verify_mac", [read(options.verify_mac_request, unit) for unit in given]
    else:
        operation, asked = "verify", [read(options.verify_request, unit) for unit in given]
    results = each(transit, operation, asked, name)
    return answer(body, [failure(result) or {"valid": result.valid} for result in results])


@route(WRITE, "~/hmac/<name>", SignBody, RateClass.USE)
@route(WRITE, "~/hmac/<name>/<hash_name>", SignBody, RateClass.USE)
def hmac(transit: TransitRequest, body: SignBody, name: str, hash_name: str | None = None) -> Done:
    """Make a message authentication code; with a key for something else, under one that is derived from it."""
    options = _SigningOptions(_key(transit, name), body, hash_name)
    results = each(transit, "mac", [read(options.mac_request, unit) for unit in units(body)], name)
    shown = [
        failure(made, unit) or {"hmac": f"vault:v{made.version}:{b64(made.mac)}"}
        for unit, made in zip(units(body), results, strict=True)
    ]
    return answer(body, shown)


@dataclass(frozen=True)
class _SigningOptions:
    """How a request says that a key shall sign or make codes."""

    key: Key
    body: SignBody
    hash_name: str | None

    def sign_request(self, unit: Unit) -> SignRequest:
        message = bytes_of(_input(unit), "input")
        return SignRequest(
            message=None if self.body.prehashed else message,
            digest=message if self.body.prehashed else None,
            algorithm=self.algorithm,
            signature_format=self._format,
        )

    def verify_request(self, unit: Unit) -> VerifyRequest:
        version, signature = taken_apart(unit.signature, "signature")
        message = bytes_of(_input(unit), "input")
        return VerifyRequest(
            signature=signature,
            version=version,
            message=None if self.body.prehashed else message,
            digest=message if self.body.prehashed else None,
            algorithm=self.algorithm,
            signature_format=self._format,
        )

    def mac_request(self, unit: Unit) -> MacRequest:
        return MacRequest(
            message=bytes_of(_input(unit), "input"), hash_algorithm=self._code_hash, derived=self._is_derived
        )

    def verify_mac_request(self, unit: Unit) -> VerifyMacRequest:
        version, mac = taken_apart(unit.hmac, "hmac")
        return VerifyMacRequest(
            message=bytes_of(_input(unit), "input"),
            mac=mac,
            version=version,
            hash_algorithm=self._code_hash,
            derived=self._is_derived,
        )

    @property
    def algorithm(self) -> str:
        asked = self.hash_name or self.body.hash_algorithm or self.body.algorithm or types.hash_of(self.key.type)
        if asked == "none" and self.key.type.startswith("rsa") and not self.body.prehashed:
            raise Fault("hash_algorithm=none requires both prehashed=true and signature_algorithm=pkcs1v15")
        found = types.algorithm_of(self.key.type, asked, self.body.signature_algorithm or "pss")
        if found is None:
            raise Fault(f"a key of type {types.name_of(self.key.type)} does not sign with {asked[:20]} here")
        if self.body.marshaling_algorithm not in ("asn1", "jws"):
            raise Fault("marshaling_algorithm must be asn1 or jws")
        return found

    @property
    def _format(self) -> Literal["p1363", "der"]:
        is_raw = self.body.marshaling_algorithm == "jws" or not self.key.type.startswith("ec-")
        return "p1363" if is_raw else "der"

    @property
    def _is_derived(self) -> bool:
        return not self.key.type.startswith("hmac")

    @property
    def _code_hash(self) -> Any:
        asked = self.hash_name or self.body.hash_algorithm or self.body.algorithm or types.code_hash_of(self.key.type)
        found = types.HASHES.get(asked)
        if found is None:
            raise Fault(f"unsupported algorithm {asked[:20]}")
        return found


def _key(transit: TransitRequest, name: str) -> Key:
    key = transit.visible_key(name)
    if key is None:
        raise no_such_key(name)
    return key


def _input(unit: Unit) -> str:
    if unit.input is None:
        raise Fault("missing input")
    return unit.input
