"""From where a request comes, and with which certificate: what proxies say, and what others say about themselves."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.authority import issue
from helpers.support import Template, World, settings_for
from helpers.wsgi import called, environ_of
from kms.api.fast_path import Environ, FastPathMiddleware, StartResponse
from kms.api.origin import OriginMiddleware, presented_certificate
from kms.config import Settings, load
from kms.errors import StartError
from kms.operations import Service

PROXY, FARTHER, PROXY6 = "10.0.0.5", "10.0.0.6", "2001:db8:ffff::5"
CLIENT, CLIENT6, SPOOFED = "203.0.113.9", "2001:db8::9", "198.51.100.1"
ROOT = issue("Clients", is_ca=True)
LEAF = ROOT.issue("pay-api")
SEQUENCE = f":{base64.b64encode(LEAF.der).decode()}:"
SAYINGS = ("HTTP_FORWARDED", "HTTP_X_FORWARDED_FOR", "HTTP_CLIENT_CERT", "HTTP_CLIENT_CERT_CHAIN")


@pytest.fixture(scope="module")
def proxied(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("origin")
    (folder / "clients.pem").write_text(ROOT.pem)
    proxies = f"{PROXY}, 10.0.0.6/32,2001:db8:ffff::/48"
    settings = settings_for(folder / "data", trusted_proxies=proxies, client_ca=folder / "clients.pem")
    opened = template.open(settings)
    yield opened
    opened.close()


def _served(proxied: Service, peer: str | None = PROXY, **sent: Any) -> tuple[int, Environ, bytes]:
    """The status, what the next application was given, and the answer, to a request of `peer`."""
    seen: list[Environ] = []

    def next_app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        seen.append(environ)
        start_response("200 OK", [])
        return []

    environ = environ_of(b"", REQUEST_METHOD="GET", PATH_INFO="/livez", **{"REMOTE_ADDR": peer, **sent})
    status, _, body = called(OriginMiddleware(next_app, proxied), environ)
    return int(status.split()[0]), seen[0] if seen else {}, body


def _source(proxied: Service, peer: str = PROXY, **sent: str) -> str:
    """The source address that is taken, or the words "refused"."""
    status, environ, body = _served(proxied, peer, **sent)
    if status != 200:
        assert status == 400, body
        assert b"/problems/malformed-request" in body
        return "refused"
    assert not [name for name in SAYINGS if name in environ]
    return str(environ["REMOTE_ADDR"])


@pytest.mark.parametrize(
    ("value", "source"),
    [
        (CLIENT, CLIENT),
        (f" {CLIENT}\t", CLIENT),
        (f"{CLIENT}:4711", CLIENT),
        (CLIENT6, CLIENT6),
        (CLIENT6.upper(), CLIENT6),
        (f"[{CLIENT6}]", CLIENT6),
        (f"[{CLIENT6}]:4711", CLIENT6),
        (f"::ffff:{CLIENT}", CLIENT),
        (f"[::ffff:{CLIENT}]:4711", CLIENT),
        (f"{SPOOFED}, {CLIENT}", CLIENT),
        (f"{SPOOFED},{CLIENT},{FARTHER},{PROXY6}", CLIENT),
        (f"{PROXY}, {CLIENT}", CLIENT),  # to look as if it came from a proxy
        (f"unknown, {CLIENT}", CLIENT),
        (f"<script>,,{CLIENT}", CLIENT),
        (f"{CLIENT},{FARTHER}", CLIENT),
        (FARTHER, FARTHER),  # of a proxy itself
        ("", "refused"),
        (",", "refused"),
        (f"{CLIENT},", "refused"),
        ("unknown", "refused"),
        (f"{SPOOFED}, unknown", "refused"),
        (f"{SPOOFED}, _hidden", "refused"),
        (f"{SPOOFED}, {FARTHER}x, {PROXY}", "refused"),
        ("localhost", "refused"),
        ("203.0.113.009", "refused"),
        ("203.0.113", "refused"),
        ("3405803785", "refused"),
        (f"[{CLIENT}]", "refused"),
        (f"[{CLIENT6}", "refused"),
        (f"{CLIENT}:123456", "refused"),
        ("fe80::1%eth0", "refused"),
        (f"{CLIENT}\n", "refused"),
        (f"٢٠٣.0.113.9, {SPOOFED}:٤", "refused"),
        (f'"{CLIENT}"', "refused"),
        (f"for={CLIENT}", "refused"),
        ("1" * 5000, "refused"),
    ],
)
def test_x_forwarded_for_of_a_proxy(proxied: Service, value: str, source: str) -> None:
    assert _source(proxied, HTTP_X_FORWARDED_FOR=value) == source


@pytest.mark.parametrize(
    ("value", "source"),
    [
        (f"for={CLIENT}", CLIENT),
        (f"For={CLIENT};proto=https;by={PROXY}", CLIENT),
        (f"proto=https ; for={CLIENT}", CLIENT),
        (f'for="{CLIENT}:4711"', CLIENT),
        (f'for="[{CLIENT6}]:4711"', CLIENT6),
        (f'for="[{CLIENT6}]"', CLIENT6),
        ('for="2\\03.0.113.9";host="a\\"b,c"', CLIENT),
        (f'for={SPOOFED}, for={CLIENT};proto=https,for={FARTHER} , for="[{PROXY6}]"', CLIENT),
        (f"for=_hidden, for={CLIENT}", CLIENT),
        (f'for="unknown", proto=https, for={CLIENT}', CLIENT),
        (f'for={SPOOFED};host="x, for={CLIENT}', "refused"),  # left open by whoever wrote the first part
        (f'for={SPOOFED};host="x, for={CLIENT}"', SPOOFED),  # all of it one element of the proxy's own
        ("", "refused"),
        ("for=unknown", "refused"),
        ("for=_hidden", "refused"),
        (f"for={CLIENT};for={SPOOFED}", "refused"),
        (f"for={CLIENT}, proto=https", "refused"),
        (f"for={CLIENT},", "refused"),
        (f"for={CLIENT};", "refused"),
        (f"for = {CLIENT}", "refused"),
        (f"for=[{CLIENT6}]", "refused"),
        (f"for={CLIENT6}", "refused"),
        (CLIENT, "refused"),
        (f'for="{CLIENT}\\', "refused"),
        (f'for="{CLIENT}"x', "refused"),
    ],
)
def test_forwarded_of_a_proxy(proxied: Service, value: str, source: str) -> None:
    assert _source(proxied, HTTP_FORWARDED=value) == source


def test_both_headers_must_agree(proxied: Service) -> None:
    both = {"HTTP_FORWARDED": f"for={CLIENT}", "HTTP_X_FORWARDED_FOR": f"{SPOOFED}, {CLIENT}"}
    assert _source(proxied, **both) == CLIENT
    assert _source(proxied, **{**both, "HTTP_FORWARDED": f"for={SPOOFED}"}) == "refused"
    assert _source(proxied, **{**both, "HTTP_FORWARDED": f"for={PROXY}"}) == "refused"
    assert _source(proxied, **{**both, "HTTP_FORWARDED": "for=_hidden"}) == "refused"
    assert _source(proxied, **{**both, "HTTP_X_FORWARDED_FOR": ""}) == "refused"  # as Granian shows what is not ASCII


def test_a_proxy_s_own_requests_come_from_it(proxied: Service) -> None:
    assert _source(proxied) == PROXY
    assert _source(proxied, f"::ffff:{PROXY}") == PROXY
    assert _source(proxied, f"::ffff:{PROXY}", HTTP_X_FORWARDED_FOR=CLIENT) == CLIENT
    assert _source(proxied, PROXY6, HTTP_X_FORWARDED_FOR=CLIENT) == CLIENT


@pytest.mark.parametrize("peer", [CLIENT, f"::ffff:{CLIENT}", "10.0.0.7", CLIENT6, "fe80::1%eth0", None, "", "unix:"])
@pytest.mark.parametrize("written", [SPOOFED, "unknown", "", f"for={SPOOFED}"])
def test_nobody_else_is_believed(proxied: Service, peer: str | None, written: str) -> None:
    sent = {**dict.fromkeys(SAYINGS, written), "HTTP_CLIENT_CERT": SEQUENCE, "HTTP_CLIENT_CERT_CHAIN": SEQUENCE}
    status, environ, _ = _served(proxied, peer, **sent)
    expected = {f"::ffff:{CLIENT}": CLIENT, "fe80::1%eth0": "fe80::1"}
    assert status == 200
    assert environ.get("REMOTE_ADDR") == expected.get(peer or "", peer)
    assert not [name for name in SAYINGS if name in environ]
    assert presented_certificate(environ) is None


@given(st.text(max_size=200), st.text(max_size=200))
def test_whatever_a_client_writes_before_what_the_proxy_adds(proxied: Service, written: str, again: str) -> None:
    assert _source(proxied, HTTP_X_FORWARDED_FOR=f"{written}, {CLIENT}") == CLIENT
    found = _source(proxied, HTTP_X_FORWARDED_FOR=f"{written}, {CLIENT}", HTTP_FORWARDED=again)
    assert found in {CLIENT, "refused"}


def test_a_certificate_that_a_proxy_passes_on(proxied: Service) -> None:
    chain = f"{SEQUENCE}, :{base64.b64encode(ROOT.der).decode()}:"
    sent = {"HTTP_X_FORWARDED_FOR": CLIENT, "HTTP_CLIENT_CERT": SEQUENCE}
    _, environ, _ = _served(proxied, **sent, HTTP_CLIENT_CERT_CHAIN=chain)
    assert presented_certificate(environ) == (LEAF.der, [LEAF.der, ROOT.der])
    assert environ["kms.client_certificate"] == LEAF.der
    _, environ, _ = _served(proxied, **{**sent, "HTTP_CLIENT_CERT": quote(LEAF.pem, safe="")})  # as nginx has it
    assert presented_certificate(environ) == (LEAF.der, [])
    for none in ({}, {"HTTP_CLIENT_CERT": ""}, {"HTTP_CLIENT_CERT_CHAIN": chain}):
        assert presented_certificate(_served(proxied, HTTP_X_FORWARDED_FOR=CLIENT, **none)[1]) is None


@pytest.mark.parametrize(
    "written",
    [
        f"{SEQUENCE},{SEQUENCE}", f"{SEQUENCE};a=1", SEQUENCE[1:], SEQUENCE[:-1], ":", "::", ":*:", ":AAA:", "?1",
        LEAF.pem, LEAF.pem.replace("\n", " "), "-----BEGIN%20CERTIFICATE-----", f":{'A' * 40000}:", f'"{SEQUENCE}"',
    ],
)  # fmt: skip
def test_certificates_that_no_proxy_writes(proxied: Service, written: str) -> None:
    status, _, body = _served(proxied, HTTP_X_FORWARDED_FOR=CLIENT, HTTP_CLIENT_CERT=written)
    if written != "::":
        assert (status, b"RFC 9440" in body) == (400, True)
    status, _, body = _served(
        proxied, HTTP_X_FORWARDED_FOR=CLIENT, HTTP_CLIENT_CERT=SEQUENCE, HTTP_CLIENT_CERT_CHAIN=f"{SEQUENCE}, ,"
    )
    assert (status, b"RFC 9440" in body) == (400, True)


def test_too_many_certificates(proxied: Service) -> None:
    chain = ",".join([SEQUENCE] * 9)
    sent = {"HTTP_X_FORWARDED_FOR": CLIENT, "HTTP_CLIENT_CERT": SEQUENCE, "HTTP_CLIENT_CERT_CHAIN": chain}
    assert _served(proxied, **sent)[0] == 400


@pytest.mark.parametrize(
    ("path", "sent", "limited"),
    [
        ("/auth/token", {"HTTP_AUTHORIZATION": "Basic eDp5", "HTTP_X_TOTP": "000000"}, 429),
        ("/generate_ecc_key", {"HTTP_AUTHORIZATION": "Bearer x", "CONTENT_TYPE": "application/json"}, 429),
        ("/v1/transit/keys/a", {"HTTP_X_VAULT_TOKEN": "x"}, 429),
        ("/", {"HTTP_X_AMZ_TARGET": "TrentService.ListKeys", "CONTENT_TYPE": "application/x-amz-json-1.1"}, 400),
    ],
)
def test_everything_behind_counts_by_the_source(
    template: Template, settings: Settings, path: str, sent: dict[str, str], limited: int
) -> None:
    few = {"trusted_proxies": PROXY, "rate_limit_authenticate": "2/hour", "rate_limit_public": "2/hour"}
    service = template.open(msgspec.structs.replace(settings, **few))
    app = World.of(service).http.application.wsgi_app

    def attempt(source: str) -> int:
        from_there = {"REMOTE_ADDR": PROXY, "HTTP_X_FORWARDED_FOR": f"{SPOOFED}, {source}"}
        environ = environ_of(b"{}", REQUEST_METHOD="POST", PATH_INFO=path, **sent, **from_there)
        return int(called(app, environ)[0].split()[0])

    first, *_, last = (attempt(CLIENT) for _ in range(3))
    assert (first < 429, last) == (True, limited)
    assert attempt("203.0.113.10") == first
    service.close()


def test_without_proxies_there_is_nothing_in_front(world: World) -> None:
    assert isinstance(world.http.application.wsgi_app, FastPathMiddleware)


@pytest.mark.parametrize(
    "text", ["10.0.0.1/8", "nginx", "0.0.0.0/0", "::/0", "10.0.0.1;10.0.0.2", "10.0.0.1 10.0.0.2"]
)
def test_proxies_that_cannot_be_trusted_stop_the_start(text: str) -> None:
    with pytest.raises(StartError, match="trusted_proxies"):
        load({}, {"KMS_TRUSTED_PROXIES": text})
