"""Settings: flags before variables before files before defaults."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from kms.config import Settings, load, warnings
from kms.errors import StartError

ROOT = Path(__file__).parents[1]


def test_the_defaults_are_those_of_the_design() -> None:
    settings = load({}, {})
    assert (settings.host, settings.port, settings.data_dir) == ("127.0.0.1", 8443, Path("kms-data"))
    assert (settings.seal, settings.rate_limit, settings.lease) == ("file", "on", timedelta(milliseconds=250))
    assert settings.token_lifetime == timedelta(hours=1)
    assert settings.cryptoperiod == timedelta(days=365)
    assert settings.database == f"sqlite:///{Path('kms-data').absolute() / 'kms.db'}"
    assert settings.workers >= 1


def test_precedence(tmp_path: Path) -> None:
    config = tmp_path / "kms.toml"
    config.write_text('port = 1\nhost = "a"\nworkers = 7\n[cryptoperiods]\nrsa-2048 = "P30D"\n')
    environ = {"KMS_CONFIG": str(config), "KMS_PORT": "2", "KMS_HOST": "b"}
    settings = load({"port": 3}, environ)
    assert (settings.port, settings.host, settings.workers) == (3, "b", 7)
    assert settings.cryptoperiods == {"rsa-2048": timedelta(days=30)}


def test_secrets_from_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("postgresql://u:p@h/d\n")
    settings = load({}, {"KMS_DATABASE_URL_FILE": str(secret), "KMS_SEAL_FILE": "root"})
    assert settings.database == "postgresql+psycopg://u:p@h/d"
    assert settings.seal_file == Path("root")
    assert settings.seal == "file"
    with pytest.raises(StartError, match="KMS_DATABASE_URL_FILE"):
        load({}, {"KMS_DATABASE_URL_FILE": str(tmp_path / "none")})


@pytest.mark.parametrize(
    "environ",
    [
        {"KMS_PORT": "x"}, {"KMS_PORT": "70000"}, {"KMS_WORKERS": "0"}, {"KMS_THREADS": "1"},
        {"KMS_LEASE": "PT0.001S"},
        {"KMS_RATE_LIMIT": "maybe"}, {"KMS_TLS_MIN_VERSION": "1.1"}, {"KMS_CRYPTOPERIOD": "forever"},
        {"KMS_CONFIG": "nowhere.toml"},
    ],
)  # fmt: skip
def test_what_cannot_be_read_stops_the_start(environ: dict[str, str]) -> None:
    with pytest.raises(StartError):
        load({}, environ)


def test_what_kubernetes_sets_beside_a_service_named_kms_is_passed_over() -> None:
    environ = {
        "KMS_PORT": "tcp://10.43.0.1:8443",
        "KMS_PORT_8443_TCP": "tcp://10.43.0.1:8443",
        "KMS_PORT_8443_TCP_PROTO": "tcp",
        "KMS_PORT_8443_TCP_PORT": "8443",
        "KMS_PORT_8443_TCP_ADDR": "10.43.0.1",
        "KMS_SERVICE_HOST": "10.43.0.1",
        "KMS_SERVICE_PORT": "8443",
        "KMS_SERVICE_PORT_HTTPS": "8443",
        "KMS_AUDIT_SERVICE_HOST": "10.43.0.2",
        "KMS_AUDIT_PORT": "udp://10.43.0.2:514",
        "KMS_AUDIT_PORT_514_UDP": "udp://10.43.0.2:514",
    }
    assert load({}, environ) == load({}, {})
    assert warnings(environ) == []
    with pytest.raises(StartError, match="port"):
        load({}, {"KMS_PORT": "http://10.43.0.1"})


def test_variables_that_are_no_settings_are_named() -> None:
    good = {"KMS_PORT": "1", "KMS_SEAL_PASSPHRASE_FILE": "x", "KMS_CONFIG": "x", "KMS_URL": "x", "KMSX": "x"}
    assert warnings(good) == []
    assert warnings({"KMS_PROT": "1"}) == ["KMS_PROT is passed over: there is no such setting. Is KMS_PORT meant?"]
    assert warnings({"KMS_ZZZZZZZZZZ": "1"}) == ["KMS_ZZZZZZZZZZ is passed over: there is no such setting."]
    assert "KMS_CONFIG names" in warnings({"KMS_CRYPTOPERIODS": "x"})[0]


@pytest.mark.parametrize("period", ["PT59S", "P2D", "PT0S", "-PT5M"])
def test_the_console_does_not_wait_for_ever_nor_for_moments(period: str) -> None:
    with pytest.raises(StartError, match="console_idle"):
        load({}, {"KMS_CONSOLE_IDLE": period})
    assert load({}, {"KMS_CONSOLE_IDLE": "PT5M", "KMS_CONSOLE": "off"}).console == "off"


def test_unknown_members_of_the_file_stop_the_start(tmp_path: Path) -> None:
    config = tmp_path / "kms.toml"
    config.write_text("prot = 1\n")
    with pytest.raises(StartError, match="prot"):
        load({"config": str(config)}, {})


def test_every_setting_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "reference" / "settings.md").read_text()
    documented = re.findall(r"^\| `KMS_([A-Z0-9_]+)`", text, re.MULTILINE)
    assert sorted(documented) == sorted([name.upper() for name in Settings.__struct_fields__] + ["CONFIG"])


@pytest.mark.parametrize(
    ("public_url", "origin", "host"),
    [
        (None, "https://localhost:8443", "localhost"),
        ("https://kms.example.com", "https://kms.example.com", "kms.example.com"),
        ("https://KMS.Example.com:443/auth/", "https://kms.example.com", "kms.example.com"),
        ("https://kms.example.com:9443", "https://kms.example.com:9443", "kms.example.com"),
        ("https://schlüssel.example", "https://xn--schlssel-95a.example", "xn--schlssel-95a.example"),
        ("https://[::1]:8443", "https://[::1]:8443", "::1"),
        ("https://user@kms.example.com", "https://kms.example.com", "kms.example.com"),
    ],
)
def test_the_origin_is_as_browsers_write_it(public_url: str | None, origin: str, host: str) -> None:
    settings = load({"public_url": public_url} if public_url else {}, {})
    assert (settings.origin, settings.relying_party_id) == (origin, host)


@pytest.mark.parametrize("public_url", ["kms.example.com", "ftp://x", "https://", "https://x:y", "https://[::1"])
def test_a_public_url_that_is_none_stops_the_start(public_url: str) -> None:
    with pytest.raises(StartError, match="public_url"):
        load({"public_url": public_url}, {})
