"""The revocation list."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Response

from kms.api.console.routes import page
from kms.api.console.visit import Visit
from kms.operations import TextAnswer
from kms.revocation.published import RevocationList

_MOST = 500


@page("/revocations")
def revocations(visit: Visit) -> Response:
    """What is published as revoked, the newest first."""
    answer: Any = visit.run("revocation_list")
    published = msgspec.json.decode(answer.body, type=RevocationList) if isinstance(answer, TextAnswer) else answer
    entries = list(published.revoked_keys)[::-1]
    wanted = (visit.query.get("key") or "").strip()
    if wanted:
        entries = [each for each in entries if each.key_id.startswith(wanted)]
    return visit.render(
        "revocations.html", entries=entries[:_MOST], total=len(entries), wanted=wanted, published=published
    )
