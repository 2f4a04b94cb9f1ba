"""HTTPS to one service: with a session that is renewed, and repeating what can be repeated without harm."""

from __future__ import annotations

import random
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from kms.client.errors import (
    ApprovalPending,
    AuthenticationFailed,
    KmsError,
    NotLoggedIn,
    OutcomeUnknown,
    Refused,
    Unreachable,
    refusal_of,
)
from kms.client.logins import Login

T = TypeVar("T")
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_RENEW_AFTER = 0.8  # of the life of a session, so that it does not end on the way
_NOT_NOW = {429, 503}
MOST_BYTES = 512 << 20  # of an answer: a list of a million revocations is smaller
_MOST_REFUSAL_BYTES = 1 << 20
_MOST_WAIT_DIGITS = 9
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)  # of JSON: the last where it nests too deep
_NOTHING_WAS_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class Session(msgspec.Struct, frozen=True):
    """The answer of the token endpoint (RFC 6749, section 5.1); `expires_in` in seconds."""

    access_token: str
    expires_in: int
    session_id: str = ""
    scope: str = ""


class _Waiting(msgspec.Struct, frozen=True):
    """The answer to a call that waits for approval."""

    approval_id: str
    expires_at: str


class Connection:
    """Requests to the service at `url`, by any number of threads.

    `ca` is a file of certificates (PEM), the only ones trusted then; without it those of the system are.
    `certificate` is that of the client, and its key, both files in PEM. `wanted` has the `scope` and `expires_in` of
    the sessions. `patience` is for how long, in seconds, what can be repeated is; `timeout`, in seconds, for how long
    one answer may take.
    """

    def __init__(
        self,
        url: str,
        *,
        ca: str | Path | None = None,
        login: Login | None = None,
        token: str | None = None,
        certificate: tuple[str | Path, str | Path] | None = None,
        wanted: Mapping[str, Any] | None = None,
        patience: float = 30.0,
        timeout: float = 60.0,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.username is not None:
            raise KmsError(f"{parts.scheme}://{parts.hostname} is not an https:// URL without a user name in it.")
        self.url = url.rstrip("/")
        self.ca, self.certificate, self.patience, self.timeout = ca, certificate, patience, timeout
        self._login = login
        self._wanted = {name: value for name, value in (wanted or {}).items() if value}
        self._token, self._renew_at = token, float("inf") if token else 0.0
        self._renewing = threading.Lock()
        self._http = httpx.Client(
            base_url=self.url,
            verify=_trusting(ca, certificate),
            timeout=timeout,
            follow_redirects=False,
            headers={"Accept-Encoding": "identity"},  # what is small on the way and huge here is nothing to wait for
        )

    def close(self) -> None:
        """Close the connections; the session goes on until its end."""
        self._http.close()

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        repeatable: bool = False,
        most: int = MOST_BYTES,
    ) -> bytes:
        """The body of the answer to a request under the session. Raises KmsError, also for one above `most` bytes.

        `repeatable` says that it changes nothing, or the same each time. Other requests are repeated only where it
        is certain that they were not carried out.
        """
        content = None if body is None else msgspec.json.encode(body)
        given = {name: _text(value) for name, value in (query or {}).items() if value is not None}

        def once() -> httpx.Response:
            token = self.token()
            response = self._once(method, path, content, given, {"Authorization": f"Bearer {token}"}, most)
            if response.status_code == httpx.codes.UNAUTHORIZED and self._login and _is_over(response):
                self._renew(token)
                token = self.token()
                response = self._once(method, path, content, given, {"Authorization": f"Bearer {token}"}, most)
            return response

        return self._patiently(once, repeatable=repeatable).content

    def public(self, path: str) -> bytes:
        """What the service shows to everybody at `path`. Raises KmsError."""
        return self._patiently(lambda: self._once("GET", path, None, {}, {}), repeatable=True).content

    def token(self) -> str:
        """The token of a session that is not about to end. Raises KmsError."""
        token = self._token
        if token is None or time.monotonic() >= self._renew_at:
            self._renew(token)
            token = self._token
        assert token is not None
        return token

    def log_in(self, login: Login) -> Session:
        """A new session for what proves the client. Raises KmsError."""

        def once() -> httpx.Response:
            proof = login.proof(self.url)  # anew each time: it works once
            body = {**proof.members, **self._wanted}
            content = msgspec.json.encode(body) if body else None
            return self._once("POST", "/auth/token", content, {}, proof.headers)

        answer = self._patiently(once, repeatable=True).content
        return decoded(msgspec.json.Decoder(Session).decode, answer)

    def _renew(self, seen: str | None) -> None:
        """Get a session in place of the one with the token `seen`, unless another thread has just done that."""
        with self._renewing:
            if self._token is not None and self._token != seen:
                return
            if self._login is None:
                raise NotLoggedIn("There is no session, and nothing to get one with.")
            session = self.log_in(self._login)
            self._renew_at = time.monotonic() + session.expires_in * _RENEW_AFTER
            self._token = session.access_token

    def _once(
        self,
        method: str,
        path: str,
        content: bytes | None,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        most: int = MOST_BYTES,
    ) -> httpx.Response:
        if content is not None:
            headers = {**headers, "Content-Type": "application/json"}
        asked = self._http.stream(method, path, content=content, params=query or None, headers=dict(headers))
        with asked as response:
            limit = most if response.is_success else min(most, _MOST_REFUSAL_BYTES)
            body = self._body(response, limit)
        return httpx.Response(response.status_code, headers=response.headers, content=body, request=response.request)

    def _body(self, response: httpx.Response, most: int) -> bytes:
        """What was answered, of which nothing above `most` bytes is kept. Raises KmsError, httpx.TransportError."""
        if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise KmsError(f"{self.url} answered with something compressed, which was not asked for.")
        parts, length = [], 0
        for part in response.iter_raw():
            length += len(part)
            if length > most:
                raise KmsError(f"{self.url} answered with more than {most} bytes, which is not read.")
            parts.append(part)
        return b"".join(parts)

    def _patiently(self, once: Any, *, repeatable: bool) -> httpx.Response:
        """A successful answer, after repeating `once` as long as `patience` allows. Raises KmsError otherwise."""
        deadline, pause = time.monotonic() + self.patience, _FIRST_PAUSE_SECONDS
        while True:
            try:
                response: httpx.Response = once()
            except httpx.TransportError as error:
                failed: KmsError = self._unanswered(error, repeatable=repeatable)
                wait = None if isinstance(failed, OutcomeUnknown) or _is_for_ever(error) else 0
            else:
                if response.status_code == httpx.codes.ACCEPTED:
                    raise _waiting(response)
                if response.is_success:
                    return response
                failed = _refusal(response)
                is_undone = repeatable or response.status_code == httpx.codes.TOO_MANY_REQUESTS
                wait = (failed.retry_after or 0) if response.status_code in _NOT_NOW and is_undone else None
            if wait is None:
                raise failed
            seconds = max(wait, pause * random.uniform(0.5, 1.0))  # noqa: S311  # so that not all come at once
            if time.monotonic() + seconds > deadline:
                raise failed
            time.sleep(seconds)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _unanswered(self, error: httpx.TransportError, *, repeatable: bool) -> KmsError:
        reason = _certificate_fault(error)
        if reason:
            return Unreachable(f"The certificate of {self.url} is not trusted ({reason}). Name its CA.")
        if repeatable or isinstance(error, _NOTHING_WAS_SENT):
            return Unreachable(f"{self.url} cannot be reached: {_said(error)}.")
        return OutcomeUnknown(
            f"{self.url} gave no answer ({_said(error)}). Look whether the change was made before you ask again."
        )


