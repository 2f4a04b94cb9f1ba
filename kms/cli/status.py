"""`status`: how the service is, on one screen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Column, Table

from kms.cli import remote, show
from kms.client import kept_login
from kms.client.connection import Connection
from kms.client.errors import AuthenticationFailed, KmsError, NotFound, NotLoggedIn, PermissionDenied
from kms.client.kept_login import KeptLogin

_DEFAULT_URL = "https://localhost:8443"
_LOG_IN = "log in as an administrator or auditor (`kms login`) to see more"


@click.command()
@click.option("--url", envvar="KMS_URL", help=f"The service.  [default: that of the login, or {_DEFAULT_URL}]")
@click.option(
    "--ca-cert",
    envvar="KMS_CA_CERT",
    type=click.Path(exists=True, path_type=Path),
    help="Trust this certificate.  [default: that of the login, or server.crt here]",
)
def status(url: str | None, ca_cert: Path | None) -> None:
    """Show how the service is, and as whom you are logged in. The exit code is 7 if it is not ready.

    Without a login it shows whether the service is ready, or why not. Administrators and auditors see nodes,
    database, checks, backlogs and keys by state, and what to act on.

    \b
    For example:
      kms status
    """
    kept = login_or_named(url, ca_cert)
    found: dict[str, Any] = {"url": kept.url, "ca_cert": kept.ca_cert or "(the system's)"}
    if kept.client_id:
        found["client_id"] = kept.client_id
    if kept.expires_at is not None:
        found["session_ends"] = f"{kept.expires_at:%Y-%m-%dT%H:%M:%SZ}"
    try:
        lines = Connection(kept.url, ca=kept.ca_cert, patience=0).public("/readyz?verbose").decode().splitlines()
        found["service"] = "ready"
        full = _full_status(kept, found)
    except KmsError as error:
        found["service"] = str(error)
        show.document(found)
        raise
    if full is None:
        show.document(found | dict(line.split(": ", 1) for line in lines if ": " in line))
    elif show.as_json():
        show.document(found | full)
    else:
        show.document(found)
        _print(full)


def login_or_named(url: str | None, ca_cert: Path | None) -> KeptLogin:
    """The login that is kept, unless another service is named; without a token where there is none for that."""
    try:
        kept = kept_login.current()
    except NotLoggedIn:
        kept = None
    is_its_own = ca_cert is None or (kept is not None and str(ca_cert.resolve()) == kept.ca_cert)
    if kept is not None and url in (None, kept.url) and is_its_own:
        return kept
    trusted = ca_cert or (Path("server.crt") if Path("server.crt").exists() else None)
    return KeptLogin(url or (kept.url if kept else _DEFAULT_URL), str(trusted) if trusted else None, "")


def _full_status(kept: KeptLogin, found: dict[str, Any]) -> dict[str, Any] | None:
    """What the service tells operators; None where it tells this login nothing, with the reason in `found`."""
    if not kept.token:
        found["more"] = _LOG_IN
        return None
    try:
        return dict(remote.call("GET", "api", "v1", "status"))
    except AuthenticationFailed:
        found["more"] = f"the session has ended: {_LOG_IN}"
    except (PermissionDenied, NotFound):  # not found: by an older service
        found["more"] = _LOG_IN
    return None


def _print(full: Mapping[str, Any]) -> None:
    """The answer for people: what to act on, then a line for each section, whatever sections there are."""
    console = Console(highlight=False)
    for sentence in full["attention"]:
        console.print(f"! {show.plain(sentence)}", style="yellow", markup=False)
    grid = Table.grid(Column(style="bold", no_wrap=True), Column(overflow="fold"), padding=(0, 2, 0, 0))
    for name, section in full.items():
        if isinstance(section, Mapping):
            grid.add_row(_words(name), show.plain(" · ".join(_parts(section))))
        elif isinstance(section, list) and name != "attention":
            for each in section:
                grid.add_row(_words(name), show.plain(" · ".join(_parts(each))))
    console.print(grid)


def _parts(section: Mapping[str, Any]) -> Iterator[str]:
    for name, value in section.items():
        if isinstance(value, Mapping):
            yield from _parts(value)
        elif isinstance(value, bool):
            if value:
                yield _words(name)
        else:
            yield f"{_words(name)} {show.plain_value(value)}"


def _words(name: str) -> str:
    return name.replace("_", " ")
