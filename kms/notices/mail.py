"""Notices by mail: plain text through the operator's own server, over TLS, to addresses of named domains."""

from __future__ import annotations

import re
import smtplib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kms.errors import StartError, ValidationFailed
from kms.notices.model import Delivery, Event
from kms.notices.webhook import Outcome
from kms.outgoing import Unreachable, tls_context

_SECONDS = 5.0  # for each of a dozen answers, which together take less than a claim holds
_LONGEST = 254  # RFC 5321, section 4.5.3.1, less the brackets
_MOST_LISTED = 50
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_ADDRESS = re.compile(rf"(?=.{{1,64}}@){_ATOM}(?:\.{_ATOM})*@(?P<domain>[a-z0-9-]+(?:\.[a-z0-9-]+)*)", re.ASCII)
_PORTS = {"smtps": 465, "smtp+starttls": 587}
_WHAT_TO_DO = {
    Event.KEY_EXPIRING: "Rotate it (`python -m kms key rotate KEY`), or let it expire: then it only decrypts and "
    "verifies.",
    Event.KEY_ROTATED: "Programs that keep its public key need the new one.",
    Event.KEY_REVOKED: "Do not trust anything new from it. If you do not expect this, ask who revoked it: the audit "
    "log says so.",
    Event.KEY_USED_AFTER_COMPROMISE: "The use was refused. Give that program a new key, or find out who it is.",
    Event.LOGIN_LOCKED: "Somebody guesses, or has forgotten a secret. The audit log has the attempts.",
    Event.CLIENT_RECOVERED: "Somebody on the host gave that client new credentials. If you do not know of "
    "it, disable the client at once, and find out who was on that host.",
    Event.APPROVAL_PENDING: "Look at it (`kms approvals show`), then approve or reject it.",
    Event.APPROVAL_RULE_LIFTED: "Somebody on the host took that rule out of force without approvals. If you "
    "do not know of it, find out who was on that host, and what was done since.",
    Event.VAULT_INTEGRITY: "No key is used there until an operator has looked: `python -m kms vault verify`.",
    Event.AUDIT_STALLED: "Everything is refused there until the audit log can be written: is a disk full?",
    Event.TEST: "Nothing: somebody has tried whether notices arrive.",
}


@dataclass(frozen=True)
class Server:
    """The operator's mail server: TLS from the beginning, or with STARTTLS, which must succeed."""

    host: str
    port: int
    starts_tls: bool
    user: str


def server_of(url: str) -> Server:
    """What a URL names: `smtps://USER@HOST:PORT` or `smtp+starttls://…`. Raises StartError."""
    parts = urlsplit(url)
    try:
        port = parts.port or _PORTS[parts.scheme]
    except (KeyError, ValueError):
        raise StartError("smtp_url: write smtps://USER@HOST:465 or smtp+starttls://USER@HOST:587.") from None
    if not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise StartError("smtp_url: it has a host, and no path.")
    if parts.password is not None:
        raise StartError("smtp_url: give the password as KMS_SMTP_PASSWORD, or its file as KMS_SMTP_PASSWORD_FILE.")
    return Server(parts.hostname, port, parts.scheme == "smtp+starttls", unquote(parts.username or ""))


def domains_of(setting: str) -> frozenset[str]:
    """The domains in `notice_mail_domains`, with commas between. Raises StartError."""
    domains = frozenset(filter(None, map(str.strip, setting.split(","))))
    for domain in domains:
        if _ADDRESS.fullmatch(f"x@{domain}") is None:
            raise StartError(f"notice_mail_domains: {domain} must be a domain in lower case.")
    return domains


