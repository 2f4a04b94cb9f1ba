"""What the uses of keys in the Vault dialect share: one thing or several, and how they are written."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from typing import Any

from kms.api.transit.answers import Fault, fault_of
from kms.api.transit.request import TransitRequest
from kms.api.transit.routes import Body, Done
from kms.errors import Refusal, ValidationFailed
from kms.operations import BatchItems

_CIPHERTEXT = re.compile(r"vault:v([1-9][0-9]{0,8}):([A-Za-z0-9+/_=\r\n-]*)")
_SPAN = re.compile(r"(?:[0-9]{1,9}[smhd])+|[0-9]{1,9}", re.ASCII)
_PART = re.compile(r"([0-9]+)([smhd]?)", re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_LINE_BREAKS = {ord("\r"): None, ord("\n"): None}


class Unit(Body, kw_only=True):
    """One thing to encrypt, decrypt, sign, verify or authenticate."""

    plaintext: str | None = None
    ciphertext: str | None = None
    input: str | None = None
    signature: str | None = None
    hmac: str | None = None
    associated_data: str = ""
    context: str | None = None
    nonce: str | None = None
    key_version: int = 0
    reference: str | None = None


class UseBody(Unit, kw_only=True):
    """One thing, or several as `batch_input`."""

    batch_input: list[Unit] | None = None
    type: str = "aes256-gcm96"
    convergent_encryption: bool = False
    bits: int = 256
    partial_failure_response_code: int | None = None


def seconds(given: str | int, member: str) -> int:
    """A duration as Vault takes it: seconds, or numbers with s, m, h or d such as `1h30m`. Raises Fault."""
    text = str(given).strip()
    if _SPAN.fullmatch(text) is None:
        raise Fault(f"{member} must be a number of seconds, or such as 720h")
    return sum(int(number) * _SECONDS[unit] for number, unit in _PART.findall(text))


def units(body: UseBody) -> Sequence[Unit]:
    """The things that a request is about. Raises Fault for too many."""
    if body.batch_input is None:
        return [body]
    if not 1 <= len(body.batch_input) <= 1000:
        raise Fault("missing batch input to process, or more than 1000 of them")
    return body.batch_input


def each(transit: TransitRequest, operation: str, requests: Sequence[Any], name: str) -> Sequence[Any]:
    """The answer or the refusal of each request, all in one operation."""
    if len(requests) == 1 and not isinstance(requests[0], Refusal):
        try:
            return [transit.run(operation, requests[0], key_id=name)]
        except Refusal as refusal:
            if not refusal.item_scoped:
                raise
            return [refusal]
    return list(transit.run(operation, BatchItems(requests), key_id=name).items)


def answer(body: UseBody, shown: list[dict[str, Any]]) -> Done:
    """The one answer, or all of a batch; a batch in which something failed says so by its status."""
    if body.batch_input is None:
        (only,) = shown
        if "error" in only:
            raise Fault(only["error"], problem=only.pop("problem", "validation-failed"))
        return Done(only)
    for unit, one in zip(body.batch_input, shown, strict=True):
        one.pop("problem", None)
        if unit.reference is not None:
            one["reference"] = unit.reference
    failed = any("error" in one for one in shown)
    status = (body.partial_failure_response_code or 400) if failed else 200
    if failed and status not in (200, 207) and not 400 <= status < 600:
        raise Fault("partial_failure_response_code must be 200, 207 or that of a failure")
    return Done({"batch_results": shown}, status=status)


def failure(result: Any, unit: Unit | None = None) -> dict[str, Any] | None:
    """How a refusal of one thing is shown, None for an answer.

    An answer is one, too, where the `unit` it is for asks for another version than it was made with.
    """
    if isinstance(result, Refusal):
        return {"error": fault_of(result).message, "problem": result.problem}
    if unit is not None and unit.key_version not in (0, result.version):
        return {"error": f"key_version: only the latest version, {result.version}, protects"}
    return None


def read(as_request: Callable[[Unit], Any], unit: Unit) -> Any:
    """The request of one unit, or what is wrong with it as a refusal of this item."""
    try:
        return as_request(unit)
    except Fault as fault:
        return ValidationFailed(fault.message)


def context_of(unit: Unit) -> bytes:
    """The context of a derived key. Raises Fault for a nonce, which clients do not choose here."""
    if unit.nonce:
        raise Fault("nonce: it is drawn, or taken from the message, and never given")
    return bytes_of(unit.context or "", "context")


def taken_apart(text: str | None, member: str) -> tuple[int, bytes]:
    """The version and the bytes in `vault:v1:…`. Raises Fault."""
    if text is None:
        raise Fault(f"missing {member}")
    found = _CIPHERTEXT.fullmatch(text)
    if found is None:
        raise Fault(f"invalid {member}: no prefix")
    encoded = found[2].translate(_LINE_BREAKS)
    if "-" in encoded or "_" in encoded or len(encoded) % 4:  # a signature as JWS has it
        encoded = encoded.replace("-", "+").replace("_", "/") + "=" * (-len(encoded) % 4)
    return int(found[1]), bytes_of(encoded, member)


def bytes_of(text: str, member: str) -> bytes:
    """What `text` is in base64, which may have line breaks, as openssl writes it. Raises Fault."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    try:
        return base64.b64decode(text.translate(_LINE_BREAKS), validate=True)
    except (binascii.Error, ValueError):
        raise Fault(f"failed to base64-decode {member}") from None


def b64(content: bytes) -> str:
    """`content` in base64."""
    return base64.b64encode(content).decode()
