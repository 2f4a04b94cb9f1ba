"""`call`: a command for each operation of the service, made from the table of operations."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import msgspec

from kms.cli import remote, show
from kms.cli.failing import Failure, failure_of
from kms.client.errors import refusal_of
from kms.client.operations import ClientOperation, Member, operations

_KINDS = {
    "text": "TEXT",
    "integer": "NUMBER",
    "list": "TEXT, may be repeated",
    "bytes": "@FILE, @- for stdin, or base64",
    "json": "JSON, or @FILE",
}


class _Operations(click.Group):
    """A command for each operation, made when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name.replace("_", "-") for name in operations()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        operation = operations().get(cmd_name.replace("-", "_"))
        return None if operation is None else show.with_json_option(_command(operation))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for each in operations().values():
            groups.setdefault(each.group, []).append((each.name.replace("_", "-"), each.about))
        for title, rows in groups.items():
            with formatter.section(title):
                formatter.write_dl(rows)


@click.group(cls=_Operations)
def call() -> None:
    """Carry out any operation of the service; each member of the request is an option.

    Give bytes and secrets as files (`@FILE`) or on stdin (`@-`). The command asks for a secret that is not given.

    \b
    For example:
      kms call encrypt orders --plaintext @message.bin
      kms call create-key --key-id orders --labels '{"env": "prod"}'
    """


def _command(operation: ClientOperation) -> click.Command:
    params: list[click.Parameter] = [click.Argument([name]) for name in operation.variables]
    params += [_option(each) for each in operation.members]
    if operation.takes_items:
        about = "A file of up to 1000 requests, one JSON object per line, sent as one batch; - for stdin."
        params.append(click.Option(["--items"], type=click.File("rb"), help=about))

    def run(items: Any = None, **given: Any) -> None:
        variables = {name: given.pop(name) for name in operation.variables}
        members = {each.name: _value(each, given[_parameter(each)]) for each in operation.members}
        members = {name: value for name, value in members.items() if value is not None}
        if items is not None:
            if members:
                raise click.UsageError("--items has all members of each request; give no other options with it.")
            members = {"items": _requests(items)}
        else:
            members |= {each.name: _asked(each) for each in operation.members if _is_missing(each, members)}
        answer = remote.client().call_raw(operation.name, {**variables, **members})
        try:
            decoded = msgspec.json.decode(answer)
        except msgspec.DecodeError:
            click.echo(answer)
            return
        show.document(decoded)
        failed = [each["error"] for each in decoded.get("items", []) if "error" in each] if items is not None else []
        if failed:
            first = failure_of(refusal_of(failed[0]))
            raise Failure(f"{len(failed)} of the requests failed; the first: {first.message}", first.exit_code)

    example = "" if operation.example is None else f"\n\n\b\nFor example:\n  {_example(operation)}"
    about = f"{operation.about}\n\n{operation.method} {operation.path}{example}"
    return click.Command(operation.name.replace("_", "-"), params=params, callback=run, help=about)


def _requests(lines: Iterable[bytes]) -> list[Any]:
    try:
        return [msgspec.json.decode(line) for line in lines if line.strip()]
    except msgspec.DecodeError as error:
        raise click.BadParameter(f"not a JSON object on each line: {error}.", param_hint="--items") from None


def _option(member: Member) -> click.Option:
    about = "It is asked for, or read from @FILE." if member.is_secret else ""
    kind: Any = click.Choice(member.choices) if member.choices else {"integer": int}.get(member.kind)
    return click.Option(
        [f"--{member.name.replace('_', '-')}", _parameter(member)],
        type=kind,
        metavar=None if kind else _KINDS.get(member.kind),
        is_flag=False,
        multiple=member.kind == "list",
        help=("Required. " if member.required else "") + ("true or false" if member.kind == "boolean" else about),
    )


def _parameter(member: Member) -> str:
    return f"member_{member.name}"


def _is_missing(member: Member, given: dict[str, Any]) -> bool:
    return member.is_secret and member.required and member.name not in given


def _asked(member: Member) -> str | bytes:
    given = str(click.prompt(f"{member.name} (it is not shown)", hide_input=True))
    return given.encode() if member.kind == "bytes" else given


def _value(member: Member, given: Any) -> Any:
    """The JSON value of a member, for the value `given` to its option; None if the option was not given."""
    if given is None or given == ():
        return None
    option = f"--{member.name.replace('_', '-')}"
    if member.kind == "boolean":
        if given not in {"true", "false"}:
            raise click.BadParameter("true or false.", param_hint=option)
        return given == "true"
    if member.kind == "list":
        return list(given)
    if member.is_secret and not given.startswith("@"):
        raise click.BadParameter("A secret is never an argument: leave it out, or name its @FILE.", param_hint=option)
    if isinstance(given, str) and given.startswith("@"):
        content = _content(given.removeprefix("@"), option)
        if member.kind == "bytes":
            return content
        given = content.decode().strip() if member.is_secret else content.decode()
    if member.kind == "json":
        try:
            return msgspec.json.decode(given)
        except msgspec.DecodeError:
            return given  # a member that may also be a text
    return given


def _content(name: str, option: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise click.BadParameter(f"{name}: {error.strerror}.", param_hint=option) from None


def _example(operation: ClientOperation) -> str:
    words = ["kms call", operation.name.replace("_", "-"), *(name.upper() for name in operation.variables)]
    secrets = {each.name for each in operation.members if each.is_secret}
    for name, value in (operation.example or {}).items():
        if name in secrets:
            words += [f"--{name.replace('_', '-')}", "@FILE"]
            continue
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        words += [f"--{name.replace('_', '-')}", text if text.isalnum() else f"'{text}'"]
    return " ".join(words)
