"""Which client a certificate names, if it names one at all."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from helpers.authority import DAY, NOW, Issued, issue
from kms.access.certificates import ClientRoots, NotAccepted, client_of, read_roots
from kms.errors import StartError

ROOT = issue("Clients", is_ca=True, signs_certificates=True)
BETWEEN = ROOT.issue("Issuing", is_ca=True, signs_certificates=True)
OTHER = issue("Clients", is_ca=True, signs_certificates=True)  # another with the same name
RSA = {bits: rsa.generate_private_key(65537, bits) for bits in (1024, 2048)}
URN = "urn:kms:client:pay-api"


def _client(leaf: Issued, *chain: Issued, roots: Sequence[Issued] = (ROOT,), now: datetime = NOW) -> str:
    return client_of(leaf.der, [each.der for each in chain], [each.certificate for each in roots], now)


@pytest.mark.parametrize(
    "leaf",
    [
        ROOT.issue("pay-api"),
        ROOT.issue("pay-api", use=ExtendedKeyUsageOID.CLIENT_AUTH),
        ROOT.issue("pay-api", is_ca=None),
        ROOT.issue("pay-api", key=RSA[2048]),
        ROOT.issue("pay-api", key=ed25519.Ed25519PrivateKey.generate()),
        ROOT.issue("pay-api", dns=("pay.example.org",)),
        ROOT.issue("pay-api", uris=("spiffe://example.org/pay",)),
        ROOT.issue(uris=(URN,)),
        ROOT.issue("pay-api", uris=(URN,)),
    ],
)
def test_a_certificate_names_its_client(leaf: Issued) -> None:
    assert _client(leaf) == "pay-api"


def test_intermediates_come_with_it_or_are_trusted_themselves() -> None:
    leaf = BETWEEN.issue("pay-api")
    assert _client(leaf, BETWEEN) == "pay-api"
    assert _client(leaf, OTHER, BETWEEN, ROOT) == "pay-api"
    assert _client(leaf, roots=[BETWEEN]) == "pay-api"
    with pytest.raises(NotAccepted, match="does not vouch"):
        _client(leaf)
    with pytest.raises(NotAccepted, match="does not vouch"):
        _client(leaf, BETWEEN, roots=[OTHER])


NO_CA = ROOT.issue("pay-api")
NO_SIGNING = ROOT.issue("Issuing", is_ca=True, signs_certificates=False)


@pytest.mark.parametrize(
    ("make", "chain", "reason"),
    [
        (lambda: issue("pay-api"), (), "does not vouch"),
        (lambda: OTHER.issue("pay-api"), (), "does not vouch"),
        (lambda: OTHER.issue("pay-api"), (OTHER,), "does not vouch"),
        (lambda: NO_CA.issue("admin"), (NO_CA,), "does not vouch"),  # a leaf is no CA
        (lambda: NO_SIGNING.issue("admin"), (NO_SIGNING,), "does not vouch"),
        (lambda: ROOT.issue("pay-api", is_ca=True), (), "does not vouch"),
        (lambda: ROOT.issue("pay-api", use=ExtendedKeyUsageOID.SERVER_AUTH), (), "does not vouch"),
        (lambda: ROOT.issue("pay-api", use=ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE), (), "does not vouch"),
        (lambda: ROOT.issue("pay-api", use=ExtendedKeyUsageOID.CODE_SIGNING), (), "does not vouch"),
        (lambda: ROOT.issue("pay-api", extra=x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\5\0")), (),
         "does not vouch"),
        (lambda: ROOT.issue("pay-api", ends=NOW - timedelta(hours=1)), (), "expired or is not valid yet"),
        (lambda: ROOT.issue("pay-api", begins=NOW + timedelta(hours=1)), (), "expired or is not valid yet"),
        (lambda: ROOT.issue("pay-api", key=RSA[1024]), (), "the key must be"),
        (lambda: ROOT.issue("pay-api", key=ec.generate_private_key(ec.SECP192R1())), (), "the key must be"),
        (lambda: ROOT.issue("pay-api", key=dsa.generate_private_key(1024)), (), "the key must be"),
        (lambda: ROOT.issue("pay-api", "pay-api"), (), "must name one client"),
        (lambda: ROOT.issue("pay-api", "admin"), (), "must name one client"),
        (lambda: ROOT.issue(), (), "must name one client"),
        (lambda: ROOT.issue("pay-api", uris=("urn:kms:client:admin",)), (), "must name one client"),
        (lambda: ROOT.issue(uris=(URN, "urn:kms:client:admin")), (), "must name one client"),
        (lambda: ROOT.issue(dns=("pay-api",)), (), "must name one client"),
        (lambda: ROOT.issue(uris=("URN:kms:client:pay-api",)), (), "no client id"),
        (lambda: ROOT.issue("pay-api\0.example.org"), (), "no client id"),
        (lambda: ROOT.issue("pay-api\n"), (), "no client id"),
        (lambda: ROOT.issue(" pay-api"), (), "no client id"),
        (lambda: ROOT.issue("páy-api"), (), "no client id"),
        (lambda: ROOT.issue("*"), (), "no client id"),
    ],
)  # fmt: skip
def test_what_proves_nobody(make: Callable[[], Issued], chain: tuple[Issued, ...], reason: str) -> None:
    with pytest.raises(NotAccepted, match=reason) as refused:
        _client(make(), *chain)
    assert "\n" not in str(refused.value)
    assert "pay-api" not in str(refused.value)  # whoever made the certificate chose what stands in it


def test_every_certificate_of_the_chain_is_in_force() -> None:
    leaf = BETWEEN.issue("pay-api", ends=NOW + 9 * DAY)
    assert _client(leaf, BETWEEN) == "pay-api"
    with pytest.raises(NotAccepted, match="does not vouch"):
        _client(leaf, BETWEEN, now=NOW + 2 * DAY)


def test_weak_keys_and_hashes_in_the_chain_count_too() -> None:
    weak = issue("Weak", key=RSA[1024], is_ca=True)
    with pytest.raises(NotAccepted, match="does not vouch"):
        _client(weak.issue("pay-api"), roots=[weak])
    between = ROOT.issue("Weak", key=RSA[1024], is_ca=True)
    with pytest.raises(NotAccepted, match="does not vouch"):
        _client(between.issue("pay-api"), between)


def test_a_chain_has_an_end() -> None:
    chain = [ROOT]
    for number in range(4):
        chain.append(chain[-1].issue(f"CA {number}", is_ca=True))
    assert _client(chain[-1].issue("pay-api"), *chain[1:]) == "pay-api"
    longer = chain[-1].issue("CA 4", is_ca=True)
    with pytest.raises(NotAccepted, match="more than 4"):
        _client(longer.issue("pay-api"), *chain[1:], longer)
    with pytest.raises(NotAccepted, match="larger than"):
        client_of(b"\x30" * 20_000, [], [ROOT.certificate], NOW)


@pytest.mark.parametrize("leaf", [b"", b"\x30\x00", b"garbage", ROOT.issue("pay-api").der + b"\x00"])
def test_what_is_no_certificate(leaf: bytes) -> None:
    with pytest.raises(NotAccepted, match="cannot be read"):
        client_of(leaf, [], [ROOT.certificate], NOW)
    with pytest.raises(NotAccepted, match="cannot be read"):
        client_of(ROOT.issue("pay-api").der, [leaf], [ROOT.certificate], NOW)


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def test_chains_that_openssl_makes(tmp_path: Path) -> None:
    new = ["-newkey", "rsa:2048", "-nodes"]
    _openssl(tmp_path, "req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/O=A/CN=Clients")
    sign = ["x509", "-req", "-in", "a.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"]
    _openssl(tmp_path, "req", "-new", *new, "-keyout", "a.key", "-out", "a.csr", "-subj", "/O=A/CN=pay-api")
    (tmp_path / "extensions").write_text("extendedKeyUsage = clientAuth\n")
    _openssl(tmp_path, *sign, "-out", "a.crt", "-extfile", "extensions")
    _openssl(tmp_path, *sign, "-out", "v1.crt")  # without extensions it is of version 1
    _openssl(tmp_path, *sign, "-out", "sha1.crt", "-extfile", "extensions", "-sha1")
    roots = read_roots(tmp_path / "ca.crt")

    def client(name: str) -> str:
        leaf = x509.load_pem_x509_certificate((tmp_path / name).read_bytes()).public_bytes(Encoding.DER)
        return client_of(leaf, [], roots, datetime.now(UTC))

    assert client("a.crt") == "pay-api"
    for name in ("v1.crt", "sha1.crt"):
        with pytest.raises(NotAccepted, match="does not vouch"):
            client(name)


@pytest.mark.parametrize("content", ["", "garbage", NO_CA.pem, ROOT.pem + NO_CA.pem, issue("x", is_ca=None).pem])
def test_roots_that_cannot_be_trusted_stop_the_start(tmp_path: Path, content: str) -> None:
    path = tmp_path / "clients.pem"
    with pytest.raises(StartError, match="Cannot read"):
        read_roots(path)
    path.write_text(content)
    with pytest.raises(StartError, match=r"clients\.pem"):
        ClientRoots(path)


def test_roots_are_read_again_when_their_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "clients.pem"
    path.write_text(ROOT.pem)
    roots = ClientRoots(path)
    assert list(roots.in_force()) == [ROOT.certificate]
    path.write_text(OTHER.pem + ROOT.pem)
    assert list(roots.in_force()) == [OTHER.certificate, ROOT.certificate]
    path.write_text("garbage")
    assert list(roots.in_force()) == [OTHER.certificate, ROOT.certificate]
    path.unlink()
    assert list(roots.in_force()) == [OTHER.certificate, ROOT.certificate]
    path.write_text(OTHER.pem)
    assert list(roots.in_force()) == [OTHER.certificate]
