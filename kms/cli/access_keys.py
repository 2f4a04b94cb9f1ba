"""`access-key`: what programs sign their requests with."""

from __future__ import annotations

from pathlib import Path

import click

from kms.cli import remote, show
from kms.client import kept_login

_PATH = ("api", "v1", "access-keys")


@click.group("access-key")
def access_key() -> None:
    """Make, list and delete access keys, for programs that use the AWS KMS interface."""


@access_key.command()
@click.option("--expires-in", type=int, help="Seconds.  [default: as long as the service allows]")
@click.option(
    "--needs-second-factor",
    is_flag=True,
    help="The key can only get short-lived access keys from STS, with a TOTP code.",
)
@click.option("--profile", help="Write it into ~/.aws as this profile, instead of showing it.")
@click.option("--region", default="us-east-1", show_default=True, help="The region of the profile.")
def create(expires_in: int | None, profile: str | None, region: str, *, needs_second_factor: bool) -> None:
    """Make an access key for yourself. Its secret is shown only now.

    \b
    For example:
      kms access-key create --profile kms
    """
    body: dict[str, int] = {} if expires_in is None else {"expires_in": expires_in}
    if needs_second_factor:
        body["needs_second_factor"] = True
    answer = remote.call("POST", *_PATH, body=body)
    if profile is None:
        show.document(answer)
        return
    session = kept_login.current()
    # The endpoint first: a profile that has the secret alone would send what it encrypts to Amazon.
    for name, section, values in (
        (
            "config",
            f"profile {profile}",
            {
                "region": region,
                "endpoint_url": session.url,
                **({"ca_bundle": session.ca_cert} if session.ca_cert else {}),
            },
        ),
        (
            "credentials",
            profile,
            {
                "aws_access_key_id": answer["access_key_id"],
                "aws_secret_access_key": answer["secret_access_key"],
            },
        ),
    ):
        remote.save_section(Path.home() / ".aws" / name, section, values)
    click.echo(f"Wrote the profile {profile}; it ends at {answer['expires_at']}.")


@access_key.command("list")
def list_() -> None:
    """List your access keys.

    \b
    For example:
      kms access-key list
    """
    items = remote.call("GET", *_PATH)["items"]
    show.table(items, "access_key_id", "created_at", "expires_at")


@access_key.command()
@click.argument("access_key_id")
def delete(access_key_id: str) -> None:
    """Delete one of your access keys, and end what was obtained with it.

    \b
    For example:
      kms access-key delete $ACCESS_KEY_ID
    """
    show.document(remote.call("DELETE", *_PATH, access_key_id))
