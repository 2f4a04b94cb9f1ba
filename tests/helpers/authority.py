"""A certification authority for client certificates, with every way of getting one wrong."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key; an issuer too, where it is of a CA."""

    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes

    @property
    def der(self) -> bytes:
        """The certificate in DER."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> str:
        """The certificate in PEM."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        """The key in PEM."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    def issue(self, *names: str, **given: object) -> Issued:
        """Another certificate, signed by this one."""
        return issue(*names, issuer=self, **given)  # type: ignore[arg-type]


def issue(
    *names: str,
    issuer: Issued | None = None,
    key: CertificateIssuerPrivateKeyTypes | None = None,
    is_ca: bool | None = False,
    signs_certificates: bool | None = None,
    uris: tuple[str, ...] = (),
    dns: tuple[str, ...] = (),
    use: x509.ObjectIdentifier | None = None,
    begins: datetime = NOW - DAY,
    ends: datetime = NOW + DAY,
    digest: hashes.HashAlgorithm | None = None,
    extra: x509.ExtensionType | None = None,
) -> Issued:
    """A certificate with these common names; without an issuer it is self-signed. None leaves an extension out."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each, _validate=False) for each in names])
    signing = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )
    if is_ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    if signs_certificates is not None:
        usage = x509.KeyUsage(
            digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=signs_certificates, crl_sign=False, encipher_only=False,
            decipher_only=False,
        )  # fmt: skip
        builder = builder.add_extension(usage, critical=True)
    if uris or dns:
        alternatives = [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns)]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=not names)
    if use is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
    if extra is not None:
        builder = builder.add_extension(extra, critical=True)
    hashed = None if isinstance(signing, Ed25519PrivateKey) else digest or hashes.SHA256()
    return Issued(builder.sign(signing, hashed), key)
