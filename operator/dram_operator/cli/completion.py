"""Completion: `dram completion SHELL` for the shells, `kubectl_complete-dram` for kubectl's own."""

import sys

import click
from click.shell_completion import ShellComplete, get_completion_class

from dram_operator.cli import main

NO_FILES = 4
"""kubectl's ShellCompDirectiveNoFileComp: names of files are no candidates (github.com/spf13/cobra, completions.go)."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL for `dram`: `source <(dram completion bash)`.

    `kubectl dram` completes by itself where kubectl's completion is on and `kubectl_complete-dram` is on PATH.
    """
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(main, {}, "dram", "_DRAM_COMPLETE").source())


def kubectl() -> None:
    """Candidates for the last argument, in the form in which kubectl asks its plugins: a line each, then a directive."""
    *before, incomplete = sys.argv[1:] or [""]
    for item in ShellComplete(main, {}, "kubectl dram", "").get_completions(before, incomplete):
        click.echo(f"{item.value}\t{item.help}" if item.help else item.value)
    click.echo(f":{NO_FILES}")
