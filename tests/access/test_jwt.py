"""JWTs as attackers write them: everything but a strict token by the right key is refused."""

from __future__ import annotations

import json
import warnings
from base64 import b64decode, b64encode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from hmac import digest
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from kms.access.jwt import ALGORITHMS, CLIENT_ALGORITHMS, Claims, Refused, audiences, peek, require_times, verify
from kms.access.verification_key import VerificationKey, public_key_from_jwk, public_key_from_pem
from kms.errors import ValidationFailed

NOW = datetime(2026, 11, 28, 9, tzinfo=UTC)
AT = int(NOW.timestamp())
CLAIMS = {"iss": "https://issuer.example", "sub": "pay", "aud": "https://kms.example", "exp": AT + 60}


@cache
def key(kind: str = "P-256") -> Key:
    if kind == "RSA":
        return RSAKey.generate_key(2048)
    return OKPKey.generate_key("Ed25519") if kind == "Ed25519" else ECKey.generate_key(kind)


@cache
def public(kind: str = "P-256") -> VerificationKey:
    return public_key_from_jwk(dict(key(kind).as_dict(private=False)))


def kind_of(alg: str) -> str:
    curves = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "Ed25519": "Ed25519", "EdDSA": "Ed25519"}
    return curves.get(alg, "RSA")


def b64(content: bytes | str | dict[str, Any]) -> str:
    if isinstance(content, dict):
        content = json.dumps(content)
    return urlsafe_b64encode(content.encode() if isinstance(content, str) else content).rstrip(b"=").decode()


def raw_signature(signed: str, alg: str = "ES256") -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `EdDSA` and RS* have newer names or successors
        model = jws.JWSRegistry(algorithms=[alg]).get_alg(alg)
    return bytes(model.sign(signed.encode(), key(kind_of(alg))))


def token(
    claims: bytes | str | dict[str, Any] = CLAIMS, header: str | dict[str, Any] | None = None, alg: str = "ES256"
) -> str:
    """A token with a good signature over whatever it says."""
    signed = f"{b64(header if header is not None else {'alg': alg})}.{b64(claims)}"
    return f"{signed}.{b64(raw_signature(signed, alg))}"


def accepted(text: str, by: VerificationKey | None = None) -> Claims:
    return verify(peek(text), by or public())


def is_refused(text: str, by: VerificationKey | None = None) -> str:
    """The reason of the refusal, which the caller must not be told: nothing was verified."""
    with pytest.raises(Refused) as refusal:
        accepted(text, by)
    assert not refusal.value.verified
    return refusal.value.reason


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_each_algorithm_is_verified_by_a_key_of_its_kind_and_by_no_other(alg: str) -> None:
    good = token(alg=alg)
    assert accepted(good, public(kind_of(alg))).members == CLAIMS
    for kind in ("P-256", "P-384", "P-521", "Ed25519", "RSA"):
        if kind != kind_of(alg):
            is_refused(good, public(kind))


def test_what_clients_may_sign_with_is_less() -> None:
    assert set(CLIENT_ALGORITHMS) == {"ES256", "ES384", "ES512", "Ed25519", "EdDSA", "PS256", "RS256"}
    with pytest.raises(Refused):
        verify(peek(token(alg="RS512")), public("RSA"), CLIENT_ALGORITHMS)


@pytest.mark.parametrize(
    "alg",
    [
        "none",
        "None",
        "NONE",
        "nOnE",
        "",
        "HS256",
        "HS384",
        "HS512",
        "ES256K",
        "Ed448",
        "RSA-OAEP",
        "dir",
        "es256",
        "ES256 ",
        None,
        1,
        True,
        [],
        ["ES256"],
        {},
        "../ES256",
    ],
)
def test_no_other_algorithm_is_known(alg: object) -> None:
    signed = f"{b64({'alg': alg})}.{b64(CLAIMS)}"
    assert "alg" in is_refused(f"{signed}.{b64(raw_signature(signed))}")
    assert "three parts" in is_refused(f"{signed}.")  # as tokens without a signature are written


