"""What unmodified clients of Vault and OpenBao send, and what those answer."""

from __future__ import annotations

import base64
import io
import json
from threading import Barrier, Thread

import pytest

from helpers.support import World, b64, unb64
from helpers.vault_client import Answer, Vault
from helpers.wsgi import called, environ_of

MESSAGE = b64(b"message")


@pytest.fixture(scope="module")
def vault(unlimited_world: World) -> Vault:
    return Vault.of(unlimited_world, unlimited_world.user("vera"))


@pytest.fixture(scope="module")
def admin(unlimited_world: World) -> Vault:
    return Vault.of(unlimited_world, unlimited_world.admin)


def in_chunks(vault: Vault, path: str, body: bytes, *, taken_apart: bool = True) -> Answer:
    """POST without a Content-Length, as a server hands a chunked body on that it has taken apart, or not."""
    given = {
        "CONTENT_LENGTH": None,
        "HTTP_TRANSFER_ENCODING": "chunked",
        "wsgi.input_terminated": taken_apart or None,
    }
    return vault.send("POST", path, **given, **{"wsgi.input": io.BytesIO(body)})


def test_a_body_in_chunks_is_read(vault: Vault) -> None:
    made = in_chunks(vault, "transit/keys/chunked", b'{"type": "ed25519"}')
    assert (made.status, made.data["type"]) == (200, "ed25519")
    config = in_chunks(vault, "transit/keys/chunked/config", b'{"deletion_allowed": true}')
    assert config.data["deletion_allowed"] is True


def test_chunks_that_nobody_takes_apart_are_refused(vault: Vault) -> None:
    answer = in_chunks(vault, "transit/keys/whole", b'{"type": "ed25519"}', taken_apart=False)
    assert answer.status == 411
    assert vault.read("transit/keys/whole").status == 404


def test_chunks_end_at_the_limit(vault: Vault) -> None:
    limit = vault.world.service.settings.max_body_bytes
    assert in_chunks(vault, "transit/random", b" " * (limit + 1)).status == 413
    vault = Vault(vault.world)
    assert in_chunks(vault, "auth/userpass/login/x", b" " * 25_000).status == 413


@pytest.mark.parametrize("coding", ["gzip, chunked", "chunked, identity", "identity", "chunked, chunked", ""])
def test_other_transfer_codings_are_refused(vault: Vault, coding: str) -> None:
    given = {"CONTENT_LENGTH": None, "HTTP_TRANSFER_ENCODING": coding, "wsgi.input_terminated": True}
    answer = vault.send("POST", "transit/random", **given, **{"wsgi.input": io.BytesIO(b"{}")})
    assert answer.status == 400


def test_chunks_without_anything_in_them_are_not_taken_for_no_body(vault: Vault) -> None:
    assert in_chunks(vault, "transit/keys/nothing", b"").status == 400
    assert vault.read("transit/keys/nothing").status == 404


