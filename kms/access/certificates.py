"""Client certificates: whether the client CA vouches for one (RFC 5280, section 6), and the client that it names.

A certificate names a client by its subject's common name, by a URI `urn:kms:client:ID` among its alternative names,
or by both, which then say the same: whoever may choose the one and not the other becomes nobody else by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.x509.oid import ExtensionOID, NameOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from kms.errors import StartError
from kms.files import fault_of, identity_of
from kms.keys.ids import is_client_id

CLIENT_URN = "urn:kms:client:"
LONGEST_CERTIFICATE = 1 << 14
LONGEST_CHAIN = 4
_SMALLEST_RSA_BITS = 2048
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_ORDERS = (
    0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    (1 << 521) - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7,
)
"""How many points the groups of these have (FIPS 186-5); a CA's signature is of one of them."""


class NotAccepted(Exception):
    """A certificate that proves nobody. The message says why, for the log and for who has proven its key."""


class ClientRoots:
    """The roots in a PEM file, as the file is now. A file that became unusable leaves those before in force."""

    def __init__(self, path: Path) -> None:
        """Read them. Raises StartError as `read_roots` does."""
        self._path = path
        self._identity = identity_of(path)
        self._roots = read_roots(path)

    def in_force(self) -> Sequence[x509.Certificate]:
        """The newest roots that were good."""
        identity = identity_of(self._path)
        if identity != self._identity:
            self._identity = identity
            try:
                self._roots = read_roots(self._path)
            except StartError as error:
                structlog.get_logger().error(f"the old client CA stays in use: {error}")
        return self._roots


def read_roots(path: Path) -> tuple[x509.Certificate, ...]:
    """The certificates of CAs in a PEM file. Raises StartError where it has none, or one that is of no CA."""
    try:
        roots = tuple(x509.load_pem_x509_certificates(path.read_bytes()))
        are_cas = [_is_ca(each) for each in roots]
        for each in roots:
            each.public_key()
    except OSError as error:
        raise StartError(f"Cannot read {path}: {fault_of(error)}.") from error
    except (ValueError, x509.InvalidVersion, x509.DuplicateExtension, UnsupportedAlgorithm):
        raise StartError(f"{path} does not hold certificates in PEM that can be used.") from None
    if not all(are_cas):
        raise StartError(f"{path} holds a certificate that is not of a CA. It would vouch for itself; take it out.")
    return roots


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def thumbprint(certificate: bytes) -> str:
    """The thumbprint of a certificate in DER: its SHA-256 in hexadecimal."""
    return sha256(certificate).hexdigest()


def thumbprints(leaf: bytes) -> frozenset[str]:
    """The thumbprints of `leaf` and of every other encoding of the same certificate that is valid, too.

    If (r, s) is a valid ECDSA signature, so is (r, n - s), which anybody can compute without the key. Raises
    NotAccepted for a certificate that is not DER, because that would allow still other encodings.
    """
    certificate = x509.load_der_x509_certificate(leaf)
    signed, signature = certificate.tbs_certificate_bytes, certificate.signature
    algorithm = leaf[leaf.index(signed) + len(signed) : len(leaf) - len(_bits(signature))]
    found = {signature}
    if isinstance(certificate.signature_algorithm_parameters, ec.ECDSA):
        r, s = decode_dss_signature(signature)
        found.update(encode_dss_signature(r, order - s) for order in _ORDERS if 0 < s < order)
    forms = {_der(0x30, signed + algorithm + _bits(each)) for each in found}
    if leaf not in forms:
        raise NotAccepted("the certificate is not in DER")
    return frozenset(map(thumbprint, forms))


def _bits(content: bytes) -> bytes:
    return _der(0x03, b"\0" + content)


def _der(tag: int, content: bytes) -> bytes:
    """A value in DER (X.690, section 8.1)."""
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    written = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(written)]) + written + content


def ends_at(leaf: bytes) -> datetime:
    """Until when a certificate, in DER, that `client_of` took is valid."""
    return x509.load_der_x509_certificate(leaf).not_valid_after_utc


