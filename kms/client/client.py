"""The client: every operation of the service as a method, or by its name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from kms.client import kept_login, uses
from kms.client.connection import Connection, decoded, path_of
from kms.client.errors import AuthenticationFailed, KmsError, RateLimited, Refused, Unavailable, refusal_of
from kms.client.keys import Key
from kms.client.logins import CertificateLogin, Login, NarrowedLogin, PlatformTokenLogin, PrivateKeyLogin
from kms.client.operations import operations
from kms.client.revocations import RevocationList
from kms.client.uses import DataKey, Encapsulated, Use

T = TypeVar("T")
_MOST_ITEMS = 1000


class Client:
    """The service at `url`, for any number of threads.

    Without arguments: as `kms login` left it. Otherwise `url`, and one of `token`; `client_id` and `private_key` (a
    file of PEM whose public half is registered); `role` and `platform_token` (a file that the platform renews);
    `client_id` and `certificate` (the files of a client certificate and its key); or any other `login`. Sessions are
    made when they are needed and renewed before they end. They are as narrow as `scope` says
    (`keys:encrypt@orders-*`).

    `ca` is a file of certificates (PEM), the only ones that are trusted then. `patience` is for how many seconds a
    call that can be repeated without harm is repeated while the service is away or says "not now". Raises KmsError.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        ca: str | Path | None = None,
        token: str | None = None,
        client_id: str | None = None,
        private_key: str | Path | None = None,
        certificate: tuple[str | Path, str | Path] | None = None,
        role: str | None = None,
        platform_token: str | Path | None = None,
        login: Login | None = None,
        scope: str = "",
        patience: float = 30.0,
        timeout: float = 60.0,
    ) -> None:
        if login is None:
            if client_id and private_key:
                login = PrivateKeyLogin.from_file(client_id, private_key)
            elif role and platform_token:
                login = PlatformTokenLogin(role, platform_token)
            elif client_id and certificate:
                login = CertificateLogin(client_id)
        if login is None and token is None:
            if any((url, client_id, private_key, role, platform_token, certificate)):  # never another's session
                raise KmsError("Give what proves the client: token, private_key, platform_token or certificate.")
            kept = kept_login.current()
            url, ca, token = kept.url, ca or kept.ca_cert, kept.token
        if login is None and scope:
            whole = token or ""
            login, token = NarrowedLogin(lambda: whole), None
        if url is None:
            raise KmsError("Name the service by its URL.")
        self.connection = Connection(
            url,
            ca=ca,
            login=login,
            token=token,
            certificate=certificate,
            wanted={"scope": scope},
            patience=patience,
            timeout=timeout,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. A session ends by itself, or with `call("end_session")`."""
        self.connection.close()

    def narrowed(self, scope: str) -> Client:
        """A client whose sessions may do no more than `scope` says and end with those of this one (RFC 8693)."""
        own = self.connection
        return Client(
            own.url,
            ca=own.ca,
            login=NarrowedLogin(own.token),
            certificate=own.certificate,
            scope=scope,
            patience=own.patience,
            timeout=own.timeout,
        )

    # Any operation.

    def call(self, operation: str, /, **members: Any) -> Any:
        """Carry out any operation of the table: variables of its path and members of its request by their names.

        Bytes are sent as base64, times as RFC 3339, periods as ISO 8601. Gives the decoded JSON, or text where the
        operation gives that.
        """
        answer = self.call_raw(operation, members)
        return answer.decode() if operation == "metrics" else decoded(msgspec.json.decode, answer)

    def call_raw(self, operation: str, members: Mapping[str, Any]) -> bytes:
        """As `call`, and gives the answer as it came."""
        declared = operations().get(operation)
        if declared is None:
            raise KmsError(f"There is no operation {operation}.")
        absent = [name for name in declared.variables if name not in members]
        if absent:
            raise KmsError(f"{operation} needs {', '.join(absent)}.")
        path = path_of(declared.path, {name: members[name] for name in declared.variables})
        rest = {name: value for name, value in members.items() if name not in declared.variables}
        if declared.method == "GET":
            return self.connection.send("GET", path, query=rest, repeatable=True)
        return self.connection.send(declared.method, path, rest, repeatable=declared.repeatable)

    def pages(self, operation: str, /, **members: Any) -> Iterator[dict[str, Any]]:
        """The items of a list, page after page."""
        while True:
            page = self.call(operation, **members)
            yield from page["items"]
            if page.get("next_cursor") is None:
                return
            members["cursor"] = page["next_cursor"]

    # Uses.

    def run(self, use: Use[T]) -> T:
        """Carry out one use of a key."""
        return decoded(use.read, self.call_raw(use.operation, {"key_id": use.key_id, **use.members}))

    def run_all(self, wanted: Iterable[Use[T]]) -> list[T | Refused]:
        """Carry out many uses in as few requests as possible; returns their results in order.

        For a use that is refused, the error stands at its place. Errors that concern all of them, such as
        Unavailable, are raised.
        """
        every = list(wanted)
        groups: dict[tuple[str, str], list[int]] = {}
        for place, use in enumerate(every):
            groups.setdefault((use.operation, use.key_id), []).append(place)
        results: dict[int, T | Refused] = {}
        for (operation, key_id), places in groups.items():
            for begin in range(0, len(places), _MOST_ITEMS):
                some = places[begin : begin + _MOST_ITEMS]
                items = [every[place].members for place in some]
                try:
                    answer = self.call_raw(operation, {"key_id": key_id, "items": items})
                except (AuthenticationFailed, RateLimited, Unavailable):
                    raise
                except Refused as refused:
                    results.update(dict.fromkeys(some, refused))
                    continue
                raw = decoded(msgspec.json.Decoder(_Batch).decode, answer).items
                results.update((place, _result(every[place], one)) for place, one in zip(some, raw, strict=True))
        return [results[place] for place in range(len(every))]

    def encrypt(self, key_id: str, plaintext: bytes, associated_data: bytes = b"") -> bytes:
        """As `uses.encrypt`, and so are all that follow."""
        return self.run(uses.encrypt(key_id, plaintext, associated_data))

    def decrypt(self, key_id: str, ciphertext: bytes, associated_data: bytes = b"") -> bytes:
        """What was encrypted. Raises DecryptionFailed."""
        return self.run(uses.decrypt(key_id, ciphertext, associated_data))

    def rewrap(self, key_id: str, ciphertext: bytes, associated_data: bytes = b"") -> bytes:
        """The same plaintext under the latest version."""
        return self.run(uses.rewrap(key_id, ciphertext, associated_data))

    def data_key(self, key_id: str, bits: int = 256, associated_data: bytes = b"") -> DataKey:
        """A key for use here."""
        return self.run(uses.data_key(key_id, bits, associated_data))

    def sign(self, key_id: str, message: bytes | None = None, **options: Any) -> bytes:
        """The signature of a message, or of its `digest`; options as for `uses.sign`."""
        return self.run(uses.sign(key_id, message, **options))

    def verify(self, key_id: str, message: bytes | None = None, signature: bytes = b"", **options: Any) -> bool:
        """Whether the signature is valid; options as for `uses.verify`."""
        return self.run(uses.verify(key_id, message, signature, **options))

    def mac(self, key_id: str, message: bytes) -> bytes:
        """The message authentication code."""
        return self.run(uses.mac(key_id, message))

    def verify_mac(self, key_id: str, message: bytes, mac: bytes, version: int | None = None) -> bool:
        """Whether the code is that of the message."""
        return self.run(uses.verify_mac(key_id, message, mac, version))

    def wrap(self, key_id: str, key: bytes, algorithm: str | None = None) -> bytes:
        """Wrap a key that lives elsewhere."""
        return self.run(uses.wrap(key_id, key, algorithm))

    def unwrap(self, key_id: str, wrapped_key: bytes, **options: Any) -> bytes:
        """The key that was wrapped; options as for `uses.unwrap`."""
        return self.run(uses.unwrap(key_id, wrapped_key, **options))

    def derive(self, key_id: str, **options: Any) -> bytes:
        """Derived bytes; options as for `uses.derive`."""
        return self.run(uses.derive(key_id, **options))

    def agree(self, key_id: str, peer_public_key: str, **options: Any) -> bytes:
        """The key agreed on by this key and the peer's public key; options as for `uses.agree`."""
        return self.run(uses.agree(key_id, peer_public_key, **options))

    def encapsulate(self, key_id: str) -> Encapsulated:
        """A fresh shared secret and its ciphertext."""
        return self.run(uses.encapsulate(key_id))

    def decapsulate(self, key_id: str, ciphertext: bytes) -> bytes:
        """The shared secret."""
        return self.run(uses.decapsulate(key_id, ciphertext))

    def seal(self, key_id: str, plaintext: bytes, info: bytes = b"") -> bytes:
        """Encrypt to a public key (RFC 9180)."""
        return self.run(uses.seal(key_id, plaintext, info))

    def open_sealed(self, key_id: str, ciphertext: bytes, info: bytes = b"") -> bytes:
        """What was sealed."""
        return self.run(uses.open_sealed(key_id, ciphertext, info))

    def random(self, length: int) -> bytes:
        """So many random bytes."""
        return decoded(msgspec.json.Decoder(_Random).decode, self.call_raw("random", {"length": length})).random

    # Keys and their life.

    def create_key(self, key_id: str | None = None, type: str = "xaes-256-gcm", **members: Any) -> Key:
        """Make a key; `members` as `POST /api/v1/keys` takes them."""
        given = {**members, "type": type, **({"key_id": key_id} if key_id else {})}
        return self._key("create_key", given)

    def key(self, key_id: str) -> Key:
        """A key, with its newest versions."""
        return self._key("get_key", {"key_id": key_id})

    def keys(self, **filters: Any) -> Iterator[Key]:
        """All keys that the caller may see; `filters` as `GET /api/v1/keys` takes them (`owner`, `state`, …)."""
        for each in self.pages("list_keys", **filters):
            yield msgspec.convert(each, Key)

    def rotate(self, key_id: str) -> Key:
        """Make the next version."""
        return self._key("rotate_key_version", {"key_id": key_id})

    def suspend(self, key_id: str) -> Key:
        """Put a key on hold."""
        return self._key("suspend_key", {"key_id": key_id})

    def resume(self, key_id: str) -> Key:
        """Lift the hold."""
        return self._key("resume_key", {"key_id": key_id})

    def revoke(self, key_id: str, reason: str = "keyCompromise", compromised_at: datetime | None = None) -> Key:
        """Revoke a key, on every worker and node, before this returns; reasons are those of RFC 5280."""
        when = {} if compromised_at is None else {"compromised_at": compromised_at}
        return self._key("revoke_key_versions", {"key_id": key_id, "reason": reason, **when})

    def delete_key(self, key_id: str, waiting_period: timedelta = timedelta(days=30)) -> Key:
        """Refuse a key every use now, and delete it after the waiting period."""
        return self._key("delete_key", {"key_id": key_id, "waiting_period": waiting_period})

    def cancel_deletion(self, key_id: str) -> Key:
        """Keep a key that was to be deleted."""
        return self._key("cancel_deletion", {"key_id": key_id})

    def public_key(self, key_id: str, version: int | None = None) -> str:
        """The public half of a key as PEM."""
        given = {} if version is None else {"version": version}
        return str(self.call("get_public_key", key_id=key_id, **given)["public_key"])

    def revocation_list(self) -> RevocationList:
        """The list of revoked keys, checked against the key that the service publishes. Raises NotAuthentic."""
        document = self.call_raw("revocation_list", {})
        return RevocationList.checked(document, self.connection.public("/.well-known/jwks.json"))

    def _key(self, operation: str, members: Mapping[str, Any]) -> Key:
        return decoded(msgspec.json.Decoder(Key).decode, self.call_raw(operation, members))


class _Batch(msgspec.Struct):
    items: list[msgspec.Raw]


class _Failed(msgspec.Struct):
    error: dict[str, Any] | None = None


class _Random(msgspec.Struct):
    random: bytes


def _result(use: Use[T], raw: msgspec.Raw) -> T | Refused:
    failed = msgspec.json.decode(raw, type=_Failed).error
    return decoded(use.read, bytes(raw)) if failed is None else refusal_of(failed)
