"""How pages are written: templates that escape everything, and files that are named by what is in them."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import segno
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from msgspec import UNSET

_HERE = Path(__file__).parent
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
MEDIA_TYPES = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""The files that pages use, by name."""


class Renderer:
    """The templates and the static files, read once."""

    def __init__(self) -> None:
        self.files = {name: (_HERE / "static" / name).read_bytes() for name in MEDIA_TYPES}
        self._addresses = {name: f"/console/static/{_digest(body)}/{name}" for name, body in self.files.items()}
        self._environment = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {"moment": moment, "period": period, "day": day, "qr": qr_code}
        self._environment.globals |= {"address": self._addresses.__getitem__, "UNSET": UNSET}

    def render(self, template: str, **given: Any) -> str:
        """A page."""
        return self._environment.get_template(template).render(**given)

    def static(self, digest: str, name: str) -> bytes | None:
        """A file, if that is its address now."""
        return self.files[name] if self._addresses.get(name) == f"/console/static/{digest}/{name}" else None


def _digest(body: bytes) -> str:
    return urlsafe_b64encode(hashlib.sha256(body).digest()[:12]).decode()


def moment(at: Any) -> Markup:
    """A time to the minute, in UTC; a dash for none."""
    if not isinstance(at, datetime):
        return Markup('<span class="none">–</span>')
    utc = at.astimezone(UTC)
    stamp = utc.strftime("%Y-%m-%dT%H:%M:%SZ")
    return Markup('<time datetime="{}">{}</time>').format(stamp, utc.strftime("%Y-%m-%d %H:%M"))


def day(at: Any) -> Markup:
    """The day of a time, in UTC; a dash for none."""
    if not isinstance(at, datetime):
        return Markup('<span class="none">–</span>')
    utc = at.astimezone(UTC)
    stamp = utc.strftime("%Y-%m-%dT%H:%M:%SZ")
    return Markup('<time datetime="{}">{}</time>').format(stamp, utc.strftime("%Y-%m-%d"))


def period(length: Any) -> str:
    """A period in words: days where it is whole days."""
    if not isinstance(length, timedelta):
        return "–"
    if length.seconds == 0 and length.days:
        return f"{length.days} day{'' if length.days == 1 else 's'}"
    minutes, rest = divmod(int(length.total_seconds()), 60)
    return f"{minutes} min" if not rest else f"{int(length.total_seconds())} s"


def qr_code(content: str) -> Markup:
    """A QR code as SVG that stands in the page; what is in it is a secret, and said in words beside it."""
    made = segno.make(content, error="m")
    matrix = [bytes(row) for row in made.matrix_iter(border=4)]
    path = "".join(f"M{x} {y}h1v1h-1z" for y, row in enumerate(matrix) for x, is_dark in enumerate(row) if is_dark)
    size = len(matrix)
    return Markup(
        '<svg class="qr" role="img" aria-label="QR code of the link for the authenticator app" '
        'viewBox="0 0 {} {}" width="240" height="240" shape-rendering="crispEdges">'
        '<rect width="{}" height="{}" fill="#fff"/><path d="{}" fill="#000"/></svg>'
    ).format(size, size, size, size, path)
