"""The value of every schedule at the steps that matter."""

import pytest

from dram_workers.objective import Schedule
from dram_workers.stages import TrainIdentity
from dram_workers.train.schedules import Shape, learning_rate_at, value_at


@pytest.mark.parametrize(
    ("shape", "want_first", "want_middle", "want_last"),
    [("Constant", 4.0, 4.0, 4.0), ("Linear", 4.0, 3.0, 2.0), ("Cosine", 4.0, 3.0, 2.0)],
)
def test_a_schedule_starts_at_the_first_step_and_ends_at_the_last(
    shape: Shape, want_first: float, want_middle: float, want_last: float
) -> None:
    schedule = Schedule(start=4.0, end=2.0, schedule=shape)
    values = [value_at(schedule, step, 101) for step in (0, 50, 100)]
    assert values == pytest.approx([want_first, want_middle, want_last])


def test_cosine_is_flat_at_its_ends() -> None:
    schedule = Schedule(start=1.0, end=0.0, schedule="Cosine")
    assert value_at(schedule, 10, 101) == pytest.approx(0.9755, abs=1e-4)


def test_a_training_of_one_step_uses_the_start() -> None:
    assert value_at(Schedule(start=3.0, end=1.0, schedule="Linear"), 0, 1) == 3.0


@pytest.mark.parametrize(
    ("shape", "want"),
    [
        ("Constant", [0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0]),
        ("Linear", [0.2, 0.4, 0.6, 0.8, 1.0, 0.5, 1 / 6]),
        ("Cosine", [0.2, 0.4, 0.6, 0.8, 1.0, 0.5, 0.0669873]),
    ],
)
def test_the_learning_rate_warms_up_and_falls(shape: Shape, want: list[float]) -> None:
    identity = TrainIdentity(
        temperature=Schedule(start=1, end=1),
        alpha=Schedule(start=1, end=1),
        batch_tokens=16,
        max_length=16,
        packing=True,
        learning_rate=1.0,
        learning_rate_schedule=shape,
        warmup_steps=4,
    )
    rates = [learning_rate_at(identity, step, 10) for step in (0, 1, 2, 3, 4, 7, 9)]
    assert rates == pytest.approx(want)
