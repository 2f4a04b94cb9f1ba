"""`completion`: what a shell needs to complete commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what SHELL needs to complete `kms` commands.

    \b
    For example:
    bash:  eval "$(kms completion bash)" in ~/.bashrc
    zsh:   eval "$(kms completion zsh)" in ~/.zshrc
    fish:  kms completion fish > ~/.config/fish/completions/kms.fish
    """
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(context.find_root().command, {}, "kms", "_KMS_COMPLETE").source())
