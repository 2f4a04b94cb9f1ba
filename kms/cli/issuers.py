"""`issuer`: platforms whose tokens let programs in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from kms.cli import remote, show
from kms.cli.pairs import pair

_ISSUERS = ("api", "v1", "issuers")
_ROLES = ("api", "v1", "issuer-roles")


def _with_keys(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--jwks", type=click.Path(path_type=Path), help="A file with its JWK set."),
        click.option("--jwks-uri", help="The URL of its JWK set; KMS_JWKS_HOSTS of the service must list the host."),
    ):
        command = option(command)
    return command


@click.group()
def issuer() -> None:
    """Let programs log in with tokens of a platform, such as Kubernetes or a CI system; for administrators."""


@issuer.command()
@click.argument("name", metavar="ISSUER")
@click.option("--audience", required=True, help="What `aud` of its tokens says for this service.")
@_with_keys
def add(name: str, audience: str, jwks: Path | None, jwks_uri: str | None) -> None:
    """Trust the tokens of an issuer, for the roles that name it. ISSUER is exactly what the claim `iss` says.

    \b
    For example:
      kms issuer add https://kubernetes.default.svc --audience kms --jwks cluster.json
    """
    body = {"issuer": name, "audience": audience, **_keys(jwks, jwks_uri)}
    show.document(remote.call("POST", *_ISSUERS, body=body))


@issuer.command("set-keys")
@click.argument("name", metavar="ISSUER")
@_with_keys
def set_keys(name: str, jwks: Path | None, jwks_uri: str | None) -> None:
    """Replace the public keys of an issuer; its roles and their sessions stay.

    \b
    For example:
      kms issuer set-keys https://kubernetes.default.svc --jwks cluster.json
    """
    body = _keys(jwks, jwks_uri)
    show.document(remote.call("PATCH", *_ISSUERS, _id_of(name), body=body))


@issuer.command("list")
def list_() -> None:
    """List the trusted issuers.

    \b
    For example:
      kms issuer list
    """
    columns = "issuer_id", "issuer", "audience", "kids", "jwks_uri", "fetched_at"
    show.table(remote.pages(*_ISSUERS), *columns)


@issuer.command()
@click.argument("name", metavar="ISSUER")
@click.confirmation_option(prompt="Its roles, and the sessions opened through them, end too. Remove it?")
def remove(name: str) -> None:
    """Stop trusting an issuer; its roles, and the sessions opened through them, end before this returns.

    \b
    For example:
      kms issuer remove https://kubernetes.default.svc
    """
    show.document(remote.call("DELETE", *_ISSUERS, _id_of(name)))


@issuer.command("add-role")
@click.argument("role")
@click.option("--issuer", "issuer_name", required=True, help="What `iss` says, or an id as `issuer list` shows it.")
@click.option(
    "--claim",
    "claims",
    multiple=True,
    metavar="NAME=PATTERN",
    help="A claim that the token must have, and its pattern. If a NAME is repeated, one of its patterns must match.",
)
@click.option("--claim-json", "values", multiple=True, metavar="NAME=VALUE", help="true, false, or a number.")
@click.option("--client", "client_id", required=True, help="The client as which the programs log in.")
@click.option("--scope", default="", help="Limits their sessions, such as 'keys:encrypt@orders-*'.")
@click.option("--token-lifetime", help="How long their sessions live at most, such as PT10M.")
def add_role(
    role: str,
    issuer_name: str,
    claims: tuple[str, ...],
    values: tuple[str, ...],
    client_id: str,
    scope: str,
    token_lifetime: str | None,
) -> None:
    """Let programs log in as a client if their token has all the claims that --claim asks for.

    \b
    For example:
      kms issuer add-role pay --issuer https://issuer.example --claim sub=pod-7 --client pay
    """
    body = {"role": role, "issuer": issuer_name, "claims": _claims(claims, values), "client_id": client_id}
    optional = {"scope": scope or None, "token_lifetime": token_lifetime}
    body |= {name: value for name, value in optional.items() if value is not None}
    show.document(remote.call("POST", *_ROLES, body=body))


@issuer.command()
def roles() -> None:
    """List the issuer roles.

    \b
    For example:
      kms issuer roles
    """
    columns = "role", "issuer_id", "client_id", "claims", "scope", "token_lifetime"
    show.table(remote.pages(*_ROLES), *columns)


@issuer.command("remove-role")
@click.argument("role")
@click.confirmation_option(prompt="The sessions opened through this role end, too. Remove it?")
def remove_role(role: str) -> None:
    """Remove an issuer role; the sessions opened through it end before this returns.

    \b
    For example:
      kms issuer remove-role pay
    """
    show.document(remote.call("DELETE", *_ROLES, role))


def _id_of(name: str) -> str:
    """The id of the issuer of that id or `iss`. Raises ClickException unless there is one."""
    found = [each["issuer_id"] for each in remote.pages(*_ISSUERS) if name in (each["issuer"], each["issuer_id"])]
    if len(found) > 1:
        raise click.ClickException(f"It is trusted for several audiences. Name one by its id: {', '.join(found)}.")
    if not found:
        raise click.ClickException(f"There is no issuer {name}; `issuer list` shows those that are trusted.")
    return str(found[0])


def _keys(jwks: Path | None, jwks_uri: str | None) -> dict[str, Any]:
    if (jwks is None) == (jwks_uri is None):
        raise click.UsageError("Give one of --jwks and --jwks-uri.")
    return {"jwks_uri": jwks_uri} if jwks is None else {"jwks": _json_of(jwks)}


def _claims(patterns: tuple[str, ...], values: tuple[str, ...]) -> dict[str, Any]:
    """The member `claims` of an issuer role: `patterns` (of a name perhaps several), and `values` other than text."""
    given: dict[str, Any] = {}
    for name, pattern in (pair(each, "--claim") for each in patterns):
        given.setdefault(name, []).append(pattern)
    bound = {name: each if len(each) > 1 else each[0] for name, each in given.items()}
    for name, value in (pair(each, "--claim-json") for each in values):
        if name in bound:
            raise click.BadParameter(f"{name} is bound twice.", param_hint="--claim-json")
        try:
            bound[name] = json.loads(value)
        except ValueError:
            raise click.BadParameter(f"{value} is not JSON.", param_hint="--claim-json") from None
    return bound


def _json_of(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise click.ClickException(f"{path} is not a JWK set that can be read.") from None