def decoded(decode: Callable[[bytes], T], answer: bytes) -> T:
    """What an answer says. Raises KmsError for one that is not of this service, or of a much later release."""
    try:
        return decode(answer)
    except _UNREADABLE as error:
        raise KmsError(f"The answer cannot be read: {error}.") from None


def path_of(template: str, variables: Mapping[str, Any]) -> str:
    """The path of an operation, with its variables in braces filled in and escaped."""
    return template.format(**{name: segment_of(value) for name, value in variables.items()})


def segment_of(value: object) -> str:
    """One segment of a path, escaped. Raises KmsError for those that would lead to another path (RFC 3986, 5.2.4)."""
    text = str(value)
    if text in {"", ".", ".."}:
        raise KmsError(f"{text!r} is no name.")
    return quote(text, safe="")


def _trusting(ca: str | Path | None, certificate: tuple[str | Path, str | Path] | None) -> ssl.SSLContext:
    try:
        # A CA that is given is the only one trusted, whatever SSL_CERT_FILE says.
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
        if certificate is not None:
            context.load_cert_chain(*map(str, certificate))
    except (OSError, ssl.SSLError) as error:
        raise KmsError(f"Cannot read {ca if certificate is None else certificate[0]}: {_said(error)}.") from None
    return context


def _certificate_fault(error: BaseException | None) -> str:
    """What is wrong with the certificate of the service, if that is why there is no connection."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return ""


def _is_for_ever(error: httpx.TransportError) -> bool:
    return bool(_certificate_fault(error)) or isinstance(error, httpx.UnsupportedProtocol | httpx.ProxyError)


def _said(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__


def _is_over(response: httpx.Response) -> bool:
    """Whether a 401 says that the session is over, and not that it wants a fresh second factor."""
    return isinstance(_refusal(response), AuthenticationFailed)


def _waiting(response: httpx.Response) -> ApprovalPending:
    found = decoded(msgspec.json.Decoder(_Waiting).decode, response.content)
    return ApprovalPending(
        found.approval_id,
        f"This needs the approval of others, and waits for it until {found.expires_at}: `kms approvals show "
        f"{found.approval_id}` shows how far it is.",
    )


def _refusal(response: httpx.Response) -> Refused:
    wait = response.headers.get("Retry-After", "")
    try:
        members = msgspec.json.decode(response.content, type=dict[str, Any])
        problem = {name: value for name, value in members.items() if isinstance(value, str | int)}
    except _UNREADABLE:
        problem = {"detail": f"{response.url.host} answered {response.status_code} with something that is not JSON."}
    return refusal_of(problem, response.status_code, _seconds(wait))


def _seconds(wait: str) -> int | None:
    """How long `Retry-After` asks for, None where it does not say it in seconds, or so many that nobody waits."""
    return int(wait) if wait.isdecimal() and len(wait) <= _MOST_WAIT_DIGITS else None


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
