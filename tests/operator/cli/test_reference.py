"""The reference of the commands, and every command that the documentation shows."""

import re
import shlex
from pathlib import Path

import click
import pytest

from dram_operator.cli import main as dram
from dram_operator.cli.reference import PAGE, commands, main, page

ROOT = Path(__file__).parents[3]
DOCS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCES = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
CALL = re.compile(r"^\s*(?:\$ )?(?:kubectl |\.venv/bin/)?dram (.*)$", re.MULTILINE)


def test_the_page_is_what_the_commands_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.argv", ["reference", str(tmp_path)])
    main()
    assert (tmp_path / PAGE).read_text() == (ROOT / "docs" / "reference" / PAGE).read_text(), "run `make docs`"


def test_every_command_says_what_it_does() -> None:
    silent = [" ".join(path) for path, command in commands(dram, ("dram",)) if not command.help]
    assert silent == []
    assert "## dram rollout approve\n" in page()


def shown() -> list[str]:
    """Calls of `dram` in the code blocks of the documentation, continued lines joined."""
    blocks = [block.replace("\\\n", " ") for file in DOCS for block in FENCES.findall(file.read_text())]
    return sorted({call.partition("  #")[0].strip() for block in blocks for call in CALL.findall(block)})


@pytest.mark.parametrize("call", shown())
def test_every_call_in_the_documentation_can_be_parsed(call: str) -> None:
    words = shlex.split(call.replace("…", "x"))
    command: click.Command = dram
    while isinstance(command, click.Group) and words:
        found = command.get_command(click.Context(command), words.pop(0))
        assert found is not None, call
        command = found
    known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)} | {"-h", "--help"}
    unknown = [word for word in words if word.startswith("-") and word != "-" and word.partition("=")[0] not in known]
    assert not unknown or command.context_settings.get("ignore_unknown_options"), f"{call}: {unknown}"