def client_of(leaf: bytes, chain: Sequence[bytes], roots: Sequence[x509.Certificate], now: datetime) -> str:
    """The id of the client that a certificate names, if one of `roots` vouches for it at `now`.

    `leaf` is DER; `chain` are the intermediates that came with it, in DER and in any order; unneeded ones are
    ignored. That the holder has the private key must have been proven before, by TLS or by the signature of a token.
    A certificate whose extended key usage does not allow client authentication is refused. Whether there is such a
    client is not checked. Raises NotAccepted.
    """
    if len(chain) > LONGEST_CHAIN:
        raise NotAccepted(f"more than {LONGEST_CHAIN} intermediates came with the certificate")
    if any(len(each) > LONGEST_CERTIFICATE for each in (leaf, *chain)):
        raise NotAccepted(f"a certificate is larger than {LONGEST_CERTIFICATE} bytes")
    try:
        certificate, *intermediates = map(x509.load_der_x509_certificate, (leaf, *chain))
        _require_strong_key(certificate)
        _verify(certificate, intermediates, roots, now)
        return _named(certificate)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension):
        raise NotAccepted("a certificate cannot be read") from None


def _verify(
    leaf: x509.Certificate, intermediates: list[x509.Certificate], roots: Sequence[x509.Certificate], now: datetime
) -> None:
    optional = Criticality.AGNOSTIC
    # Private CAs leave out what the public ones must write; what is there is checked as theirs is.
    of_leaf = (
        ExtensionPolicy.webpki_defaults_ee()
        .may_be_present(x509.SubjectAlternativeName, optional, None)
        .may_be_present(x509.AuthorityKeyIdentifier, optional, None)
    )
    of_ca = (
        ExtensionPolicy.webpki_defaults_ca()
        .may_be_present(x509.AuthorityKeyIdentifier, optional, None)
        .may_be_present(x509.SubjectKeyIdentifier, optional, None)
        .may_be_present(x509.KeyUsage, optional, _require_signing_of_certificates)
    )
    builder = PolicyBuilder().store(Store(list(roots))).time(now.astimezone(UTC)).max_chain_depth(LONGEST_CHAIN)
    verifier = builder.extension_policies(ca_policy=of_ca, ee_policy=of_leaf).build_client_verifier()
    try:
        verifier.verify(leaf, intermediates)
    except VerificationError as error:
        if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
            raise NotAccepted("the certificate has expired or is not valid yet") from None
        raise NotAccepted(f"the client CA does not vouch for the certificate: {_reason(error)}") from None


def _require_signing_of_certificates(_policy: Policy, _ca: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("its key usage does not let it sign certificates")


def _reason(error: VerificationError) -> str:
    """The library's reason without the names that it adds, which whoever made the certificate chose."""
    return str(error).partition(" (encountered processing")[0].removeprefix("validation failed: ")[:200]


def _require_strong_key(leaf: x509.Certificate) -> None:
    """The library looks at the keys that sign certificates, and not at the one that is certified."""
    key = leaf.public_key()
    is_strong = (
        (isinstance(key, rsa.RSAPublicKey) and key.key_size >= _SMALLEST_RSA_BITS)
        or (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES))
        or isinstance(key, ed25519.Ed25519PublicKey)
    )
    if not is_strong:
        raise NotAccepted("the key must be RSA of 2048 bits or more, on P-256, P-384 or P-521, or Ed25519")


def _named(leaf: x509.Certificate) -> str:
    common_names = [str(each.value) for each in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    urns = [uri.removeprefix(CLIENT_URN) for uri in _uris(leaf) if uri.lower().startswith(CLIENT_URN)]
    if len(common_names) > 1 or len(urns) > 1 or len({*common_names, *urns}) != 1:
        raise NotAccepted(f"the certificate must name one client, as common name or as URI {CLIENT_URN}ID")
    (name,) = {*common_names, *urns}
    if not is_client_id(name):
        raise NotAccepted("what the certificate names is no client id")
    return name


def _uris(leaf: x509.Certificate) -> list[str]:
    try:
        names = leaf.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    except x509.ExtensionNotFound:
        return []
    assert isinstance(names, x509.SubjectAlternativeName)
    return names.get_values_for_type(x509.UniformResourceIdentifier)
