"""A model field for Django whose texts are encrypted in this process before they go to the database.

    class Customer(models.Model):
        email = EncryptedTextField(envelope="shop.keys.envelope")

`envelope` names a function, or an `Envelope`, by its place. What `kms.client.sqlalchemy` says of such columns holds
here too.
"""

from __future__ import annotations

from typing import Any

from django.db import models
from django.utils.module_loading import import_string

from kms.client.envelope import Envelope
from kms.client.errors import KmsError


class EncryptedTextField(models.BinaryField):  # type: ignore[misc]  # Django carries no types
    """A text, kept in the envelope format and bound to its table and column."""

    def __init__(self, *args: Any, envelope: str, **options: Any) -> None:
        super().__init__(*args, **{"editable": True, **options})
        self.envelope = envelope

    def deconstruct(self) -> tuple[str, str, list[Any], dict[str, Any]]:
        """What migrations write: the place of the envelope, and nothing secret."""
        name, path, args, options = super().deconstruct()
        return name, path, args, {**options, "envelope": self.envelope}

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """Encrypt what goes to the database."""
        sealed = None if value is None else self._envelope().encrypt(value.encode(), self._bound())
        return super().get_db_prep_value(sealed, connection, prepared)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> str | None:
        """Decrypt what comes from it."""
        return None if value is None else self._envelope().decrypt(bytes(value), self._bound()).decode()

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        """Raise KmsError for an expression, which would go to the database as it is."""
        if hasattr(value, "as_sql"):
            raise KmsError(f"{self.name} is encrypted here: give it a text, and no expression.")
        return super().get_db_prep_save(value, connection)

    def get_lookup(self, lookup_name: str) -> Any:
        """Only `isnull`: each encryption of the same text is another one, so that no comparison tells anything."""
        return super().get_lookup(lookup_name) if lookup_name == "isnull" else None

    def value_to_string(self, obj: Any) -> str:
        """The text, for serializers."""
        return str(self.value_from_object(obj))

    def to_python(self, value: Any) -> Any:
        """A text stays one."""
        return value

    def _bound(self) -> bytes:
        return f"{self.model._meta.db_table}.{self.column}".encode()

    def _envelope(self) -> Envelope:
        found = import_string(self.envelope)
        return found if isinstance(found, Envelope) else found()
