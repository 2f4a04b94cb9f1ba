"""Reads requests: first the credentials in the headers, and only then the body."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, BinaryIO
from urllib.parse import parse_qsl

import msgspec
from flask import Request as HttpRequest

from kms.access.authentication import Credentials
from kms.api.admission import Admission
from kms.errors import (
    AuthenticationFailed,
    LengthRequired,
    MalformedRequest,
    Refusal,
    TooLarge,
    UnsupportedMediaType,
    ValidationFailed,
)
from kms.operations.core.declare import MOST_ITEMS, BatchItems, Operation, Request

_AT = re.compile(r" - at `\$\.?(?P<where>.*)`$")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_STEP = re.compile(r"(\w+)|\[[^\]]*\]")
_FORM = "application/x-www-form-urlencoded"
LONGEST_HEADER = 1024
_LONGEST_NUMBER = 18
NO_CREDENTIALS = (
    "Send a session token (Authorization: Bearer …). POST /auth/token gives one for client id and secret "
    "(Authorization: Basic) with the header X-TOTP; `python -m kms login` does that. A single request can also carry "
    "these in place of a token."
)


def presented(http: HttpRequest, operation: Operation) -> str | Credentials | None:
    """The credentials in the headers: a session token (str), or client id, secret and second factor (Credentials).

    None if the headers have no secret and the operation accepts a proof in its body. Raises AuthenticationFailed if
    there are no credentials otherwise.
    """
    scheme, _, parameter = http.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "basic":
        return _basic(http, parameter.strip())
    if operation.is_token_endpoint:
        return None
    token = bearer_token(http)
    if not token:
        raise AuthenticationFailed(NO_CREDENTIALS)
    return token


def bearer_token(http: HttpRequest) -> str:
    """The session token in the headers, or nothing."""
    scheme, _, parameter = http.headers.get("Authorization", "").partition(" ")
    token = parameter.strip() if scheme.lower() == "bearer" else http.headers.get("X-Vault-Token", "")
    return token[:LONGEST_HEADER]


def _basic(http: HttpRequest, encoded: str) -> Credentials:
    try:
        decoded = base64.b64decode(encoded[:LONGEST_HEADER], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        decoded = ""
    client_id, _, secret = decoded.partition(":")
    code, recovery_code = http.headers.get("X-TOTP"), http.headers.get("X-Recovery-Code")
    return Credentials(
        client_id,
        secret,
        totp_code=code if code is None else code[:LONGEST_HEADER],
        recovery_code=recovery_code if recovery_code is None else recovery_code[:LONGEST_HEADER],
    )


def body_length(environ: Mapping[str, Any], limit: int) -> int | None:
    """How many bytes the body of a request has; None where it comes in chunks, which say themselves where they end.

    Raises MalformedRequest, TooLarge, and LengthRequired where the server underneath hands chunks on as they are, for
    what was sent and not read must never count as empty. Granian ends a body in which a chunk is malformed, or which
    is cut off, as if it were whole. Of JSON that leaves what is no object, but a form that is cut off is a form.
    """
    if "HTTP_TRANSFER_ENCODING" in environ:
        if environ["HTTP_TRANSFER_ENCODING"].strip().lower() != "chunked":
            raise MalformedRequest("No Transfer-Encoding but chunked is taken.")
        if not environ.get("wsgi.input_terminated") or environ.get("CONTENT_TYPE", "").strip().lower()[:33] == _FORM:
            raise LengthRequired("Send the body whole, with its Content-Length.")
        return None
    text = environ.get("CONTENT_LENGTH", "")
    if not text:
        return 0
    if len(text) > _LONGEST_NUMBER or not (text.isascii() and text.isdigit()):
        raise MalformedRequest("Content-Length is not a number.")
    length = int(text)
    if length > limit:
        raise TooLarge(f"The body has {length} bytes; at most {limit} are taken.")
    return length


def read_admitted(admission: Admission, client: str, stream: BinaryIO, length: int | None, limit: int) -> bytes:
    """As `read`, holding one of the client's threads only while the body arrives. Raises Unavailable too."""
    entered = admission.enter(client)
    try:
        return read(stream, length, limit)
    finally:
        admission.leave(client, entered)


