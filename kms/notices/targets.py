"""Where notices go, as the settings allow it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from email.errors import MessageError
from email.headerregistry import Address
from typing import Any
from urllib.parse import urlsplit

import msgspec

from kms import outgoing
from kms.clock import rfc3339
from kms.config import Settings
from kms.errors import IntegrityFailure, StartError, ValidationFailed
from kms.notices import mail
from kms.notices.mail import Mail
from kms.notices.model import Channel, Delivery, Notice
from kms.notices.webhook import Networks, Outcome, Webhooks
from kms.vault import sealed_columns
from kms.vault.records import microseconds
from kms.vault.sealing import DerivedKeys, SealBroken, SealContext

OLD_SECRET_SIGNS_FOR = timedelta(days=1)
"""For so long after a change of the secret its receiver may know the one before only."""


@dataclass(frozen=True)
class Targets:
    """Webhooks and mail, as far as an operator has allowed them."""

    webhooks: Webhooks
    mail: Mail

    def require(self, channel: Channel, target: str) -> None:
        """Raise ValidationFailed, naming the setting, unless something may be sent there."""
        if channel is Channel.WEBHOOK:
            self.webhooks.require(target)
        else:
            self.mail.require(target)

    def send(self, keys: DerivedKeys, notice: Notice, deliveries: Sequence[Delivery], at: datetime) -> Outcome:
        """Send deliveries to a subscription, by mail all in one; as a webhook it is one.

        What may not be sent (any more) is an outcome too. Raises IntegrityFailure where the target was altered.
        """
        target = target_of(keys, notice)
        try:
            if notice.channel is Channel.EMAIL:
                return self.mail.send(target, deliveries[0].delivery_id, deliveries, at)
            (delivery,) = deliveries
            return self.webhooks.send(target, _secrets(keys, notice, at), message_id(delivery), body_of(delivery), at)
        except ValidationFailed as refusal:
            return Outcome(refusal.detail)


def targets_of(settings: Settings) -> Targets:
    """What the settings allow. Raises StartError where they cannot be read."""
    hosts = outgoing.named_hosts(settings.notice_hosts, "notice_hosts")
    webhooks = Webhooks(hosts, _networks(settings.notice_networks), settings.notice_ca)
    server = mail.server_of(settings.smtp_url) if settings.smtp_url is not None else None
    domains = mail.domains_of(settings.notice_mail_domains)
    if server is not None:
        try:
            Address(addr_spec=settings.smtp_from)
        except (MessageError, ValueError, IndexError):
            raise StartError(
                "smtp_from: write the address that notices come from, such as kms@example.org."
            ) from None
    return Targets(webhooks, Mail(server, settings.smtp_password, settings.smtp_from, domains, settings.notice_ca))


def _networks(setting: str) -> Networks:
    try:
        return tuple(ipaddress.ip_network(text) for text in filter(None, map(str.strip, setting.split(","))))
    except ValueError as error:
        raise StartError(f"notice_networks holds networks with commas between them: {error}.") from None


def message_id(delivery: Delivery) -> str:
    """What a delivery is called in `webhook-id`, the same for every attempt."""
    return f"msg_{delivery.delivery_id}"


def body_of(delivery: Delivery) -> str:
    """The body of a webhook, the same for every attempt."""
    told: dict[str, Any] = {
        "type": str(delivery.event),
        "timestamp": rfc3339(delivery.created_at),
        "data": delivery.data,
    }
    return msgspec.json.encode(told).decode()


def sealed(keys: DerivedKeys, notice_id: str, target: str, secret: str) -> tuple[bytes, bytes]:
    """The target and the secret of a subscription as they are stored."""
    return (
        keys.seal(target.encode(), sealed_columns.notice(notice_id, "target")),
        keys.seal(secret.encode(), sealed_columns.notice(notice_id, "secret")),
    )


def with_new_secret(keys: DerivedKeys, notice: Notice, secret: str, now: datetime) -> Notice:
    """`notice` with another secret; the one before signs beside it for a day. Raises IntegrityFailure."""
    before, ends = _secrets(keys, notice, now)[0], microseconds(now + OLD_SECRET_SIGNS_FOR)
    content = f"{secret} {before} {ends}".encode()
    return replace(notice, secret=keys.seal(content, sealed_columns.notice(notice.notice_id, "secret")))


def _secrets(keys: DerivedKeys, notice: Notice, now: datetime) -> list[str]:
    """What signs now: the secret, and after a change for a while the one before."""
    secret, *changed = _opened(keys, notice.secret, sealed_columns.notice(notice.notice_id, "secret")).split()
    if not changed:
        return [secret]
    before, ends = changed
    return [secret, before] if microseconds(now) < int(ends) else [secret]


def target_of(keys: DerivedKeys, notice: Notice) -> str:
    """The URL or address of a subscription. Raises IntegrityFailure where it was altered."""
    return _opened(keys, notice.target, sealed_columns.notice(notice.notice_id, "target"))


def without_detail(channel: Channel, target: str) -> str:
    """What others than its holder are shown of a target: the host of a URL, the domain of an address."""
    if channel is Channel.EMAIL:
        return f"…@{target.rpartition('@')[2]}"
    return f"https://{urlsplit(target).netloc}/…"


def _opened(keys: DerivedKeys, content: bytes, context: SealContext) -> str:
    try:
        return keys.open(content, context).decode()
    except SealBroken:
        raise IntegrityFailure("The target of a notice was altered outside the service.") from None
