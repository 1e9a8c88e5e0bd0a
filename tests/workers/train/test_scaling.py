"""The scale of the loss under FP16."""

from dram_workers.train.scaling import FIRST, GROW_AFTER, LARGEST, LossScale

GOOD: dict[str, float] = {}
SKIPPED: dict[str, float] = {"skipped": 1}


def test_it_halves_when_a_gradient_overflows_and_doubles_after_many_that_do_not() -> None:
    assert LossScale.over([SKIPPED, SKIPPED], half=True).value == FIRST / 4
    assert LossScale.over([SKIPPED] + [GOOD] * GROW_AFTER, half=True).value == FIRST
    assert LossScale.over([GOOD] * (GROW_AFTER - 1) + [SKIPPED] + [GOOD] * 2, half=True).value == FIRST / 2
    assert LossScale.over([GOOD] * GROW_AFTER * 20, half=True).value == LARGEST


def test_an_overflow_without_a_scale_is_nobodys_fault_but_the_trainings() -> None:
    assert not LossScale.over([SKIPPED] * 16, half=True).shrinkable
    assert LossScale.over([SKIPPED] * 15, half=True).shrinkable
    assert not LossScale(half=False).shrinkable


def test_other_arithmetic_has_no_scale() -> None:
    assert LossScale.over([GOOD] * GROW_AFTER, half=False).value == 1
    assert LossScale(half=False).shown == {}
    assert LossScale(half=True).shown == {"lossScale": FIRST}
