"""Requests of the AWS dialect as typed values, and the words of AWS's services for what is wrong with them."""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta

from kms.api.aws.faults import Fault, invalid


class Input(msgspec.Struct, rename="pascal", kw_only=True):
    """The body of a request. As with AWS, unknown members are passed over."""


KeyName = Annotated[str, Meta(min_length=1, max_length=2048)]
AliasName = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[a-zA-Z0-9:/_-]+\Z")]
Plaintext = Annotated[bytes, Meta(min_length=1, max_length=4096)]
Ciphertext = Annotated[bytes, Meta(min_length=1, max_length=6144)]
PublicKey = Annotated[bytes, Meta(min_length=1, max_length=8192)]
Description = Annotated[str, Meta(max_length=8192)]
GrantTokens = Annotated[list[Annotated[str, Meta(min_length=1, max_length=8192)]], Meta(max_length=10)]
EncryptionContext = dict[str, str]
ItemLimit = Annotated[int, Meta(ge=1, le=1000)]
Marker = Annotated[str, Meta(min_length=1, max_length=1024)]


class KeyInput(Input, kw_only=True):
    """An operation on a key."""

    key_id: KeyName
    grant_tokens: GrantTokens | None = None


def truncated(marker: str | None) -> dict[str, Any]:
    """The members of a list that say whether there is more."""
    return {"Truncated": False} if marker is None else {"Truncated": True, "NextMarker": marker}


_AT = re.compile(r" - at `\$(?P<where>[^`]*)`$")
_BOUND = re.compile(r"(?P<sign>>=|<=) (?P<bound>\d+)")


@cache
def _decoder(kind: type[Any]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def decoded(kind: type[Any], body: bytes) -> Any:
    """The request in `body`. Raises Fault: ValidationException or SerializationException."""
    try:
        return _decoder(kind).decode(body or b"{}")  # type: ignore[arg-type]  # every class is hashable
    except msgspec.ValidationError as error:
        raise _validation(kind, body, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Fault("SerializationException", "The body is not a JSON object.", problem="malformed-request") from None


def _validation(kind: type[Any], body: bytes, text: str) -> Fault:
    missing = re.match(r"Object missing required field `(\w+)`", text)
    if missing:
        return invalid(missing[1], None, "Member must not be null")
    place = _AT.search(text)
    where = place["where"].lstrip(".") if place else ""
    sentence = text[: place.start()] if place else text
    member = re.split(r"[.\[]", where)[0]
    value = _value(body, member)
    bound = _BOUND.search(sentence)
    if "Invalid enum value" in sentence:
        return invalid(member, value, f"Member must satisfy enum value set: [{', '.join(_choices(kind, member))}]")
    if "of length" in sentence and bound:
        which = "greater" if bound["sign"] == ">=" else "less"
        return invalid(member, value, f"Member must have length {which} than or equal to {bound['bound']}")
    if "matching regex" in sentence:
        pattern = sentence.split("matching regex ", 1)[1].strip("'\"").replace("\\Z", "$")
        return invalid(member, value, f"Member must satisfy regular expression pattern: {pattern}")
    if sentence.startswith("Expected `int` ") and bound:
        which = "greater" if bound["sign"] == ">=" else "less"
        return invalid(member, value, f"Member must have value {which} than or equal to {bound['bound']}")
    return Fault("SerializationException", f"{where or 'The body'}: {sentence}.", problem="malformed-request")


def _value(body: bytes, member: str) -> object:
    """What was sent as `member`, if that is a short word; binary members are never repeated."""
    try:
        value = msgspec.json.decode(body).get(member)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, AttributeError):
        return ""
    sensitive = {"Plaintext", "Message", "CiphertextBlob", "Mac", "Signature", "SharedSecretCiphertextBlob"}
    if member in sensitive or not isinstance(value, (str, int)):
        return "***"
    return str(value)[:128]


def _choices(kind: type[Any], member: str) -> list[str]:
    names = dict(zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True))
    hint = get_type_hints(kind).get(names.get(member, ""))
    for each in (hint, *get_args(hint)):
        if getattr(each, "__origin__", None) is Literal or type(each) is type(Literal[""]):
            return [str(choice) for choice in get_args(each)]
    return []
