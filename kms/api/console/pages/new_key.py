"""Making a key: types explained, in groups by what they are for."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Response

from kms.api.console.pages.key import labels_of
from kms.api.console.routes import act, page
from kms.api.console.visit import Visit
from kms.crypto.keytype import KeyType
from kms.crypto.registry import KEY_TYPES
from kms.errors import Refusal
from kms.keys.model import Usage

_FIELDS = ("type", "key_id", "owner", "usages", "cryptoperiod", "rotation_period", "labels", "description")
_POST_QUANTUM = ("ml-kem", "ml-dsa")


@dataclass(frozen=True)
class Purpose:
    """Types of key that are for the same thing, in a person's words."""

    title: str
    about: str
    types: list[KeyType]


def _is_symmetric(kind: KeyType) -> bool:
    return "raw" in kind.formats and "pkcs8" not in kind.formats


def _with(usage: Usage, *, symmetric: bool) -> list[KeyType]:
    return [each for each in KEY_TYPES.values() if usage in each.usages and _is_symmetric(each) is symmetric]


def purposes() -> list[Purpose]:
    """Every type under the purpose that comes first for it."""
    ordered = [
        (
            "Encrypt and decrypt",
            "One secret key, for data and for other keys. Take the first if nothing speaks for another.",
            _with(Usage.ENCRYPT, symmetric=True),
        ),
        (
            "Sign and verify",
            "A private key that stays here, and a public one for everybody.",
            _with(Usage.SIGN, symmetric=False),
        ),
        (
            "Authenticate messages",
            "One secret key that both sides have; also to derive other keys.",
            _with(Usage.MAC, symmetric=True),
        ),
        ("Agree on a secret", "With a peer, who has a key of the same type.", _with(Usage.AGREE, symmetric=False)),
        (
            "Receive secrets that others encapsulate",
            "Post-quantum key encapsulation.",
            _with(Usage.ENCAPSULATE, symmetric=False),
        ),
        (
            "Seal to a public key",
            "Anybody can encrypt; only this service can open.",
            _with(Usage.SEAL, symmetric=False),
        ),
        (
            "Wrap other keys",
            "The standard forms of key wrapping, for systems that ask for them.",
            _with(Usage.WRAP, symmetric=True),
        ),
    ]
    seen: set[str] = set()
    found = []
    for title, about, types in ordered:
        fresh = [each for each in types if each.name not in seen]
        seen |= {each.name for each in fresh}
        if fresh:
            found.append(Purpose(title, about, fresh))
    rest = [each for each in KEY_TYPES.values() if each.name not in seen]
    return [*found, Purpose("Others", "", rest)] if rest else found


def is_post_quantum(kind: KeyType) -> bool:
    """Whether quantum computers are not known to break keys of this type, which public keys of other types are."""
    return kind.name.startswith(_POST_QUANTUM)


@page("/new-key")
def new_key(visit: Visit, refusal: Refusal | None = None) -> Response:
    """The form for a new key."""
    return visit.render("key_new.html", refusal, fields=_FIELDS, purposes=purposes(), is_post_quantum=is_post_quantum)


@act("/new-key", again=new_key)
def make_key(visit: Visit) -> Response:
    """Make it."""
    values = {name: visit.field(name) for name in ("type", "key_id", "owner", "description")}
    answer = visit.run(
        "create_key",
        {
            **values,
            "cryptoperiod": visit.days("cryptoperiod"),
            "rotation_period": visit.days("rotation_period"),
            "exportable": "true" if visit.field("exportable") else None,
            "labels": labels_of(visit.field("labels") or ""),
        },
    )
    return visit.go(f"/keys/{answer.key_id}", f"{answer.key_id} is made.")