def read_unproven(admission: Admission, who: str, stream: BinaryIO, length: int | None, limit: int) -> bytes:
    """As `read`, holding what `Admission.enter_unproven` holds while the body arrives. Raises Unavailable too."""
    entered = admission.enter_unproven(who)
    try:
        return read(stream, length, limit)
    finally:
        admission.leave_unproven(who, entered)


def read(stream: BinaryIO, length: int | None, limit: int) -> bytes:
    """A body of `length` bytes, as `body_length` gives it.

    Raises MalformedRequest where there are fewer, or none in chunks, and TooLarge where chunks go on beyond `limit`.
    """
    try:
        return _read(stream, length, limit)
    except Refusal:
        raise
    except Exception:  # noqa: BLE001  # gunicorn has errors of its own for chunks and trailers that are malformed
        raise MalformedRequest("The body cannot be read.") from None


def _read(stream: BinaryIO, length: int | None, limit: int) -> bytes:
    if length is None:
        body = _up_to(stream, limit + 1)
        if len(body) > limit:
            raise TooLarge(f"The body has more than {limit} bytes.")
        if not body:  # or its first chunk is malformed
            raise MalformedRequest("The body was sent in chunks and has none that can be read. Send it whole.")
        return body
    body = stream.read(length)
    if len(body) < length:
        body += _up_to(stream, length - len(body))
    if len(body) < length:
        raise MalformedRequest("The body ended before Content-Length.")
    return body


def _up_to(stream: BinaryIO, length: int) -> bytes:
    parts = []
    while length > 0:
        part = stream.read(length)
        if not part:
            break
        parts.append(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def parse(http: HttpRequest, operation: Operation, body: bytes) -> Request | BatchItems:
    """The typed request. Raises MalformedRequest, UnsupportedMediaType or ValidationFailed naming the member."""
    if operation.method == "GET":
        return _query(http, operation)
    if body.strip():
        if http.mimetype == _FORM and operation.is_token_endpoint:
            return converted(_form(body), operation.request)
        if http.mimetype != "application/json" and not http.mimetype.endswith("+json"):
            raise UnsupportedMediaType("Send JSON, with the header Content-Type: application/json.")
    return decoded(operation, body)


@cache
def _decoder(kind: type[Request]) -> msgspec.json.Decoder[Request]:
    return msgspec.json.Decoder(kind)


def decoded(operation: Operation, body: bytes) -> Request | BatchItems:
    """The typed request in a JSON body. Raises MalformedRequest, or ValidationFailed naming the member."""
    try:
        return _decoder(operation.request).decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _batch_or_refusal(operation, body)


def _batch_or_refusal(operation: Operation, body: bytes) -> Request | BatchItems:
    """What a body is that is not a request of the simple kind."""
    if not body.strip():
        return converted({}, operation.request)
    if not body.lstrip().startswith(b"{"):
        raise MalformedRequest("The body is not a JSON object.")
    try:
        try:
            return msgspec.json.decode(body, type=operation.request)
        except msgspec.ValidationError as error:
            if operation.batch is not None and (items := _items(body, operation)) is not None:
                return items
            raise _invalid(error, operation.request) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedRequest("The body is not valid JSON.") from None


def _query(http: HttpRequest, operation: Operation) -> Request:
    for name, values in http.args.lists():
        if len(values) > 1:
            raise ValidationFailed(f"{name[:64]}: give it once.")
    given = dict(http.args.items())
    request = converted(given, operation.request)
    for name in given:
        if getattr(request, name) is None:  # msgspec takes the text `null` for None
            raise ValidationFailed(f"{name}: leave it out, or give a value.")
    return request


class _Batch(Request):
    items: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=MOST_ITEMS)]


