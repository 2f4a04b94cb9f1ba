"""What the command manages: keys and sessions of clients, issuers, groups, grants; by HTTPS, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.tokens import AUDIENCE, PlatformIssuer, new_key, private_pem, public_pem
from kms.client import kept_login

Kms = Callable[..., list[Any]]
WORLD_S_NAME = AUDIENCE  # what JWTs are for, wherever it listens


def test_keys_of_a_client(kms: Kms, served: tuple[str, str]) -> None:
    key = new_key()
    Path("app.key").write_bytes(private_pem(key))
    Path("app.pub").write_text(public_pem(key))
    (added,) = kms("client", "add-key", "alice", "app.pub", "--expires-at", "2100-01-01T00:00:00Z", by="admin")
    assert added["expires_at"] == "2100-01-01T00:00:00Z"
    log_in = ["login", "--url", served[0], "--ca-cert", served[1], "--key", "app.key", "--client-id", "alice"]
    (refused,) = kms(*log_in, code=3)
    assert "aud must be" in refused
    log_in += ["--audience", WORLD_S_NAME + "/"]
    kms(*log_in)
    assert [each["kid"] for each in kms("client", "keys")] == [added["kid"]]
    (who,) = kms("whoami")
    assert (who["url"], who["credential"]) == (served[0], f"key:{added['kid']}")
    assert who["session_id"] in {each["session_id"] for each in kms("client", "sessions")}
    kms(*log_in, "--scope", "keys:encrypt@orders-* keys:read", "--expires-in", "90")
    (who,) = kms("whoami")
    assert (who["client_id"], who["scope"]) == ("alice", "keys:encrypt@orders-* keys:read")
    assert "does not have sessions:manage" in kms("client", "sessions", code=4)[0]
    assert "Logged out" in kms("logout")[0]
    kms(*log_in, "--token-file", "token")
    assert Path("token").stat().st_mode & 0o777 == 0o600
    assert "not logged in" in kms("whoami", code=3)[0]
    (removed,) = kms("client", "remove-key", "alice", added["kid"], by="admin")
    assert removed["kid"] == added["kid"]
    for kid in ("-UsLeHbDXMfDQr9CicdzHlryLirTLh9Zl3oB-toT22g", "--sLeHbDXMfDQr9CicdzHlryLirTLh9Zl3oB-toT22g"):
        assert "no such public key" in kms("client", "remove-key", "alice", kid, code=5)[0]
    assert "not valid" in kms(*log_in, code=3)[0]
    assert "--key goes without" in kms(*log_in, "--recovery", code=2)[0]


def test_a_key_of_one_s_own_asks_for_a_fresh_second_factor(kms: Kms) -> None:
    Path("app.pub").write_text(public_pem(new_key()))
    (told,) = kms("client", "add-key", "bob", "app.pub", by="bob", code=3)
    assert told.endswith(
        "Error: This needs a second factor that was given a short while ago. Give it (`python -m kms confirm`), "
        "then run this command again.\n"
    )


def test_sessions_and_credentials(kms: Kms) -> None:
    kms("access-key", "create", by="bob")
    kms("access-key", "create", by="bob")
    names = [each["credential"].partition(":")[0] for each in kms("client", "credentials")]
    assert names == ["secret", "recovery-codes", "access-key", "access-key"]
    first, *_ = kms("client", "sessions", "bob", by="admin")
    assert kms("client", "end-session", "bob", first["session_id"])[0]["session_id"] == first["session_id"]
    assert "Give one of" in kms("client", "end-session", "bob", code=2)[0]
    assert kms("client", "end-session", "bob", "--all")[0]["access_keys"] == 2
    assert kms("client", "sessions", "bob") == [""]
    assert kms("client", "end-credentials", "bob", "--yes") == [{"sessions": 0, "access_keys": 0, "credentials": 0}]
    ended = kms("client", "remove-certificate", "bob", "ab" * 32)
    assert ended == [{"client_id": "bob", "thumbprint": "ab" * 32}]


def test_an_old_session_does_not_say_whose_it_is(kms: Kms, served: tuple[str, str]) -> None:
    kms("key", "list", by="bob")
    token = kept_login.current().token
    home = kept_login.directory() / "session.json"
    home.write_text(json.dumps({"url": served[0], "ca_cert": served[1], "token": token}))
    for command in (["whoami"], ["client", "sessions"]):
        assert "og in again so that it is known who you are." in kms(*command, code=1)[0]
    assert kms("client", "sessions", "bob")


def test_issuers_and_roles(kms: Kms) -> None:
    issuer = PlatformIssuer("https://issuer.example/a")
    Path("keys.json").write_text(json.dumps(issuer.jwks))
    trust = ["issuer", "add", issuer.issuer, "--audience"]
    assert "is not a JWK set" in kms(*trust, "kms", "--jwks", "nowhere", by="admin", code=1)[0]
    assert "Give one of" in kms(*trust, "kms", code=2)[0]
    assert "KMS_JWKS_HOSTS" in kms(*trust, "kms", "--jwks-uri", "https://issuer.example/jwks", code=1)[0]
    added = [kms(*trust, audience, "--jwks", "keys.json")[0]["issuer_id"] for audience in ("kms", "kms2")]
    role = ["issuer", "add-role", "pay", "--issuer", added[0], "--client", "alice"]
    bound = ["--claim", "sub=a=b", "--claim", "ref=x", "--claim", "ref=y", "--claim-json", "verified=true"]
    (made,) = kms(*role, *bound, "--scope", "keys:read", "--token-lifetime", "PT5M")
    assert made["claims"] == {"sub": "a=b", "ref": ["x", "y"], "verified": True}
    assert (made["scope"], made["token_lifetime"]) == ("keys:read", "PT300S")
    assert [each["role"] for each in kms("issuer", "roles")] == ["pay"]
    for wrong in (["--claim", "sub"], ["--claim-json", "a=b"], ["--claim", "a=b", "--claim-json", "a=1"]):
        kms(*role, *wrong, code=2)
    assert kms("issuer", "remove-role", "pay", "--yes")[0]["role"] == "pay"
    assert "several audiences" in kms("issuer", "remove", issuer.issuer, "--yes", code=1)[0]
    kms("issuer", "remove", added[0], "--yes")
    issuer.kid = "k2"
    Path("keys.json").write_text(json.dumps(issuer.jwks))
    assert kms("issuer", "set-keys", issuer.issuer, "--jwks", "keys.json")[0]["kids"] == ["k2"]
    assert [each["kids"] for each in kms("issuer", "list")] == [["k2"]]
    kms("issuer", "remove", issuer.issuer, "--yes")
    assert "There is no issuer" in kms("issuer", "remove", issuer.issuer, "--yes", code=1)[0]


def test_groups(kms: Kms) -> None:
    (made,) = kms("group", "put", "team", "--member", "alice", "--description", "who pays", by="admin")
    assert (made["members"], made["description"]) == (["alice"], "who pays")
    assert kms("group", "add", "team", "bob")[0]["members"] == ["alice", "bob"]
    assert kms("group", "put", "team", "--description", "")[0]["members"] == ["alice", "bob"]
    assert kms("group", "remove", "team", "alice")[0]["members"] == ["bob"]
    assert kms("group", "list") == kms("group", "show", "team")
    assert kms("group", "put", "team", "--nobody")[0]["members"] == []
    kms("group", "delete", "team", "--yes")
    assert "There is no group team." in kms("group", "show", "team", code=5)[0]


def test_grants(kms: Kms) -> None:
    conditions = ["--source", "10.0.0.0/8", "--not-after", "2100-01-01T00:00:00Z", "--second-factor-within", "PT5M"]
    grant = ["grant", "create", "client:bob", "keys:encrypt", "keys:decrypt", "--key", "orders-*"]
    (made,) = kms(*grant, *conditions, "--context", "env=prod", by="alice")
    assert (made["effect"], made["permissions"]) == ("allow", ["keys:decrypt", "keys:encrypt"])
    assert made["context_subset"] == {"env": "prod"}
    assert made["conditions"] == {
        "source": ["10.0.0.0/8"],
        "not_after": "2100-01-01T00:00:00Z",
        "second_factor_within": "PT300S",
    }
    assert kms(*grant, "--context", "a=b", "--context-exact")[0]["context_equals"] == {"a": "b"}
    assert "administrator" in kms(*grant, "--deny", code=4)[0]
    assert len(kms("grant", "list", by="bob")) == 2
    kms("grant", "delete", made["grant_id"], by="alice")
    assert len(kms("grant", "list")) == 1
    (denied,) = kms(*grant, "--deny", by="admin")
    assert (denied["effect"], denied["owner"]) == ("deny", "*")
    kms("grant", "delete", denied["grant_id"])


def test_policy_explains_itself_and_is_tried_first(kms: Kms) -> None:
    kms("key", "create", "ledger", by="alice")
    (told,) = kms("policy", "explain", "ledger", "keys:encrypt", "--client", "bob", "--json")
    assert told["allowed"] is False
    (made,) = kms("grant", "create", "client:bob", "keys:encrypt", "--key", "ledger", "--source", "10.0.0.0/8")
    asks = ("policy", "explain", "ledger", "keys:encrypt", "--client", "bob")
    assert kms(*asks, "--source", "10.1.1.1", "--json")[0]["allowed"] is True
    (shown,) = kms(*asks, "--source", "192.0.2.1")
    assert f"grant {made['grant_id']}" in {each["rule"] for each in shown["because"]}
    assert "NAME=VALUE" in kms(*asks, "--context", "wrong", code=2)[0]
    Path("change.json").write_text(json.dumps({"remove": [made["grant_id"]]}))
    (tried,) = kms("policy", "simulate", "change.json", "--json", by="admin")
    assert tried["changed"] == []
    Path("change.json").write_text("no JSON")
    assert "can be read" in kms("policy", "simulate", "change.json", code=1)[0]
