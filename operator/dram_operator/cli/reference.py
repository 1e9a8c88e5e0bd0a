"""The reference page of the commands, made from what `--help` says. `python -m dram_operator.cli.reference` writes it."""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from dram_operator.cli import main as dram

PAGE = "commands.md"
WIDTH = 1000
"""Nothing is wrapped: Markdown does that."""


def page() -> str:
    """The page as Markdown."""
    lines = [
        "# Commands",
        "",
        "`kubectl dram` is the same program as `dram`. This page is made from the code by `make docs`.",
        "",
    ]
    for path, command in commands(dram, ("dram",)):
        lines += _section(path, command)
    return "\n".join(lines)


def commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """A command and all below it, each with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, (*path, name))


def _section(path: tuple[str, ...], command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=" ".join(path), terminal_width=WIDTH, max_content_width=WIDTH)
    yield from (f"## {' '.join(path)}", "", f"`{command.get_usage(context).removeprefix('Usage: ')}`", "")
    yield from (inspect.cleandoc(command.help or ""), "")
    records = [record for one in command.params if (record := one.get_help_record(context))]
    if records:
        yield from ("| Option | Meaning |", "| --- | --- |")
        yield from (
            f"| `{option.replace('|', ' or ')}` | {meaning.replace('|', ' or ')} |" for option, meaning in records
        )
        yield ""


def main() -> None:
    """Write the page into the folder given as the only argument, by default `docs/reference`."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/reference")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PAGE).write_text(page())


if __name__ == "__main__":
    main()
