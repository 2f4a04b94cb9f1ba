"""A bar chart as SVG, for the README."""

from __future__ import annotations

from html import escape

_ROW, _LEFT, _WIDTH = 26, 190, 760


def svg(figures: dict[str, float]) -> str:
    """Horizontal bars, one for each name; the longest fills the width."""
    longest = max(figures.values())
    rows = []
    for at, (name, value) in enumerate(figures.items()):
        y, width = at * _ROW, (_WIDTH - _LEFT - 90) * value / longest
        rows.append(
            f'<text x="{_LEFT - 8}" y="{y + 17}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{_LEFT}" y="{y + 4}" width="{width:.1f}" height="{_ROW - 8}" fill="#3b7dd8"/>'
            f'<text x="{_LEFT + width + 6:.1f}" y="{y + 17}">{value:,.0f}/s</text>'
        )
    height = len(figures) * _ROW
    style = "font:13px system-ui,sans-serif;fill:#777"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" style="{style}">'
    return head + "".join(rows) + "</svg>\n"