def test_an_algorithm_must_be_named() -> None:
    assert "alg" in is_refused(token(header={"typ": "JWT"}))


@pytest.mark.parametrize("alg", ["HS256", "ES256", "RS256"])
def test_a_public_key_is_no_secret_for_hmac(alg: str) -> None:
    for kind in ("P-256", "RSA"):
        pem = key(kind).as_pem(private=False)
        secrets = [pem, pem.strip(), key(kind).as_der(private=False), json.dumps(dict(public(kind).jwk)).encode()]
        for secret in secrets:
            signed = f"{b64({'alg': alg})}.{b64(CLAIMS)}"
            is_refused(f"{signed}.{b64(digest(secret, signed.encode(), sha256))}", public(kind))


def test_the_key_of_somebody_else_does_not_verify() -> None:
    other = public_key_from_jwk(dict(ECKey.generate_key("P-256").as_dict(private=False)))
    assert "signature" in is_refused(token(), other)


def test_a_key_for_one_algorithm_is_not_for_another() -> None:
    only = public_key_from_jwk({**key("RSA").as_dict(private=False), "alg": "PS256"})
    assert only.algorithms == ("PS256",)
    accepted(token(alg="PS256"), only)
    is_refused(token(alg="RS256"), only)


def test_an_ecdsa_signature_is_two_numbers_side_by_side() -> None:
    signed = f"{b64({'alg': 'ES256'})}.{b64(CLAIMS)}"
    private = key().private_key
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    is_refused(f"{signed}.{b64(private.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))}")  # DER
    good = raw_signature(signed)
    for bad in (
        good[:-1],
        good + b"\0",
        b"\0" + good,
        good[:32],
        good * 2,
        bytes(32) + good[32:],
        good[:32] + bytes(32),
    ):
        is_refused(f"{signed}.{b64(bad)}")


@pytest.mark.parametrize(("alg", "half"), [("ES256", 32), ("ES384", 48), ("ES512", 66)])
def test_psychic_signatures_are_none(alg: str, half: int) -> None:
    orders = {
        "ES256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
        "ES384": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    }
    order = orders.get(alg, (1 << 521) - 1).to_bytes(half)
    signed = f"{b64({'alg': alg})}.{b64(CLAIMS)}"
    one = (1).to_bytes(half)
    for r in (bytes(half), order, one, b"\xff" * half):
        for s in (bytes(half), order, one, b"\xff" * half):
            is_refused(f"{signed}.{b64(r + s)}", public(kind_of(alg)))


@pytest.mark.parametrize("alg", ["Ed25519", "EdDSA", "PS256", "RS256"])
def test_signatures_of_another_length_are_none(alg: str) -> None:
    signed = f"{b64({'alg': alg})}.{b64(CLAIMS)}"
    good = raw_signature(signed, alg)
    for bad in (good[:-1], good + b"\0", b"\0" + good, bytes(len(good)), b"\xff" * len(good), good[:1]):
        is_refused(f"{signed}.{b64(bad)}", public(kind_of(alg)))


def test_ed25519_signatures_have_one_form() -> None:
    signed = f"{b64({'alg': 'Ed25519'})}.{b64(CLAIMS)}"
    good = raw_signature(signed, "Ed25519")
    order = (1 << 252) + 27742317777372353535851937790883648493
    larger = (int.from_bytes(good[32:], "little") + order).to_bytes(32, "little")
    is_refused(f"{signed}.{b64(good[:32] + larger)}", public("Ed25519"))


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "...", "a", "a.b", "a.b.c.d", "a.b.c.d.e", " ", "\0", "é.é.é", "\ud800.a.a", "ａ.ａ.ａ", "null"],
)
def test_what_has_not_three_parts_of_base64url_is_none(text: str) -> None:
    is_refused(text)


