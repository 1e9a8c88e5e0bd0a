"""Dynamic loss scaling for FP16, whose smallest number is 6e-8: gradients are kept large while they are summed.

After Micikevicius et al., "Mixed Precision Training" (arXiv 1710.03740).
"""

from collections.abc import Iterable
from typing import Self

FIRST = 2.0**16
LARGEST = 2.0**24
SMALLEST = 1.0
GROW_AFTER = 2000
"""Steps without overflow after which the scale doubles."""


class LossScale:
    """The factor on the loss; it doubles now and then, and halves when a gradient overflows."""

    def __init__(self, *, half: bool) -> None:
        self.half = half
        """Whether the arithmetic is FP16; otherwise the scale stays 1 and an overflow is an error."""
        self.value = FIRST if half else 1.0
        self._good = 0

    @classmethod
    def over(cls, rows: Iterable[dict[str, float]], *, half: bool) -> Self:
        """The scale after the rows of a log."""
        scale = cls(half=half)
        for row in rows:
            scale.update(overflow=bool(row.get("skipped", 0)))
        return scale

    @property
    def shrinkable(self) -> bool:
        """Whether an overflow may come from the scale: then the step is skipped, and the next one is scaled less."""
        return self.half and self.value > SMALLEST

    @property
    def shown(self) -> dict[str, float]:
        """What the train log says of it."""
        return {"lossScale": self.value} if self.half else {}

    def update(self, *, overflow: bool) -> None:
        """Take one step into account."""
        if not self.half:
            return
        if overflow:
            self.value, self._good = self.value / 2, 0
            return
        self._good += 1
        if self._good % GROW_AFTER == 0:
            self.value = min(LARGEST, self.value * 2)
