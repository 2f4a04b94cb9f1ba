"""Webhooks as Standard Webhooks has them: signed with HMAC-SHA-256, and sent to named hosts over HTTPS."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPResponse
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path

from standardwebhooks import Webhook

from kms import outgoing
from kms.outgoing import Address, Place, Unreachable

_SECONDS = 10.0
_MOST_READ = 16_384
_SECRET_BYTES = 32
_GONE = 410
_NOT_PUBLIC = [
    ip_network(each)
    for each in (
        "::/96",
        "::ffff:0:0/96",
        "::ffff:0:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2001::/32",
        "2002::/16",
        "3fff::/20",
        "5f00::/16",
        "fec0::/10",
    )
]
"""Ranges that lead to addresses of IPv4, or that no public host has (IANA's special-purpose registry)."""
_NOT_NAMED = "nothing is sent to {place}. An operator can name it in KMS_NOTICE_HOSTS."

Networks = tuple[IPv4Network | IPv6Network, ...]


@dataclass(frozen=True)
class Outcome:
    """How an attempt to send something ended; `fault` says why it was not taken, and has nothing secret in it.

    A target that `is_gone` wants nothing any more.
    """

    fault: str = ""
    is_gone: bool = False

    @property
    def delivered(self) -> bool:
        """Whether it was taken."""
        return not self.fault


def new_secret() -> str:
    """A secret to sign with, as its receivers take it: `whsec_` and 256 random bits in base64."""
    return "whsec_" + base64.b64encode(os.urandom(_SECRET_BYTES)).decode()


@dataclass(frozen=True)
class Webhooks:
    """Where webhooks may go: `hosts` as `outgoing.named_hosts` gives them, trusted by `ca` beside the system's own.

    A name may lead to public addresses and to those in `networks`. An address that is named itself, and `localhost`,
    is meant as it is.
    """

    hosts: frozenset[str]
    networks: Networks = ()
    ca: Path | None = None
    seconds: float = _SECONDS

    def require(self, url: str) -> None:
        """Raise ValidationFailed unless something may be sent to `url`."""
        self._place(url)

    def send(self, url: str, secrets: Sequence[str], message_id: str, body: str, at: datetime) -> Outcome:
        """Send `body`, JSON, under that id, signed with each of the secrets.

        Raises ValidationFailed where the host is not named (any more).
        """
        place = self._place(url)
        content = body.encode()
        headers = {
            "Host": place.name.removesuffix(":443"),
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            "User-Agent": "kms",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": " ".join(Webhook(each).sign(message_id, at, body) for each in secrets),
            "Connection": "close",
        }
        lines = [f"POST {place.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        try:
            return outgoing.exchange(
                place,
                "\r\n".join(lines).encode("ascii") + content,
                _outcome,
                seconds=self.seconds,
                most=_MOST_READ,
                ca=self.ca,
                ca_setting="KMS_NOTICE_CA",
                admits=lambda address: may_have(place.host, address, self.networks),
            )
        except Unreachable as fault:
            return Outcome(fault.reason)

    def _place(self, url: str) -> Place:
        return outgoing.place_of(url, self.hosts, "url", _NOT_NAMED)


def _outcome(response: HTTPResponse) -> Outcome:
    """By the status alone: nothing of the body is read."""
    if 200 <= response.status < 300:
        return Outcome()
    fault = f"it answered {response.status}{outgoing.redirects(response.status)}"
    return Outcome(fault, is_gone=response.status == _GONE)


def may_have(host: str, address: Address, networks: Networks) -> bool:
    """Whether `host`, as the operator named it, may have this address.

    The DNS can be in the hands of others: a name must not lead inside by surprise.
    """
    if any(address in network for network in networks):
        return True
    if host == "localhost":
        return address.is_loopback
    try:
        return address == ip_address(host.strip("[]"))
    except ValueError:
        return address.is_global and not address.is_multicast and not any(address in each for each in _NOT_PUBLIC)
