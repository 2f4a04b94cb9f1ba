"""What a key policy decides. An explicit Deny wins over everything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from kms.access.key_policy.actions import EVERY, OWNER_ONLY
from kms.access.key_policy.asked import Asked, Circumstances
from kms.access.key_policy.conditions import Condition
from kms.access.key_policy.malformed import LOCKS_OUT, Malformed
from kms.access.key_policy.principals import Principals

Effect = Literal["allow", "deny"]
_CHANGE = "PutKeyPolicy"
_NOTHING_KNOWN = Circumstances()


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy says: `effect` is None where it says nothing. `statement` is the one that decided."""

    effect: Effect | None
    statement: Statement | None


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement. `index` counts from 0, `sid` is empty where it has none. `actions` are those it means.

    `is_about` tests a key id against its Resource; `is_about_all` says that its Resource is `*`.
    """

    index: int
    sid: str
    effect: Effect
    principals: Principals
    actions: frozenset[str]
    conditions: tuple[Condition, ...]
    is_about: Callable[[str], bool]
    is_about_all: bool

    @property
    def name(self) -> str:
        """What it is called where it decides: its Sid, or its place, counted from 1."""
        return self.sid or f"statement {self.index + 1}"

    @property
    def depends_on_message(self) -> bool:
        """Whether some of its conditions are about what can differ from message to message."""
        return any(each.key.of_message is not None for each in self.conditions)

    def concerns(self, asked: Asked) -> bool:
        """Whether it is about this request, as far as that is known before a message is."""
        deny = self.effect == "deny"
        return (
            asked.action in self.actions
            and (deny or asked.action not in OWNER_ONLY or asked.is_owner)
            and self.principals.include(asked, deny=deny)
            and self.is_about(asked.key_id)
            and all(
                each.holds_for(each.key.of_request(asked), deny=deny)
                for each in self.conditions
                if each.key.of_request is not None
            )
        )

    def admits(self, circumstances: Circumstances) -> bool:
        """Whether its conditions on the message are met; the others are for `concerns`."""
        deny = self.effect == "deny"
        return all(
            each.holds_for(each.key.of_message(circumstances), deny=deny)
            for each in self.conditions
            if each.key.of_message is not None
        )


@dataclass(frozen=True, slots=True)
class Rules:
    """What a policy says of one caller and action: at once in `settled`, or by message with `denies` and `allows`.

    `allowed_by` allows whatever no Deny is about.
    """

    denies: tuple[Statement, ...]
    allows: tuple[Statement, ...]
    denied_by: Statement | None
    allowed_by: Statement | None

    @property
    def settled(self) -> Decision | None:
        """The decision, where it is the same for every message."""
        if self.denied_by is not None:
            return Decision("deny", self.denied_by)
        if self.denies or (self.allows and self.allowed_by is None):
            return None
        return Decision("allow", self.allowed_by) if self.allowed_by is not None else Decision(None, None)

    def decide(self, circumstances: Circumstances) -> Decision:
        """The decision for one message."""
        if self.denied_by is not None:
            return Decision("deny", self.denied_by)
        for each in self.denies:
            if each.admits(circumstances):
                return Decision("deny", each)
        if self.allowed_by is not None:
            return Decision("allow", self.allowed_by)
        for each in self.allows:
            if each.admits(circumstances):
                return Decision("allow", each)
        return Decision(None, None)


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """A key policy that can be enforced."""

    statements: tuple[Statement, ...]

    @property
    def needs_source(self) -> bool:
        """Whether it depends on the address of a caller."""
        return any(not each.key.is_settled and each.key.of_request for s in self.statements for each in s.conditions)

    def rules_for(self, asked: Asked) -> Rules:
        """What it says of this request before a message is known. Raises ValueError for an action that is none."""
        if asked.action not in EVERY:
            raise ValueError(f"{asked.action} is no action on keys")  # no Deny would be about it
        concerned = [each for each in self.statements if each.concerns(asked)]
        denies = [each for each in concerned if each.effect == "deny"]
        allows = [each for each in concerned if each.effect == "allow"]
        return Rules(
            denies=tuple(each for each in denies if each.depends_on_message),
            allows=tuple(each for each in allows if each.depends_on_message),
            denied_by=next((each for each in denies if not each.depends_on_message), None),
            allowed_by=next((each for each in allows if not each.depends_on_message), None),
        )

    def decide(self, asked: Asked, circumstances: Circumstances = _NOTHING_KNOWN) -> Decision:
        """The decision for one message of a request."""
        return self.rules_for(asked).decide(circumstances)

    def require_principals(self, exists: Callable[[str], bool]) -> None:
        """Return if everybody whom it names exists: `exists` is asked for `client:ID` and `issuer-role:NAME`.

        Raises Malformed.
        """
        for each in self.statements:
            each.principals.require_known(lambda word: word.startswith("role:") or exists(word))

    def require_kept_by(self, owner: frozenset[str], key_id: str | None) -> None:
        """Return if the owner of the key can always change the policy. Raises Malformed.

        `owner` are the principals of the owner, `client:ID` and its roles. `key_id` is None for a key that has none
        yet. What gives the right must name the owner, the account or everybody: a role can be taken away.
        """
        if not self.keeps_owner(owner, key_id):
            raise Malformed(LOCKS_OUT)

    def keeps_owner(self, owner: frozenset[str], key_id: str | None) -> bool:
        """Whether the owner may change the policy whatever the circumstances are: no Deny can ever be about that."""
        anyhow = Asked(_CHANGE, owner, is_owner=True, key_id=key_id or "")
        by_itself = replace(anyhow, principals=frozenset(each for each in owner if each.startswith("client:")))
        return any(_surely_allows(each, by_itself, known=key_id is not None) for each in self.statements) and not any(
            _can_deny(each, anyhow, known=key_id is not None) for each in self.statements
        )


def _surely_allows(statement: Statement, asked: Asked, *, known: bool) -> bool:
    return (
        statement.effect == "allow"
        and all(each.key.is_settled for each in statement.conditions)
        and (known or statement.is_about_all)
        and _is_met(statement, asked, known=known)
    )


def _can_deny(statement: Statement, asked: Asked, *, known: bool) -> bool:
    settled = tuple(each for each in statement.conditions if each.key.is_settled)
    return statement.effect == "deny" and _is_met(replace(statement, conditions=settled), asked, known=known)


def _is_met(statement: Statement, asked: Asked, *, known: bool) -> bool:
    """Whether a statement is about this request of the owner, who sends no message with it."""
    there = statement if known else replace(statement, is_about=lambda key_id: True)
    return there.concerns(asked) and there.admits(_NOTHING_KNOWN)
