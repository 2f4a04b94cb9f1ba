"""Requests of the AWS dialect as typed values, and the words of AWS's services for what is wrong with them."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Iterator
from functools import cache
from typing import Annotated, Any

import msgspec
from msgspec import Meta, inspect

from kms.api.aws.faults import Fault, Violation, violated


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


_AT = re.compile(r" - at `\$\.?(?P<where>[^`]*)`$")


@cache
def _decoder(kind: type[Any]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def decoded(kind: type[Any], body: bytes) -> Any:
    """The request in `body`. Raises Fault: ValidationException or SerializationException."""
    body = body or b"{}"
    try:
        try:
            return _decoder(kind).decode(body)  # type: ignore[arg-type]  # every class is hashable
        except msgspec.ValidationError:
            return converted(kind, msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Fault("SerializationException", "The body is not a JSON object.", problem="malformed-request") from None


def converted(kind: type[Any], given: Any) -> Any:
    """The request that a body is which is not one as it stands: with members that are null, or that do not fit.

    Raises Fault: ValidationException or SerializationException.
    """
    shape = inspect.type_info(kind)
    given = _without_nulls(given, shape)
    if violations := list(_violations(given, shape, "")):
        raise violated(violations)
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        place = _AT.search(str(error))
        where, sentence = (place["where"], str(error)[: place.start()]) if place else ("", str(error))
        raise Fault(
            "SerializationException", f"{where or 'The body'}: {sentence}.", problem="malformed-request"
        ) from None


def _without_nulls(given: Any, shape: inspect.Type) -> Any:
    """`given` without the members of structures that are null, which are absent in AWS's JSON.

    In a map, such as an encryption context, a null is something that was sent, and does not fit.
    """
    shape = _present(shape)
    if isinstance(shape, inspect.ListType) and isinstance(given, list):
        return [_without_nulls(each, shape.item_type) for each in given]
    if not isinstance(shape, inspect.StructType) or not isinstance(given, dict):
        return given
    shapes = {field.encode_name: field.type for field in shape.fields}
    return {
        name: _without_nulls(value, shapes[name])
        for name, value in given.items()
        if name in shapes and value is not None
    }


def _present(shape: inspect.Type) -> inspect.Type:
    """The shape of a member that is there."""
    if isinstance(shape, inspect.UnionType):
        return next(each for each in shape.types if not isinstance(each, inspect.NoneType))
    return shape


def _violations(given: Any, shape: inspect.Type, path: str) -> Iterator[Violation]:
    """The constraints that a value at `path` and what is in it do not meet."""
    shape = _present(shape)
    if isinstance(shape, inspect.StructType) and isinstance(given, dict):
        for field in shape.fields:
            name = field.encode_name
            inner = f"{path}.{_lower(name)}" if path else _lower(name)
            if name in given:
                yield from _violations(given[name], field.type, inner)
            elif field.required:
                yield Violation(inner, None, "Member must not be null")
        return
    for constraint in _broken(given, shape):
        yield Violation(path, _shown(given, shape), constraint)
    if isinstance(shape, inspect.ListType) and isinstance(given, list):
        if isinstance(_present(shape.item_type), inspect.StructType):
            for number, each in enumerate(given, 1):
                yield from _violations(each, shape.item_type, f"{path}.{number}.member")
        elif any(_broken(each, shape.item_type) for each in given):
            constraints = ", ".join(text for text, _ in _constraints(_present(shape.item_type)))
            yield Violation(path, _shown(given, shape), f"Member must satisfy constraint: [{constraints}]")


def _lower(name: str) -> str:
    return name[:1].lower() + name[1:]


_LONGEST_SHOWN = 512


def _shown(given: Any, shape: inspect.Type) -> str:
    """What was sent, as AWS repeats it: of what is binary, and so may be secret, and of maps nothing."""
    if isinstance(shape, inspect.BytesType | inspect.DictType):
        return ""
    text = f"[{', '.join(str(each) for each in given)}]" if isinstance(given, list) else str(given)
    return f"'{text[:_LONGEST_SHOWN]}'"


def _broken(given: Any, shape: inspect.Type) -> list[str]:
    """The constraints of a shape that a value of its kind does not meet; of another kind it meets all."""
    shape = _present(shape)
    measured = _measured(given, shape)
    return [] if measured is None else [text for text, holds in _constraints(shape) if not holds(measured)]


def _measured(given: Any, shape: inspect.Type) -> Any:
    """What the constraints of `shape` are about: the octets of a binary value; None for one of another kind."""
    if isinstance(shape, inspect.BytesType) and isinstance(given, str):
        try:
            return b64decode(given, validate=True)
        except ValueError:
            return None
    kinds: dict[type[inspect.Type], type] = {
        inspect.StrType: str,
        inspect.LiteralType: str,
        inspect.IntType: int,
        inspect.ListType: list,
        inspect.DictType: dict,
    }
    return given if type(given) is kinds.get(type(shape)) else None


def _constraints(shape: inspect.Type) -> Iterator[tuple[str, Callable[[Any], bool]]]:
    """The constraints of a shape in the words of AWS, each with what says whether a value meets it."""
    if isinstance(shape, inspect.LiteralType):
        choices = [str(each) for each in shape.values if each is not None]
        yield f"Member must satisfy enum value set: [{', '.join(choices)}]", lambda value: value in choices
    if isinstance(shape, inspect.StrType | inspect.BytesType | inspect.ListType | inspect.DictType):
        if (most := shape.max_length) is not None:
            yield f"Member must have length less than or equal to {most}", lambda value: len(value) <= most
        if (least := shape.min_length) is not None:
            yield f"Member must have length greater than or equal to {least}", lambda value: len(value) >= least
    if isinstance(shape, inspect.StrType) and (pattern := shape.pattern) is not None:
        shown = pattern.replace(r"\Z", "$")
        yield (
            f"Member must satisfy regular expression pattern: {shown}",
            lambda value: bool(re.search(pattern, value)),
        )
    if isinstance(shape, inspect.IntType):
        if (highest := shape.le) is not None:
            yield f"Member must have value less than or equal to {highest}", lambda value: value <= highest
        if (lowest := shape.ge) is not None:
            yield f"Member must have value greater than or equal to {lowest}", lambda value: value >= lowest
