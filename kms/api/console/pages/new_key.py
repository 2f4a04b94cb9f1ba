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


_U = Usage
_PURPOSES: tuple[tuple[str, str, frozenset[Usage], frozenset[Usage]], ...] = (
    (
        "Encrypt and decrypt",
        "One secret key, for data and for other keys. If in doubt, take the first.",
        frozenset({_U.ENCRYPT, _U.WRAP}),
        frozenset({_U.SIGN}),
    ),
    (
        "Sign and verify",
        "A private key that stays here, and a public one for everybody. RSA keys also encrypt.",
        frozenset({_U.SIGN}),
        frozenset(),
    ),
    (
        "Authenticate messages",
        "One secret key that both sides have. Made to derive, it makes other keys instead.",
        frozenset({_U.MAC}),
        frozenset(),
    ),
    ("Agree on a secret", "With a peer, who has a key of the same type.", frozenset({_U.AGREE}), frozenset()),
    (
        "Receive secrets",
        "Others encapsulate or encrypt for the public key; only this service can open.",
        frozenset({_U.ENCAPSULATE}),
        frozenset(),
    ),
    ("Receive sealed messages", "Anybody can seal; only this service can open.", frozenset({_U.SEAL}), frozenset()),
    (
        "Encrypt in contexts",
        "Another key for each context, such as a tenant. Convergent: equal messages give equal ciphertexts, "
        "which shows who sees them what is equal.",
        frozenset({_U.ENCRYPT}),
        frozenset({_U.WRAP}),
    ),
    (
        "Wrap other keys",
        "The standard forms of key wrapping, for systems that ask for them.",
        frozenset({_U.WRAP}),
        frozenset({_U.ENCRYPT}),
    ),
)
"""Purposes in the order in which people need them: which usages a type has for it, and which not."""


def purposes() -> list[Purpose]:
    """Every type under the purpose that it has where nothing else is asked."""
    found = [
        Purpose(title, about, [each for each in KEY_TYPES.values() if has <= each.usages and not lacks & each.usages])
        for title, about, has, lacks in _PURPOSES
    ]
    named = {kind.name for purpose in found for kind in purpose.types}
    rest = [each for each in KEY_TYPES.values() if each.name not in named]
    return [*found, Purpose("Others", "", rest)] if rest else found


def other_purposes() -> list[str]:
    """What some types can be made for in place of their first purpose, as words with spaces between."""
    others = {
        " ".join(sorted(each)) for kind in KEY_TYPES.values() for each in kind.purposes if len(kind.purposes) > 1
    }
    return sorted(others)


def is_post_quantum(kind: KeyType) -> bool:
    """Whether quantum computers are not known to break keys of this type, which public keys of other types are."""
    return kind.name.startswith(_POST_QUANTUM)


@page("/new-key")
def new_key(visit: Visit, refusal: Refusal | None = None) -> Response:
    """The form for a new key."""
    return visit.render(
        "key_new.html",
        refusal,
        fields=_FIELDS,
        purposes=purposes(),
        others=other_purposes(),
        is_post_quantum=is_post_quantum,
    )


@act("/new-key", again=new_key)
def make_key(visit: Visit) -> Response:
    """Make it."""
    values = {name: visit.field(name) for name in ("type", "key_id", "owner", "description")}
    answer = visit.run(
        "create_key",
        {
            **values,
            "usages": (visit.field("usages") or "").split() or None,
            "cryptoperiod": visit.days("cryptoperiod"),
            "rotation_period": visit.days("rotation_period"),
            "exportable": "true" if visit.field("exportable") else None,
            "labels": labels_of(visit.field("labels") or ""),
        },
    )
    return visit.go(f"/keys/{answer.key_id}", f"{answer.key_id} is made.")
