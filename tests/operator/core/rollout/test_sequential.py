"""The comparison of devices: how seldom it is wrongly alarmed, what it finds, and what it does not depend on."""

from dataclasses import replace
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from dram_operator.core.rollout.power import smallest_effect
from dram_operator.core.rollout.sequential import (
    Question,
    Reading,
    Scale,
    compare,
    group_sizes,
    match,
    scale_of,
    share,
)
from tests.operator.core.rollout.clustered import breaches, fleets, readings

ALPHA = 0.05
STEPS = ((50, 9), (100, 4))
"""Two steps of an attempt: treated devices, and control devices beside each."""
METRICS = 2
MARGIN = 0.005
SHARE = share(ALPHA, METRICS, len(STEPS))
BATCH = 1000
FLEETS_TOLD = 5
"""Fleets of each batch that say what they can see; the others are harmed by as much."""
WITHIN = (0.0, MARGIN)
"""Equal arms, and the largest harm that a rollout says it bears: the hardest case of the promise."""


def asked(partners: int, **more: float | bool) -> Question:
    return Question(**{"alpha": SHARE, "treated_share": 1 / (1 + partners), "margin": MARGIN} | more)  # type: ignore[arg-type]


def scaling(treated: int, partners: int) -> int:
    return min(50, treated * partners // 4)


def false_rollbacks(attempts: int, harm: float, seed: int) -> int:
    """Attempts with a harm that is within the margin, in which any metric of any step breached at any look."""
    found = 0
    for number in range(0, attempts, BATCH):
        wrong = np.zeros(BATCH, dtype=np.bool_)
        for step, (treated, partners) in enumerate(STEPS):
            for metric in range(METRICS):
                dice = hash((seed, number, step, metric)) % 2**32
                drawn = fleets(BATCH, treated, partners, scaling(treated, partners), dice, harm)
                wrong |= breaches(drawn, asked(partners))
        found += int(wrong.sum())
    return found


def found_harm(runs: int, treated: int, partners: int, *, proportional: bool, seed: int) -> int:
    """Steps that found a harm as large as each says that it can see."""
    found, question, scalers = 0, asked(partners), scaling(treated, partners)
    for number in range(0, runs, BATCH):
        before = fleets(FLEETS_TOLD, treated, partners, scalers, seed + number)
        told = [
            smallest_effect(np.append(a, b.ravel()).tolist(), question, treated)
            for a, b in zip(before.scaling, before.control, strict=True)
        ]
        assert None not in told
        effect = np.resize(np.array(told, dtype=np.float64), BATCH)
        harm: dict[str, object] = {"factor": 1 + effect[:, None] / 0.02} if proportional else {"harm": effect}
        drawn = fleets(BATCH, treated, partners, scalers, seed + number + 1, **harm)  # type: ignore[arg-type]
        found += int(breaches(drawn, question).sum())
    return found


def check_false_rollbacks(attempts: int, harm: float) -> None:
    wrong = false_rollbacks(attempts, harm, seed=1)
    interval = binomtest(wrong, attempts).proportion_ci(0.99)
    print(f"{wrong} of {attempts} attempts with a harm of {harm} rolled back: 99 % interval to {interval.high:.5f}")  # noqa: T201
    assert interval.high <= ALPHA


def check_power(runs: int, treated: int, partners: int, proportional: bool) -> None:
    found = found_harm(runs, treated, partners, proportional=proportional, seed=2)
    interval = binomtest(found, runs).proportion_ci(0.99)
    print(f"{found} of {runs} steps found the declared harm: 99 % interval from {interval.low:.5f}")  # noqa: T201
    assert interval.low >= 0.9


@pytest.mark.parametrize("harm", WITHIN)
def test_attempts_within_the_margin_are_seldom_rolled_back(harm: float) -> None:
    check_false_rollbacks(4000, harm)


@pytest.mark.parametrize(("treated", "partners"), STEPS)
@pytest.mark.parametrize("proportional", [False, True])
def test_a_step_finds_the_smallest_harm_that_it_says_it_can_see(
    treated: int, partners: int, proportional: bool
) -> None:
    check_power(1000, treated, partners, proportional)


@pytest.mark.heavy
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("harm", WITHIN)
def test_a_hundred_thousand_attempts_within_the_margin(harm: float) -> None:
    check_false_rollbacks(100_000, harm)


@pytest.mark.heavy
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("treated", "partners"), STEPS)
@pytest.mark.parametrize("proportional", [False, True])
def test_a_hundred_thousand_steps_with_a_harm(treated: int, partners: int, proportional: bool) -> None:
    check_power(100_000, treated, partners, proportional)


@pytest.mark.parametrize(("harm", "want"), [(0.0, 0), (0.2, 30)])
def test_the_simulation_decides_as_the_comparison_does(harm: float, want: int) -> None:
    drawn = fleets(30, 30, 4, 30, seed=3, harm=np.linspace(0, harm, 30))
    question = asked(4, alpha=0.2)
    decided = [compare(readings(drawn, fleet), question).breached for fleet in range(30)]
    assert decided == breaches(drawn, question).tolist()
    assert any(decided) is (want > 0)


def an_hour(treated: list[float], control: list[float], window: int = 0) -> list[Reading]:
    """One window with these values; hashes of treated devices are even, those of control odd."""
    arms = ((True, treated, 0), (False, control, 1))
    return [Reading(2 * n + odd, arm, window, v) for arm, values, odd in arms for n, v in enumerate(values)]


