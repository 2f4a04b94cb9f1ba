"""Giving a key out, wrapped under somebody's public key."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from flask import Response
from msgspec import UNSET

from kms.api.console.routes import act, page
from kms.api.console.visit import Visit
from kms.errors import Refusal


@page("/keys/<key_id>/export")
def export_form(visit: Visit, key_id: str, refusal: Refusal | None = None) -> Response:
    """Say what it means to give a key out, and ask to whom."""
    key = visit.run("get_key", key_id=key_id)
    return visit.render("export.html", refusal, fields=("recipient_public_key", "version"), key=key)


@act("/keys/<key_id>/export", again=export_form)
def export(visit: Visit, key_id: str) -> Response:
    """Show it, wrapped."""
    visit.confirm()
    values = {"recipient_public_key": visit.field("recipient_public_key"), "version": visit.field("version")}
    answer: Any = visit.run("export_key", values, key_id=key_id)
    return visit.render(
        "exported.html",
        answer=answer,
        wrapped=b64encode(answer.wrapped_key).decode(),
        suite="" if answer.suite is UNSET else answer.suite,
    )
