"""Encrypted columns, in a real database, by SQLAlchemy and by Django."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Column, MetaData, Table, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from kms.client import Client, Envelope
from kms.client.errors import NotAuthentic
from kms.client.sqlalchemy import EncryptedString, NotEncrypted

DJANGO = """
import sys, types
import django
from django.conf import settings
from kms.client import Client, Envelope
from kms.client.errors import NotAuthentic

url, ca, token, database = sys.argv[1:]
keys = types.ModuleType("shop_keys")
keys.made = Envelope(Client(url, ca=ca, token=token), "orders")
keys.envelope = lambda: keys.made
sys.modules["shop_keys"] = keys
settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": database}},
                   INSTALLED_APPS=[], DEFAULT_AUTO_FIELD="django.db.models.AutoField")
django.setup()
from django.core.exceptions import FieldError
from django.db import connection, models
from kms.client import KmsError
from django.db.migrations.writer import MigrationWriter
from kms.client.django import EncryptedTextField

class Customer(models.Model):
    email = EncryptedTextField(envelope="shop_keys.envelope", null=True)
    class Meta:
        app_label = "shop"

with connection.schema_editor() as editor:
    editor.create_model(Customer)
Customer.objects.create(email="ada@example.org")
Customer.objects.create(email=None)
assert [each.email for each in Customer.objects.order_by("id")] == ["ada@example.org", None]
Customer.objects.filter(id=1).update(email="grace@example.org")
found = Customer.objects.get(id=1)
assert found.email == "grace@example.org"
found.full_clean(exclude=["id"])
assert Customer.objects.filter(email__isnull=True).count() == 1
for refused in (lambda: Customer.objects.filter(email="grace@example.org").count(),
                lambda: Customer.objects.exclude(email="grace@example.org").count(),
                lambda: Customer.objects.update(email=models.Value("in clear"))):
    try:
        refused()
    except (KmsError, FieldError):
        continue
    raise AssertionError
print(MigrationWriter.serialize(Customer._meta.get_field("email"))[0])
"""


def test_sqlalchemy(alice: Client, tmp_path: Path) -> None:
    envelope = Envelope(alice, "orders")

    class Base(DeclarativeBase):
        pass

    class Customer(Base):
        __tablename__ = "customers"
        id: Mapped[int] = mapped_column(primary_key=True)
        email: Mapped[str | None] = mapped_column(EncryptedString(lambda: envelope, "customers.email"))
        phone: Mapped[str | None] = mapped_column(EncryptedString(envelope, "customers.phone"))

    engine = create_engine(f"sqlite:///{tmp_path / 'shop.db'}")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Customer(email="ada@example.org", phone=None))
        session.commit()
        found = session.scalars(select(Customer)).one()
        assert (found.email, found.phone) == ("ada@example.org", None)
        assert len(session.scalars(select(Customer).where(Customer.phone.is_(None))).all()) == 1
        assert len(session.scalars(select(Customer).where(Customer.phone == None)).all()) == 1  # noqa: E711
        for compare in (lambda: Customer.email == "ada@example.org", lambda: Customer.email.in_(["x"])):
            with pytest.raises(NotEncrypted, match="compared"):
                compare()
    engine.dispose()
    kept = (tmp_path / "shop.db").read_bytes()
    assert b"ada@example" not in kept
    assert b"kmsenv" in kept
    with sqlite3.connect(tmp_path / "shop.db") as database:
        database.execute("UPDATE customers SET phone = email")  # a value put into another column
    with Session(engine) as session, pytest.raises(NotAuthentic, match="associated data"):
        session.scalars(select(Customer)).one()
    engine.dispose()


def test_an_error_does_not_show_the_plaintext() -> None:
    away = Envelope(Client("https://localhost:1", token="t", patience=0), "orders")
    table = Table("t", MetaData(), Column("email", EncryptedString(away, "t.email")))
    engine = create_engine("sqlite://")
    table.metadata.create_all(engine)
    with engine.connect() as connection, pytest.raises(NotEncrypted) as told:
        connection.execute(table.insert(), {"email": "ada@example.org"})
    assert "ada" not in f"{told.value}{told.value.__cause__}{told.value.__context__}"
    assert "cannot be reached" in str(told.value)
    engine.dispose()


def test_django(alice: Client, tmp_path: Path) -> None:
    own = alice.connection
    arguments = [own.url, str(own.ca), own.token(), str(tmp_path / "shop.db")]
    done = subprocess.run([sys.executable, "-c", DJANGO, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "envelope='shop_keys.envelope'" in done.stdout
    assert b"example.org" not in (tmp_path / "shop.db").read_bytes()
