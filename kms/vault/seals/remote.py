"""Requests to another KMS, which may have to be waited for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

import msgspec
import structlog

from kms import outgoing
from kms.errors import StartError, ValidationFailed
from kms.outgoing import Unreachable, Untrusted

_SECONDS = 10.0
_LONGEST_ANSWER = 1 << 16
_LONGEST_PAUSE = 8.0
_LONGEST_QUOTE = 200
_TOO_MANY = 429


@dataclass(frozen=True)
class Answer:
    """What the other KMS answered."""

    status: int
    content: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The members of the body, none where it is no JSON object."""
        try:
            return msgspec.json.decode(self.content, type=dict[str, Any])
        except msgspec.DecodeError:
            return {}


class RemoteKms:
    """Another KMS at a URL, over TLS with a certificate of the system's authorities or of the PEM file `ca`.

    A request that finds it away, busy or at fault is sent again, in all for as many seconds as `wait` says. No
    redirect is followed and no proxy is used.
    """

    def __init__(self, url: str, ca: Path | None, wait: float) -> None:
        self._url, self._ca = url.rstrip("/"), ca
        self._deadline = time.monotonic() + wait
        self.name = _place(f"{self._url}/").name

    def post(self, path: str, headers: Mapping[str, str], body: bytes, *, is_busy: bytes | None = None) -> Answer:
        """The answer to a request. One that is not 200 and has `is_busy` in it counts as busy too.

        Raises StartError.
        """
        pause = 1.0
        while True:
            try:
                answer = self.post_once(path, headers, body)
            except Untrusted as fault:
                raise self.unusable(fault.reason) from None
            except Unreachable as fault:
                reason = fault.reason
            else:
                is_throttled = is_busy is not None and answer.status != 200 and is_busy in answer.content
                if not (answer.status >= 500 or answer.status == _TOO_MANY or is_throttled):
                    return answer
                reason = f"it answered {answer.status}"
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise self.unusable(f"{reason}; it was waited for as long as KMS_SEAL_KMS_WAIT says")
            structlog.get_logger().warning(
                f"waiting for the KMS at {self.name} that unseals the vault: {reason}", seconds_left=round(left)
            )
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def post_once(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """The answer to a request that is sent once. Raises Unreachable."""
        place = _place(self._url + path)
        sent = {**headers, "Content-Length": str(len(body)), "User-Agent": "kms", "Connection": "close"}
        lines = [f"POST {place.target} HTTP/1.1", f"Host: {self.host}", *(f"{name}: {sent[name]}" for name in sent)]
        head = "\r\n".join([*lines, "", ""]).encode("ascii")
        return outgoing.exchange(
            place,
            head + body,
            _read,
            seconds=_SECONDS,
            most=_LONGEST_ANSWER,
            ca=self._ca,
            ca_setting="KMS_SEAL_KMS_CA",
        )

    @property
    def host(self) -> str:
        """The value of the header Host."""
        return self.name.removesuffix(":443")

    def path(self, path: str) -> str:
        """What stands in the request line for `path`."""
        return _place(self._url + path).target

    def unusable(self, why: str) -> StartError:
        """The refusal to start with this KMS."""
        return StartError(f"The KMS at {self.name} that unseals the vault cannot be used: {why}.")


def quoted(message: object, *secrets: str | None) -> str:
    """`: "…"` with what the other KMS says, as far as it is short, printable and has none of the `secrets` in it."""
    text = str(message).rstrip(".")
    if not text.isascii() or not text.isprintable() or any(each in text for each in secrets if each):
        return ""
    return f': "{text[:_LONGEST_QUOTE]}"' if text else ""


def require_sendable(value: str | None, setting: str) -> str:
    """A value for a header. Raises StartError, which has not the value, where it is not there or not printable."""
    if not value:
        raise StartError(f"The seal `kms` needs {setting}.")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise StartError(f"{setting} has characters in it that cannot be in such a value.")
    return value


def _read(response: HTTPResponse) -> Answer:
    if 300 <= response.status < 400:
        raise Untrusted(f"it answered {response.status}{outgoing.redirects(response.status)}")
    try:
        return Answer(response.status, response.read())
    except HTTPException:
        raise Unreachable("its answer was cut off") from None


def _place(url: str) -> outgoing.Place:
    try:
        return outgoing.any_place(url, "KMS_SEAL_KMS_URL")
    except ValidationFailed as refusal:
        raise StartError(refusal.detail) from None
