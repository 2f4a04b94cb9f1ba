"""Certificate signing requests (PKCS#10, RFC 2986) for keys of the service."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from kms.access.policy import Permission
from kms.crypto.primitives import Signer
from kms.errors import ValidationFailed
from kms.keys.model import Usage
from kms.operations.core.declare import Request
from kms.operations.core.key_access import UsedKey, key_operation, key_to_protect
from kms.operations.core.service import Call, Service

_LABEL = "[A-Za-z0-9_-]{1,63}"
DnsName = Annotated[str, msgspec.Meta(max_length=253, pattern=rf"^(\*\.)?{_LABEL}(\.{_LABEL})*\Z")]
_ENDS_IN_A_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)")  # what programs take for an IPv4 address

_LONGEST = {
    NameOID.ORGANIZATION_NAME: 64,
    NameOID.ORGANIZATIONAL_UNIT_NAME: 64,
    NameOID.TITLE: 64,
    NameOID.SERIAL_NUMBER: 64,
    NameOID.LOCALITY_NAME: 128,
    NameOID.STATE_OR_PROVINCE_NAME: 128,
    NameOID.EMAIL_ADDRESS: 255,
}  # characters: the upper bounds of RFC 5280, appendix A.1, which the library does not look at
_PRINTABLE, _ASCII = re.compile(r"[A-Za-z0-9 '()+,\-./:=?]*"), re.compile(r"[\x00-\x7f]*")
_ALPHABETS = {
    NameOID.COUNTRY_NAME: _PRINTABLE,
    NameOID.JURISDICTION_COUNTRY_NAME: _PRINTABLE,
    NameOID.SERIAL_NUMBER: _PRINTABLE,
    NameOID.DN_QUALIFIER: _PRINTABLE,
    NameOID.EMAIL_ADDRESS: _ASCII,
    NameOID.DOMAIN_COMPONENT: _ASCII,
}  # of the ASN.1 types that these parts have; the others are UTF-8
_OF_ANOTHER_LENGTH = re.compile(r"length must be >= (?P<least>\d+) and <= (?P<most>\d+), but it was (?P<length>\d+)")


class CertificateRequestRequest(Request):
    """`subject` (as in RFC 4514, such as `CN=shop.example.org,O=Example`), or `dns_names`, or both."""

    subject: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    dns_names: Annotated[list[DnsName], msgspec.Meta(max_length=100)] = msgspec.field(default_factory=list)


class CertificateRequestAnswer(UsedKey, kw_only=True):
    """The certificate signing request as PEM."""

    certificate_request: str


@key_operation(
    "certificate-request",
    Permission.KEYS_SIGN,
    CertificateRequestRequest,
    example={"subject": "CN=shop.example.org,O=Example", "dns_names": ["shop.example.org"]},
)
def certificate_request(
    service: Service, call: Call, request: CertificateRequestRequest, key_id: str
) -> CertificateRequestAnswer:
    """Make a certificate signing request (CSR) for the latest version of a key, to give to a CA."""
    if not request.subject and not request.dns_names:
        raise ValidationFailed("subject, dns_names: give at least one of them.")
    if any(map(_ENDS_IN_A_NUMBER.fullmatch, request.dns_names)):
        raise ValidationFailed(
            "dns_names: the last part of the name of a host is no number; addresses are not taken."
        )
    key, number, signer = key_to_protect(service, call, key_id, Usage.SIGN, Signer)
    builder = x509.CertificateSigningRequestBuilder(_subject(request.subject))
    if request.dns_names:
        names = x509.SubjectAlternativeName([x509.DNSName(name) for name in request.dns_names])
        builder = builder.add_extension(names, critical=not request.subject)  # RFC 5280, section 4.2.1.6
    made = signer.request_certificate(builder).public_bytes(Encoding.PEM).decode()
    return CertificateRequestAnswer(key_id=key.key_id, version=number, certificate_request=made)


def _subject(text: str) -> x509.Name:
    """The name that `text` is. Raises ValidationFailed where it is none, or none that a certificate can carry."""
    try:
        subject = x509.Name.from_rfc4514_string(text)
    except ValueError as error:
        if wrong := _OF_ANOTHER_LENGTH.search(str(error)):
            raise _wrong_length(int(wrong["length"]), int(wrong["least"]), int(wrong["most"])) from None
        raise ValidationFailed("subject: not as RFC 4514 has it, such as CN=shop.example.org,O=Example.") from None
    for part in subject:
        if len(part.value) > _LONGEST.get(part.oid, len(part.value)):
            raise _wrong_length(len(part.value), 1, _LONGEST[part.oid])
        if part.oid in _ALPHABETS and not _ALPHABETS[part.oid].fullmatch(str(part.value)):
            raise ValidationFailed(
                f"subject: {part.rfc4514_attribute_name} has a character that X.520 does not allow it."
            )
    return subject


def _wrong_length(length: int, least: int, most: int) -> ValidationFailed:
    return ValidationFailed(
        f"subject: a part has {length} characters; X.520 allows it {least} to {most}. Longer names of hosts go into "
        "dns_names."
    )