def test_every_part_is_canonical_base64url() -> None:
    header, payload, signature = token().split(".")
    for bad in (
        f"{header}=.{payload}.{signature}",
        f"{header}.{payload}.{signature}=",
        f"{header}.{payload}.{signature}\n",
        f"{header}\n.{payload}.{signature}",
        f" {header}.{payload}.{signature}",
        f"{header}.{payload}.{signature[:40]} {signature[40:]}",
        f"{header}.{payload}.+/{signature[2:]}",
        f"{header}..{signature}",
        f".{payload}.{signature}",
        f"{header}.{payload}.{signature}A",  # five characters more than whole groups of four
        f"Bearer {header}.{payload}.{signature}",
    ):
        is_refused(bad)
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = last[last.index(signature[-1]) | 1]  # the same bytes, with a bit set that stands for nothing
    assert b64decode(signature + "==", b"-_") == b64decode(signature[:-1] + other + "==", b"-_")
    is_refused(f"{header}.{payload}.{signature[:-1]}{other}")


@pytest.mark.parametrize(
    "part",
    [
        "null",
        "[]",
        "1",
        '"x"',
        "true",
        "",
        "{",
        "{}{}",
        "{} x",
        "\ufeff{}",
        "{'a':1}",
        '{"a":NaN}',
        '{"a":Infinity}',
        '{"a":-Infinity}',
        '{"a":1e400}',
        '{"a":-1e400}',
        '{"a":' + "9" * 5000 + "}",
        '{"a":1,}',
        '{"a":01}',
        '{"a":"\t"}',
        '{"a":1,"a":1}',
        '{"a":1,"\\u0061":2}',
        '{"a":{"b":1,"b":2}}',
        '{"a":[{"b":1,"b":2}]}',
        '{"a":"\\ud800"}',
        '{"\\udfff":1}',
        '{"a":"\\u0000"}',
        '{"a":{"\\u0000":1}}',
        "{" + '"a":{' * 40 + "}" * 41,
        '{"a":' + "[" * 17 + "]" * 17 + "}",
        '{"a":' + "[" * 5000,
        '{"a":"' + "[" * 20 + '","b":' + "[" * 16 + "]" * 16 + "}",
        '{"' + '\\"[' * 2000,
    ],
)
def test_both_parts_are_strict_json_objects(part: str) -> None:
    if part:
        assert "JSON" in is_refused(token(claims=part))
        assert "JSON" in is_refused(token(header=part))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1", "utf-8-sig"])
def test_json_is_utf_8(encoding: str) -> None:
    encoded = json.dumps({**CLAIMS, "name": "ü"}, ensure_ascii=False).encode(encoding)
    assert "JSON" in is_refused(token(claims=encoded))


def test_brackets_in_strings_are_no_depth() -> None:
    claims = {**CLAIMS, "a": "[" * 100 + '\\"{' * 50, "b": {"c": [{"d": ["😀", "\u00e9"]}]}}
    assert accepted(token(claims=claims)).members == claims


@pytest.mark.parametrize(
    ("alias", "members"),
    [
        ("duplicated alg", '{"alg":"none","alg":"ES256"}'),
        ("duplicated alg", '{"alg":"ES256","alg":"none"}'),
        ("duplicated kid", '{"alg":"ES256","kid":"a","kid":"b"}'),
    ],
)
def test_no_header_member_comes_twice(alias: str, members: str) -> None:
    assert "twice" in is_refused(token(header=members)), alias


@pytest.mark.parametrize("claim", ["sub", "iss", "aud", "exp", "jti"])
def test_no_claim_comes_twice(claim: str) -> None:
    twice = json.dumps(CLAIMS)[:-1] + f', "{claim}": "other"' + (f', "{claim}": 1' if claim == "jti" else "") + "}"
    assert "twice" in is_refused(token(claims=twice))


def test_huge_tokens_are_refused_before_they_are_read() -> None:
    assert "16384" in is_refused("a" * (1 << 20))
    assert "16384" in is_refused(token(claims={**CLAIMS, "x": "y" * 13_000}))
    accepted(token(claims={**CLAIMS, "x": "y" * 11_000}))


