"""The tutorial's blocks: what is run where, how it ends, and what it prints."""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial.md"

_FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """Commands of the page, and the lines that the page shows of their output."""

    words: tuple[str, ...]
    """What stands behind the language."""
    script: str
    shown: tuple[str, ...]

    @property
    def place(self) -> str:
        """`demo`, `local` or `cluster`."""
        return self.words[0] if self.words else ""

    @property
    def exit_code(self) -> int:
        """How the commands end."""
        return next((int(word.removeprefix("exit=")) for word in self.words if word.startswith("exit=")), 0)


def blocks(place: str | None = None) -> list[Block]:
    """The blocks in their order; those of one place, or all."""
    found: list[Block] = []
    for fence in _FENCE.finditer(PAGE.read_text()):
        language, *words = fence["info"].split()
        if language == "sh":
            found.append(Block(tuple(words), fence["body"], ()))
        else:
            assert language == "text", f"{fence['info']}: a block is commands (sh) or what they print (text)"
            last = found.pop()
            found.append(Block(last.words, last.script, tuple(fence["body"].splitlines())))
    return [block for block in found if place in (None, block.place)]


def environment() -> dict[str, str]:
    """That of somebody who has installed Dram: its commands are on the PATH."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    sources = os.pathsep.join(str(ROOT / folder) for folder in ("operator", "workers"))
    return os.environ | {"PATH": path, "PYTHONPATH": sources}
