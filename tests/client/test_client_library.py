"""The client library against the service over TLS: uses, batches, keys, ways in, and what it says of refusals."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from helpers.support import World
from helpers.tls_world import token_of
from helpers.tokens import AUDIENCE, PlatformIssuer, new_key, private_pem, public_pem
from kms.api import client_table
from kms.client import Client, KmsError, errors, key_transport, uses
from kms.client.errors import Refused
from kms.client.kept_login import KeptLogin, save
from kms.client.logins import PlatformTokenLogin, PrivateKeyLogin, SecretLogin
from kms.client.operations import operations
from kms.operations import OPERATIONS

Address = tuple[str, str]


def test_every_use(alice: Client) -> None:
    sealed = alice.encrypt("orders", b"4711", b"customer 42")
    assert alice.decrypt("orders", sealed, b"customer 42") == b"4711"
    assert alice.rotate("orders").latest_version >= 2
    assert alice.decrypt("orders", alice.rewrap("orders", sealed, b"customer 42"), b"customer 42") == b"4711"
    data_key = alice.data_key("orders", 128)
    assert (len(data_key.plaintext), alice.decrypt("orders", data_key.ciphertext)) == (16, data_key.plaintext)
    assert data_key.plaintext.hex() not in repr(data_key)
    assert alice.unwrap("orders", alice.wrap("orders", bytes(16))) == bytes(16)
    signature = alice.sign("signer", b"message", signature_format="der")
    assert alice.verify("signer", b"message", signature, signature_format="der")
    assert not alice.verify("signer", b"other", signature, signature_format="der")
    for kind in ("hmac-sha256", "x25519", "ml-kem-768"):
        alice.create_key(kind, kind)
    alice.create_key("hpke", "x25519", usages=["seal", "open"])
    assert alice.verify_mac("hmac-sha256", b"message", alice.mac("hmac-sha256", b"message"))
    assert len(alice.agree("x25519", alice.public_key("x25519"), length=32)) == 32
    assert alice.open_sealed("hpke", alice.seal("hpke", b"for you", b"info"), b"info") == b"for you"
    secret = alice.encapsulate("ml-kem-768")
    assert alice.decapsulate("ml-kem-768", secret.ciphertext) == secret.shared_secret
    assert len(alice.random(24)) == 24


def test_many_uses_travel_together_and_fail_apart(alice: Client) -> None:
    texts = [f"{number}".encode() for number in range(1500)]
    sealed = alice.run_all(uses.encrypt("orders", text) for text in texts)
    wanted = [uses.decrypt("orders", each) for each in sealed if isinstance(each, bytes)]
    wanted[7] = uses.decrypt("orders", b"nonsense")
    wanted.append(uses.decrypt("nothing", b"x"))
    opened = alice.run_all(wanted)
    assert [each for each in opened if isinstance(each, bytes)] == [*texts[:7], *texts[8:]]
    assert isinstance(opened[7], errors.DecryptionFailed)
    assert isinstance(opened[-1], errors.NotFound)
    mixed: list[object] = list(alice.run_all([uses.sign("signer", b"a"), uses.encrypt("orders", b"b")]))
    assert all(isinstance(each, bytes) for each in mixed)


def test_keys_and_their_life(alice: Client) -> None:
    made = alice.create_key("life", rotation_period=timedelta(days=90))
    assert (made.owner, made.state, made.rotation_period) == ("alice", "active", timedelta(days=90))
    assert alice.suspend("life").state == "suspended"
    with pytest.raises(errors.StateConflict, match="suspended"):
        alice.encrypt("life", b"")
    assert alice.resume("life").state == "active"
    assert {"life", "orders"} <= {each.key_id for each in alice.keys(limit=1)}
    assert alice.delete_key("life").deletion_at
    assert alice.cancel_deletion("life").deletion_at is None
    alice.revoke("life", "superseded")
    listed = alice.revocation_list()
    entry = listed.revocation_of("life", 1)
    assert entry is not None
    assert (entry.reason, entry.may_still_process) == ("superseded", True)
    assert listed.revocation_of("orders") is None
    assert listed.is_current(datetime.now(UTC))
    alice.encrypt("orders", b"")
    assert alice.call("get_last_use", key_id="orders")["operation"] == "encrypt"
    with pytest.raises(errors.AlreadyExists):
        alice.create_key("orders")
    with pytest.raises(errors.InvalidRequest, match="rotation_period"):
        alice.create_key("wrong", rotation_period="soon")
    with pytest.raises(KmsError, match="needs key_id"):
        alice.call("encrypt", plaintext=b"")
    with pytest.raises(KmsError, match="no operation"):
        alice.call("fly")


def test_keys_travel_wrapped(alice: Client) -> None:
    assert key_transport.import_key(alice, "own", "xaes-256-gcm", bytes(range(32)), exportable=True).key_id == "own"
    assert key_transport.export_key(alice, "own") == ("raw", bytes(range(32)))
    with pytest.raises(Refused, match="exportable"):
        key_transport.export_key(alice, "signer")


def test_a_program_s_own_key_a_platform_s_token_and_a_narrowed_session(
    shared_world: World, address: Address, tmp_path: Path
) -> None:
    url, ca = address
    shared_world.enrol("shop")
    key = new_key()
    (tmp_path / "shop.key").write_bytes(private_pem(key))
    admin = shared_world.admin
    assert admin.post("/api/v1/clients/shop/public-keys", {"public_key": public_pem(key)}).status_code == 201
    login = PrivateKeyLogin.from_file("shop", tmp_path / "shop.key", audience=AUDIENCE)
    shop = Client(url, ca=ca, login=login)
    shop.create_key("carts")
    first = shop.connection.token()
    assert shop.connection.token() == first
    shop.call("end_session")  # elsewhere, by somebody else: the next call logs in again
    sealed = shop.encrypt("carts", b"x")
    assert shop.connection.token() != first
    narrow = shop.narrowed("keys:decrypt@carts")
    assert narrow.decrypt("carts", sealed) == b"x"
    with pytest.raises(errors.PermissionDenied):
        narrow.encrypt("carts", b"x")

    issuer = PlatformIssuer("https://issuer.of-the-library")
    trusted = {"issuer": issuer.issuer, "audience": issuer.audience, "jwks": issuer.jwks}
    issuer_id = admin.post("/api/v1/issuers", trusted).json["issuer_id"]
    role = {"role": "shop-pods", "issuer": issuer_id, "claims": {"sub": "pod"}, "client_id": "shop"}
    assert admin.post("/api/v1/issuer-roles", role).status_code == 201, issuer_id
    (tmp_path / "token").write_text(issuer.token("pod") + "\n")
    assert Client(url, ca=ca, role="shop-pods", platform_token=tmp_path / "token").decrypt("carts", sealed) == b"x"
    by_function = PlatformTokenLogin("shop-pods", lambda: issuer.token("another"))
    with pytest.raises(errors.AuthenticationFailed):
        Client(url, ca=ca, login=by_function).key("carts")


def test_a_person_and_what_login_left(
    shared_world: World, address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, ca = address
    made = shared_world.enrol("paula")
    person = SecretLogin("paula", made.client_secret, lambda: made.recovery_codes[0], is_recovery_code=True)
    token = Client(url, ca=ca, login=person).connection.token()
    assert made.client_secret not in repr(person)
    monkeypatch.setenv("KMS_HOME", str(tmp_path / "home"))
    with pytest.raises(errors.NotLoggedIn, match="login"):
        Client()
    save(KeptLogin(url, ca, token, "paula"))
    assert Client().create_key("hers").owner == "paula"
    with Client(url, ca=ca, token="kms-token-wrong") as nobody, pytest.raises(errors.AuthenticationFailed):
        nobody.key("hers")
    for wrong in ({"url": url}, {"token": "x"}, {"url": "http://localhost", "token": "x"}):
        with pytest.raises(KmsError):
            Client(**wrong)  # type: ignore[arg-type]
    with pytest.raises(errors.Unreachable, match="not trusted"):
        Client(url, token=token).key("hers")


def test_a_client_never_does_more_than_was_said(
    shared_world: World, address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared_world.enrol("wide")
    token = token_of(shared_world, "wide")
    narrow = Client(address[0], ca=address[1], token=token, scope="keys:read")
    with pytest.raises(errors.PermissionDenied):
        narrow.create_key("never")
    monkeypatch.setenv("KMS_HOME", str(tmp_path / "home"))
    save(KeptLogin(*address, token, "wide"))
    for half in ({"client_id": "shop"}, {"private_key": "shop.key"}, {"role": "pods"}):
        with pytest.raises(KmsError, match="what proves"):
            Client(**half)  # type: ignore[arg-type]
    with pytest.raises(KmsError, match="user name"):
        Client("https://somebody:secret@localhost", token="t")


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_no_name_leads_to_another_path(alice: Client, name: str) -> None:
    for operation in operations().values():
        for variable in operation.variables:
            path = dict.fromkeys(operation.variables, "1") | {variable: name}
            with pytest.raises(KmsError, match="is no name"):
                alice.call(operation.name, **path)


def test_the_table_is_that_of_the_service() -> None:
    assert client_table.TABLE.read_bytes() == client_table.table(), "run python -m kms.api.client_table"
    assert set(operations()) == set(OPERATIONS)


def test_the_library_needs_nothing_of_the_service() -> None:
    service = ("flask", "sqlalchemy", "granian", "alembic", "structlog", "psycopg", "redis", "prometheus_client")
    program = f"""
import sys
for name in {service!r}:
    sys.modules[name] = None
import kms.client, kms.client.files, kms.client.revocations, kms.client.key_transport, kms.client.streams
from kms.cli import main
main(["--help"], standalone_mode=False)
main(["serve", "--help"], standalone_mode=False)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Needs the packages of the service" in done.stdout
