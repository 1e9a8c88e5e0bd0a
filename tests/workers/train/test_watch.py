"""When a loss counts as diverged."""

import random

import pytest

from dram_workers.train.watch import WINDOW, Watch

Row = dict[str, float]


def rows(count: int, *, soft: float, hard: float, alpha: float = 0.5) -> list[Row]:
    return [{"soft": soft, "hard": hard, "alpha": alpha} for _ in range(count)]


GOOD = rows(2 * WINDOW, soft=1.0, hard=2.0)


def steps_until_diverged(log: list[Row]) -> int | None:
    watch = Watch()
    for number, row in enumerate(log, start=1):
        watch.see(row)
        if watch.diverged:
            return number
    return None


def test_a_loss_that_stays_high_has_diverged_once_it_is_half_of_the_window() -> None:
    assert steps_until_diverged(GOOD + rows(WINDOW, soft=5, hard=9)) == len(GOOD) + WINDOW // 2


def test_a_few_hard_batches_are_suspicious_and_no_more() -> None:
    log = GOOD + rows(WINDOW // 4, soft=5, hard=9)
    assert steps_until_diverged(log) is None
    assert Watch.over(log).suspicious
    assert not Watch.over(log + GOOD[:1]).suspicious


@pytest.mark.parametrize(
    ("why", "late"),
    [
        ("the student leaves the labels for its teacher", {"soft": 0.5, "hard": 9.0}),
        ("only the soft loss is high", {"soft": 9.0, "hard": 1.5}),
        ("a small loss has doubled", {"soft": 1.9, "hard": 2.9}),
    ],
)
def test_it_has_not_while(why: str, late: Row) -> None:
    assert steps_until_diverged(GOOD + rows(3 * WINDOW, **late)) is None, why


def test_a_schedule_that_moves_the_weight_is_no_divergence() -> None:
    moving = [{"soft": 0.1, "hard": 4.0, "alpha": 1 - step / 200} for step in range(200)]
    assert steps_until_diverged(moving) is None


@pytest.mark.parametrize(("alpha", "high"), [(1.0, "soft"), (0.0, "hard")])
def test_a_term_without_weight_has_no_say(alpha: float, high: str) -> None:
    late = {"soft": 0.1, "hard": 0.1} | {high: 20.0}
    log = rows(WINDOW, soft=1, hard=1, alpha=alpha) + rows(WINDOW, **late, alpha=alpha)
    assert steps_until_diverged(log) is not None


def test_nothing_is_judged_before_there_is_a_whole_window() -> None:
    assert steps_until_diverged(rows(WINDOW // 2, soft=0.1, hard=0.1) + rows(WINDOW // 2 - 1, soft=9, hard=9)) is None


def test_a_noisy_training_that_learns_is_left_alone() -> None:
    noise = random.Random(0)
    log = [
        {name: (8 / (1 + step / 50) + 0.5) * noise.uniform(0.5, 1.7) for name in ("soft", "hard")} | {"alpha": 0.5}
        for step in range(2000)
    ]
    assert steps_until_diverged(log) is None


def test_a_watch_over_a_log_goes_on_as_the_one_that_wrote_it() -> None:
    log = GOOD + rows(WINDOW, soft=5, hard=9)
    for cut in (1, WINDOW, len(GOOD) + 3):
        resumed = Watch.over(log[:cut])
        for row in log[cut:]:
            resumed.see(row)
        assert (resumed.diverged, resumed.lowest) == (True, Watch.over(log).lowest)
