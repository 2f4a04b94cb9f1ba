"""`client`: who may call the service."""

from __future__ import annotations

import click

from kms.cli import credentials, remote, show
from kms.cli.recover import recover

_PATH = ("api", "v1", "clients")


@click.group()
def client() -> None:
    """Manage clients (for administrators), and your own keys, sessions and credentials.

    All of them call the service, except for `recover`, which runs on the host of the service.
    """


@client.command()
@click.argument("client_id")
@click.option("--role", "roles", multiple=True, default=["user"], show_default=True, help="user, admin or auditor.")
def create(client_id: str, roles: tuple[str, ...]) -> None:
    """Make a client. Its credentials are shown only now.

    \b
    For example:
      kms client create alice --role user
    """
    answer = remote.call("POST", *_PATH, body={"client_id": client_id, "roles": list(roles)})
    show.document(answer)
    show.qr_code(answer["totp_uri"])


@client.command("list")
def list_() -> None:
    """List clients.

    \b
    For example:
      kms client list
    """
    show.table(remote.pages(*_PATH), "client_id", "roles", "status", "created_at")


@client.command()
@click.argument("client_id")
def disable(client_id: str) -> None:
    """Disable a client: end its sessions, and refuse its requests until it is enabled again.

    \b
    For example:
      kms client disable alice
    """
    show.document(remote.call("POST", *_PATH, client_id, "disable"))


@client.command()
@click.argument("client_id")
def enable(client_id: str) -> None:
    """Enable a disabled client again.

    \b
    For example:
      kms client enable alice
    """
    show.document(remote.call("POST", *_PATH, client_id, "enable"))


@client.command()
@click.argument("client_id")
def reset_totp(client_id: str) -> None:
    """Give a client a new TOTP secret and new recovery codes. They are shown only now.

    \b
    For example:
      kms client reset-totp alice
    """
    answer = remote.call("POST", *_PATH, client_id, "reset-totp")
    show.document(answer)
    show.qr_code(answer["totp_uri"])


@client.command()
@click.argument("client_id")
@click.option("--passphrase", is_flag=True, help="Ask for a passphrase of your own, instead of making a secret.")
def rotate_secret(client_id: str, passphrase: bool) -> None:
    """Give a client a new secret. It is shown only now.

    \b
    For example:
      kms client rotate-secret alice --passphrase
    """
    body = {}
    if passphrase:
        body["passphrase"] = click.prompt("Passphrase", hide_input=True, confirmation_prompt=True)
    show.document(remote.call("POST", *_PATH, client_id, "rotate-secret", body=body))


@client.command()
@click.argument("client_id")
@click.confirmation_option(prompt="This client id can never be used again. Delete the client?")
def delete(client_id: str) -> None:
    """Delete a client; its keys stay.

    \b
    For example:
      kms client delete alice
    """
    show.document(remote.call("DELETE", *_PATH, client_id))


for command in (
    credentials.add_key,
    credentials.keys,
    credentials.remove_key,
    credentials.remove_certificate,
    credentials.sessions,
    credentials.end_session,
    credentials.credentials,
    credentials.end_credentials,
    recover,
):
    client.add_command(command)