@pytest.mark.parametrize(
    "extra",
    [
        {"crit": ["b64"], "b64": False},
        {"crit": []},
        {"crit": ["exp"], "exp": 1},
        {"crit": None},
        {"crit": "alg"},
        {"b64": False},
        {"b64": True},
        {"b64": None},
        {"b64": 0},
    ],
)
def test_extensions_of_jws_are_refused(extra: dict[str, Any]) -> None:
    assert "crit" in is_refused(token(header={"alg": "ES256", **extra}))


@pytest.mark.parametrize(
    "typ", ["JWT", "jwt", "at+jwt", "AT+JWT", "client-authentication+jwt", "application/jwt", "application/at+jwt"]
)
def test_types_that_are_meant_for_this(typ: str) -> None:
    assert peek(token(header={"alg": "ES256", "typ": typ})).typ == typ
    accepted(token(header={"alg": "ES256", "typ": typ}))


@pytest.mark.parametrize(
    "typ",
    [
        "dpop+jwt",
        "secevent+jwt",
        "logout+jwt",
        "JOSE",
        "JWE",
        "",
        "JWT ",
        "text/jwt",
        None,
        1,
        ["JWT"],
        {"typ": "JWT"},
    ],
)
def test_tokens_of_another_type_are_for_something_else(typ: object) -> None:
    assert "typ" in is_refused(token(header={"alg": "ES256", "typ": typ}))


@pytest.mark.parametrize("kid", [None, 1, 0, True, [], ["a"], {}, {"a": 1}, "", "a" * 513, "a\0b", "\ud800", 1.5])
def test_a_kid_is_a_string(kid: object) -> None:
    is_refused(token(header={"alg": "ES256", "kid": kid}))


@pytest.mark.parametrize(
    "kid",
    [
        "../../../../dev/null",
        "/dev/null",
        "' OR '1'='1",
        "x'; DROP TABLE public_keys; --",
        "http://x/",
        "|id",
        "%00",
        "é",
        "../../proc/sys/kernel/randomize_va_space",
        "ＡＡ",
        "a" * 512,
    ],
)
def test_a_kid_is_a_name_and_nothing_else(kid: str) -> None:
    assert peek(token(header={"alg": "ES256", "kid": kid})).kid == kid


def test_keys_and_places_of_keys_in_the_header_are_never_looked_at() -> None:
    mine = ECKey.generate_key("P-256")
    jwk = mine.as_dict(private=False)
    certificates = [b64encode(b"not a certificate").decode()]
    for extra in (
        {"jwk": jwk},
        {"jku": "https://attacker.example/jwks"},
        {"x5u": "https://attacker.example/x5u"},
        {"x5c": certificates},
        {"jwk": jwk, "kid": public().kid},
    ):
        signed = f"{b64({'alg': 'ES256', **extra})}.{b64(CLAIMS)}"
        model = jws.JWSRegistry(algorithms=["ES256"]).get_alg("ES256")
        assert "signature" in is_refused(f"{signed}.{b64(model.sign(signed.encode(), mine))}")
        accepted(token(header={"alg": "ES256", **extra}))  # and they are in nobody's way
    for nonsense in ({"jku": 1}, {"jku": "file:///etc/passwd"}, {"x5u": []}, {"jwk": "x"}, {"jwk": {"kty": "oct"}}):
        accepted(token(header={"alg": "ES256", **nonsense}))


def test_a_chain_is_handed_on_as_der() -> None:
    chain = [b64encode(b"one").decode(), b64encode(b"two").decode()]
    assert peek(token(header={"alg": "ES256", "x5c": chain})).x5c == (b"one", b"two")
    assert peek(token()).x5c is None
    for bad in ([], None, "x", [1], ["a b"], ["-_-_"], [chain[0]] * 9, {"0": chain[0]}, ["é"]):
        is_refused(token(header={"alg": "ES256", "x5c": bad}))


def test_what_is_claimed_is_only_claimed() -> None:
    header = peek(token()[:-4] + "AAAA")
    assert (header.claimed_issuer, header.claimed_subject) == ("https://issuer.example", "pay")
    strange = peek(token({"iss": ["https://issuer.example"], "sub": {"a": 1}}))
    assert (strange.claimed_issuer, strange.claimed_subject) == (None, None)
    assert "issuer.example/" not in repr(header) and token().split(".")[2][:20] not in repr(header)


