"""The pair that is made for a first try."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path

import pytest
from cryptography import x509

from kms.config import Settings
from kms.errors import StartError
from kms.tls import checked_pair, ensure_material, own_addresses


def _settings(folder: Path, host: str = "127.0.0.1") -> Settings:
    return Settings(
        host=host, data_dir=folder / "data", tls_cert=folder / "server.crt", tls_key=folder / "server.key"
    )


def _names(folder: Path) -> x509.SubjectAlternativeName:
    made = x509.load_pem_x509_certificate((folder / "server.crt").read_bytes())
    return made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("schlüssel", ["localhost", "xn--schlssel-95a"]),
        ("kms.example.org", ["localhost", "kms.example.org"]),
        ("a" * 70, ["localhost"]),  # longer than a name may be
        ("bad\udcff", ["localhost"]),  # not UTF-8, as the system gives it
        ("", ["localhost"]),
    ],
)
def test_host_names_as_certificates_write_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, written: list[str]
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    ensure_material(_settings(tmp_path, "schlüssel.example"))
    expected = [*written, "xn--schlssel-95a.example"]
    assert _names(tmp_path).get_values_for_type(x509.DNSName) == expected


@pytest.mark.parametrize(("host", "version"), [("0.0.0.0", 4), ("::", 6)])
def test_a_certificate_for_every_address_names_those_of_the_host(tmp_path: Path, host: str, version: int) -> None:
    ensure_material(_settings(tmp_path, host))
    named = set(map(str, _names(tmp_path).get_values_for_type(x509.IPAddress)))
    assert named == {"127.0.0.1", "::1", *own_addresses(version)}
    assert host not in named
    for each in named:
        if ipaddress.ip_address(each).version == 4:
            probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            probe.bind((each, 0))  # only an address of this host can be had
            probe.close()


@pytest.mark.parametrize("missing", ["server.key", "server.crt"])
def test_a_pair_that_cannot_be_written_leaves_no_half_and_names_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    replace = os.replace

    def refuse(source: str, target: str) -> None:
        if Path(target).name == missing:
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StartError, match=f"{missing}: Permission denied.*KMS_TLS_KEY"):
        ensure_material(_settings(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    ensure_material(_settings(tmp_path))
    for name in ("server.crt", "server.key"):
        kept = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
        with pytest.raises(StartError, match=f"{name} is no file"):
            checked_pair(_settings(tmp_path))
        (tmp_path / name).unlink()
        (tmp_path / name).write_bytes(kept)
