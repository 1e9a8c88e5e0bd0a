"""Which validation is best, and when to stop."""

import pytest

from dram_workers.train.validation import BETTER, LOSS, Standing


def rows(*losses: float | None) -> list[dict[str, float]]:
    return [{"step": step} | ({} if loss is None else {LOSS: loss}) for step, loss in enumerate(losses, start=1)]


@pytest.mark.parametrize(
    ("losses", "want_best", "want_waited"),
    [
        ((), None, 0),
        ((None, None), None, 0),
        ((None, 3.0), 2, 0),
        ((3.0, None, 2.0, None), 3, 0),
        ((2.0, 3.0, None, 2.5), 1, 2),
        ((2.0, 2.0 * (1 - BETTER / 2)), 1, 1),
        ((2.0, 2.0 * (1 - 2 * BETTER)), 2, 0),
    ],
)
def test_the_best_is_the_lowest_by_more_than_rounding(
    losses: tuple[float | None, ...], want_best: int | None, want_waited: int
) -> None:
    standing = Standing.over(rows(*losses), patience=None)
    assert (standing.best_step, standing.waited) == (want_best, want_waited)
    assert not standing.ended


def test_patience_counts_validations_not_steps() -> None:
    log = rows(2.0, None, None, 2.1, None, 2.2)
    assert not Standing.over(log[:5], patience=2).ended
    assert Standing.over(log, patience=2).ended
    assert not Standing.over([*log[:4], {"step": 5, LOSS: 1.0}, {"step": 6, LOSS: 1.1}], patience=2).ended
