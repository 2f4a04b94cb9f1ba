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
from typing import Any

from sqlalchemy import LargeBinary
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.sql.elements import Null
from sqlalchemy.sql.operators import is_, is_not
from sqlalchemy.types import TypeDecorator

from kms.client.envelope import Envelope
from kms.client.errors import KmsError


class NotEncrypted(KmsError, DontWrapMixin):
    """A value could not be encrypted; the cause is the KmsError that says why.

    SQLAlchemy hands it on as it is. Any other error it would show together with the parameters, not yet encrypted.
    """


class EncryptedString(TypeDecorator[str]):
    """A text, kept in the envelope format. `column` is what it is bound to, such as `customers.email`.

    `envelope` can be a function that gives one, where the models are declared before the client is configured.
    Reading raises what `Envelope.decrypt` raises.
    """

    impl = LargeBinary
    cache_ok = True

    class comparator_factory(TypeDecorator.Comparator[str]):  # noqa: N801  # SQLAlchemy's name
        """Raises NotEncrypted for comparisons but those with NULL: each encryption of a text is another one."""

        def operate(self, op: Any, *other: Any, **options: Any) -> Any:
            """Only what asks for NULL, and an order by whatever is there."""
            if other and other != (None,) and not (op in {is_, is_not} and isinstance(other[0], Null)):
                raise NotEncrypted("An encrypted column cannot be compared with anything but NULL.")
            return super().operate(op, *other, **options)

    def __init__(self, envelope: Envelope | Callable[[], Envelope], column: str) -> None:
        super().__init__()
        self.envelope, self.column = envelope, column

    @property
    def python_type(self) -> type[str]:
        """What programs see."""
        return str

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        """Encrypt what goes to the database."""
        if value is None:
            return None
        try:
            return self._envelope.encrypt(value.encode(), self.column.encode())
        except KmsError as error:
            raise NotEncrypted(str(error)) from error

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> str | None:
        """Decrypt what comes from it."""
        return None if value is None else self._envelope.decrypt(value, self.column.encode()).decode()

    @property
    def _envelope(self) -> Envelope:
        return self.envelope if isinstance(self.envelope, Envelope) else self.envelope()