@pytest.mark.parametrize("value", [None, "", 1, True, ["pay"], {"a": "pay"}])
def test_names_are_strings(value: object) -> None:
    claims = accepted(token({**CLAIMS, "sub": value, "iss": value, "jti": value}))
    for read in (lambda: claims.subject, lambda: claims.issuer, lambda: claims.token_id, lambda: claims.text("none")):
        with pytest.raises(Refused) as refusal:
            read()
        assert refusal.value.verified


@pytest.mark.parametrize(
    "issuer",
    [
        "https://issuer.example/",
        "https://Issuer.example",
        "HTTPS://issuer.example",
        "https://issuer.example:443",
        "https://issuer.example ",
        "https://issuer。example",
        "https://іssuer.example",
        "https://issuer.example%2f",
    ],
)
def test_an_issuer_that_differs_at_all_is_another(issuer: str) -> None:
    assert peek(token({**CLAIMS, "iss": issuer})).claimed_issuer == issuer != CLAIMS["iss"]
    assert accepted(token({**CLAIMS, "iss": issuer})).issuer == issuer


@pytest.mark.parametrize(("aud", "read"), [("a", {"a"}), (["a"], {"a"}), (["a", "b", "a"], {"a", "b"})])
def test_audiences(aud: object, read: set[str]) -> None:
    assert audiences(Claims({"aud": aud})) == read


@pytest.mark.parametrize(
    "claims",
    [{}] + [{"aud": aud} for aud in (None, "", [], [""], ["a", ""], ["a", 1], [["a"]], {"a": 1}, 1, True, [None])],
)
def test_a_token_for_nobody_is_refused(claims: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refusal:
        audiences(Claims(claims))
    assert refusal.value.verified and "aud" in refusal.value.reason


def in_time(**times: object) -> datetime:
    given = {name: value for name, value in {"exp": AT + 60, **times}.items() if value is not ...}
    return require_times(accepted(token(given)), NOW, timedelta(minutes=5), timedelta(seconds=10))


def test_times_in_force() -> None:
    assert in_time() == NOW + timedelta(seconds=60)
    assert in_time(exp=AT + 59.5) == NOW + timedelta(seconds=59.5)
    assert in_time(exp=AT - 9, nbf=AT + 10, iat=AT + 10)  # as far as clocks may differ
    assert in_time(exp=AT + 310, nbf=0, iat=0.0)
    claims = accepted(token({"exp": AT + 10**9}))
    assert require_times(claims, NOW, None, timedelta(0)) == NOW + timedelta(seconds=10**9)


@pytest.mark.parametrize(
    "times",
    [
        {"exp": AT - 10},
        {"exp": 0},
        {"exp": AT + 311},
        {"exp": AT + 10**9},
        {"exp": ...},
        {"nbf": AT + 11},
        {"iat": AT + 11},
    ]
    + [
        {name: value}
        for name in ("exp", "nbf", "iat")
        for value in (
            None,
            True,
            False,
            "",
            "1",
            str(AT + 60),
            [],
            [AT + 60],
            {},
            -1,
            -1e300,
            1e300,
            253402214401,
            10**60,
            "NaN",
        )
    ],
)
def test_times_that_are_none_or_not_now(times: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refusal:
        in_time(**times)
    assert refusal.value.verified and next(iter(times)) in refusal.value.reason


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_no_number_that_is_none_is_a_time(value: float) -> None:
    with pytest.raises(Refused):
        require_times(Claims({"exp": value}), NOW, None, timedelta(0))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["alg", "kid", "typ", "x5c", "jku", "jwk", "crit", "b64", "cty", "zip", "enc"])


@given(st.integers(0, 400), st.characters(codec=None), st.sampled_from(["replace", "insert", "delete"]))
def test_a_changed_token_is_refused(place: int, character: str, how: str) -> None:
    good = GOOD
    place %= len(good)
    if how == "replace" and good[place] == character:
        return
    bad = good[:place] + ("" if how == "delete" else character) + good[place + (how != "insert") :]
    if bad != good:
        is_refused(bad)


@given(
    st.text()
    | st.binary().map(lambda content: b64(content))
    | st.from_regex(r"[\w-]{1,60}\.[\w-]{1,60}\.[\w-]{1,60}")
)
def test_anything_else_is_refused(text: str) -> None:
    is_refused(text)


@given(st.dictionaries(NAMES | st.text(), JSON))
def test_headers_are_read_or_refused(header: dict[str, Any]) -> None:
    try:
        accepted(token(header={"alg": "ES256", **header}))
    except Refused as refusal:
        assert not refusal.verified


@given(st.dictionaries(st.sampled_from(["iss", "sub", "aud", "exp", "nbf", "iat", "jti"]) | st.text(), JSON))
def test_claims_are_read_or_refused(given_claims: dict[str, Any]) -> None:
    try:
        claims = accepted(token(given_claims))
    except Refused as refusal:
        assert not refusal.verified
        return
    for read in (
        lambda: audiences(claims),
        lambda: require_times(claims, NOW, timedelta(minutes=5), timedelta(seconds=10)),
        lambda: claims.subject,
    ):
        try:
            read()
        except Refused as refusal:
            assert refusal.verified


GOOD = token(header={"alg": "ES256", "typ": "JWT", "kid": "one"})


@pytest.mark.parametrize("kind", ["P-256", "P-384", "P-521", "Ed25519", "RSA"])
def test_a_key_is_the_same_as_jwk_and_as_pem(kind: str) -> None:
    from_pem = public_key_from_pem(key(kind).as_pem(private=False).decode())
    assert from_pem == public(kind)
    assert from_pem.kid == key(kind).thumbprint()  # by joserfc
    assert not {"d", "kid", "use"} & from_pem.jwk.keys()
    assert public_key_from_jwk(dict(from_pem.jwk)) == from_pem


def test_the_thumbprint_of_rfc_7638() -> None:
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknj"
        "hMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQ"
        "vRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzK"
        "nqDKgw"
    )
    sent = {"kty": "RSA", "n": modulus, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}
    read = public_key_from_jwk(sent)
    assert read.kid == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    assert read.algorithms == ("RS256",)


