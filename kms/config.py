"""Every setting: from flags, then KMS_* variables (or KMS_*_FILE), then one TOML file, then the defaults here."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, get_type_hints
from urllib.parse import urlsplit

import msgspec

from kms.errors import StartError
from kms.process_protection import withheld

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings of one service. A field `x` is the variable KMS_X and the TOML member `x`.

    Relative paths start at the working directory. Periods are ISO 8601 durations (`P90D`); rate limits are in the
    notation of the library `limits` (`60/minute`).
    """

    host: str = "127.0.0.1"
    port: int = 8443
    workers: int = msgspec.field(default_factory=lambda: len(os.sched_getaffinity(0)))
    threads: int = 16
    data_dir: Path = Path("kms-data")
    database_url: str | None = None
    redis_url: str | None = None
    bootstrap_file: Path | None = None

    seal: str = "file"
    seal_file: Path | None = None
    seal_passphrase: str | None = None
    seal_credential: Path | None = None
    seal_pkcs11_module: Path | None = None
    seal_pkcs11_token: str | None = None
    seal_pkcs11_slot: int | None = None
    seal_pkcs11_key: str = "kms"
    seal_pkcs11_pin: str | None = None
    seal_pkcs11_mechanism: Literal["AES_GCM", "AES_CBC"] | None = None
    seal_pkcs11_make_key: Literal["on", "off"] = "on"
    seal_kms_url: str | None = None
    seal_kms_api: Literal["aws", "vault"] | None = None
    seal_kms_key: str | None = None
    seal_kms_ca: Path | None = None
    seal_kms_wait: timedelta = timedelta(minutes=1)
    seal_kms_region: str = "us-east-1"
    seal_kms_access_key_id: str | None = None
    seal_kms_secret_access_key: str | None = None
    seal_kms_session_token: str | None = None
    seal_kms_mount: str = "transit"
    seal_kms_namespace: str | None = None
    seal_kms_token: str | None = None
    seal_kms_role_id: str | None = None
    seal_kms_secret_id: str | None = None
    seal_shamir_shares: int = 5
    seal_shamir_threshold: int = 3
    seal_shares_dir: Path | None = None
    seal_share_files: str = ""

    tls_cert: Path = Path("server.crt")
    tls_key: Path = Path("server.key")
    tls_key_passphrase: str | None = None
    tls_min_version: Literal["1.2", "1.3"] = "1.3"
    client_ca: Path | None = None
    trusted_proxies: str = ""

    token_lifetime: timedelta = timedelta(hours=1)
    metrics_token_lifetime: timedelta = timedelta(days=365)
    access_key_lifetime: timedelta = timedelta(days=1)
    mfa_access_key_lifetime: timedelta = timedelta(days=365)
    public_url: str | None = None
    jwks_hosts: str = ""
    jwks_ca: Path | None = None
    notice_hosts: str = ""
    notice_networks: str = ""
    notice_ca: Path | None = None
    notice_mail_domains: str = ""
    smtp_url: str | None = None
    smtp_password: str | None = None
    smtp_from: str = ""
    aws_account_id: str = "000000000000"
    aws_region: str = "us-east-1"
    transit_mount: str = "transit"
    console: Literal["on", "off"] = "on"
    console_idle: timedelta = timedelta(minutes=15)
    lease: timedelta = timedelta(milliseconds=250)
    max_body_bytes: int = 3 << 19  # a mebibyte in base64, and what goes with it

    cryptoperiod: timedelta = timedelta(days=365)
    cryptoperiods: dict[str, timedelta] = {}
    process_period: timedelta = timedelta(days=3 * 365)
    rotation_period: timedelta | None = None
    integrity_interval: timedelta = timedelta(minutes=5)
    backup_key: str | None = None

    rate_limit: Literal["on", "off"] = "on"
    rate_limit_authenticate: str = "60/minute"
    rate_limit_generate: str = "300/minute"
    rate_limit_manage: str = "600/minute"
    rate_limit_use: str = "5000/second"
    rate_limit_public: str = "600/minute"

    audit_fsync: Literal["never", "always"] = "never"
    audit_dir: Path | None = None
    witness_urls: str = ""
    witness_keys: str = ""
    witness_ca: Path | None = None
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def database(self) -> str:
        """The SQLAlchemy URL of the database: PostgreSQL through psycopg 3, or SQLite in the data directory."""
        url = self.database_url
        if url is None:
            return f"sqlite:///{self.data_dir.absolute() / 'kms.db'}"
        for scheme in ("postgresql://", "postgres://"):
            if url.startswith(scheme):
                return "postgresql+psycopg://" + url.removeprefix(scheme)
        return url

    @property
    def audiences(self) -> frozenset[str]:
        """The accepted values of `aud` in a client assertion: the service's public URL, and its token endpoint."""
        url = (self.public_url or f"https://localhost:{self.port}").rstrip("/")
        return frozenset({url, f"{url}/auth/token"})

    @property
    def origin(self) -> str:
        """The origin of the service's pages, as browsers write it (RFC 6454). Raises StartError for a wrong URL."""
        scheme, host, port = self._public_parts()
        host = f"[{host}]" if ":" in host else host
        return f"{scheme}://{host}" if port in (None, _USUAL_PORTS.get(scheme)) else f"{scheme}://{host}:{port}"

    @property
    def relying_party_id(self) -> str:
        """The host for which passkeys are made (WebAuthn's RP ID). Raises StartError for a wrong URL."""
        return self._public_parts()[1]

    def _public_parts(self) -> tuple[str, str, int | None]:
        url = self.public_url or f"https://localhost:{self.port}"
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").encode("idna").decode(), parts.port
        except ValueError:
            host, port = "", None
        if not host or parts.scheme not in _USUAL_PORTS:
            raise StartError(f"public_url is the URL of the service, such as https://kms.example.com, and not {url}.")
        return parts.scheme, host, port

    @property
    def proxy_networks(self) -> tuple[Network, ...]:
        """The networks in `trusted_proxies`. Raises StartError if one cannot be read, or contains every address."""
        return tuple(_network(text.strip()) for text in self.trusted_proxies.split(",") if text.strip())

    @property
    def run_dir(self) -> Path:
        """The directory of files that the workers of one run share; it is cleared at every start."""
        return self.data_dir / "run"

    @property
    def spool_dir(self) -> Path:
        """Where workers append the audit entries that do not go through the database."""
        return self.data_dir / "audit"

    @property
    def audit_log_dir(self) -> Path:
        """Where the tree of the audit log is. Nodes of one database share it."""
        return self.audit_dir or self.data_dir / "audit-log"

    @property
    def audit_index(self) -> Path:
        """The index of the audit log, of this host alone. Whoever removes it has it made anew."""
        return self.data_dir / "audit-index.db"

    @property
    def audit_origin(self) -> str:
        """The name that the audit log gets when it begins: the public URL without its scheme, and `/audit`."""
        return f"{self.origin.partition('://')[2]}/audit"


