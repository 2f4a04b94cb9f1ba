"""The TLS pair: what is refused before it is served, and what takes its place."""

from __future__ import annotations

import codecs
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from helpers.certificates import write_pair_of
from helpers.running import wait_until
from kms.config import Settings
from kms.errors import StartError
from kms.renewal import Renewal, context_in_force, require_served


def _settings(folder: Path) -> Settings:
    return Settings(data_dir=folder / "data", tls_cert=folder / "server.crt", tls_key=folder / "server.key")


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048),
    ],
    ids=lambda key: type(key).__name__,
)  # fmt: skip
def test_what_granian_serves_is_taken(tmp_path: Path, key: CertificateIssuerPrivateKeyTypes) -> None:
    write_pair_of(tmp_path, key, prefix=codecs.BOM_UTF8)  # as some editors leave it
    require_served(_settings(tmp_path))


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (ec.generate_private_key(ec.SECP521R1()), "secp521r1"),
        (ec.generate_private_key(ec.SECP256K1()), "secp256k1"),
        (ec.generate_private_key(ec.BrainpoolP256R1()), "brainpoolP256r1"),
        (ed448.Ed448PrivateKey.generate(), "Ed448"),
        (rsa.generate_private_key(65537, 2056), "RSA of 2056 bits"),
        (rsa.generate_private_key(3, 2048), "RSA of 2048 bits"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_granian_does_not_serve_is_refused_in_a_sentence(
    tmp_path: Path, key: CertificateIssuerPrivateKeyTypes, kind: str
) -> None:
    write_pair_of(tmp_path, key)
    with pytest.raises(StartError, match=f"cannot be served with this key.*{kind}.*P-256 or P-384"):
        require_served(_settings(tmp_path))


def test_curves_by_explicit_parameters_are_refused(tmp_path: Path) -> None:
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    make += ["-pkeyopt", "ec_param_enc:explicit", "-subj", "/CN=localhost"]
    subprocess.run([*make, "-keyout", "server.key", "-out", "server.crt"], cwd=tmp_path, check=True)
    with pytest.raises(StartError, match=r"server\.(crt|key)"):
        require_served(_settings(tmp_path))


def test_a_pair_that_is_mounted_anew_is_taken_by_itself(tmp_path: Path) -> None:
    """As Kubernetes does it: the files are links through `..data`, which is replaced in one step."""
    for number in (1, 2, 3):
        (tmp_path / f"..{number}").mkdir()
    write_pair_of(tmp_path / "..1", ec.generate_private_key(ec.SECP256R1()))
    write_pair_of(tmp_path / "..2", ec.generate_private_key(ec.SECP521R1()))
    write_pair_of(tmp_path / "..3", ec.generate_private_key(ec.SECP384R1()))
    (tmp_path / "..data").symlink_to("..1")
    for name in ("server.crt", "server.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    renewal = Renewal(_settings(tmp_path))
    first = renewal.pair
    assert not renewal.renew(asked=False)

    def mount(name: str) -> None:
        (tmp_path / "..next").symlink_to(name)
        (tmp_path / "..next").replace(tmp_path / "..data")

    mount("..2")
    assert not renewal.renew(asked=True)  # it cannot be served
    assert renewal.pair is first
    mount("..3")
    wait_until(lambda: renewal.renew(asked=False), every=0.1)
    assert renewal.pair is not first
    assert not renewal.renew(asked=False)


def test_a_server_that_asks_each_time_keeps_the_last_good_pair(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    write_pair_of(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    first = context_in_force(settings)
    assert context_in_force(settings) is first
    (tmp_path / "server.crt").write_text("garbage")
    assert context_in_force(settings) is first
    write_pair_of(tmp_path, ec.generate_private_key(ec.SECP521R1()))  # OpenSSL serves it
    assert context_in_force(settings) is not first
