"""The `kms` command: a client of the service, for people and their scripts."""

from __future__ import annotations

import click

from kms import __version__
from kms.cli.commands import Commands, Lazy
from kms.process_protection import protect_process

_SECTIONS = {
    "Session": {
        "login": Lazy("kms.cli.session:login", "Log in, and keep the session in a file that only you can read."),
        "logout": Lazy("kms.cli.session:logout", "End the session, here and in the service."),
        "confirm": Lazy("kms.cli.session:confirm", "Give the code of the authenticator app again."),
        "whoami": Lazy("kms.cli.session:whoami", "Show as whom you are logged in, and until when."),
        "status": Lazy("kms.cli.status:status", "Show how the service is."),
    },
    "Files": {
        "encrypt": Lazy("kms.cli.crypt:encrypt", "Encrypt a file, a pipe or a directory."),
        "decrypt": Lazy("kms.cli.crypt:decrypt", "Decrypt them."),
        "rewrap": Lazy("kms.cli.crypt:rewrap", "Bring encrypted files under the latest version of their key."),
        "inspect": Lazy("kms.cli.crypt:inspect", "Show the key, version and context of an encrypted file."),
        "sign": Lazy("kms.cli.sign:sign", "Sign a file."),
        "verify": Lazy("kms.cli.sign:verify", "Check the signature of a file."),
        "mac": Lazy("kms.cli.sign:mac", "Make or check the message authentication code of a file."),
    },
    "Keys": {
        "key": Lazy("kms.cli.keys:key", "Make, list, rotate, revoke, import and export keys."),
        "revocations": Lazy("kms.cli.revocations:revocations", "List and check what is revoked, also offline."),
    },
    "Access": {
        "client": Lazy("kms.cli.clients:client", "Manage clients, their credentials and sessions."),
        "group": Lazy("kms.cli.groups:group", "Manage groups of clients."),
        "issuer": Lazy("kms.cli.issuers:issuer", "Let in programs whose platform signs tokens, such as Kubernetes."),
        "grant": Lazy("kms.cli.grants:grant", "Let others use your keys, and take that back."),
        "policy": Lazy("kms.cli.policy:policy", "Explain decisions, and simulate changes of grants."),
        "approvals": Lazy("kms.cli.approvals:approvals", "Approve or reject what others ask for."),
        "approval-rules": Lazy(
            "kms.cli.approval_rules:approval_rules", "Rule which calls need the approval of others."
        ),
        "access-key": Lazy("kms.cli.access_keys:access_key", "Manage access keys for programs of AWS and Vault."),
    },
    "Service": {
        "audit": Lazy("kms.cli.audit:audit", "See who did what."),
        "inventory": Lazy("kms.cli.inventory:inventory", "List what is held, what is due, and what is not safe."),
        "notice": Lazy("kms.cli.notices:notice", "Be told before keys expire, and when something happens."),
        "call": Lazy("kms.cli.call:call", "Carry out any operation of the service."),
        "unseal": Lazy("kms.cli.unseal:unseal", "Give a share to a service that is sealed, on its host."),
        "vault": Lazy("kms.cli.vault:vault", "Check, back up and restore the vault, on the service's host."),
        "serve": Lazy("kms.server:main", "Run the service."),
    },
    "Shell": {
        "completion": Lazy(
            "kms.cli.completion:completion", "Print what bash, zsh or fish needs to complete commands."
        ),
        "man": Lazy("kms.cli.manual:man", "Print the manual page."),
    },
}


@click.group(cls=Commands, sections=_SECTIONS)
@click.version_option(__version__)
def main() -> None:
    """Keys of a Key Management System: make them, use them, rotate and revoke them.

    Log in first: `kms login`. The token is kept in a file that only you can read, and so is a configuration for curl.
    """
    protect_process()


__all__ = ["main"]
