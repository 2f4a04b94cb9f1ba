"""What `client add-key` sends: public keys and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from joserfc.jwk import OctKey

from helpers.tokens import new_key, private_pem, public_jwk, public_pem
from kms.cli import main

KEY = new_key()


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KMS_HOME", str(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        private_pem(KEY).decode(),
        public_pem(KEY) + private_pem(KEY).decode(),
        json.dumps(KEY.as_dict(private=True)),
        json.dumps(OctKey.generate_key().as_dict(private=True)),
    ],
    ids=["pem", "both-halves", "jwk", "symmetric"],
)
def test_a_private_key_is_refused_before_it_is_sent(content: str) -> None:
    Path("app.key").write_text(content)
    done = CliRunner().invoke(main, ["client", "add-key", "app", "app.key"])
    assert done.exit_code == 1
    assert "It was not sent." in done.output
    assert "not logged in" not in done.output


@pytest.mark.parametrize("content", ["", "[]", "{}", "ssh-ed25519 AAAA", '{"keys": []}', "é"])
def test_what_is_no_public_key_is_refused_in_a_sentence(content: str) -> None:
    Path("app.pub").write_text(content)
    done = CliRunner().invoke(main, ["client", "add-key", "app", "app.pub"])
    assert done.exit_code == 1
    assert done.output.startswith("Error: app.pub is n")


@pytest.mark.parametrize("content", [public_pem(KEY), json.dumps(public_jwk(KEY))], ids=["pem", "jwk"])
def test_a_public_key_would_be_sent(content: str) -> None:
    Path("app.pub").write_text(content)
    assert "You are not logged in." in CliRunner().invoke(main, ["client", "add-key", "app", "app.pub"]).output
