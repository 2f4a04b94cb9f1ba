"""A column type for SQLAlchemy models whose texts are encrypted in this process before they go to the database.

    class Customer(Base):
        __tablename__ = "customers"
        id: Mapped[int] = mapped_column(primary_key=True)
        email: Mapped[str] = mapped_column(EncryptedString(envelope, "customers.email"))

A value is bound to its column, not to its row: who can write to the database can put the value of one row into
another one. It cannot be searched or sorted by, for each encryption of the same text is another one.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import LargeBinary
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from kms.client.envelope import Envelope


class EncryptedString(TypeDecorator[str]):
    """A text, kept in the envelope format. `column` is what it is bound to, such as `customers.email`.

    `envelope` can be a function that gives one, where the models are declared before the client is configured.
    Reading raises what `Envelope.decrypt` raises.
    """

    impl = LargeBinary
    cache_ok = True

    def __init__(self, envelope: Envelope | Callable[[], Envelope], column: str) -> None:
        super().__init__()
        self.envelope, self.column = envelope, column

    @property
    def python_type(self) -> type[str]:
        """What programs see."""
        return str

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        """Encrypt what goes to the database."""
        return None if value is None else self._envelope.encrypt(value.encode(), self.column.encode())

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> str | None:
        """Decrypt what comes from it."""
        return None if value is None else self._envelope.decrypt(value, self.column.encode()).decode()

    @property
    def _envelope(self) -> Envelope:
        return self.envelope if isinstance(self.envelope, Envelope) else self.envelope()
