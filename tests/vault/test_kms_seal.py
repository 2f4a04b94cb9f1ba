"""The seal `kms`: a vault that another service of ours unseals, by either of its APIs, over TLS."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from helpers.certificates import write_pair
from helpers.support import Api, World, free_port
from helpers.tls_world import served
from kms.config import Settings
from kms.errors import StartError
from kms.vault.opening import open_vault
from kms.vault.sealing import SealBroken
from kms.vault.seals.remote_kms import KmsSeal

CONTEXT = b"keyset of a vault"
SECRET = "canary-of-a-secret"
SECRET_OF = {"aws": "seal_kms_secret_access_key", "vault": "seal_kms_secret_id"}


@dataclass
class Other:
    """The other KMS, its certificate and folder, who owns its keys, and a client that is granted one at a time."""

    url: str
    folder: Path
    operator: Api
    access: dict[str, Any]

    def make_key(self, key_id: str) -> None:
        """A key that the client may encrypt and decrypt with, and nothing else."""
        assert self.operator.post("/api/v1/keys", {"key_id": key_id, "type": "aes-256-gcm"}).status_code == 201
        for permission in ("keys:encrypt", "keys:decrypt"):
            grant = {"subject": "client:sealer", "permission": permission, "key_pattern": key_id, "owner": "operator"}
            assert self.operator.post("/api/v1/grants", grant).status_code == 201

    def settings(self, data_dir: Path, api: str, key_id: str, **given: Any) -> Settings:
        """The settings of a service that it unseals, with others that are `given`."""
        id_of = {"aws": "seal_kms_access_key_id", "vault": "seal_kms_role_id"}
        usual = {
            "seal_kms_url": self.url,
            "seal_kms_api": api,
            "seal_kms_key": key_id,
            "seal_kms_ca": self.folder / "server.crt",
            "seal_kms_wait": timedelta(),
            id_of[api]: self.access["access_key_id"],
            SECRET_OF[api]: self.access["secret_access_key"],
        }
        return Settings(data_dir=data_dir, seal="kms", **{**usual, **given})


@pytest.fixture(scope="module")
def other(shared_world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Other]:
    operator, sealer = shared_world.user("operator"), shared_world.user("sealer")
    access = sealer.post("/api/v1/access-keys", {}).json
    folder = tmp_path_factory.mktemp("tls")
    with served(shared_world, folder) as (url, _):
        yield Other(url, folder, operator, access)


@pytest.fixture(params=["aws", "vault"])
def api(request: pytest.FixtureRequest) -> str:
    """By which API the vault is unsealed."""
    return str(request.param)


@pytest.fixture
def key_id(other: Other, request: pytest.FixtureRequest, api: str) -> str:
    """A key of this test."""
    name = f"{request.function.__name__[:40]}-{api}"
    other.make_key(name)
    return name


def refusal(settings: Settings) -> str:
    with pytest.raises(StartError) as refused:
        open_vault(settings)
    return str(refused.value)


def test_a_vault_is_unsealed_by_another_service(other: Other, api: str, key_id: str, tmp_path: Path) -> None:
    settings = other.settings(tmp_path / "data", api, key_id)
    vault = open_vault(settings)
    keyset = vault.derived_keys.keyset
    vault.close()
    again = open_vault(settings)
    assert again.derived_keys.keyset == keyset
    again.close()
    wrong = "vault" if api == "aws" else "aws"
    assert f"sealed by the API `{api}`" in refusal(other.settings(tmp_path / "data", wrong, key_id))


def test_what_was_wrapped_for_another_context_or_altered_does_not_open(
    other: Other, api: str, key_id: str, tmp_path: Path
) -> None:
    seal = KmsSeal(other.settings(tmp_path, api, key_id))
    parameters = seal.create()
    wrapped = seal.wrap(b"keyset", CONTEXT, parameters)
    assert b"keyset" not in wrapped
    assert seal.unwrap(wrapped, CONTEXT, parameters) == b"keyset"
    with pytest.raises(SealBroken):
        seal.unwrap(wrapped, b"keyset of another", parameters)
    for place in (20, 45, len(wrapped) - 1):
        altered = wrapped[:place] + bytes([wrapped[place] ^ 1]) + wrapped[place + 1 :]
        with pytest.raises(SealBroken):
            seal.unwrap(altered, CONTEXT, parameters)
    for cut in (b"", b"\x00\x00", wrapped[:60]):
        with pytest.raises(SealBroken):
            seal.unwrap(cut, CONTEXT, parameters)


def test_the_keyslot_of_another_vault_does_not_open(other: Other, api: str, key_id: str, tmp_path: Path) -> None:
    vaults = [open_vault(other.settings(tmp_path / name, api, key_id)) for name in ("one", "two")]
    with vaults[0].engine.connect() as connection:
        stolen = connection.exec_driver_sql("SELECT wrapped, seal FROM keyslots").one()
    with vaults[1].engine.begin() as connection:
        connection.exec_driver_sql("UPDATE keyslots SET wrapped = ?, seal = ?", tuple(stolen))
    for vault in vaults:
        vault.close()
    assert "gives another root key" in refusal(other.settings(tmp_path / "two", api, key_id))


def test_each_fault_is_a_sentence(other: Other, api: str, key_id: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    good = other.settings(data, api, key_id)
    open_vault(good).close()
    write_pair(tmp_path)
    other.make_key(f"{key_id}-2")
    credentials = "does not take the credentials" if api == "aws" else "to the login as an AppRole"
    for given, said in (
        ({"seal_kms_url": None}, "needs KMS_SEAL_KMS_URL"),
        ({"seal_kms_api": None}, "KMS_SEAL_KMS_API (`aws` or `vault`)"),
        ({"seal_kms_key": None}, "and KMS_SEAL_KMS_KEY"),
        ({"seal_kms_url": other.url.replace("https", "http")}, "write https://"),
        ({"seal_kms_url": f"https://localhost:{free_port()}"}, "Connection refused; it was waited for"),
        ({"seal_kms_url": f"{other.url}/elsewhere"}, "it answered 404"),
        ({"seal_kms_ca": None}, "its certificate is not trusted"),
        ({"seal_kms_ca": tmp_path / "server.crt"}, "its certificate is not trusted"),
        ({"seal_kms_ca": tmp_path / "nowhere"}, "the file that KMS_SEAL_KMS_CA names"),
        ({"seal_kms_key": "unknown"}, "Invalid keyId 'unknown'" if api == "aws" else "key not found"),
        ({SECRET_OF[api]: SECRET}, credentials),
        ({SECRET_OF[api]: None}, f"needs KMS_{SECRET_OF[api].upper()}_FILE"),
        ({SECRET_OF[api]: f"{SECRET}\r\nX-Other: 1"}, "cannot be in such a value"),
        (
            {"seal_kms_key": f"{key_id}-2"},
            "was sealed with another key" if api == "aws" else "gives another root key",
        ),
    ):
        text = refusal(other.settings(data, api, key_id, **given))
        assert said in text, text
        assert SECRET not in text
    open_vault(good).close()


def test_a_key_that_is_not_to_be_used_any_more(other: Other, api: str, key_id: str, tmp_path: Path) -> None:
    settings, path = other.settings(tmp_path / "data", api, key_id), f"/api/v1/keys/{key_id}"
    open_vault(settings).close()
    other.operator.post(f"{path}/rotate", {})
    open_vault(settings).close()
    other.operator.post(f"{path}/suspend", {})
    assert ("is disabled" if api == "aws" else "is suspended") in refusal(settings)
    other.operator.post(f"{path}/resume", {})
    open_vault(settings).close()
    other.operator.post(f"{path}/revoke", {})
    assert "was revoked" in refusal(settings)


def test_a_grant_that_was_taken_away(other: Other, api: str, key_id: str, tmp_path: Path) -> None:
    settings = other.settings(tmp_path / "data", api, key_id)
    open_vault(settings).close()
    for grant in other.operator.get("/api/v1/grants").json["items"]:
        if grant["key_pattern"] == key_id and grant["permission"] == "keys:decrypt":
            other.operator.delete(f"/api/v1/grants/{grant['grant_id']}")
    assert "cannot be used" in refusal(settings)


def test_a_service_does_not_unseal_itself(other: Other, tmp_path: Path) -> None:
    port = free_port()
    for given in (
        {"seal_kms_url": f"https://localhost:{port}", "port": port},
        {"seal_kms_url": f"https://localhost:{port}", "port": port, "host": "0.0.0.0"},
        {"seal_kms_url": f"https://127.0.0.1:{port}", "port": port, "host": "localhost"},
        {"seal_kms_url": f"https://[::1]:{port}", "port": port, "host": "::"},
        {"seal_kms_url": "https://kms.example.org", "public_url": "https://kms.example.org"},
        {"seal_kms_url": "https://kms.example.org:443/x", "public_url": "https://kms.example.org/"},
    ):
        settings = other.settings(tmp_path / "data", "aws", "seal", **given)
        assert "very service" in refusal(settings)
    another = other.settings(
        tmp_path / "data", "aws", "seal", seal_kms_url=f"https://127.0.0.2:{port}", port=port, host="127.0.0.1"
    )
    assert "Connection refused" in refusal(another)


@contextmanager
def answering(folder: Path, *answers: tuple[int, bytes]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that gives these answers, the last one over and over; its URL, and the headers that it got."""
    left, got = list(answers), []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append({**self.headers})
            self.rfile.read(int(self.headers["Content-Length"]))
            status, content = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            self.send_header("Location", "https://localhost:1/")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with suppress(OSError):  # who asked may have had enough
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("localhost", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"https://localhost:{server.server_port}", got
    server.shutdown()
    server.server_close()


def test_answers_that_are_of_no_use(other: Other, api: str, tmp_path: Path) -> None:
    told = json.dumps({"__type": "Weird", "message": f"you said {SECRET}", "errors": [f"you said {SECRET}"]}).encode()
    for status, content, said in (
        (307, b"{}", "redirects are not followed"),
        (503, b"{}", "it answered 503; it was waited for"),
        (429, b"{}", "it answered 429; it was waited for"),
        (400, told, "refuses transit/encrypt/seal" if api == "vault" else "it answered 400"),
        (400, b"\xff" * 100, "refuses transit/encrypt/seal" if api == "vault" else "it answered 400"),
        (200, b"[]", "its answer has no cipher" if api == "vault" else "its answer has no Cipher"),
        (200, b'{"data": {"ciphertext": 5}, "CiphertextBlob": 5}', "its answer has no "),
        (200, b"{" * 200_000, "too long"),
    ):
        with answering(other.folder, (status, content)) as (url, _):
            given: dict[str, Any] = {"seal_kms_url": url, "seal_kms_role_id": None}
            given |= {"seal_kms_token": SECRET} if api == "vault" else {SECRET_OF[api]: SECRET}
            text = refusal(other.settings(tmp_path / "data", api, "seal", **given))
        assert said in text, text
        assert SECRET not in text
    assert not list((tmp_path / "data").glob("*.key"))


def test_a_kms_that_is_busy_is_waited_for(
    other: Other, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("kms.vault.seals.remote.time.sleep", pauses.append)
    busy = [(503, b""), (429, b""), (400, b'{"__type": "ThrottlingException"}'), (500, b""), (502, b"")]
    with answering(other.folder, *busy, (400, b'{"__type": "DisabledException"}')) as (url, got):
        given = {"seal_kms_url": url, "seal_kms_wait": timedelta(minutes=1)}
        text = refusal(other.settings(tmp_path / "data", "aws", "seal", **given))
    assert "the key seal is disabled" in text
    assert pauses == [1, 2, 4, 8, 8]
    assert len(got) == 6
    said = capsys.readouterr().out
    assert said.count("waiting for the KMS at localhost:") == 5
    assert str(other.access["secret_access_key"]) not in said


def test_what_is_sent_to_openbao(other: Other, tmp_path: Path) -> None:
    """The token and the namespace in their headers, and nothing that is secret in the request line."""
    with answering(other.folder, (403, b'{"errors": ["permission denied"]}')) as (url, got):
        given = {"seal_kms_url": url, "seal_kms_role_id": None, "seal_kms_token": SECRET}
        settings = other.settings(tmp_path / "data", "vault", "seal", seal_kms_namespace="team-a", **given)
        assert 'does not allow `update` on transit/encrypt/seal: "permission denied"' in refusal(settings)
        for unusable in ({"seal_kms_key": "a/../b"}, {"seal_kms_mount": "transit?x"}, {"seal_kms_token": "a b"}):
            refusal(other.settings(tmp_path / "data", "vault", "seal", **{**given, **unusable}))
    (headers,) = got
    assert headers["X-Vault-Token"] == SECRET
    assert headers["X-Vault-Namespace"] == "team-a"
    assert headers["X-Vault-Request"] == "true"
