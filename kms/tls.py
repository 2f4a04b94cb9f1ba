"""TLS certificates and keys: loads, checks or (for a first try) makes a pair, and builds the server context."""

from __future__ import annotations

import codecs
import fcntl
import ipaddress
import os
import socket
import ssl
import stat
import struct
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kms.access import certificates
from kms.config import Settings
from kms.errors import StartError
from kms.files import private_directory, write_private
from kms.secret import Secret

_SELF_SIGNED_FOR = timedelta(days=825)
_TLS12_SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20"
_SIOCGIFADDR = 0x8915  # Linux: the IPv4 address of an interface
_IPV6_ADDRESSES = Path("/proc/net/if_inet6")


@dataclass(frozen=True)
class Pair:
    """A checked certificate chain (PEM) and its key, unencrypted in PKCS#8 PEM; `kind` says for people what it is."""

    chain: bytes
    key: Secret
    kind: str


class ServedPair:
    """A pair at two paths that servers in this process and those forked from it can read, until it is closed.

    It is memory that ends with these processes and never touches the disk. Where the system has no such thing it is
    a file without a name below `directory`.
    """

    def __init__(self, certificate: int, key: int) -> None:
        self.descriptors = certificate, key
        self.certificate, self.key = (f"/proc/self/fd/{each}" for each in self.descriptors)

    @classmethod
    def of(cls, pair: Pair, directory: Path) -> ServedPair:
        """A copy of `pair`, which stays usable if the files are replaced by a bad pair later."""
        return cls(_unnamed(pair.chain, directory), _unnamed(pair.key.reveal(), directory))

    def close(self) -> None:
        """Release the copy. A server that has read it already goes on."""
        for each in self.descriptors:
            os.close(each)