def test_chunks_that_the_server_cannot_take_apart_are_refused(vault: Vault) -> None:
    class Malformed(io.BytesIO):
        """As gunicorn hands a body on in which a chunk is malformed."""

        def read(self, size: int | None = -1) -> bytes:
            raise ValueError("InvalidChunkSize")

    given = {"CONTENT_LENGTH": None, "HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
    answer = vault.send("POST", "transit/random", **given, **{"wsgi.input": Malformed()})
    assert answer.status == 400


def test_a_form_in_chunks_is_refused(unlimited_world: World) -> None:
    given = {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": None, "wsgi.input_terminated": True}
    for kind in ("application/x-www-form-urlencoded", "Application/X-WWW-Form-Urlencoded ; charset=utf-8"):
        for path in ("/auth/token", "/console/login", "/"):
            body = io.BytesIO(b"Action=GetCallerIdentity&grant_type=client_credentials")
            environ = {"REQUEST_METHOD": "POST", "PATH_INFO": path, "wsgi.input": body, "CONTENT_TYPE": kind, **given}
            line, _, _ = called(unlimited_world.http.application.wsgi_app, environ_of(b"", **environ))
            assert line.split()[0] == "411", path


def test_chunks_at_the_other_doors(unlimited_world: World) -> None:
    api = unlimited_world.user("chunky")
    given = {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": None, "CONTENT_TYPE": "application/json"}
    for path in ("/api/v1/keys", "/generate_ecc_key"):
        for server, status in ({"wsgi.input_terminated": True}, (200, 201)), ({}, (411,)):
            body = io.BytesIO(b'{"type": "ed25519"}' if path.endswith("keys") else b'{"curve": "P-384"}')
            environ = {"REQUEST_METHOD": "POST", "PATH_INFO": path, "wsgi.input": body, **given, **server}
            environ["HTTP_AUTHORIZATION"] = api.headers["Authorization"]
            line, _, content = called(unlimited_world.http.application.wsgi_app, environ_of(b"", **environ))
            assert int(line.split()[0]) in status, (path, content)
            if server and path.endswith("keys"):
                assert json.loads(content)["type"] == "ed25519"


@pytest.mark.parametrize("path", ["transit/keys/nulls/rotate", "transit/random", "transit/datakey/plaintext/nulls"])
def test_null_is_no_body(vault: Vault, path: str) -> None:
    vault.make("nulls")
    assert vault.send("PUT", path, b"null").status == 200


def test_null_is_no_member(vault: Vault) -> None:
    made = vault.write("transit/keys/nulls", type=None, auto_rotate_period=None, exportable=None, derived=None)
    assert made.data["type"] == "aes256-gcm96"
    item = {"plaintext": MESSAGE, "key_version": None, "associated_data": None, "context": None, "nonce": None}
    for body in (item, {"batch_input": [item, {"plaintext": MESSAGE}], "plaintext": None}):
        assert vault.write("transit/encrypt/nulls", **body).status == 200
    assert vault.write("transit/encrypt/nulls", batch_input=[None]).status == 400


def test_base64_with_line_breaks(vault: Vault) -> None:
    vault.make("lines")
    text = base64.encodebytes(bytes(range(200))).decode().replace("\n", "\r\n")
    sealed = vault.write("transit/encrypt/lines", plaintext=text).data["ciphertext"]
    broken = sealed[:40] + "\n" + sealed[40:] + "\n"
    opened = vault.write("transit/decrypt/lines", ciphertext=broken).data["plaintext"]
    assert unb64(opened) == bytes(range(200))
    for wrong in ("AA AA", "AA\tAA", "A\nA", "\n="):
        assert vault.write("transit/encrypt/lines", plaintext=wrong).status == 400, wrong


def test_a_namespace_is_never_passed_over(vault: Vault) -> None:
    for namespace in ("team-a", "team-a/", "/team-a/b", "root/x"):
        answer = vault.send("POST", "transit/keys/ns", b"{}", HTTP_X_VAULT_NAMESPACE=namespace)
        assert (answer.status, "namespace" in answer.error) == (404, True)
    assert vault.read("transit/keys/ns").status == 404
    for namespace in ("", "/", "root", "root/"):
        assert vault.send("POST", "transit/keys/ns", b"{}", HTTP_X_VAULT_NAMESPACE=namespace).status == 200


def test_two_slashes_are_sent_to_one(vault: Vault) -> None:
    answer = vault.send("PUT", "transit//keys/a%20?x=1")
    assert (answer.status, answer.headers["Location"]) == (307, "/v1/transit/keys/a%2520?x=1")
    assert Vault(vault.world).send("GET", "/evil.example//x").headers["Location"] == "/v1/evil.example/x"


def test_names_may_begin_with_an_underscore(vault: Vault) -> None:
    vault.make("_hidden")
    assert vault.write("transit/encrypt/_hidden", plaintext="").status == 200


@pytest.mark.parametrize("word", ["true", "True", "TRUE", "t", "T", "1"])
def test_lists_are_asked_for_in_every_way(vault: Vault, word: str) -> None:
    vault.make("listed")
    assert "listed" in vault.read(f"transit/keys?list={word}").data["keys"]


def test_lists_in_pages(unlimited_world: World) -> None:
    vault = Vault.of(unlimited_world, unlimited_world.user("pager"))
    for name in "cabd":
        vault.make(f"page-{name}")
    first = vault.send("LIST", "transit/keys?limit=2").data["keys"]
    after = vault.read(f"transit/keys?list=true&after={first[-1]}&limit=5").data["keys"]
    assert (first, after) == (["page-a", "page-b"], ["page-c", "page-d"])
    assert vault.send("LIST", "transit/keys?after=page-d").status == 404
    assert vault.send("LIST", "transit/keys?limit=x").status == 400


def test_head_of_health(vault: Vault) -> None:
    answer = Vault(vault.world).send("HEAD", "sys/health")
    assert (answer.status, answer.content) == (200, b"")


def test_what_the_command_line_asks(vault: Vault, admin: Vault) -> None:
    anybody = Vault(vault.world)
    assert anybody.read("sys/leader").json["ha_enabled"] is False
    for path, members in (
        ("sys/seal-status", {"storage_type", "cluster_id", "build_date", "migration"}),
        ("sys/health", {"cluster_id", "replication_performance_mode", "replication_dr_mode"}),
    ):
        assert members <= set(anybody.read(path).json)
    assert vault.read("sys/key-status").data["term"] == 1
    assert {"token/", "userpass/", "approle/", "jwt/", "kubernetes/"} <= set(vault.read("sys/auth").data)
    mounts = vault.read("sys/mounts").json
    assert mounts["transit/"] == mounts["data"]["transit/"]
    assert mounts["transit/"]["external_entropy_access"] is False
    assert vault.send("LIST", "sys/policies/acl").data == {"keys": ["default"]}
    assert vault.read("sys/policies/acl/default").data["name"] == "default"
    assert vault.read("sys/policies/acl/root").status == 404
    assert vault.read("sys/audit").status == 403
    assert admin.read("sys/audit").data["audit/"]["type"] == "file"
    assert "transit/encrypt/<name>" in vault.read("transit?help=1").json["help"]
    assert anybody.read("transit?help=1").status == 403


def test_a_token_is_shown_to_itself(vault: Vault) -> None:
    shown = vault.read("auth/token/lookup-self").data
    assert shown["id"] == vault.token
    assert len(shown["accessor"]) == 24
    assert vault.write("auth/token/lookup", token=vault.token).data["id"] == vault.token
    assert vault.write("auth/token/lookup", token="another").status == 403


@pytest.mark.parametrize("path", ["auth/token/renew-self", "auth/token/renew"])
def test_what_cannot_be_renewed_is_not(vault: Vault, path: str) -> None:
    answer = vault.write(path, increment="1h")
    assert (answer.status, answer.error) == (400, "lease is not renewable")


def test_a_deleted_name_is_free_at_once(vault: Vault, admin: Vault) -> None:
    vault.make("d", deletion_allowed=True)
    sealed = vault.write("transit/encrypt/d", plaintext=MESSAGE).data["ciphertext"]
    assert vault.send("DELETE", "transit/keys/d").status == 400
    vault.write("transit/keys/d/config", deletion_allowed=True)
    assert vault.send("DELETE", "transit/keys/d").status == 204
    assert vault.read("transit/keys/d").status == 404
    assert vault.write("transit/decrypt/d", ciphertext=sealed).status == 400
    assert vault.write("transit/keys/d", type="rsa-2048").data["type"] == "rsa-2048"
    # An administrator can bring back what was deleted, and its material with it; its name is gone by now.
    api = admin.world.admin
    listed = api.get("/api/v1/keys?prefix=deleted-&owner=vera&state=pending-deletion").json["items"]
    (gone,) = [each["key_id"] for each in listed if each["former_key_id"] == "d"]
    assert api.get("/api/v1/keys?prefix=deleted-&state=active").json["items"] == []
    back = api.post(f"/api/v1/keys/{gone}/cancel-deletion").json
    assert (back["state"], back["key_id"], back["former_key_id"]) == ("active", gone, "d")
    opened = vault.write(f"transit/decrypt/{gone}", ciphertext=sealed)
    assert opened.data["plaintext"] == MESSAGE
    assert vault.write(f"transit/keys/{gone}/rotate").data["latest_version"] == 2


def test_what_comes_back_has_its_name_again(vault: Vault) -> None:
    vault.make("e")
    sealed = vault.write("transit/encrypt/e", plaintext=MESSAGE).data["ciphertext"]
    vault.write("transit/keys/e/config", deletion_allowed=True)
    vault.send("DELETE", "transit/keys/e")
    api = vault.world.login("vera")
    (gone,) = [each["key_id"] for each in api.get("/api/v1/keys").json["items"] if each["former_key_id"] == "e"]
    assert api.post(f"/api/v1/keys/{gone}/cancel-deletion").json["key_id"] == "e"
    assert vault.write("transit/decrypt/e", ciphertext=sealed).data["plaintext"] == MESSAGE
    assert vault.read(f"transit/keys/{gone}").status == 404


def test_a_deleted_key_comes_back_from_its_backup(vault: Vault) -> None:
    vault.make("f")
    sealed = vault.write("transit/encrypt/f", plaintext=MESSAGE).data["ciphertext"]
    backup = vault.read("transit/backup/f").data["backup"]
    vault.write("transit/keys/f/config", deletion_allowed=True)
    vault.send("DELETE", "transit/keys/f")
    assert vault.write("transit/restore", backup=backup).status == 204
    assert vault.write("transit/decrypt/f", ciphertext=sealed).data["plaintext"] == MESSAGE


def test_soft_deletion_keeps_the_name(vault: Vault) -> None:
    vault.make("g")
    vault.write("transit/keys/g/config", deletion_allowed=True)
    assert vault.write("transit/keys/g/soft-delete").status == 204
    assert vault.read("transit/keys/g").data["soft_deleted"] is True
    assert vault.write("transit/keys/g").status == 400
    assert vault.write("transit/keys/g/soft-delete-restore").status == 204
    vault.write("transit/keys/g/soft-delete")
    assert vault.send("DELETE", "transit/keys/g").status == 204
    assert vault.make("g") == "g"


@pytest.mark.parametrize("member", ["local", "seal_wrap", "external_entropy_access"])
def test_a_mount_that_is_to_be_kept_apart_is_refused(admin: Vault, member: str) -> None:
    assert admin.write("sys/mounts/apart", type="transit", **{member: True}).status == 400
    assert admin.read("apart/keys?list=true").status == 404


def test_an_unmounted_name_is_free_and_empty(admin: Vault) -> None:
    mounting = {"type": "transit"}
    assert admin.write("sys/mounts/m", **mounting).status == 204
    for name in ("a", "b"):
        assert admin.write(f"m/keys/{name}").status == 200
    assert admin.send("DELETE", "sys/mounts/m").status == 204
    assert admin.write("sys/mounts/m", **mounting).status == 204
    assert admin.send("LIST", "m/keys").status == 404
    assert admin.write("m/keys/a", type="ed25519").data["type"] == "ed25519"


def test_many_at_once_use_a_new_name(vault: Vault) -> None:
    together, answers = Barrier(8), []

    def encrypt(n: int) -> None:
        client = Vault.of(vault.world, vault.world.login("vera"))
        together.wait()
        for name in range(4):
            answers.append(client.write(f"transit/encrypt/first-{name}", plaintext=b64(bytes([n]))))

    threads = [Thread(target=encrypt, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.status for each in answers if each.status not in (200, 503)] == []
    assert sum(each.status == 200 for each in answers) >= 16
