"""The words, bars and colours that every story is told in."""

from datetime import datetime, timedelta

from rich.console import Console, RenderableType
from rich.highlighter import RegexHighlighter
from rich.text import Text
from rich.theme import Theme
from rich.tree import Tree

from dram_operator.core.times import parse_time

BAR_CELLS = 20
PIPE_WIDTH = 160
"""Columns where there is no terminal: tables are not cut to 80."""
DIGEST_CHARACTERS = 12
MINUTE, HOUR, DAY = 60, 3600, 86_400


class _Marks(RegexHighlighter):
    """Colours the marks, and nothing that somebody else wrote."""

    base_style = "mark."
    highlights = (
        r"^(?P<good>✓)",
        r"^(?P<bad>✗.*)",
        r"^(?P<warn>[!↻↩?])",
        r"^(?P<busy>…)",
        r"^(?P<later>·.*)",
        r"(?P<done>━+)",
        r"(?P<rest>╌+)",
    )


THEME = Theme(
    {
        "mark.good": "green",
        "mark.bad": "red",
        "mark.warn": "yellow",
        "mark.busy": "cyan",
        "mark.later": "dim",
        "mark.done": "green",
        "mark.rest": "dim",
    }
)
_MARKS = _Marks()


def console() -> Console:
    """Standard output."""
    made = Console(theme=THEME, highlight=False)
    if not made.is_terminal:
        made.width = PIPE_WIDTH
    return made


def said(text: str) -> Text:
    """A line with its marks coloured. Whatever could steer a terminal is taken out: other people write statuses too."""
    return _MARKS(Text("".join(letter if letter.isprintable() else "�" for letter in " ".join(text.split("\n")))))


def story(heading: str) -> Tree:
    """A tree that is about one object."""
    return Tree(said(heading), guide_style="dim", highlight=False)


def chapter(tree: Tree, title: str, parts: list[str] | list[RenderableType]) -> None:
    """Add a branch; one without parts is left out."""
    if parts:
        branch = tree.add(said(title))
        for part in parts:
            branch.add(said(part) if isinstance(part, str) else part)


def bar(done: float, total: float) -> str:
    """A bar of text: it is read in a log, a pipe and a screen reader too."""
    share = min(max(done / total, 0.0), 1.0) if total > 0 else 0.0
    filled = int(share * BAR_CELLS)
    return "━" * filled + "╌" * (BAR_CELLS - filled)


def duration(seconds: float) -> str:
    """A length of time in one unit, the largest of which there are two."""
    for unit, size in (("d", DAY), ("h", HOUR), ("min", MINUTE)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def clock(seconds: int) -> str:
    """Remaining time, as h:mm:ss."""
    return str(timedelta(seconds=seconds))


def age(stamp: str, now: datetime) -> str:
    """The time since a moment."""
    return duration((now - parse_time(stamp)).total_seconds())


def ago(stamp: str, now: datetime) -> str:
    """How long ago a moment was."""
    return f"{age(stamp, now)} ago"


def short(digest: str) -> str:
    """The start of a digest, enough to tell it from others."""
    return digest.removeprefix("sha256:")[:DIGEST_CHARACTERS]


def told(*parts: str | None) -> str:
    """Reason and message, as far as there are any."""
    return ": ".join(part for part in parts if part)


def mark(truth: str) -> str:
    """The mark of a condition's status."""
    return {"True": "✓", "False": "✗"}.get(truth, "…")