def _unnamed(content: bytes, directory: Path) -> int:
    """The descriptor of a file without a name."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("kms-tls")
    else:
        with tempfile.TemporaryFile(dir=private_directory(directory)) as file:
            descriptor = os.dup(file.fileno())
    os.pwrite(descriptor, content, 0)
    return descriptor


def ensure_material(settings: Settings) -> None:
    """Make a self-signed pair where there is none at all. Raises StartError for half a pair."""
    certificate, key = settings.tls_cert, settings.tls_key
    if certificate.exists() and key.exists():
        return
    if certificate.exists() or key.exists():
        there, missing = (certificate, key) if certificate.exists() else (key, certificate)
        raise StartError(f"{there} is there and {missing} is not. Give both, or remove the one to have a pair made.")
    names = _make_self_signed(certificate, key, settings.host)
    structlog.get_logger().warning(f"made a self-signed certificate {certificate} for {', '.join(names)}")


def server_context(settings: Settings) -> ssl.SSLContext:
    """A server context from the pair: TLS 1.2 at the least, forward secrecy always.

    Raises StartError with the reason where the pair is unreadable, mismatched, expired or not valid yet.
    """
    pair = checked_pair(settings)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2 if settings.tls_min_version == "1.2" else ssl.TLSVersion.TLSv1_3
    context.set_ciphers(_TLS12_SUITES)  # TLS 1.3 has forward secrecy in every suite
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    served = ServedPair.of(pair, settings.run_dir)
    try:
        context.load_cert_chain(served.certificate, served.key)
    except (ssl.SSLError, OSError) as error:
        raise StartError(f"{settings.tls_cert} and {settings.tls_key} cannot be used: {error}.") from error
    finally:
        served.close()
    return context


def ask_for_certificates(context: ssl.SSLContext, client_ca: Path) -> None:
    """Have a server context ask for a client certificate, and refuse one that `client_ca` does not vouch for.

    Clients without one go on. Raises StartError for a CA that cannot be used.
    """
    roots = certificates.read_roots(client_ca)
    context.load_verify_locations(cadata="".join(each.public_bytes(Encoding.PEM).decode() for each in roots))
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an intermediate in the file is trusted, as by client_of
    # A session that is taken up again would bring the certificate without its intermediates, unchecked.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET


def checked_pair(settings: Settings) -> Pair:
    """The pair, if it fits and is in force. Raises StartError as `server_context` does."""
    try:
        chain = x509.load_pem_x509_certificates(_read(settings.tls_cert))
        leaf, certified = chain[0], _spki(chain[0].public_key())
    except (ValueError, IndexError, x509.InvalidVersion):
        raise StartError(f"{settings.tls_cert} is not a certificate in PEM.") from None
    except UnsupportedAlgorithm:
        raise StartError(f"{settings.tls_cert} is for a kind of key that is not supported.") from None
    key = _private_key(settings)
    now = datetime.now(UTC)
    if now >= leaf.not_valid_after_utc:
        raise StartError(f"{settings.tls_cert} expired on {leaf.not_valid_after_utc:%Y-%m-%d}. Renew it.")
    if now < leaf.not_valid_before_utc:
        raise StartError(f"{settings.tls_cert} is not valid before {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC.")
    if certified != _spki(key.public_key()):
        raise StartError(f"{settings.tls_key} is not the key of {settings.tls_cert}.")
    # Nothing else that the file may hold: comments, parameters, or the key.
    cleaned = b"".join(each.public_bytes(Encoding.PEM) for each in chain)
    return Pair(cleaned, Secret(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())), _kind(key))


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _kind(key: PrivateKeyTypes) -> str:
    if isinstance(key, rsa.RSAPrivateKey):
        return f"RSA of {key.key_size} bits"
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.curve.name
    return type(key).__name__.removesuffix("PrivateKey")


def _private_key(settings: Settings) -> PrivateKeyTypes:
    passphrase = settings.tls_key_passphrase
    path = settings.tls_key
    try:
        return load_pem_private_key(_read(path), passphrase.encode() if passphrase else None)
    except TypeError:
        if passphrase:  # given, and the key is not encrypted: there is nothing to unlock
            return load_pem_private_key(_read(path), None)
        raise StartError(f"{path} is encrypted; name its passphrase's file in KMS_TLS_KEY_PASSPHRASE_FILE.") from None
    except (ValueError, UnsupportedAlgorithm):
        reason = "the passphrase is wrong, or it" if passphrase else "it"
        raise StartError(f"{path} cannot be read: {reason} is not a private key in PEM.") from None


def _read(path: Path) -> bytes:
    try:
        # What is no file might never end, and this is read while signals wait.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise StartError(f"{path} is no file.")
            return file.read().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise StartError(f"Cannot read {path}: {error.strerror}.") from error


def _make_self_signed(certificate: Path, key_path: Path, host: str) -> list[str]:
    key = ec.generate_private_key(ec.SECP256R1())
    dns_names = dict.fromkeys(["localhost", *_dns_name(socket.gethostname())])
    addresses = dict.fromkeys(["127.0.0.1", "::1"])
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        dns_names |= dict.fromkeys(_dns_name(host))
    else:
        found = own_addresses(address.version) if address.is_unspecified else [str(address)]
        addresses |= dict.fromkeys(found)
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "KMS (self-signed)")])
    subject_key = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    other_uses = (
        "content_commitment key_encipherment data_encipherment key_agreement "
        "key_cert_sign crl_sign encipher_only decipher_only"
    )
    key_usage = x509.KeyUsage(digital_signature=True, **dict.fromkeys(other_uses.split(), False))
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _SELF_SIGNED_FOR)
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    *(x509.DNSName(each) for each in dns_names),
                    *(x509.IPAddress(ipaddress.ip_address(each)) for each in addresses),
                ]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(subject_key, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject_key), critical=False)
        .sign(key, hashes.SHA256())
    )
    try:
        write_private(key_path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        write_private(certificate, built.public_bytes(Encoding.PEM))
    except StartError as error:
        key_path.unlink(missing_ok=True)  # alone it would keep the next start from making a pair
        raise StartError(
            f"A certificate cannot be made. {error} KMS_TLS_CERT and KMS_TLS_KEY name where it is, or is to be made."
        ) from error
    certificate.chmod(0o644)
    return [*dns_names, *addresses]


def _dns_name(name: str) -> list[str]:
    """A host name as certificates write it, in ASCII; nothing where it cannot be written so."""
    try:
        return [name.encode("idna").decode("ascii")] if name else []
    except UnicodeError:
        return []


def own_addresses(version: int) -> list[str]:
    """The addresses of this host's interfaces; those of IPv6 too where `version` is 6, link-local ones apart."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # it has none
                answer = fcntl.ioctl(asking, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                found.append(socket.inet_ntoa(answer[20:24]))
    if version == 6 and _IPV6_ADDRESSES.exists():
        numbers = (int(line.split()[0], 16) for line in _IPV6_ADDRESSES.read_text().splitlines())
        found += [str(each) for each in map(ipaddress.IPv6Address, numbers) if not each.is_link_local]
    return found
