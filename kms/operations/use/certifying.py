"""Requests for certificates (PKCS#10, RFC 2986), on which a certification authority vouches for a key."""

from __future__ import annotations

from typing import Annotated

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from kms.access.policy import Permission
from kms.crypto.primitives import Signer
from kms.errors import ValidationFailed
from kms.keys.model import Usage
from kms.operations.core.declare import Request
from kms.operations.core.key_access import UsedKey, key_operation, key_to_protect
from kms.operations.core.service import Call, Service

_LABEL = "[A-Za-z0-9_-]{1,63}"
DnsName = Annotated[str, msgspec.Meta(max_length=253, pattern=rf"^(\*\.)?{_LABEL}(\.{_LABEL})*\Z")]


class CertificateRequestRequest(Request):
    """The subject as RFC 4514 writes it, such as `CN=shop.example.org,O=Example`, and DNS names."""

    subject: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    dns_names: Annotated[list[DnsName], msgspec.Meta(max_length=100)] = msgspec.field(default_factory=list)


class CertificateRequestAnswer(UsedKey, kw_only=True):
    """The request as PEM."""

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
    """Ask a certification authority for a certificate for the latest version of a key."""
    key, number, signer = key_to_protect(service, call, key_id, Usage.SIGN, Signer)
    try:
        subject = x509.Name.from_rfc4514_string(request.subject)
    except ValueError:
        raise ValidationFailed("subject: not as RFC 4514 has it, such as CN=shop.example.org,O=Example.") from None
    builder = x509.CertificateSigningRequestBuilder(subject)
    if request.dns_names:
        names = x509.SubjectAlternativeName([x509.DNSName(name) for name in request.dns_names])
        builder = builder.add_extension(names, critical=False)
    made = signer.request_certificate(builder).public_bytes(Encoding.PEM).decode()
    return CertificateRequestAnswer(key_id=key.key_id, version=number, certificate_request=made)
