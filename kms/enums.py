"""The base class of enumerations whose members are text."""

from __future__ import annotations

from enum import StrEnum


class TextEnum(StrEnum):
    """A member of a closed set, hashed as the text it is.

    A member equals its text, so it should also have the same hash. The hash of `Enum` is written in Python and would
    slow down every look-up in a set of permissions.
    """

    __hash__ = str.__hash__
