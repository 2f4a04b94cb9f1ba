"""What tables are made of: their common metadata, the column of the code, and columns that came later."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, LargeBinary, MetaData

metadata = MetaData()
"""Every table of the service."""


def mac() -> Column[bytes]:
    """The row's authentication code (see `integrity`)."""
    return Column("mac", LargeBinary, nullable=False)


def added(name: str, kind: Any, default: str | int | None, **options: Any) -> Column[Any]:
    """A column that came later: a row that holds `default` there has the code that it had before."""
    return Column(name, kind, nullable=default is None, info={"default": default}, **options)
