import io
import re

import pytest
from rich.console import Console

from dram_operator.show.words import THEME, bar, duration, said, short, told


@pytest.mark.parametrize(
    ("seconds", "want"),
    [(-3, "0 s"), (0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (172_800, "2 d")],
)
def test_a_duration_has_the_largest_unit_of_which_there_are_two(seconds: float, want: str) -> None:
    assert duration(seconds) == want


@pytest.mark.parametrize(
    ("done", "total", "want"), [(0, 10, 0), (5, 10, 10), (10, 10, 20), (11, 10, 20), (3, 0, 0), (-1, 2, 0)]
)
def test_a_bar_is_as_full_as_what_is_done(done: int, total: int, want: int) -> None:
    assert (len(bar(done, total)), bar(done, total).count("━")) == (20, want)


def test_nothing_that_somebody_wrote_steers_the_terminal() -> None:
    assert said("a\x1b]0;owned\x07b\u202ec\nd\x9be").plain == "a�]0;owned�b�c d�e"


def test_what_looks_like_markup_is_text() -> None:
    assert said("[red]x[/red] [link=file:///]").plain == "[red]x[/red] [link=file:///]"


@pytest.mark.parametrize(("text", "colour"), [("✓ good", "32"), ("✗ bad", "31"), ("! look", "33"), ("plain ✓", None)])
def test_marks_are_coloured_on_a_terminal(text: str, colour: str | None) -> None:
    out = io.StringIO()
    Console(file=out, force_terminal=True, color_system="standard", theme=THEME).print(said(text))
    found = re.search(r"\x1b\[(\d+)m", out.getvalue())
    assert (found[1] if found else None) == colour


def test_digests_are_short_and_gaps_leave_no_colons() -> None:
    assert short("sha256:" + "ab" * 32) == "abababababab"
    assert told("Reason", None, "", "message") == "Reason: message"
