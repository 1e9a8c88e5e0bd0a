"""What a look asks: only of the releases in question, and of nothing that was before the attempt."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from dram_operator.core.rollout.looks import MetricLook, metric_looks
from dram_operator.core.times import stamp
from tests.builders import ARollout, a_rollout
from tests.operator.core.rollout.world import NEW, OLD, START, a_release

EXPOSURE_SECONDS = 300
BEGUN = START + timedelta(hours=1)


def at_work(**metric: Any) -> ARollout:
    """A rollout whose first step began with the attempt."""
    releases = {
        name: a_release(digest).model_dump(mode="json", by_alias=True, exclude_none=True) | {"since": stamp(BEGUN)}
        for name, digest in (("candidate", NEW), ("stable", OLD))
    }
    step = {"index": 0, "shown": "1/1", "state": "Updating", "startedAt": stamp(BEGUN), "treated": 1, "control": 1}
    rollout = a_rollout().with_metric(name="own", **metric)
    return ARollout(rollout.spec, rollout.metadata, releases | {"attempt": 2, "step": step})


def look(rollout: ARollout, at: datetime) -> MetricLook:
    return next(one for one in metric_looks(rollout.build(), at, {}) if one.name == "own")


@pytest.mark.parametrize(("seconds", "want"), [(0, "1s"), (40, "40s"), (119, "1m59s"), (120, "2m"), (9000, "2m")])
def test_a_figure_does_not_reach_back_to_before_the_attempt(seconds: int, want: str) -> None:
    found = look(at_work(query="sum(rate(foo[{{window}}]))", max="1"), BEGUN + timedelta(seconds=seconds))
    assert found.figure is not None
    assert f"[{want}]" in found.query
    assert found.figure.value == found.query


def test_a_figure_is_of_the_candidate_alone() -> None:
    found = look(at_work(preset="ErrorRatio", max="1"), BEGUN + timedelta(hours=1))
    assert found.figure is not None
    for query in (found.figure.value, found.figure.samples, found.figure.newest):
        assert f'release="{NEW}"' in query
        assert OLD not in query


def test_a_comparison_is_of_the_candidate_and_stable() -> None:
    rollout = at_work(preset="ErrorRatio", compareTo="Control", margin="0.01")
    at = BEGUN + timedelta(seconds=2 * EXPOSURE_SECONDS)
    (window,) = look(rollout, at).windows
    assert f'release=~"{NEW}|{OLD}"' in window.queries[0].value
    assert "[5m]" in window.queries[0].value


def test_without_a_stable_release_the_control_has_no_model() -> None:
    rollout = at_work(preset="ErrorRatio", compareTo="Control", margin="0.01")
    del rollout.status["stable"]
    assert f'release=~"{NEW}|none"' in look(rollout, BEGUN).query


def test_nothing_is_asked_without_a_candidate() -> None:
    rollout = at_work(preset="ErrorRatio", max="1")
    del rollout.status["candidate"]
    assert metric_looks(rollout.build(), BEGUN, {}) == ()