_USUAL_PORTS = {"https": 443, "http": 80}
_SHORTEST_BACKUP_KEY = 43  # 256 bits in base64 without padding
_FROM_FILE = "_FILE"
_CONFIG = "KMS_CONFIG"
_TABLE = "KMS_CRYPTOPERIODS"
_OF_THE_COMMAND_LINE = ("KMS_URL", "KMS_CA_CERT", "KMS_HOME")
_SERVICE_NAME = re.compile(
    r"KMS_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_PASSWORD = re.compile(r"//[^/@]*:[^/@]+@|[?&]password=")
_SERVICE_ADDRESS = re.compile("(tcp|udp|sctp)://")


def load(flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings in force. `flags` are those given on the command line, by the name of the setting.

    Raises StartError, which names the setting that is wrong or cannot be read.
    """
    flags = dict(flags or {})
    _require_no_password(flags)
    if environ is os.environ:
        environ = {**withheld, **environ}
    config = flags.pop("config", None) or environ.get(_CONFIG)
    values: dict[str, Any] = {**_from_toml(config), **_from_environment(environ), **flags}
    try:
        settings = msgspec.convert(values, Settings, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise StartError(f"A setting is wrong: {error}") from None
    if not 0 <= settings.port <= 65535 or settings.workers < 1 or settings.threads < 4:
        raise StartError("port must be 0 to 65535, workers at least 1 and threads at least 4.")
    if settings.backup_key is not None and len(settings.backup_key) < _SHORTEST_BACKUP_KEY:
        raise StartError(
            f"backup_key must have {_SHORTEST_BACKUP_KEY} characters: openssl rand -base64 32 makes one."
        )
    if settings.lease < timedelta(milliseconds=20):
        raise StartError("lease must be at least 20 milliseconds (PT0.02S).")
    if not timedelta(minutes=1) <= settings.console_idle <= timedelta(days=1):
        raise StartError("console_idle must be from a minute to a day (PT1M to P1D).")
    _ = settings.proxy_networks, settings.origin
    return settings


def _require_no_password(flags: Mapping[str, Any]) -> None:
    """Refuse a password among the arguments, which every user of a host can read. Raises StartError."""
    for name, value in flags.items():
        if name.endswith("_url") and _PASSWORD.search(str(value)):
            raise StartError(
                f"--{name.replace('_', '-')} has a password in it, and every user of this host can read arguments. "
                f"Write the URL into a file with mode 0600, and name the file in KMS_{name.upper()}_FILE."
            )


def _network(text: str) -> Network:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise StartError(f"trusted_proxies holds addresses and networks with commas between them: {error}.") from None
    if network.prefixlen == 0:
        raise StartError(f"trusted_proxies must not hold {text}: everybody could say to be anybody.")
    return network


def _from_toml(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise StartError(f"Cannot read the settings in {path}: {error}.") from error


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name, hint in get_type_hints(Settings).items():
        variable = f"KMS_{name.upper()}"
        if hint == dict[str, timedelta]:
            continue  # a table: only in the TOML file
        if variable in environ and not _is_of_kubernetes(variable, environ[variable]):
            found[name] = environ[variable]
        elif variable + _FROM_FILE in environ and f"{name}_file" not in Settings.__struct_fields__:
            path = environ[variable + _FROM_FILE]
            try:
                found[name] = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                raise StartError(f"Cannot read {variable + _FROM_FILE}={path}: {error}.") from error
    return found


def warnings(environ: Mapping[str, str] = os.environ) -> list[str]:
    """A warning for each variable KMS_* in `environ` that is not a setting; the service ignores it."""
    settings = {f"KMS_{name.upper()}" for name in Settings.__struct_fields__}
    known = settings | {name + _FROM_FILE for name in settings} | {_CONFIG, *_OF_THE_COMMAND_LINE}
    known -= {_TABLE, _TABLE + _FROM_FILE}
    sentences = []
    for name, value in sorted(environ.items()):
        if not name.startswith("KMS_") or name in known or _is_of_kubernetes(name, value):
            continue
        if name == _TABLE:
            sentences.append(f"{name} is passed over: it is a table, for the file that {_CONFIG} names.")
            continue
        similar = difflib.get_close_matches(name, known, n=1)
        hint = f" Is {similar[0]} meant?" if similar else ""
        sentences.append(f"{name} is passed over: there is no such setting.{hint}")
    return sentences


def _is_of_kubernetes(name: str, value: str) -> bool:
    """Whether Kubernetes sets this variable by itself, in every pod, because of a Service named `kms` or `kms-…`."""
    return bool(_SERVICE_NAME.fullmatch(name) or (name.endswith("_PORT") and _SERVICE_ADDRESS.match(value)))


def _decode(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, (str, Path)):
        return Path(value)
    raise NotImplementedError(f"a setting of type {kind.__name__}")
