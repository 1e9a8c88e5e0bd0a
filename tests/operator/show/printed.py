"""What a person would read on a pipe."""

import io

from rich.console import Console, RenderableType

from dram_operator.show.words import PIPE_WIDTH


def printed(told: RenderableType) -> str:
    """The text, without blanks at the ends of its lines."""
    out = io.StringIO()
    Console(file=out, width=PIPE_WIDTH, highlight=False).print(told)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())
