"""What came with a request of a browser: from where its form was sent, and what is in it."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from werkzeug.datastructures import Headers

from kms.errors import MalformedRequest, PermissionDenied, UnsupportedMediaType

_MOST_FIELDS = 200
_FORM = "application/x-www-form-urlencoded"
_ELSEWHERE = "This form was sent from another page than the console's. Open the console and try again there."
_STALE = "This form is not one of your session. Open the page again and repeat what you did."

Form = dict[str, list[str]]


def require_own_origin(headers: Headers, public_url: str | None) -> None:
    """Return if a browser sent the form from a page of this very origin. Raises PermissionDenied.

    `Sec-Fetch-Site` (Fetch Metadata) is set by browsers alone. `Origin` is `null` in forms of pages that send no
    referrer, as the console's are, so that it decides only where the other is missing.
    """
    site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
    if site is not None and site != "same-origin":
        raise PermissionDenied(_ELSEWHERE)
    if origin in (None, "null"):
        if site is None:
            raise PermissionDenied(_ELSEWHERE)
        return
    own = {f"https://{headers.get('Host', '')}".lower()}
    if public_url is not None:
        parts = urlsplit(public_url)
        own.add(f"{parts.scheme}://{parts.netloc}".lower())
    if str(origin).lower() not in own:
        raise PermissionDenied(_ELSEWHERE)


def require_csrf_token(form: Form, expected: str) -> None:
    """Return if the form carries what the session's forms carry. Raises PermissionDenied."""
    given = form.get("csrf", [""])
    if len(given) != 1 or not hmac.compare_digest(given[0].encode(), expected.encode()):
        raise PermissionDenied(_STALE)


def form_of(mimetype: str, body: bytes) -> Form:
    """The fields of a form. Raises UnsupportedMediaType, MalformedRequest."""
    if body and mimetype != _FORM:
        raise UnsupportedMediaType(f"The console takes forms: {_FORM}.")
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError:
        raise MalformedRequest("The form cannot be read.") from None
    form: Form = {}
    for name, value in pairs:
        form.setdefault(name, []).append(value.replace("\r\n", "\n"))
    return form


def text(form: Mapping[str, list[str]], name: str) -> str:
    """The one value of a field; empty where it was left empty. Raises MalformedRequest where there are several."""
    values = form.get(name, [""])
    if len(values) != 1:
        raise MalformedRequest(f"{name}: give it once.")
    return values[0]
