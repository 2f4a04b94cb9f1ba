"""The principals of a statement as clients, roles and roles of issuers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from kms.access.key_policy.asked import Asked
from kms.access.key_policy.malformed import INVALID_PRINCIPALS, Malformed

_ACCOUNT = re.compile(r"[0-9]{12}", re.ASCII)
_ROOT = re.compile(r"arn:aws:iam::(?P<account>[0-9]{12}):root", re.ASCII)
_NAMED = re.compile(
    r"arn:aws:iam::(?P<account>[0-9]{12}):(?P<kind>user|role)/(?P<path>(?:[\w+=,.@-]+/)*)(?P<name>[\w+=,.@-]+)",
    re.ASCII,
)
_SESSION = re.compile(
    r"arn:aws:sts::(?P<account>[0-9]{12}):assumed-role/(?P<name>[\w+=,.@-]+)/(?P<session>[\w+=,.@-]+)", re.ASCII
)
_OF_SERVICES = "aws-service-role/"
"""The path of the roles that AWS's services have in an account."""

_ROLES = frozenset({"admin", "user", "auditor"})


@dataclass(frozen=True, slots=True)
class Principals:
    """Whom a statement is about.

    `everybody` stands for `*`; `account` for the account as a whole; `named` holds our words for each that is named.
    Services, foreign accounts and federated users are nobody here. With `but` it is about all others.
    """

    everybody: bool = False
    account: bool = False
    named: frozenset[frozenset[str]] = frozenset()
    but: bool = False

    @property
    def is_nobody(self) -> bool:
        """Whether it can be about nobody at all."""
        return not (self.everybody or self.account or self.named or self.but)

    def include(self, asked: Asked, *, deny: bool) -> bool:
        """Whether a statement that allows, or one that denies, is about who asks.

        The account is the owner of the key where it is allowed something: what AWS leaves to the account's own
        policies is the owner's here. It is everybody where something is denied.
        """
        named = any(not words.isdisjoint(asked.principals) for words in self.named)
        if self.but:  # as with AWS, who is exempt is so only where the account is exempt too
            return not (self.everybody or (self.account and (named or asked.is_owner)))
        return self.everybody or named or (self.account and (deny or asked.is_owner))

    def require_known(self, exists: Callable[[str], bool]) -> None:
        """Return if each that is named exists, by one of its words. Raises Malformed."""
        if not all(any(exists(word) for word in words) for words in self.named):
            raise Malformed(INVALID_PRINCIPALS)


def principals_of(given: object, account: str, *, but: bool = False) -> Principals:
    """The principals that stand in a document of an account. Raises Malformed."""
    if given == "*":
        return Principals(everybody=True, but=but)
    if (
        not isinstance(given, dict)
        or not given
        or not given.keys() <= {"AWS", "Service", "Federated", "CanonicalUser"}
    ):
        raise Malformed(INVALID_PRINCIPALS)
    texts = {kind: _texts(value) for kind, value in given.items()}
    everybody = whole = False
    named = set()
    for text in texts.get("AWS", ()):
        if text == "*":
            everybody = True
        elif _account_of(text):
            whole = whole or _account_of(text) == account
        elif words := _words(text, account):
            named.add(words)
    return Principals(everybody, whole, frozenset(named), but)


def _texts(value: object) -> list[str]:
    given = value if isinstance(value, list) else [value]
    texts = [each for each in given if type(each) is str and each]
    if not texts or len(texts) != len(given):
        raise Malformed(INVALID_PRINCIPALS)
    return texts


def _account_of(text: str) -> str:
    """The account that stands for all in it, empty for other principals."""
    if _ACCOUNT.fullmatch(text):
        return text
    found = _ROOT.fullmatch(text)
    return found["account"] if found else ""


def _words(text: str, account: str) -> frozenset[str]:
    """Our words for a user, a role or a session of a role; none for those of foreign accounts and of services.

    Who may take on a role chooses the name of the session, so that a session stands for its role. Raises Malformed.
    """
    found = _NAMED.fullmatch(text) or _SESSION.fullmatch(text)
    if found is None:
        raise Malformed(INVALID_PRINCIPALS)
    parts = found.groupdict()
    if parts["account"] != account or (parts.get("path") or "").startswith(_OF_SERVICES):
        return frozenset()
    name = parts["name"]
    if "session" in parts:
        return frozenset({f"issuer-role:{name}"})
    if parts["kind"] == "user":
        return frozenset({f"client:{name}"})
    if name in _ROLES:
        return frozenset({f"role:{name}"})
    return frozenset({f"issuer-role:{name}", f"client:{name}"})
