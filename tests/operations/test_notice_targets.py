"""Where webhooks go: to named hosts over HTTPS, and nowhere inside by surprise."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from helpers.certificates import write_pair
from helpers.support import SteeredClock, Template, World, kind_of, settings_for
from helpers.webhook_receiver import Receiver
from kms.errors import StartError
from kms.notices.targets import targets_of
from kms.notices.webhook import Webhooks, may_have, new_secret
from kms.outgoing import named_hosts

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = new_secret()


def test_nothing_is_sent_anywhere_unless_a_setting_names_it(world: World) -> None:
    alice = world.user("alice")
    answer = alice.post("/api/v1/notices", {"url": "https://hooks.example/x", "events": ["key.revoked"]})
    assert kind_of(answer) == "validation-failed"
    assert "KMS_NOTICE_HOSTS" in answer.json["detail"]
    answer = alice.post("/api/v1/notices", {"email": "a@example.org", "events": ["key.revoked"]})
    assert "KMS_SMTP_URL" in answer.json["detail"]


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example/", "https://hooks.example:8443/", "https://hooks.example", "https://other.example/",
        "https://user@hooks.example/", "https://hooks.example@127.0.0.1/", "https://127.0.0.1/", "https://127.1/",
        "https://2130706433/", "https://0x7f000001/", "https://[::1]/", "https://[::ffff:127.0.0.1]/",
        "https://169.254.169.254/latest/meta-data/", "https://localhost/", "https://hooks.example/#x",
        "https://hooks.example/\r\nX: y", "https://HOOKS.example/", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_no_other_url_is_taken(template: Template, tmp_path: Path, clock: SteeredClock, url: str) -> None:
    service = template.open(settings_for(tmp_path / "data", notice_hosts="hooks.example"), clock)
    try:
        alice = World.of(service).user("alice")
        taken = {"url": "https://hooks.example/x", "events": ["key.revoked"]}
        assert alice.post("/api/v1/notices", taken).status_code == 201
        assert kind_of(alice.post("/api/v1/notices", {**taken, "url": url})) == "validation-failed"
    finally:
        service.close()


@pytest.mark.parametrize(
    ("host", "address", "may"),
    [
        ("hooks.example", "203.0.112.7", True),
        ("hooks.example", "2a00:1450:4001::1", True),
        ("hooks.example", "127.0.0.1", False),
        ("hooks.example", "10.1.2.3", False),
        ("hooks.example", "172.16.0.1", False),
        ("hooks.example", "192.168.0.1", False),
        ("hooks.example", "100.64.0.1", False),
        ("hooks.example", "169.254.169.254", False),
        ("hooks.example", "0.0.0.0", False),
        ("hooks.example", "224.0.0.1", False),
        ("hooks.example", "255.255.255.255", False),
        ("hooks.example", "::1", False),
        ("hooks.example", "fe80::1", False),
        ("hooks.example", "fd00::1", False),
        ("hooks.example", "ff02::1", False),
        ("hooks.example", "64:ff9b::7f00:1", False),
        ("hooks.example", "64:ff9b:1::a00:1", False),
        ("hooks.example", "fec0::1", False),
        ("hooks.example", "::127.0.0.1", False),
        ("hooks.example", "::ffff:0:a00:1", False),
        ("hooks.example", "3fff::1", False),
        ("hooks.example", "5f00::1", False),
        ("hooks.example", "2002:7f00:1::", False),
        ("hooks.example", "192.0.2.1", False),
        ("2130706433", "127.0.0.1", False),
        ("localhost", "127.0.0.1", True),
        ("localhost", "10.0.0.1", False),
        ("10.0.0.5", "10.0.0.5", True),
        ("[fd00::5]", "fd00::5", True),
    ],
)
def test_the_addresses_that_a_name_may_have(host: str, address: str, may: bool) -> None:
    assert may_have(host, ip_address(address), ()) is may


def test_networks_can_be_named() -> None:
    networks = (ip_network("10.1.0.0/16"),)
    assert may_have("hooks.internal", ip_address("10.1.2.3"), networks)
    assert not may_have("hooks.internal", ip_address("10.2.0.1"), networks)
    assert not may_have("hooks.internal", ip_address("127.0.0.1"), networks)


def resolving_to(*addresses: str) -> Any:
    """A resolver in whose hands every name is."""

    def resolve(host: str, port: int, **_: object) -> list[Any]:
        return [
            (socket.AF_INET6 if ":" in each else socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port))
            for each in addresses
        ]

    return resolve


@pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1", "169.254.169.254"])
def test_a_name_that_is_led_inside_is_not_followed(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    hosts = named_hosts(f"hooks.example:{receiver.port}", "notice_hosts")
    webhooks = Webhooks(hosts, ca=receiver.ca)
    monkeypatch.setattr(socket, "getaddrinfo", resolving_to(address))
    outcome = webhooks.send(f"https://hooks.example:{receiver.port}/", [SECRET], "msg_1", "{}", NOW)
    assert "no address that it may have" in outcome.fault
    assert receiver.received == []


def test_what_is_asked_about_is_what_is_connected_to(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads elsewhere the second time it is asked for is asked for once."""
    answers = iter([["203.0.112.7"], ["127.0.0.1"]])
    asked = []

    def rebinds(host: str, port: int, **more: object) -> list[Any]:
        asked.append(host)
        return list(resolving_to(*next(answers))(host, port, **more))

    monkeypatch.setattr(socket, "getaddrinfo", rebinds)
    hosts = named_hosts(f"hooks.example:{receiver.port}", "notice_hosts")
    outcome = Webhooks(hosts, ca=receiver.ca, seconds=0.2).send(
        f"https://hooks.example:{receiver.port}/", [SECRET], "msg_1", "{}", NOW
    )
    assert not outcome.delivered
    assert asked == ["hooks.example"]
    assert receiver.received == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(receiver: Receiver, status: int) -> None:
    webhooks = Webhooks(named_hosts(receiver.host, "notice_hosts"), ca=receiver.ca)
    receiver.statuses, receiver.headers = [status], {"Location": receiver.url("/inside")}
    outcome = webhooks.send(receiver.url(), [SECRET], "msg_1", "{}", NOW)
    assert outcome.fault == f"it answered {status}, and redirects are not followed"
    assert len(receiver.received) == 1


