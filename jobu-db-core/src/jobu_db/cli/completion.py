"""`jobu-db completion`: what a shell needs to complete commands, options and names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command(short_help="Print what the shell needs to complete commands and names")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what SHELL needs to complete commands and names of databases.

    \b
        ~/.bashrc:    eval "$(jobu-db completion bash)"
        ~/.zshrc:     eval "$(jobu-db completion zsh)"
        config.fish:  jobu-db completion fish | source
    """
    made = get_completion_class(shell)
    assert made is not None
    # By this variable click notices that a shell asks what there is, instead of running a command.
    click.echo(made(ctx.find_root().command, {}, "jobu-db", "_JOBU_DB_COMPLETE").source())