@pytest.mark.parametrize("kind", ["P-256", "Ed25519", "RSA"])
def test_private_keys_are_refused_and_called_seen(kind: str) -> None:
    with pytest.raises(ValidationFailed, match="private key"):
        public_key_from_jwk(dict(key(kind).as_dict(private=True)))
    for member in ("d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"):
        with pytest.raises(ValidationFailed, match="Make a new one"):
            public_key_from_jwk({**public(kind).jwk, member: ""})
    with pytest.raises(ValidationFailed, match="Make a new one"):
        public_key_from_pem(key(kind).as_pem(private=True).decode())


@pytest.mark.parametrize(
    "members",
    [
        {"kty": "oct", "k": "AAAA"},
        {"kty": "oct"},
        {},
        {"kty": None},
        {"kty": 1},
        {"kty": ["EC"]},
        {"kty": "ec"},
        {"kty": "EC"},
        {"kty": "EC", "crv": "P-256"},
        {"kty": "EC", "crv": "secp256k1"},
        {"kty": "EC", "crv": ["P-256"]},
        {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"},
        {"kty": "EC", "crv": "P-256", "x": 1, "y": 2},
        {"kty": "OKP", "crv": "Ed448"},
        {"kty": "OKP", "crv": "X25519", "x": "A" * 43},
        {"kty": "RSA"},
        {"kty": "RSA", "n": "", "e": "AQAB"},
        {"kty": "RSA", "n": "A" * 342, "e": "AQAB"},
        {"kty": "RSA", "n": "_" * 100_000, "e": "AQAB"},
        {"kty": "RSA", "n": None, "e": None},
        {"kty": "AKP", "alg": "ML-DSA-65"},
        {"kty": "OKP", "crv": "Ed25519", "x": ""},
        {"kty": "OKP", "crv": "Ed25519", "x": "A" * 44},
        {"kty": "OKP", "crv": "Ed25519", "x": "é" * 43},
    ],
)
def test_what_is_no_public_key_for_signatures(members: dict[str, Any]) -> None:
    with pytest.raises(ValidationFailed):
        public_key_from_jwk(members)


@pytest.mark.parametrize(
    "extra",
    [
        {"use": "enc"},
        {"use": ""},
        {"use": 1},
        {"key_ops": ["sign"]},
        {"key_ops": []},
        {"key_ops": "verify"},
        {"alg": "ES384"},
        {"alg": "HS256"},
        {"alg": "none"},
        {"alg": 1},
        {"alg": ""},
        {"alg": ["ES256"]},
    ],
)
def test_a_key_that_says_it_is_for_something_else_is_believed(extra: dict[str, Any]) -> None:
    with pytest.raises(ValidationFailed, match="must agree"):
        public_key_from_jwk({**public().jwk, **extra})


def test_a_key_that_says_what_it_is_for_is_taken() -> None:
    said = {"use": "sig", "key_ops": ["verify"], "alg": "ES256", "kid": "mine", "x5t": 1}
    assert public_key_from_jwk({**public().jwk, **said}) == public()
    for alg in ("EdDSA", "Ed25519"):
        assert public_key_from_jwk({**public("Ed25519").jwk, "alg": alg}).algorithms == ("Ed25519", "EdDSA")


def test_points_that_are_not_on_their_curve() -> None:
    jwk = dict(public().jwk)
    with pytest.raises(ValidationFailed):
        public_key_from_jwk({**jwk, "x": jwk["y"], "y": jwk["x"]})
    with pytest.raises(ValidationFailed):
        public_key_from_jwk({**jwk, "crv": "P-384"})


SMALL_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    b"\xec" + b"\xff" * 30 + b"\x7f",
    b"\xec" + b"\xff" * 31,
    b"\xed" + b"\xff" * 30 + b"\x7f",
    b"\xee" + b"\xff" * 30 + b"\x7f",
    bytes(31) + b"\x80",
    b"\x01" + bytes(30) + b"\x80",
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
]