@dataclass(frozen=True)
class Mail:
    """Mail from `sender` through `server` (None: there is none), to addresses of `domains`."""

    server: Server | None
    password: str | None = field(repr=False)
    sender: str
    domains: frozenset[str]
    ca: Path | None = None

    def require(self, address: str) -> None:
        """Raise ValidationFailed unless mail may go to `address`."""
        if self.server is None:
            raise ValidationFailed("email: no mail is sent here. An operator can name a server in KMS_SMTP_URL.")
        parts = _ADDRESS.fullmatch(address) if len(address) <= _LONGEST else None
        if parts is None:
            raise ValidationFailed("email: write one address, NAME@DOMAIN, with the domain in lower case.")
        if "=?" in address:  # which mail takes for the beginning of an encoded word (RFC 2047)
            raise ValidationFailed("email: this address has =? in it, which mail cannot carry.")
        if parts["domain"] not in self.domains:
            raise ValidationFailed(
                f"email: no mail is sent to {parts['domain']}. An operator can name it in KMS_NOTICE_MAIL_DOMAINS."
            )

    def send(self, address: str, message_id: str, deliveries: Sequence[Delivery], at: datetime) -> Outcome:
        """Send one mail about all of the deliveries. Raises ValidationFailed where it may not go there (any more)."""
        self.require(address)
        assert self.server is not None
        try:
            with self._connection(self.server) as connection:
                connection.send_message(_message(self.sender, address, message_id, deliveries, at))
        except ssl.SSLCertVerificationError as error:
            return Outcome(f"the certificate of the mail server is not trusted: {error.verify_message}")
        except Unreachable as fault:
            return Outcome(fault.reason)
        except TimeoutError:
            return Outcome("the mail server did not answer in time")
        except smtplib.SMTPResponseException as error:
            return Outcome(f"the mail server answered {error.smtp_code}")
        except smtplib.SMTPServerDisconnected:
            return Outcome("the mail server has hung up")
        except smtplib.SMTPRecipientsRefused:
            return Outcome("the mail server refused the address")
        except smtplib.SMTPException as error:
            return Outcome(f"the mail server did not do its part: {type(error).__name__}")
        except OSError as error:
            return Outcome(f"the mail server: {error.strerror or type(error).__name__}")
        except (ValueError, MessageError) as error:
            return Outcome(f"no mail can be written to this address: {type(error).__name__}")
        return Outcome()

    def _connection(self, server: Server) -> smtplib.SMTP:
        context = tls_context(self.ca, "KMS_NOTICE_CA")
        name = "localhost"  # in EHLO: the name of this machine is nobody's business
        if server.starts_tls:
            connection = smtplib.SMTP(server.host, server.port, local_hostname=name, timeout=_SECONDS)
        else:
            connection = smtplib.SMTP_SSL(
                server.host, server.port, local_hostname=name, timeout=_SECONDS, context=context
            )
        try:
            if server.starts_tls:
                connection.starttls(context=context)  # raises where the server does not offer it
            if server.user:
                connection.login(server.user, self.password or "")
        except BaseException:
            connection.close()
            raise
        return connection


def _message(
    sender: str, address: str, message_id: str, deliveries: Sequence[Delivery], at: datetime
) -> EmailMessage:
    """The mail. Nothing in its headers comes from whoever named a key: what is told is in the body."""
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["To"] = Address(addr_spec=address)
    message["Date"] = format_datetime(at)
    message["Message-ID"] = f"<{message_id}@{sender.rpartition('@')[2].rstrip('>')}>"
    message["Auto-Submitted"] = "auto-generated"
    events = sorted({str(each.event) for each in deliveries})
    message["Subject"] = f"KMS: {', '.join(events)}" + (f" ({len(deliveries)})" if len(deliveries) > 1 else "")
    message.set_content(_text(deliveries))
    return message


def _text(deliveries: Sequence[Delivery]) -> str:
    lines: list[str] = []
    for event in sorted({each.event for each in deliveries}):
        some = [each for each in deliveries if each.event is event]
        lines += [event, "", *(_line(each) for each in some[:_MOST_LISTED])]
        if len(some) > _MOST_LISTED:
            lines.append(f"… and {len(some) - _MOST_LISTED} more")
        lines += ["", _WHAT_TO_DO[event], "", ""]
    notice_id = deliveries[0].notice_id
    lines.append(f"This is notice {notice_id}. Its client or an administrator ends it: kms notice delete {notice_id}")
    return "\n".join(lines) + "\n"


def _line(delivery: Delivery) -> str:
    return "- " + ", ".join(f"{name}: {value}" for name, value in delivery.data.items())
