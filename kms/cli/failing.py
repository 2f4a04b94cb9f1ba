"""How commands fail: a sentence on stderr, and an exit code that scripts can act on."""

from __future__ import annotations

import sys
from typing import Any

import click

from kms.cli import show
from kms.client import errors
from kms.errors import StartError

EXIT_CODES = (
    (0, "done", ()),
    (1, "any other failure", ()),
    (2, "the command was used wrongly", ()),
    (3, "log in: there is no session, or it has ended", (errors.NotLoggedIn, errors.AuthenticationFailed)),
    (3, "log in again: a recent second factor is needed", (errors.FreshSecondFactorNeeded,)),
    (4, "not allowed", (errors.PermissionDenied,)),
    (5, "not found", (errors.NotFound,)),
    (6, "conflict: the name is taken, or the state does not allow it", (errors.AlreadyExists, errors.StateConflict)),
    (7, "not now: try again", (errors.Unreachable, errors.RateLimited, errors.Unavailable)),
    (8, "not authentic: altered, cut off, or made by another key", (errors.NotAuthentic, errors.DecryptionFailed)),
    (8, "not authentic: not a file in the envelope format", (errors.NotAnEnvelope,)),
    (9, "the key was revoked, or its cryptoperiod has ended", (errors.KeyRevoked, errors.KeyExpired)),
)
NOT_AUTHENTIC = 8
REVOKED = 9
_ARGUMENTS = "kms.arguments"
_STEP_UP = (
    "This needs a second factor that was given a short while ago. Give it (`python -m kms confirm`), then run this "
    "command again."
)


class Failure(click.ClickException):
    """A command that failed, and how it ends."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self._ends_with = exit_code

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # a class variable there, one for each error here
        """The exit code of the process."""
        return self._ends_with


def failure_of(error: errors.KmsError | StartError) -> Failure:
    """The Failure for an error: the message that the command prints, and its exit code."""
    code = next((code for code, _, kinds in EXIT_CODES if isinstance(error, kinds)), 1)
    message = str(error)
    if isinstance(error, errors.FreshSecondFactorNeeded):
        message = _STEP_UP
    elif isinstance(error, errors.Refused) and error.retry_after is not None:
        wait = f"in {error.retry_after} s"
        message += "" if wait in message else f" Try again {wait}."
    return Failure(message, code)


def _unavailable(name: str) -> click.Command:
    """A placeholder for a command of the service, for use if only the packages of the client are installed."""

    def refuse() -> None:
        raise Failure(f"`{name}` needs the packages of the service, and only those of the client are installed.")

    return click.Command(name, callback=refuse, help="Needs the packages of the service, which are not installed.")


class Commands(click.Group):
    """A group of commands whose errors become a message and an exit code of this module.

    `lazy` maps names of commands to `module:name`; these are imported only when they are called.
    """

    def __init__(self, *arguments: Any, lazy: dict[str, str] | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._lazy = lazy or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them, in the order in which people meet them."""
        return [*self._lazy, *(each for each in super().list_commands(ctx) if each not in self._lazy)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of them."""
        place = self._lazy.get(cmd_name)
        if place is None:
            found = super().get_command(ctx, cmd_name)
            return found if found is None else show.with_json_option(found)
        from importlib import import_module

        module, _, name = place.partition(":")
        try:
            command: click.Command = getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("kms"):
                raise
            return _unavailable(cmd_name)
        return command if cmd_name == "serve" else show.with_json_option(command)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments, with which the command may have to begin again."""
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what it raises becomes a sentence and an exit code."""
        try:
            return self._confirmed(ctx)
        except (errors.KmsError, StartError) as error:
            raise failure_of(error) from None

    def _confirmed(self, ctx: click.Context) -> Any:
        """Run the command. Where it needs a second factor that was given just now, ask for one on a terminal."""
        try:
            return super().invoke(ctx)
        except errors.FreshSecondFactorNeeded:
            if ctx.parent is not None or not sys.stdin.isatty():
                raise
        from kms.cli.session import give_second_factor

        give_second_factor()
        # It was refused before anything was done, so all of it begins again.
        with self.make_context(ctx.info_name, ctx.meta[_ARGUMENTS]) as again:
            return super().invoke(again)
