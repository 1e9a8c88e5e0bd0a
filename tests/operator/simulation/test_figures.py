"""Figures from counters as Prometheus would give them."""

import math

import numpy as np
import pytest

from dram_agent.buckets import LATENCY_BUCKETS
from dram_operator.api.rollout_analysis import Preset
from dram_operator.simulation.figures import Gauges, each_device, figure, quantile, requests
from dram_operator.simulation.telemetry import COLUMNS, OK, chances

GAUGES = Gauges(np.array([1.0, 0.5, np.nan]), np.array([1e9, 3e9, np.nan]), {"battery": np.array([1.0, 2.0, 3.0])})
EVERYBODY, NOBODY = np.ones(3, dtype=bool), np.zeros(3, dtype=bool)


def counts(*rows: dict[int, int]) -> np.ndarray:
    """Counters of devices by column."""
    made = np.zeros((len(rows), COLUMNS), dtype=np.int64)
    for number, row in enumerate(rows):
        for column, value in row.items():
            made[number, column] = value
    return made


THREE = counts({0: 5, 1: 1, OK: 9}, {1: 3, OK: 7}, {})


def test_a_quantile_is_linear_within_its_bucket() -> None:
    buckets = np.zeros((1, len(LATENCY_BUCKETS) + 1), dtype=np.int64)
    buckets[0, 1], buckets[0, 2] = 50, 50
    assert quantile(buckets, 0.5)[0] == pytest.approx(0.1)
    assert quantile(buckets, 0.75)[0] == pytest.approx(0.15)
    assert quantile(buckets, 0.25)[0] == pytest.approx(0.075)


def test_a_quantile_beyond_the_last_bound_is_that_bound_and_of_nothing_no_number() -> None:
    buckets = np.zeros((2, len(LATENCY_BUCKETS) + 1), dtype=np.int64)
    buckets[0, -1] = 10
    found = quantile(buckets, 0.95)
    assert found[0] == LATENCY_BUCKETS[-1]
    assert math.isnan(found[1])


@pytest.mark.parametrize(
    ("preset", "name", "want"),
    [
        (Preset.ERROR_RATIO, "", 4 / 20),
        (Preset.FALLBACK_RATIO, "", 5 / 25),
        (Preset.GOLDEN_RATIO, "", 0.75),
        (Preset.MEMORY_BYTES, "", 3e9),
        (None, "battery", 2.0),
    ],
)
def test_one_figure_of_an_arm(preset: Preset | None, name: str, want: float) -> None:
    assert figure(preset, name, THREE, GAUGES, EVERYBODY) == pytest.approx(want)
    assert figure(preset, name, THREE, GAUGES, NOBODY) is None


def test_a_ratio_of_no_requests_is_no_number() -> None:
    only_the_last = np.array([False, False, True])
    assert math.isnan(figure(Preset.ERROR_RATIO, "", THREE, GAUGES, only_the_last) or 0.0)
    assert figure(Preset.GOLDEN_RATIO, "", THREE, GAUGES, only_the_last) is None


def test_each_device_has_its_own() -> None:
    assert each_device(Preset.ERROR_RATIO, "", THREE, GAUGES)[:2].tolist() == [0.1, 0.3]
    assert np.isnan(each_device(Preset.ERROR_RATIO, "", THREE, GAUGES)[2])


def test_a_figure_rests_on_what_devices_served_but_for_the_fallback_ratio() -> None:
    assert requests(Preset.ERROR_RATIO, THREE, EVERYBODY) == 20
    assert requests(Preset.FALLBACK_RATIO, THREE, EVERYBODY) == 25


@pytest.mark.parametrize(("median", "sigma"), [(0.4, 0.5), (0.4, 0.0), (500.0, 0.5)])
def test_chances_are_those_of_the_seconds(median: float, sigma: float) -> None:
    found = chances(median, sigma)
    assert found.sum() == pytest.approx(1.0)
    drawn = median * np.exp(sigma * np.random.default_rng(1).standard_normal(20_000))
    share = np.searchsorted(LATENCY_BUCKETS, drawn) == int(found.argmax())
    assert share.mean() == pytest.approx(found.max(), abs=0.02)
