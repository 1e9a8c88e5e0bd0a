"""When a training has gone wrong: pure functions of its log, so that a resumed training judges as an undisturbed one."""

from collections import deque
from collections.abc import Iterable
from statistics import median
from typing import Self

WINDOW = 32
"""Steps whose median is a term's level: a single hard batch moves it little."""
FACTOR = 2.0
"""A level so many times its lowest one is too high …"""
MARGIN_NATS = 1.0
"""… when it is also so far above: on memorised data a small loss doubles for nothing."""


class Watch:
    """Watches the soft and the hard loss of every step.

    The weighted sum would tell less: a schedule that moves weight from one term to the other changes it by itself. Nor is
    one term enough: a student that learns to answer as its teacher may well move away from the labels. So a training has
    diverged when *every* term with a weight is at twice its lowest level and a nat above it.
    """

    def __init__(self) -> None:
        self._recent = {name: deque[float](maxlen=WINDOW) for name in ("soft", "hard")}
        self._lowest: dict[str, float] = {}
        self._row: dict[str, float] = {}

    @classmethod
    def over(cls, rows: Iterable[dict[str, float]]) -> Self:
        """The watch after the rows of a log."""
        watch = cls()
        for row in rows:
            watch.see(row)
        return watch

    def see(self, row: dict[str, float]) -> None:
        """Take one step's terms into account."""
        self._row = row
        for name, recent in self._recent.items():
            if name in row:
                recent.append(row[name])
                if len(recent) == WINDOW:
                    level = median(recent)
                    self._lowest[name] = min(level, self._lowest.get(name, level))

    @property
    def suspicious(self) -> bool:
        """Whether the latest step is too high: no checkpoint is made of it, for it may be the first of many."""
        return self._high(self._row)

    @property
    def diverged(self) -> bool:
        """Whether the latest steps are too high."""
        return self._high({name: median(recent) for name, recent in self._recent.items() if recent})

    @property
    def lowest(self) -> dict[str, float]:
        """The lowest level of each term so far; a term has none before the first whole window."""
        return self._lowest

    def _high(self, values: dict[str, float]) -> bool:
        limits = {
            name: max(FACTOR * self._lowest[name], self._lowest[name] + MARGIN_NATS)
            for name in self._weighted()
            if name in self._lowest
        }
        return bool(limits) and all(values[name] >= limit for name, limit in limits.items())

    def _weighted(self) -> list[str]:
        alpha = self._row.get("alpha", 0.0)
        return [name for name, weight in (("soft", alpha), ("hard", 1 - alpha)) if weight > 0 and name in self._row]
