"""Closed sets of words."""

from __future__ import annotations

from enum import StrEnum


class TextEnum(StrEnum):
    """A member of a closed set, hashed as the text it is.

    It equals its text, so it should have the same hash; and that of `Enum` is a call of Python code, which every
    look-up in a set of permissions would pay.
    """

    __hash__ = str.__hash__
