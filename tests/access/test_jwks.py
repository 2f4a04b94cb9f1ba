"""JWK sets of issuers, and where they are fetched from: a real server over TLS that does what it should not."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from helpers.certificates import write_pair
from kms.access.jwks import LONGEST, Keys, canonical, find, given, served
from kms.access.jwks_fetch import fetch, named_hosts, require_url
from kms.access.jwt import Refused, peek, verify
from kms.errors import StartError, Unavailable, ValidationFailed

ONE, TWO = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")


def entry(key: Any = ONE, **more: object) -> dict[str, Any]:
    return {**key.as_dict(private=False), **more}


def document(*entries: object) -> bytes:
    return json.dumps({"keys": entries}).encode()


def both(*entries: object) -> list[Keys]:
    return [given({"keys": list(entries)}), served(document(*entries))]


def token(key: Any, **header: object) -> str:
    return jws.serialize_compact({"alg": "ES256", **header}, b'{"sub":"pay"}', key)


def test_keys_are_found_by_what_the_set_calls_them() -> None:
    for keys in both(entry(kid="one"), entry(TWO)):
        assert set(keys) == {"one", TWO.thumbprint()}
        header = peek(token(ONE, kid="one"))
        key = find(keys, header)
        assert key is not None
        assert verify(header, key).subject == "pay"
        for unknown in ("One", "one ", "two", "../one", ONE.thumbprint()):
            assert find(keys, peek(token(ONE, kid=unknown))) is None


def test_a_token_without_kid_is_for_the_only_key() -> None:
    header = peek(token(ONE))
    for keys in both(entry(kid="one")):
        assert find(keys, header) is keys["one"]
    for keys in both(entry(kid="one"), entry(TWO)):
        assert find(keys, header) is None


def test_a_key_of_another_issuer_with_the_same_kid_does_not_verify() -> None:
    ours, theirs = given({"keys": [entry(kid="1")]}), given({"keys": [entry(TWO, kid="1")]})
    header = peek(token(TWO, kid="1"))
    assert verify(header, theirs["1"]).subject == "pay"
    with pytest.raises(Refused, match="signature"):
        verify(header, ours["1"])


def test_the_algorithm_of_the_set_holds() -> None:
    rsa = RSAKey.generate_key(2048)
    for keys in both(entry(rsa, kid="r", alg="PS256", use="sig")):
        assert keys["r"].algorithms == ("PS256",)
        again = canonical(keys)
        assert given(again) == keys
        assert given(json.loads(json.dumps(again)))["r"].algorithms == ("PS256",)


def test_a_set_without_anything_needless_reads_back() -> None:
    keys = given({"keys": [entry(kid="one", x5c=["AAAA"], use="sig"), entry(OKPKey.generate_key("Ed25519"))]})
    assert given(canonical(keys)) == keys
    assert "x5c" not in json.dumps(canonical(keys))


def test_a_kid_that_comes_twice_names_no_key() -> None:
    twice = [entry(kid="one"), entry(TWO, kid="one"), entry(TWO, kid="two")]
    with pytest.raises(ValidationFailed, match="same kid"):
        given({"keys": twice})
    assert set(served(document(*twice))) == {"two"}
    hidden = [entry(kid=TWO.thumbprint()), entry(TWO)]  # one that calls itself by the thumbprint of another
    with pytest.raises(ValidationFailed, match="same kid"):
        given({"keys": hidden})
    assert not served(document(*hidden))
    weak = entry(RSAKey.generate_key(2048), kid="one", e="Aw")
    assert not served(document(entry(kid="one"), weak))


@pytest.mark.parametrize(
    "bad",
    [
        ONE.as_dict(private=True),
        {"kty": "EC", "d": None},
        OctKey.generate_key(256).as_dict(),
        {"kty": "oct"},
        {"kty": "unknown", "priv": "x"},
    ],
)
def test_a_private_or_symmetric_key_refuses_the_whole_set(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationFailed):
        given({"keys": [entry(), bad]})
    with pytest.raises(Unavailable) as refusal:
        served(document(entry(), bad))
    assert str(ONE.as_dict(private=True)["d"]) not in refusal.value.detail


@pytest.mark.parametrize(
    "other",
    [
        entry(TWO, kid="one", use="enc"),
        entry(TWO, key_ops=["encrypt"]),
        entry(TWO, alg="ECDH-ES"),
        entry(OKPKey.generate_key("X25519")),
        entry(OKPKey.generate_key("Ed448")),
        entry(ECKey.generate_key("secp256k1")),
        {"kty": "AKP", "alg": "ML-DSA-65", "pub": "AAAA"},
        {"kty": "from the future"},
        {},
        {"kty": ["EC"]},
    ],
)
def test_keys_that_sign_nothing_here_are_passed_over(other: dict[str, Any]) -> None:
    for keys in both(entry(kid="one"), other):
        assert set(keys) == {"one"}


@pytest.mark.parametrize(
    "broken",
    [
        {"kty": "RSA", "n": "A" * 342, "e": "AQAB"},
        {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"},
        {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43},
        {"kty": "EC", "crv": "P-256"},
    ],
)
def test_one_damaged_key_locks_out_nobody_else(broken: dict[str, Any]) -> None:
    assert set(served(document(entry(kid="one"), broken))) == {"one"}
    with pytest.raises(ValidationFailed):
        given({"keys": [entry(kid="one"), broken]})


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"keys":{}}',
        b'{"keys":[1]}',
        b'{"keys":null}',
        b'{"keys":[],"keys":[]}',
        b'{"keys":[{"kty":"EC","kty":"oct"}]}',
        b"\xff\xfe",
        b"<html>SECRET</html>",
        b'{"keys":' + b"[" * 5000,
        b'{"keys":[{"kid":1}]}',
        b'{"keys":[{"kid":""}]}',
        b'{"keys":[{"kid":"' + b"x" * 513 + b'"}]}',
        document(*[{}] * 101),
    ],
)
def test_what_is_no_set_of_keys(text: bytes) -> None:
    with pytest.raises(Unavailable) as refusal:
        served(text)
    assert "SECRET" not in refusal.value.detail


@pytest.mark.parametrize("keys", [None, {}, 1, "x", [1], [[]], [{"kid": 1}], [{"kid": ""}], [{}] * 101])
def test_what_an_operator_gives_is_an_array_of_keys(keys: object) -> None:
    with pytest.raises(ValidationFailed, match="jwks:"):
        given({"keys": keys})


def test_a_set_of_an_operator_has_a_key() -> None:
    with pytest.raises(ValidationFailed, match="no key"):
        given({"keys": [{"kty": "from the future"}]})
    assert served(document()) == {}


@pytest.mark.parametrize(
    ("setting", "hosts"),
    [
        ("", set()),
        (" , ", set()),
        ("a.example", {"a.example:443"}),
        ("a.example, b.example:8443,[::1]:6443", {"a.example:443", "b.example:8443", "[::1]:6443"}),
        ("10.0.0.1", {"10.0.0.1:443"}),
    ],
)
def test_the_setting_names_hosts(setting: str, hosts: set[str]) -> None:
    assert named_hosts(setting) == hosts


@pytest.mark.parametrize(
    "setting",
    [
        "*",
        "*.example",
        "https://a.example",
        "a.example/x",
        "A.example",
        "a.example:0",
        "a.example:65536",
        "a b",
        "a@b",
        "a.example.",
        ".example",
        "a.example:",
        "::1",
        "é.example",
        "a.example;b.example",
    ],
)
def test_the_setting_names_nothing_else(setting: str) -> None:
    with pytest.raises(StartError, match="jwks_hosts"):
        named_hosts(setting)


HOSTS = named_hosts("issuer.example,issuer.example:8443,127.0.0.1:1")


@pytest.mark.parametrize(
    "url",
    [
        "https://issuer.example/jwks",
        "https://issuer.example:443/",
        "https://issuer.example:8443/a/b?c=d&e=%20f",
        "https://127.0.0.1:1/.well-known/jwks.json",
    ],
)
def test_urls_of_named_hosts(url: str) -> None:
    require_url(url, HOSTS)


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/jwks",
        "https://issuer.example",
        "https://issuer.example:8444/",
        "https://other.example/",
        "https://sub.issuer.example/",
        "https://issuer.example.evil.example/",
        "https://issuer.example./",
        "https://ISSUER.example/",
        "https://user@issuer.example/",
        "https://issuer.example@evil.example/",
        "https://evil.example#@issuer.example/",
        "https://evil.example\\@issuer.example/",
        "https://issuer.example:443@evil.example/",
        "https://issuer.example/#fragment",
        "https://issuer.example/a b",
        "https://issuer.example/\r\nHost: evil.example",
        "https://issuer.example/\n",
        "https://issuer.example/\0",
        "https://issuer.example/é",
        "https:// issuer.example/",
        "https:/issuer.example/",
        "https:issuer.example/",
        "//issuer.example/",
        "file:///etc/passwd",
        "ftp://issuer.example/",
        "https://127.0.0.1/",
        "https://127.1:1/",
        "https://2130706433:1/",
        "https://localhost:1/",
        "https://[::ffff:127.0.0.1]:1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://issuer.example:0/",
        "https://issuer.example:99999/",
        "https://issuer.example:٤٤٣/",
        "https://issuer.example/" + "a" * 3000,
        "",
    ],
)
def test_nothing_else_is_contacted(url: str) -> None:
    with pytest.raises(ValidationFailed, match="jwks_uri"):
        require_url(url, HOSTS)
    with pytest.raises(ValidationFailed, match="jwks_uri"):
        fetch(url, HOSTS)


class Issuer:
    """A server over TLS on loopback that answers each connection with what it is told to."""

    def __init__(self, folder: Path, address: str = "127.0.0.1") -> None:
        self.ca = folder / "server.crt"
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self.ca, folder / "server.key")
        self._listener = socket.create_server((address, 0))
        self.port = self._listener.getsockname()[1]
        self.over = threading.Event()
        self.requests: list[bytes] = []
        self.act: Callable[[ssl.SSLSocket], None] = lambda connection: None
        self.shakes_hands = True
        threading.Thread(target=self._serve, daemon=True).start()

    def answers(self, answer: bytes) -> None:
        self.act = lambda connection: connection.sendall(answer)

    def close(self) -> None:
        self.over.set()
        self._listener.close()

    def fetch(self, host: str = "localhost", seconds: float = 20, ca: Path | None = None) -> bytes:
        named = f"{host}:{self.port}"
        return fetch(f"https://{named}/jwks?x=y", named_hosts(named), ca or self.ca, seconds)

    def fault(self, **how: Any) -> str:
        with pytest.raises(Unavailable) as refusal:
            self.fetch(**how)
        assert refusal.value.retry_after
        assert "BODY" not in refusal.value.detail
        return refusal.value.detail

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(plain,), daemon=True).start()

    def _answer(self, plain: socket.socket) -> None:
        with suppress(OSError), plain:
            if not self.shakes_hands:
                self.over.wait()
                return
            with self._context.wrap_socket(plain, server_side=True) as connection:
                self.requests.append(connection.recv(65536))
                self.act(connection)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("issuer")
    write_pair(folder)
    return folder


@pytest.fixture
def issuer(pair: Path) -> Iterator[Issuer]:
    running = Issuer(pair)
    yield running
    running.close()


def ok(body: bytes, *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_set_is_fetched(issuer: Issuer, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    body = document(entry(kid="one"))
    issuer.answers(ok(body))
    assert set(served(issuer.fetch(host))) == {"one"}
    lines = issuer.requests[0].decode().split("\r\n")
    assert lines[0] == "GET /jwks?x=y HTTP/1.1"
    assert f"Host: {host}:{issuer.port}" in lines
    assert not any(line.lower().startswith(("authorization", "cookie")) for line in lines)


def test_bodies_are_framed_as_http_frames_them(issuer: Issuer) -> None:
    issuer.answers(ok(b"{}more", "Content-Length: 2"))
    assert issuer.fetch() == b"{}"
    issuer.answers(ok(b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"))
    assert issuer.fetch() == b"{}"
    issuer.answers(b"HTTP/1.1 100 Continue\r\n\r\n" + ok(b"{}", "Content-Length: 2"))
    assert issuer.fetch() == b"{}"

    def keeps_open(connection: ssl.SSLSocket) -> None:
        connection.sendall(ok(b"{}", "Content-Length: 2"))
        issuer.over.wait()

    issuer.act = keeps_open
    assert issuer.fetch() == b"{}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(issuer: Issuer, status: int) -> None:
    target = f"https://localhost:{issuer.port}/other"
    issuer.answers(f"HTTP/1.1 {status} Moved\r\nLocation: {target}\r\nContent-Length: 4\r\n\r\nBODY".encode())
    assert f"{status}, and redirects are not followed" in issuer.fault()
    assert len(issuer.requests) == 1


@pytest.mark.parametrize("status", [201, 204, 206, 400, 401, 403, 404, 500, 503])
def test_no_other_status_is_a_set(issuer: Issuer, status: int) -> None:
    issuer.answers(f"HTTP/1.1 {status} BODY\r\nContent-Length: 4\r\n\r\nBODY".encode())
    assert f"it answered {status}" in issuer.fault()


def test_compressed_answers_are_refused(issuer: Issuer) -> None:
    issuer.answers(ok(b"BODY", "Content-Encoding: gzip", "Content-Length: 4"))
    assert "compressed" in issuer.fault()


def endless(piece: bytes, start: bytes) -> Callable[[ssl.SSLSocket], None]:
    def act(connection: ssl.SSLSocket) -> None:
        connection.sendall(start)
        with suppress(OSError):
            while True:  # until the other side has had enough
                connection.sendall(piece)

    return act


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (ok(b""), b"BODY" * 4096),
        (ok(b"", "Content-Length: 100000000000"), b"BODY" * 4096),
        (ok(b"", "Transfer-Encoding: chunked"), b"4000\r\n" + b"BODY" * 4096 + b"\r\n"),
        (ok(b"", "Transfer-Encoding: chunked"), b"1\r\nB\r\n" * 4096),
        (b"HTTP/1.1 200 OK\r\n", b"X: BODY\r\n" * 1000),
        (b"HTTP/1.1 200 OK\r\nX: ", b"BODY" * 4096),
        (b"", b"BODY" * 4096),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 400),
    ],
    ids=["open", "announced", "chunks", "small chunks", "headers", "header", "status", "continue"],
)
def test_gigabytes_are_not_read(issuer: Issuer, start: bytes, piece: bytes) -> None:
    issuer.act = endless(piece, start)
    assert "within" not in issuer.fault()


def test_the_largest_set_is_read(issuer: Issuer) -> None:
    issuer.answers(ok(b"x" * LONGEST))
    assert len(issuer.fetch()) == LONGEST
    issuer.answers(ok(b"x" * (LONGEST + 1)))
    assert str(LONGEST) in issuer.fault()


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nX: y", ok(b"", "Content-Length: 9")])
def test_an_issuer_that_hangs_or_trickles_is_left(issuer: Issuer, start: bytes) -> None:
    def hangs(connection: ssl.SSLSocket) -> None:
        connection.sendall(start)
        issuer.over.wait()

    def trickles(connection: ssl.SSLSocket) -> None:
        connection.sendall(start)
        with suppress(OSError):
            while not issuer.over.wait(0.01):
                connection.sendall(b"X")

    for act in (hangs, trickles):
        issuer.act = act
        if act is hangs or b"Length" not in start:  # nine bytes come too soon
            assert "within 0.3 seconds" in issuer.fault(seconds=0.3)


def test_chunks_that_trickle_are_left(issuer: Issuer) -> None:
    def trickles(connection: ssl.SSLSocket) -> None:
        connection.sendall(ok(b"", "Transfer-Encoding: chunked"))
        with suppress(OSError):
            while not issuer.over.wait(0.01):
                connection.sendall(b"1\r\nX\r\n")

    issuer.act = trickles
    assert "within 0.3 seconds" in issuer.fault(seconds=0.3)


def test_an_issuer_that_never_shakes_hands_is_left(issuer: Issuer) -> None:
    issuer.shakes_hands = False
    assert "within 0.3 seconds" in issuer.fault(seconds=0.3)


@pytest.mark.parametrize("size", [b"-1", b"x", b"", b"0x1", b"9" * 5000, b"\xff", b"ffffffffffffffff"])
def test_chunks_of_no_size(issuer: Issuer, size: bytes) -> None:
    issuer.answers(ok(size + b"\r\nBODY\r\n0\r\n\r\n", "Transfer-Encoding: chunked"))
    with pytest.raises(Unavailable):
        served(issuer.fetch())


@pytest.mark.parametrize(
    "answer", [b"", b"BODY", b"HTTP/0.9 BODY\r\n\r\n", b"\x00\xff\r\n\r\n", b"HTTP/1.1 BODY OK\r\n\r\n"]
)
def test_what_is_not_http(issuer: Issuer, answer: bytes) -> None:
    issuer.answers(answer)
    issuer.fault()


def test_an_answer_that_is_cut_off_is_no_set(issuer: Issuer) -> None:
    issuer.answers(ok(document(entry())[:-5], "Content-Length: 1000"))
    with pytest.raises(Unavailable):
        served(issuer.fetch())
    issuer.answers(ok(b"20\r\n{}", "Transfer-Encoding: chunked"))
    issuer.fault()


def test_the_certificate_is_verified(issuer: Issuer, tmp_path: Path) -> None:
    write_pair(tmp_path)  # of another authority
    issuer.answers(ok(b"{}"))
    assert "not trusted" in issuer.fault(ca=tmp_path / "server.crt")
    assert not issuer.requests


def test_the_name_in_the_certificate_is_the_one_that_was_asked_for(pair: Path) -> None:
    elsewhere = Issuer(pair, "127.0.0.2")
    try:
        assert "not trusted" in elsewhere.fault(host="127.0.0.2")
        assert not elsewhere.requests
    finally:
        elsewhere.close()


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        named = f"127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(Unavailable, match="refused"):
        fetch(f"https://{named}/", named_hosts(named))
    with pytest.raises(Unavailable, match="cannot be resolved"):
        fetch("https://nobody.invalid/", named_hosts("nobody.invalid"))


def test_a_file_of_authorities_that_is_not_there(issuer: Issuer, tmp_path: Path) -> None:
    assert "KMS_JWKS_CA" in issuer.fault(ca=tmp_path / "missing.crt")
    (tmp_path / "empty.crt").write_text("")
    assert "KMS_JWKS_CA" in issuer.fault(ca=tmp_path / "empty.crt")
