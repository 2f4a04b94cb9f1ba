"""The `kms` command: a client of the service, for people and their scripts."""

from __future__ import annotations

import click

from kms import __version__
from kms.cli.failing import Commands

_COMMANDS = {
    "login": "kms.cli.session:login",
    "logout": "kms.cli.session:logout",
    "confirm": "kms.cli.session:confirm",
    "whoami": "kms.cli.session:whoami",
    "status": "kms.cli.status:status",
    "encrypt": "kms.cli.crypt:encrypt",
    "decrypt": "kms.cli.crypt:decrypt",
    "rewrap": "kms.cli.crypt:rewrap",
    "inspect": "kms.cli.crypt:inspect",
    "sign": "kms.cli.sign:sign",
    "verify": "kms.cli.sign:verify",
    "mac": "kms.cli.sign:mac",
    "key": "kms.cli.keys:key",
    "revocations": "kms.cli.revocations:revocations",
    "client": "kms.cli.clients:client",
    "group": "kms.cli.groups:group",
    "issuer": "kms.cli.issuers:issuer",
    "grant": "kms.cli.grants:grant",
    "policy": "kms.cli.policy:policy",
    "access-key": "kms.cli.access_keys:access_key",
    "audit": "kms.cli.audit:audit",
    "notice": "kms.cli.notices:notice",
    "call": "kms.cli.call:call",
    "vault": "kms.cli.vault:vault",
    "serve": "kms.server:main",
    "completion": "kms.cli.completion:completion",
    "man": "kms.cli.manual:man",
}


@click.group(cls=Commands, lazy=_COMMANDS)
@click.version_option(__version__)
def main() -> None:
    """Keys of a Key Management System: make them, use them, rotate and revoke them.

    Log in first: `kms login`. The token is kept in a file that only you can read, and so is a configuration for curl.
    """


__all__ = ["main"]