@pytest.mark.parametrize("point", SMALL_ORDER, ids=bytes.hex)
def test_ed25519_keys_for_which_anybody_signs(point: bytes) -> None:
    with pytest.raises(ValidationFailed):
        public_key_from_jwk({"kty": "OKP", "crv": "Ed25519", "x": b64(point)})


def rsa_jwk(n: int, e: int) -> dict[str, str]:
    return {
        "kty": "RSA",
        "n": b64(n.to_bytes((n.bit_length() + 7) // 8)),
        "e": b64(e.to_bytes((e.bit_length() + 7) // 8)),
    }


def test_weak_rsa_keys() -> None:
    small = rsa.generate_private_key(65537, 1024).public_key().public_numbers()
    with pytest.raises(ValidationFailed, match="1024"):
        public_key_from_jwk(rsa_jwk(small.n, small.e))
    good = key("RSA").public_key
    assert isinstance(good, rsa.RSAPublicKey)
    modulus = good.public_numbers().n
    for n, e in (
        (modulus, 1),
        (modulus, 3),
        (modulus, 65536),
        (modulus, 1 << 65),
        (modulus * 3, 65537),
        (modulus + 1, 65537),
    ):
        with pytest.raises(ValidationFailed):
            public_key_from_jwk(rsa_jwk(n, e))


def test_keys_in_pem_that_are_of_no_use() -> None:
    unusable = [
        ec.generate_private_key(ec.SECP256K1()),
        ec.generate_private_key(ec.BrainpoolP256R1()),
        ed448.Ed448PrivateKey.generate(),
        x25519.X25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 1024),
    ]
    for private in unusable:
        pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        with pytest.raises(ValidationFailed):
            public_key_from_pem(pem)
    good = key().as_pem(private=False).decode()
    for bad in ("", "x", good * 2, good.replace("PUBLIC", "RSA PUBLIC"), good[:-30], "ssh-rsa AAAA", "é" + good):
        with pytest.raises(ValidationFailed):
            public_key_from_pem(bad)
