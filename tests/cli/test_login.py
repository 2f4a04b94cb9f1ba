"""Logging in by hand: what is asked, in which order, and what is shown of it."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from joserfc.jwk import ECKey

from helpers.tokens import new_key, private_pem, public_jwk
from kms.access import jwt
from kms.access.verification_key import public_key_from_jwk
from kms.cli import main
from kms.client import assertion
from kms.client.logins import read_private_key

NOWHERE = ["--url", "https://localhost:1"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_secret_is_asked_for_first_and_never_shown() -> None:
    """It is what people have just copied, and so what they paste at the first question."""
    done = CliRunner().invoke(main, ["login", *NOWHERE], input="the-secret\nalice\n123456\n")
    questions = ["Client secret (it is not shown)", "no secret", "six digits"]
    places = [done.output.index(question) for question in questions]
    assert places == sorted(places)
    assert "the-secret" not in done.output
    assert "cannot be reached" in done.output


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"totp_secret": "?"}', "\\ud800"])
def test_a_file_that_holds_no_credentials_is_refused_in_a_sentence(content: str) -> None:
    Path("file").write_text(content)
    done = CliRunner().invoke(main, ["login", *NOWHERE, "--credentials", "file"])
    assert done.exit_code == 1
    assert done.output == "Error: file is not a file of credentials that can be read.\n"


def test_login_by_a_key_asks_for_its_passphrase_and_never_shows_it() -> None:
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "Ed25519", "-aes256", "-pass", "pass:hidden words", "-out", "app.key"],
        check=True,
        capture_output=True,
    )
    arguments = ["login", *NOWHERE, "--key", "app.key", "--client-id", "app"]
    done = CliRunner().invoke(main, arguments, input="hidden words\n")
    assert "Passphrase of app.key" in done.output
    assert "hidden words" not in done.output
    assert "cannot be reached" in done.output  # so it was signed
    assert "not that of app.key" in CliRunner().invoke(main, arguments, input="others\n").output


@pytest.mark.parametrize("alg", ["ES256", "ES384", "ES512", "EdDSA", "PS256"])
def test_what_a_key_signs_is_what_the_service_takes(alg: str) -> None:
    key = new_key(alg)
    Path("app.key").write_bytes(private_pem(key))
    token = assertion.signed(read_private_key("app.key"), "app", "https://kms.example")
    public = public_key_from_jwk(public_jwk(key))
    header = jwt.peek(token)
    claims = jwt.verify(header, public, jwt.CLIENT_ALGORITHMS)
    assert header.kid == public.kid
    assert (claims.issuer, claims.subject) == ("app", "app")
    assert jwt.audiences(claims) == {"https://kms.example"}
    assert jwt.require_times(claims, datetime.now(UTC), timedelta(minutes=5), timedelta())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "not a private key"),
        (b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n", "not a private key"),
        (private_pem(ECKey.generate_key("secp256k1")), "must be on P-256"),
    ],
)
def test_a_file_that_holds_no_usable_key_is_refused_in_a_sentence(content: bytes, told: str) -> None:
    Path("app.key").write_bytes(content)
    done = CliRunner().invoke(main, ["login", *NOWHERE, "--key", "app.key", "--client-id", "app"])
    assert done.exit_code == 3
    assert told in done.output
