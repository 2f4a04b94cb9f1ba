"""The audit log as others read it: its checkpoint, its tiles, and proofs for single entries (C2SP tlog-tiles)."""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64decode
from pathlib import Path

from kms.access.policy import Permission
from kms.access.ratelimit import RateClass
from kms.audit.log_files import CHECKPOINT, COSIGNED
from kms.audit.tiles import ENTRIES, TILE_WIDTH, TileName
from kms.errors import NotFound, Unavailable, ValidationFailed
from kms.operations.core.declare import BytesAnswer, EmptyRequest, TextAnswer, operation
from kms.operations.core.service import Call, Service

_TEXT = "text/plain; charset=utf-8"
_LEAF = re.compile(r"[A-Za-z0-9_-]{43}=?")


@operation(
    "GET",
    "/audit/checkpoint",
    permission=Permission.AUDIT_READ,
    rate_class=RateClass.USE,
    checked_upfront=True,
)
def audit_checkpoint(service: Service, call: Call, request: EmptyRequest) -> TextAnswer:
    """Give the newest signed checkpoint of the audit log (c2sp.org/tlog-checkpoint)."""
    return TextAnswer(_content(service.settings.audit_log_dir / CHECKPOINT), _TEXT)


@operation(
    "GET",
    "/audit/checkpoint-cosigned",
    permission=Permission.AUDIT_READ,
    rate_class=RateClass.USE,
    checked_upfront=True,
)
def audit_checkpoint_cosigned(service: Service, call: Call, request: EmptyRequest) -> TextAnswer:
    """Give the newest checkpoint of the audit log that a witness has cosigned; `not-found` where none has yet."""
    return TextAnswer(_content(service.settings.audit_log_dir / COSIGNED), _TEXT)


@operation(
    "GET",
    "/audit/tile/<path:tile>",
    permission=Permission.AUDIT_READ,
    rate_class=RateClass.USE,
    checked_upfront=True,
)
def audit_tile(service: Service, call: Call, request: EmptyRequest, tile: str) -> BytesAnswer:
    """Give a tile of hashes, or a bundle of entries, of the audit log (c2sp.org/tlog-tiles)."""
    name = TileName.parse(f"tile/{tile}")
    if name is None:
        raise NotFound("The log has no such tile.")
    content = _content(service.settings.audit_log_dir / name.path)
    # Hashes tell nothing and never change. Entries name people: no cache is to keep them.
    return BytesAnswer(content, is_immutable=name.width == TILE_WIDTH and name.level != ENTRIES)


@operation("GET", "/audit/proof/<leaf>", permission=None)
def audit_proof(service: Service, call: Call, request: EmptyRequest, leaf: str) -> TextAnswer:
    """Give the proof that an entry is in the audit log (c2sp.org/tlog-proof), by its leaf hash in base64url.

    Every client may ask for it. The leaf hash came with the answer that the entry is about (`Audit-Leaf`); nobody
    can guess that of another.
    """
    return TextAnswer(bytes(service.receipts.proof(_leaf(leaf))), _TEXT)


def _leaf(text: str) -> bytes:
    """The leaf hash in a path. Raises ValidationFailed."""
    try:
        if _LEAF.fullmatch(text):
            return urlsafe_b64decode(text.rstrip("=") + "=")
    except binascii.Error:
        pass
    raise ValidationFailed("leaf: a leaf hash is 32 bytes in base64url, 43 characters.")


def _content(path: Path) -> bytes:
    """The file of the log. Raises NotFound or Unavailable."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise NotFound("The log has no such file, or not yet.") from None
    except OSError:
        raise Unavailable("The audit log cannot be read now.") from None