def test_the_certificate_is_verified(receiver: Receiver, tmp_path: Path) -> None:
    write_pair(tmp_path)  # of another authority
    for ca in (tmp_path / "server.crt", None):
        webhooks = Webhooks(named_hosts(receiver.host, "notice_hosts"), ca=ca)
        assert "not trusted" in webhooks.send(receiver.url(), [SECRET], "msg_1", "{}", NOW).fault
    assert receiver.received == []


def test_a_receiver_that_hangs_or_floods_is_left(pair: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair / "server.crt", pair / "server.key")
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            for floods in (False, True):
                plain, _ = listener.accept()
                with suppress(OSError), context.wrap_socket(plain, server_side=True) as connection:
                    connection.recv(65536)
                    while floods:
                        connection.sendall(b"HTTP/1.1 100 Continue\r\nX: " + b"y" * 60_000 + b"\r\n\r\n")
                    over.wait()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        host = f"localhost:{port}"
        webhooks = Webhooks(named_hosts(host, "notice_hosts"), ca=pair / "server.crt", seconds=0.3)
        outcome = webhooks.send(f"https://{host}/", [SECRET], "msg_1", "{}", NOW)
        assert outcome.fault == "it did not answer within 0.3 seconds"
        over.set()
        patient = Webhooks(webhooks.hosts, ca=webhooks.ca, seconds=20)
        assert "within" not in patient.send(f"https://{host}/", [SECRET], "msg_1", "{}", NOW).fault


def test_a_host_that_is_not_named_any_more_gets_nothing(
    template: Template, receiver: Receiver, tmp_path: Path, clock: SteeredClock
) -> None:
    given = {"notice_ca": receiver.ca}
    service = template.open(settings_for(tmp_path / "data", notice_hosts=receiver.host, **given), clock)
    world = World.of(service)
    alice = world.user("alice")
    notice = alice.post("/api/v1/notices", {"url": receiver.url(), "events": ["key.rotated"]}).json
    alice.post("/api/v1/keys", {"key_id": "orders"})
    alice.post("/api/v1/keys/orders/rotate")
    service.deliveries._targets = service.notice_targets = targets_of(settings_for(tmp_path / "data", **given))
    service.deliveries.deliver_due(and_wait=True)
    assert receiver.received == []
    path = f"/api/v1/notices/{notice['notice_id']}"
    assert "KMS_NOTICE_HOSTS" in alice.get(f"{path}/deliveries").json["items"][0]["last_fault"]
    assert "KMS_NOTICE_HOSTS" in alice.post(f"{path}/test").json["fault"]
    service.close()


@pytest.mark.parametrize(
    "given",
    [
        {"notice_hosts": "*"},
        {"notice_hosts": "https://hooks.example"},
        {"notice_networks": "10.0.0.0/33"},
        {"notice_networks": "10.0.0.1/8"},
        {"notice_mail_domains": "*"},
        {"notice_mail_domains": "Example.org"},
        {"smtp_url": "smtp://mail.example", "smtp_from": "kms@example.org"},
        {"smtp_url": "smtps://user:password@mail.example", "smtp_from": "kms@example.org"},
        {"smtp_url": "smtps://mail.example"},
        {"smtp_url": "smtps://mail.example", "smtp_from": "KMS <kms@example.org>"},
        {"smtp_url": "smtps://mail.example:x", "smtp_from": "kms@example.org"},
        {"smtp_url": "smtps://mail.example/x", "smtp_from": "kms@example.org"},
        {"smtp_url": "smtps://", "smtp_from": "kms@example.org"},
        {"smtp_url": "smtps://mail.example", "smtp_from": "kms@example.org\r\nBcc: x@example.org"},
    ],
)
def test_settings_that_cannot_be_read(tmp_path: Path, given: dict[str, Any]) -> None:
    with pytest.raises(StartError):
        targets_of(settings_for(tmp_path, **given))
