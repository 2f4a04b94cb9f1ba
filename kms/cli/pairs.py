"""Options of the form NAME=VALUE."""

from __future__ import annotations

import click


def pair(text: str, option: str) -> tuple[str, str]:
    """Name and value of one such option, split at the first `=`. Raises BadParameter, which names the option."""
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise click.BadParameter(f"{text} is not NAME=VALUE.", param_hint=option)
    return name, value
