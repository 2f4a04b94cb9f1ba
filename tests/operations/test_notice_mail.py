"""Notices by mail, through a real server over TLS."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import Message
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from helpers.support import SteeredClock, Template, World, free_port, kind_of, settings_for
from kms.errors import ValidationFailed
from kms.notices import mail
from kms.notices.mail import Mail, domains_of, server_of
from kms.notices.model import Delivery, DeliveryState, Event

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SENDER = "kms@example.net"
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")  # it means STARTTLS


@dataclass
class Inbox:
    """A mail server on loopback, and what it was given."""

    port: int
    mails: list[Message] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    logins: list[LoginPassword] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.mails.append(message_from_bytes(envelope.content, policy=default))
        self.recipients += envelope.rcpt_tos
        return self.answers.pop() if self.answers else "250 OK"

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, given: Any) -> AuthResult:
        self.logins.append(given)
        return AuthResult(success=given == LoginPassword(b"kms", b"password of kms"), handled=False)


def serving(pair: Path, scheme: str) -> Iterator[Inbox]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair / "server.crt", pair / "server.key")
    inbox = Inbox(free_port())
    login: dict[str, Any] = {"authenticator": inbox.authenticate, "auth_required": True}
    if scheme == "smtps":
        login |= {"ssl_context": context, "auth_require_tls": False}  # it does not count TLS from the beginning
    else:
        login |= {"tls_context": context, "require_starttls": True}
    server = Controller(inbox, hostname="127.0.0.1", port=inbox.port, **login)
    server.start()
    yield inbox
    server.stop()


@pytest.fixture
def smtps(pair: Path) -> Iterator[Inbox]:
    yield from serving(pair, "smtps")


@pytest.fixture
def starttls(pair: Path) -> Iterator[Inbox]:
    yield from serving(pair, "smtp+starttls")


def through(inbox: Inbox, pair: Path | None, scheme: str = "smtps", password: str = "password of kms") -> Mail:
    server = server_of(f"{scheme}://kms@localhost:{inbox.port}")
    ca = pair / "server.crt" if pair is not None else None
    return Mail(server, password, SENDER, domains_of("example.org, mail.example"), ca)


def delivery(number: int = 0, event: Event = Event.KEY_REVOKED, **data: Any) -> Delivery:
    return Delivery(
        f"{number:032x}", "0" * 24, event, None, "alice", data, NOW, DeliveryState.WAITING, 0, NOW, "", None
    )


def test_what_happens_to_keys_is_told_by_mail(
    template: Template, smtps: Inbox, pair: Path, tmp_path: Path, clock: SteeredClock
) -> None:
    settings = settings_for(
        tmp_path / "data",
        smtp_url=f"smtps://kms@localhost:{smtps.port}",
        smtp_password="password of kms",
        smtp_from=SENDER,
        notice_mail_domains="example.org",
        notice_ca=pair / "server.crt",
    )
    service = template.open(settings, clock)
    try:
        world = World.of(service)
        alice = world.user("alice")
        notice = alice.post("/api/v1/notices", {"email": "alice@example.org", "events": ["key.rotated"]}).json
        assert "secret" not in notice
        assert notice["email"] == "alice@example.org"
        refused = alice.post("/api/v1/notices", {"email": "alice@example.com", "events": ["key.rotated"]})
        assert "KMS_NOTICE_MAIL_DOMAINS" in refused.json["detail"]
        for key_id in ("orders", "bills"):
            alice.post("/api/v1/keys", {"key_id": key_id})
            alice.post(f"/api/v1/keys/{key_id}/rotate")
        smtps.answers = ["451 try again"]
        service.deliveries.deliver_due(and_wait=True)
        clock.advance(seconds=10)
        service.deliveries.deliver_due(and_wait=True)
        _, told = smtps.mails
        assert told["To"] == "alice@example.org"
        assert told["From"] == SENDER
        assert told["Subject"] == "KMS: key.rotated (2)"
        assert told["Auto-Submitted"] == "auto-generated"
        text = told.get_content()
        assert "key_id: orders, owner: alice, version: 2" in text
        assert "key_id: bills" in text
        assert alice.post(f"/api/v1/notices/{notice['notice_id']}/test").json["delivered"]
        assert smtps.mails[-1]["Subject"] == "KMS: notice.test"
        refused = alice.post(f"/api/v1/notices/{notice['notice_id']}/rotate-secret")
        assert kind_of(refused) == "operation-not-supported"
        assert world.admin.get("/api/v1/notices").json["items"][0]["email"] == "…@example.org"
    finally:
        service.close()


def test_starttls_must_succeed(starttls: Inbox, pair: Path) -> None:
    outcome = through(starttls, pair, "smtp+starttls").send("a@example.org", "1", [delivery(key_id="k")], NOW)
    assert outcome.delivered
    assert starttls.logins == [LoginPassword(b"kms", b"password of kms")]


def test_nothing_is_told_a_server_without_tls(pair: Path) -> None:
    inbox = Inbox(free_port())
    plain = Controller(inbox, hostname="127.0.0.1", port=inbox.port, authenticator=inbox.authenticate)
    plain.start()
    try:
        for scheme in ("smtp+starttls", "smtps"):
            outcome = through(inbox, pair, scheme).send("a@example.org", "1", [delivery(key_id="k")], NOW)
            assert not outcome.delivered
    finally:
        plain.stop()
    assert inbox.mails == inbox.logins == []


def test_the_server_must_be_the_right_one(smtps: Inbox, pair: Path) -> None:
    outcome = through(smtps, None).send("a@example.org", "1", [delivery(key_id="k")], NOW)
    assert "not trusted" in outcome.fault
    outcome = through(smtps, pair, password="wrong").send("a@example.org", "1", [delivery(key_id="k")], NOW)
    assert outcome.fault == "the mail server answered 535"
    assert smtps.mails == []


@pytest.mark.parametrize("scheme", ["smtps", "smtp+starttls"])
def test_a_server_that_is_not_there(pair: Path, scheme: str) -> None:
    gone = through(Inbox(free_port()), pair, scheme)
    assert "Connection refused" in gone.send("a@example.org", "1", [delivery(key_id="k")], NOW).fault


@pytest.mark.parametrize(
    "address",
    [
        "a@example.com", "a@sub.example.org", "a@EXAMPLE.org", "example.org", "@example.org", "a b@example.org",
        "a@example.org\r\nBcc: x@example.com", "a@example.org\n", "a@example.org,b@example.com", "<a@example.org>",
        "a@example.org>", "A <a@example.org>", "a@b@example.org", ".a@example.org", "a.@example.org",
        "a..b@example.org", '"a"@example.org', "a@[127.0.0.1]", "é@example.org", "a@example.org.", "",
        "a" * 65 + "@example.org", "a%example.com(@example.org", "a@example.org\0",
        "=?utf-8?q?a=40evil.com?=@example.org",
    ],
)  # fmt: skip
def test_addresses_that_get_nothing(address: str) -> None:
    sender = Mail(server_of("smtps://mail.example"), None, SENDER, domains_of("example.org"))
    sender.require("alice.b+kms@example.org")
    with pytest.raises(ValidationFailed):
        sender.require(address)


def test_what_somebody_chose_stays_in_the_body(smtps: Inbox, pair: Path) -> None:
    nasty = "k\r\nBcc: x@example.com\r\n\r\n.\r\nMAIL FROM:<x@example.com>"
    outcome = through(smtps, pair).send("a@example.org", "1", [delivery(key_id=nasty)], NOW)
    assert outcome.delivered
    (told,) = smtps.mails
    assert smtps.recipients == ["a@example.org"]
    assert told["Bcc"] is None
    assert told["Subject"] == "KMS: key.revoked"
    assert "MAIL FROM" in told.get_content()


def test_many_at_once_are_one_mail_that_can_be_read(smtps: Inbox, pair: Path) -> None:
    some = [delivery(number, key_id=f"k{number}") for number in range(300)]
    assert through(smtps, pair).send("a@example.org", "1", some, NOW).delivered
    (told,) = smtps.mails
    assert told["Subject"] == "KMS: key.revoked (300)"
    assert told.get_content().count("key_id:") == 50
    assert "and 250 more" in told.get_content()


def test_each_event_says_what_to_do() -> None:
    assert set(mail._WHAT_TO_DO) == set(Event)


def test_the_kind_of_a_refusal(world: World) -> None:
    answer = world.user("alice").post("/api/v1/notices", {"email": "a@example.org", "events": ["key.revoked"]})
    assert kind_of(answer) == "validation-failed"
