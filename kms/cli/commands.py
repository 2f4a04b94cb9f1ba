"""The commands, each imported when it is called, so that `kms --help` starts as quickly as any of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click

from kms.cli import show
from kms.cli.failing import Failure, failure_of
from kms.client import errors
from kms.errors import StartError
from kms.files import fault_of

_ARGUMENTS = "kms.arguments"


@dataclass(frozen=True)
class Lazy:
    """A command that is not imported yet: its place as `module:name`, and a line about it."""

    place: str
    about: str


def _unavailable(name: str) -> click.Command:
    """A placeholder for a command of the service, for use if only the packages of the client are installed."""

    def refuse() -> None:
        raise Failure(f"`{name}` needs the packages of the service, and only those of the client are installed.")

    return click.Command(name, callback=refuse, help="Needs the packages of the service, which are not installed.")


class Commands(click.Group):
    """The commands in their sections. Their errors become a message and an exit code."""

    def __init__(
        self, *arguments: Any, sections: Mapping[str, Mapping[str, Lazy]] | None = None, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self._sections = sections or {}
        self._places = {name: each.place for section in self._sections.values() for name, each in section.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them, in the order in which people meet them."""
        return list(self._places)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a line about each, without importing any."""
        for title, section in self._sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, each.about) for name, each in section.items()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of them."""
        module, _, name = self._places.get(cmd_name, "").partition(":")
        if not module:
            return None
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
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise  # click ends quietly where nobody reads any more
            raise Failure(f"{error.filename or 'a file'}: {fault_of(error)}.") from None

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
