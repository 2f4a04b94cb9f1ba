"""deploy/compose.yaml: read by a parser of the Compose Specification, and held to what the page promises."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from compose_spec import PyCompose

from helpers.deployed import DEPLOY, documents
from helpers.shell import blocks

(COMPOSE,) = documents("compose.yaml")
SERVICES: dict[str, Any] = COMPOSE["services"]


def test_it_is_compose() -> None:
    PyCompose.from_json(json.dumps(COMPOSE)).validate()


def test_only_nginx_can_be_reached() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["nginx"]
    assert [name for name, service in SERVICES.items() if "outside" in service["networks"]] == ["nginx"]
    assert COMPOSE["networks"]["inside"]["internal"]


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "cap_add" not in service
    assert not service.get("privileged")
    assert name.startswith("kms-") or service["user"] != "0"  # the image of the nodes says which
    assert name.startswith("kms-") or "healthcheck" in service


def test_both_nodes_are_one_but_for_volume_and_address() -> None:
    first, second = (
        {key: value for key, value in SERVICES[name].items() if key not in {"volumes", "depends_on", "networks"}}
        for name in ("kms-1", "kms-2")
    )
    assert first == second
    volumes = [set(SERVICES[name]["volumes"]) for name in ("kms-1", "kms-2")]
    (shared,) = set.intersection(*volumes)
    assert volumes[0] != volumes[1]
    assert first["environment"]["KMS_AUDIT_DIR"].startswith(f"{shared.partition(':')[2]}/")
    assert first["environment"]["KMS_SEAL"] == "credential"


def test_the_nodes_trust_nginx_and_nobody_else() -> None:
    address = SERVICES["nginx"]["networks"]["inside"]["ipv4_address"]
    assert SERVICES["kms-1"]["environment"]["KMS_TRUSTED_PROXIES"] == address


def test_nginx_knows_the_nodes_by_their_addresses() -> None:
    addresses = {SERVICES[name]["networks"]["inside"]["ipv4_address"] for name in ("kms-1", "kms-2")}
    assert (
        set(re.findall(r"^    server ([0-9.]+):8443 ", (DEPLOY / "nginx.conf").read_text(), re.MULTILINE))
        == addresses
    )


def test_every_secret_is_a_file_that_the_page_has_made() -> None:
    made = set(re.findall(r"(?:>|-keyout|-out) ([a-z.-]+)", blocks("docs/how-to/deploy.md", "With compose")[0]))
    assert set(COMPOSE["secrets"]) == made | {"proxy.crt", "proxy.key"}
    assert all(secret == {"file": f"secrets/{name}"} for name, secret in COMPOSE["secrets"].items())
    for path in ("compose.yaml", "nginx.conf"):
        named = set(re.findall(r"/run/secrets/([a-z.-]+)", (DEPLOY / path).read_text()))
        assert named <= set(COMPOSE["secrets"])


def test_nginx_does_what_the_page_about_proxies_teaches() -> None:
    """But for names and places, and without client certificates, which need an authority first."""
    (taught,) = re.findall(
        r"^```nginx\n(.*?)^```$",
        (DEPLOY.parent / "docs/how-to/behind-a-proxy.md").read_text(),
        re.DOTALL | re.MULTILINE,
    )
    left = _directives(taught) - _directives((DEPLOY / "nginx.conf").read_text())
    names = {"listen", "server", "server_name", "ssl_certificate", "ssl_certificate_key", "proxy_ssl_name"}
    names |= {"proxy_ssl_trusted_certificate", "ssl_client_certificate", "ssl_verify_client", "ssl_verify_depth"}
    assert {line for line in left if line.split()[0] not in names} == {
        "proxy_set_header Client-Cert $ssl_client_escaped_cert"
    }
    assert 'proxy_set_header Client-Cert ""' in _directives((DEPLOY / "nginx.conf").read_text())


def _directives(text: str) -> set[str]:
    bare = re.sub(r"#.*", "", text)
    return {" ".join(line.split()) for line in re.findall(r"[^;{}]+(?=;)", bare)}
