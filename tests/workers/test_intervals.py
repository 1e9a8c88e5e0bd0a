"""Bounds: known values, coverage in simulation, and honesty about too few observations."""

import numpy as np
import pytest

from dram_workers.intervals import mean_bounds, proportion_bounds, quantile, quantile_bounds, ratio_bounds


@pytest.mark.parametrize(
    ("passed", "total", "want_low", "want_high"),
    [(30, 30, 0.905, 1.0), (149, 149, 0.98, 1.0), (0, 30, 0.0, 0.095), (27, 30, 0.761, 0.972)],
)
def test_a_pass_rate_has_exact_bounds(passed: int, total: int, want_low: float, want_high: float) -> None:
    assert proportion_bounds(passed, total) == pytest.approx((want_low, want_high), abs=5e-4)


def test_a_mean_has_the_bounds_of_students_t() -> None:
    reach = 2.13185 * 0.70711
    assert mean_bounds([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx((3 - reach, 3 + reach), abs=1e-4)
    assert mean_bounds([1.0]) == (None, None)


def test_equal_pairs_have_a_ratio_without_doubt() -> None:
    assert ratio_bounds([0.5] * 10, [1.0] * 10, 0) == (0.5, 0.5)


def test_a_ratio_needs_a_few_pairs_and_something_to_divide_by() -> None:
    assert ratio_bounds([1.0] * 4, [1.0] * 4, 0) == (None, None)
    assert ratio_bounds([0.0] * 6, [0.0] * 6, 0) == (None, None)


def test_ratio_bounds_cover_the_truth_about_as_often_as_they_say() -> None:
    draw = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        below = draw.uniform(0.5, 1.0, 40)
        above = below * 0.9 + draw.normal(0, 0.1, 40)
        low, _ = ratio_bounds(above.tolist(), below.tolist(), trial)
        assert low is not None
        covered += low <= 0.9
    assert 0.89 <= covered / 200 <= 0.99


@pytest.mark.parametrize(
    ("count", "share", "want"), [(59, 0.95, True), (58, 0.95, False), (299, 0.99, True), (298, 0.99, False)]
)
def test_an_upper_bound_of_a_quantile_takes_enough_timings(count: int, share: float, want: bool) -> None:
    _, high = quantile_bounds([float(number) for number in range(count)], share)
    assert (high is not None) is want


def test_quantile_bounds_are_observed_values_around_the_quantile() -> None:
    values = [float(number) for number in range(1, 101)]
    low, high = quantile_bounds(values, 0.5)
    assert quantile(values, 0.5) == 50
    assert (low, high) == (42, 59)


def test_quantile_bounds_cover_the_truth_at_least_as_often_as_they_say() -> None:
    draw = np.random.default_rng(2)
    highs = [quantile_bounds(draw.uniform(size=59).tolist(), 0.95)[1] for _ in range(400)]
    assert np.mean([high is not None and high >= 0.95 for high in highs]) >= 0.93