def _items(body: bytes, operation: Operation) -> BatchItems | None:
    """The items of a batch, None where the body is not one. Raises ValidationFailed for too many or none."""
    assert operation.batch is not None
    try:
        batch: Any = msgspec.json.decode(body, type=operation.batch)
        return BatchItems(batch.items)
    except msgspec.ValidationError:
        pass  # an item is wrong, or it is not a batch
    try:
        raw = msgspec.json.decode(body, type=_Batch).items
    except msgspec.ValidationError as error:
        if "`$.items`" in str(error):
            raise _invalid(error, _Batch) from None
        return None
    return BatchItems([_item(each, operation.request) for each in raw])


def _item(raw: msgspec.Raw, kind: type[Request]) -> Request | ValidationFailed:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        return _invalid(error, kind)


def _form(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        raise MalformedRequest("The form cannot be read.") from None
    members = dict(pairs)
    if len(members) < len(pairs):
        raise MalformedRequest("The form has a member twice.")
    return members


def converted(values: Mapping[str, Any], kind: type[Request]) -> Request:
    """The typed request with these members, numbers and periods given as text. Raises ValidationFailed."""
    for name in _times_in(kind):
        if isinstance(given := values.get(name), str) and _NUMBER.fullmatch(given):
            # It would be taken for seconds; in JSON these are texts of ISO 8601, and nothing else.
            raise ValidationFailed(f"{name}: a time such as 2030-01-31T09:00:00Z, or a period such as P30D.")
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _invalid(error, kind) from None


@cache
def _times_in(kind: type[Request]) -> tuple[str, ...]:
    """The members that are times or periods."""
    found = []
    described = msgspec.inspect.type_info(kind)
    assert isinstance(described, msgspec.inspect.StructType)
    for field in described.fields:
        of_field = field.type.types if isinstance(field.type, msgspec.inspect.UnionType) else (field.type,)
        if any(isinstance(each, (msgspec.inspect.DateTimeType, msgspec.inspect.TimeDeltaType)) for each in of_field):
            found.append(field.encode_name)
    return tuple(found)


def _invalid(error: msgspec.ValidationError, kind: type[Request]) -> ValidationFailed:
    """msgspec's sentence about a request of `kind` with the member in front; it names what may stand there."""
    message = str(error)
    place = _AT.search(message)
    where = place["where"] if place else ""
    sentence = message[: place.start()] if place else message
    if missing := _MISSING.fullmatch(sentence):
        where, sentence = f"{where}.{missing[1]}".removeprefix("."), "this member is needed and is not there"
    elif sentence.startswith("Invalid enum value"):
        sentence = f"must be one of {', '.join(_choices(kind, where))}"
    return ValidationFailed(f"{where}: {sentence}." if where else f"{sentence}.")


def _choices(kind: type[Request], where: str) -> list[str]:
    """The values of the closed set at that place (`member`, `member[0]`, `member.member`) of a request of `kind`."""
    found = alternatives(msgspec.inspect.type_info(kind))
    for member in _STEP.findall(where):
        inner = [_member(each, member) if member else getattr(each, "item_type", None) for each in found]
        found = [alternative for each in inner if each is not None for alternative in alternatives(each)]
    values: list[str] = []
    for each in found:
        if isinstance(each, msgspec.inspect.EnumType):
            values += [str(value.value) for value in each.cls]
        elif isinstance(each, msgspec.inspect.LiteralType):
            values += map(str, each.values)
    return values


def alternatives(kind: msgspec.inspect.Type) -> list[msgspec.inspect.Type]:
    """What a value of `kind` may be: the members of a union, without what is only said about them."""
    if isinstance(kind, msgspec.inspect.Metadata):
        return alternatives(kind.type)
    if isinstance(kind, msgspec.inspect.UnionType):
        return [each for one in kind.types for each in alternatives(one)]
    return [kind]


def _member(kind: msgspec.inspect.Type, name: str) -> msgspec.inspect.Type | None:
    fields = kind.fields if isinstance(kind, msgspec.inspect.StructType) else ()
    return next((each.type for each in fields if each.encode_name == name), None)
