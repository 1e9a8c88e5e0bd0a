"""`watch`: a story that is drawn again whenever its object changes; on a pipe, a line whenever what it says changes."""

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

from rich.console import Console
from rich.live import Live
from rich.tree import Tree

from dram_operator.adapters.resources import Object
from dram_operator.cli.output import Form, show_line, show_machine
from dram_operator.show.words import console as standard_output
from dram_operator.show.words import said

REDRAWS_PER_SECOND = 1
"""Ages and remaining times grow old by the second."""

T = TypeVar("T")


@dataclass(frozen=True)
class Story(Generic[T]):
    """How an object is told."""

    read: Callable[[Object], T]
    tree: Callable[[T, datetime], Tree]
    lines: Callable[[T | None, T], Iterable[str]]
    """What has changed since it was seen last, in lines."""
    ended: Callable[[T], int | None]
    """The exit code, once nothing more is to come."""


async def follow(
    objects: AsyncGenerator[Object, None], story: Story[T], form: Form | None, *, forever: bool = False
) -> int | None:
    """Show every change until the story has ended; returns its exit code."""
    console = standard_output()
    async with aclosing(objects) as changes:
        if form is None and console.is_terminal:
            return await _draw(changes, story, console, forever=forever)
        before: T | None = None
        async for obj in changes:
            seen = story.read(obj)
            if form is None:
                for line in story.lines(before, seen):
                    console.print(said(line), soft_wrap=True)
            elif form == "json":
                show_line(obj)
            else:
                print("---")
                show_machine(obj, form)
            before, code = seen, story.ended(seen)
            if code is not None and not forever:
                return code
    return None


async def _draw(
    changes: AsyncGenerator[Object, None], story: Story[T], console: Console, *, forever: bool
) -> int | None:
    seen: T | None = None

    def picture() -> Tree | str:
        return "" if seen is None else story.tree(seen, datetime.now(UTC))

    with Live(console=console, get_renderable=picture, refresh_per_second=REDRAWS_PER_SECOND) as live:
        async for obj in changes:
            seen = story.read(obj)
            live.refresh()
            code = story.ended(seen)
            if code is not None and not forever:
                return code
    return None
