"""The syntax of identifiers. An identifier that is not canonical is refused; it is never trimmed or case-folded."""

from __future__ import annotations

import re
import secrets
import uuid
from typing import Annotated

import msgspec

CLIENT_ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
MOUNT_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}"
KEY_ID_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"

ALIAS_PATTERN = rf"(?:{KEY_ID_PATTERN}|[a-z0-9-]{{1,32}}:alias/[A-Za-z0-9/_-]{{1,200}})"

RELEASED = "deleted-"
"""How the id begins that a key about to be deleted gets when its name is released for others."""

_FLAT_SUFFIXES = frozenset({"symmetric", "rsa", "ecc", "dh", "session"})

ClientId = Annotated[str, msgspec.Meta(pattern=rf"^{CLIENT_ID_PATTERN}\Z")]
KeyId = Annotated[str, msgspec.Meta(pattern=rf"^{KEY_ID_PATTERN}\Z")]


def is_mount(text: str) -> bool:
    """Whether `text` has the form of a mount of the Vault dialect."""
    return re.fullmatch(MOUNT_PATTERN, text, re.ASCII) is not None


def is_client_id(text: str) -> bool:
    """Whether `text` has the form of a client id."""
    return re.fullmatch(CLIENT_ID_PATTERN, text, re.ASCII) is not None


def is_key_id(text: str) -> bool:
    """Whether `text` has the form of a key id."""
    return re.fullmatch(KEY_ID_PATTERN, text, re.ASCII) is not None


def is_alias(text: str) -> bool:
    """Whether `text` has the form of an alias: that of a key id, or a region and an alias of the AWS dialect."""
    return re.fullmatch(ALIAS_PATTERN, text, re.ASCII) is not None


def flat_key_id(client_id: str, suffix: str) -> str:
    """The key id that the flat endpoints use for `client_id`; `suffix` is symmetric, rsa, ecc, dh or session."""
    return f"{client_id}_{suffix}"


def reserved_for(name: str) -> str | None:
    """The client for whose flat keys this name is reserved; None for a name that everybody can use."""
    client_id, _, suffix = name.rpartition("_")
    return client_id if client_id and suffix in _FLAT_SUFFIXES else None


def is_session_key_id(key_id: str) -> bool:
    """Whether this is the id of a key that came from an exchange with a peer; only another exchange renews it."""
    return key_id.endswith("_session")


def new_key_id() -> str:
    """An id for a key whose maker chose none: a random UUID (RFC 9562), which every dialect takes."""
    return str(uuid.uuid4())


def is_multi_region_key_id(key_id: str) -> bool:
    """Whether this is the id of a key that the AWS dialect may show in several regions, as AWS forms them."""
    return re.fullmatch("mrk-[0-9a-f]{32}", key_id) is not None


def new_multi_region_key_id() -> str:
    """An id for such a key."""
    return f"mrk-{secrets.token_hex(16)}"


def new_key_uid() -> bytes:
    """16 random bytes that name a key for ever, also after its key id has been given to another."""
    return secrets.token_bytes(16)