CALM = [0.01 * (n % 5) for n in range(60)]
HALVES = Question(alpha=0.05, treated_share=0.5, margin=0.02)


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 40))
def test_neither_order_nor_repetition_changes_the_comparison(random: object, size: int) -> None:
    found = an_hour(CALM[:size], CALM) + an_hour([0.5, 0.7], CALM, window=1)
    shuffled = found + found[:7]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert compare(shuffled, HALVES) == compare(found, HALVES)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=20, max_size=60), st.lists(st.floats(0, 1), min_size=20, max_size=60))
def test_the_bounds_enclose_what_they_speak_of_and_agree_with_the_verdict(one: list[float], two: list[float]) -> None:
    found = compare(an_hour(one, two), HALVES)
    assert found.lower is not None
    assert found.upper is not None
    assert found.breached == (found.lower > HALVES.margin) or abs(found.lower - HALVES.margin) < 1e-3
    assert not (found.breached and found.passed)
    if found.passed:
        assert found.upper < HALVES.margin + 1e-3


def test_a_breach_is_never_taken_back_by_later_windows() -> None:
    bad = an_hour([0.9] * 40, CALM)
    late = [Reading(1000 + n, n < 60, 1, 0.0 if n < 60 else 0.9) for n in range(120)]
    assert compare(bad, HALVES).breached
    assert compare(bad + late, HALVES).breached


def test_equal_arms_pass_once_there_are_devices_enough() -> None:
    few, many = [compare(an_hour(CALM[:5] * n, CALM[:5] * n), HALVES) for n in (4, 400)]
    assert (few.passed, few.breached) == (False, False)
    assert (many.passed, many.breached) == (True, False)


def test_a_metric_of_which_less_is_worse_is_looked_at_from_the_other_side() -> None:
    question = Question(alpha=0.05, treated_share=0.5, margin=0.02, lower_is_worse=True)
    good, bad = [0.98 + v / 5 for v in CALM], [v + 0.5 for v in CALM]
    assert compare(an_hour(bad, good), question).breached
    assert not compare(an_hour(good, bad), question).breached


def test_a_harm_below_the_margin_is_no_breach() -> None:
    worse = [v + 0.02 for v in CALM]
    strict, lenient = replace(HALVES, margin=0.002), replace(HALVES, margin=0.05)
    assert compare(an_hour(worse * 5, CALM * 5), strict).breached
    assert not compare(an_hour(worse * 5, CALM * 5), lenient).breached


def test_without_enough_control_devices_nothing_is_known() -> None:
    found = compare(an_hour([0.9] * 50, CALM[:9]), HALVES)
    assert (found.lower, found.upper, found.pairs, found.breached, found.passed) == (None, None, 0, False, False)


def test_a_device_is_matched_once_and_only_with_devices_of_its_window() -> None:
    first = an_hour([], CALM[:20])
    again = an_hour([0.4] * 3, CALM[:20], window=1) + an_hour([0.4] * 6, CALM[:20], window=2)
    matching = match(first + again, HALVES)
    assert matching.scale is not None
    assert len(matching.pairs) == 6


def test_a_device_without_a_partner_waits_for_the_next_window() -> None:
    question = Question(alpha=0.05, treated_share=0.2, margin=0.02)
    three, more = an_hour([0.4], CALM[:12]), an_hour([0.4], CALM[:17], window=1)
    assert len(match(an_hour([0.4] * 3, CALM[:12]), question).pairs) == 1
    assert len(match(three + more, question).pairs) == 1
    assert len(match(an_hour([0.4] * 3, CALM[:12]) + an_hour([0.4] * 3, CALM[:17], window=1), question).pairs) == 3


@pytest.mark.parametrize(
    ("part", "want"),
    [(0.01, (1, 10)), (0.1, (1, 9)), (0.2, (1, 4)), (0.5, (1, 1)), (0.4, (1, 1)), (0.75, (3, 1)), (0.99, (10, 1))],
)
def test_the_larger_arm_gives_several_devices_to_a_pair(part: float, want: tuple[int, int]) -> None:
    assert group_sizes(part) == want


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ([0.0] * 20, Scale(0.0, 0.08)),
        ([-1.0] * 20, Scale(-1.08, -0.92)),
        ([0.5] * 10 + [0.7] * 10, Scale(0.3, 0.9)),
        ([-0.1] * 10 + [0.1] * 10, Scale(-0.3, 0.3)),
    ],
)
def test_the_scale_follows_the_control_and_keeps_to_its_side_of_zero(values: list[float], want: Scale) -> None:
    found = scale_of(values, 0.02)
    assert (found.low, found.high) == pytest.approx((want.low, want.high))


def test_values_beyond_the_scale_count_as_its_ends() -> None:
    scale = Scale(1.0, 3.0)
    assert [scale.place(value) for value in (0.0, 1.5, 1e9)] == [0.0, 0.25, 1.0]


def test_one_wild_device_decides_nothing() -> None:
    wild = [1e12, *CALM[1:40]]
    assert not compare(an_hour(wild, CALM), HALVES).breached


def test_small_steps_say_that_they_see_nothing_and_larger_ones_see_more() -> None:
    control = CALM * 10
    told = [smallest_effect(control, HALVES, treated) or inf for treated in (0, 5, 30, 100, 400)]
    assert told == sorted(told, reverse=True)
    assert told[:2] == [inf, inf]
    assert HALVES.margin < told[-1] < 2 * HALVES.margin
    assert smallest_effect(CALM[:9], HALVES, 100) is None


def test_the_alarm_budget_is_shared_by_metrics_and_steps() -> None:
    assert share(0.05, 2, 5) * 2 * 5 == pytest.approx(0.05)
