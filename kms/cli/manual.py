"""`man`: the manual page, made from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from kms import __version__
from kms.cli.failing import EXIT_CODES

_FILES = (
    ("~/.config/kms/session.json", "The session. KMS_HOME can name another directory."),
    ("~/.config/kms/curlrc", "The same for curl: curl -K ~/.config/kms/curlrc URL"),
)
_VARIABLES = (
    ("KMS_URL", "The service, as --url of login."),
    ("KMS_CA_CERT", "The certificate to trust, as --ca-cert of login."),
    ("KMS_HOME", "Where the session is kept."),
)


@click.command()
@click.pass_context
def man(context: click.Context) -> None:
    """Print the manual page: kms man | man -l -

    \b
    For example:
      kms man | man -l -
    """
    main = context.find_root().command
    assert isinstance(main, click.Group)
    click.echo("\n".join(_page(main, context.find_root())))


def _page(main: click.Group, context: click.Context) -> Iterator[str]:
    yield f'.TH KMS 1 "" "kms {__version__}" "User commands"'
    yield ".SH NAME\nkms \\- keys of a Key Management System: make, use, rotate and revoke them"
    yield ".SH SYNOPSIS\n.B kms\n.I COMMAND\n[\\fIOPTION\\fR]... [\\fIARGUMENT\\fR]..."
    yield ".SH DESCRIPTION\n" + _text(main.help or "")
    yield ".SH COMMANDS"
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        if command is not None:
            yield from _command(f"kms {name}", command, context)
    yield ".SH EXIT STATUS"
    for code in sorted({code for code, _, _ in EXIT_CODES}):
        about = "; ".join(_text(text) for each, text, _ in EXIT_CODES if each == code)
        yield f".TP\n.B {code}\n{about}"
    for title, rows in (("FILES", _FILES), ("ENVIRONMENT", _VARIABLES)):
        yield f".SH {title}"
        yield from (f".TP\n.B {_text(name)}\n{_text(about)}" for name, about in rows)


def _command(path: str, command: click.Command, context: click.Context) -> Iterator[str]:
    if isinstance(command, click.Group) and path != "kms call":
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None:
                yield from _command(f"{path} {name}", found, context)
        return
    arguments = [each for each in command.params if isinstance(each, click.Argument)]
    shown = " ".join(each.make_metavar(context) for each in arguments)
    yield f".SS {_text(path)} {_text(shown)}".rstrip()
    yield _text(command.help or "")
    for each in command.params:
        record = each.get_help_record(context) if isinstance(each, click.Option) else None
        if record is not None:
            yield f".TP\n.B {_text(record[0])}\n{_text(record[1])}"


def _text(text: str) -> str:
    """A help text as roff: paragraphs, and what is set as it is after a line with \\b."""
    lines, is_as_it_is = [], False
    for line in inspect.cleandoc(text.partition("\f")[0]).splitlines():
        if line == "\b":
            is_as_it_is = True
            lines.append(".nf")
            continue
        if not line and is_as_it_is:
            is_as_it_is = False
            lines.append(".fi")
        safe = line.replace("\\", "\\e").replace("-", "\\-")
        lines.append(f"\\&{safe}" if safe.startswith((".", "'")) else (safe or ".PP"))
    if is_as_it_is:
        lines.append(".fi")
    return "\n".join(lines)
