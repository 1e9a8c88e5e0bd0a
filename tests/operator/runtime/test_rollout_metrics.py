"""The series of rollouts: what they are at, what they say, and that the words of the counter are those of the gauge."""

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from prometheus_client import CollectorRegistry

from dram_operator.adapters.releases.repository import Expiries
from dram_operator.api.rollout_reasons import RolloutCondition
from dram_operator.api.rollout_status import EdgeRolloutStatus, MetricStatus, StepState
from dram_operator.core.rollout.observed import Decision
from dram_operator.runtime.cache import Key
from dram_operator.runtime.rollouts.metrics import STATES, VERDICTS, RolloutCollector, Transitions
from tests.builders import a_rollout
from tests.operator.api.rollout_statuses import A_FULL_STATUS

NOW = datetime(2026, 1, 1, 1, tzinfo=UTC)
HOUR = 3600
EXPIRIES = Expiries({"timestamp": NOW + timedelta(hours=20)}, {"timestamp": NOW + timedelta(hours=8)})
KEY = Key("tv", "bot", "EdgeRollout")
assert A_FULL_STATUS.step
assert A_FULL_STATUS.rollback
BACK = A_FULL_STATUS.rollback.model_copy(update={"completed_at": None})


def moved(**changes: Any) -> EdgeRolloutStatus:
    return A_FULL_STATUS.model_copy(update={"rollback": None, **changes})


def stepping(state: StepState) -> EdgeRolloutStatus:
    assert A_FULL_STATUS.step
    return moved(step=A_FULL_STATUS.step.model_copy(update={"state": state}))


PLACES: dict[str, EdgeRolloutStatus] = {
    "Idle": moved(candidate=None),
    "Pending": moved(step=None),
    "RollingBack": moved(rollback=BACK),
    **{state.value: stepping(state) for state in StepState},
}


def stored(status: EdgeRolloutStatus) -> dict[str, Any]:
    return dict(status.model_dump(mode="json", by_alias=True, exclude_none=True))


def a_registry(status: EdgeRolloutStatus | None, transitions: Transitions | None = None) -> CollectorRegistry:
    obj = a_rollout().named("bot").having("metadata.namespace", "tv").manifest()
    obj |= {"status": stored(status)} if status else {}
    registry = CollectorRegistry()
    registry.register(RolloutCollector(lambda: [obj], transitions or Transitions(), lambda: EXPIRIES, lambda: NOW))
    return registry


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, {"namespace": "tv", "name": "bot", **labels})


def test_every_state_has_a_place() -> None:
    assert set(PLACES) == set(STATES)


@pytest.mark.parametrize("state", STATES)
def test_one_state_is_on_and_transitions_use_the_same_word(state: str) -> None:
    transitions = Transitions()
    other = "Idle" if state != "Idle" else "Pending"
    transitions.count(KEY, PLACES[other], Decision(PLACES[state]))
    registry = a_registry(PLACES[state], transitions)
    for each in STATES:
        assert value(registry, "dram_rollout_state", state=each) == float(each == state)
    change = {"from": other, "to": state, "reason": "Baking"}
    assert value(registry, "dram_rollout_transitions_total", **change) == 1


def test_a_finished_rollback_is_no_longer_on_its_way() -> None:
    done = BACK.model_copy(update={"completed_at": "2026-01-01T00:30:00Z"})
    assert value(a_registry(moved(rollback=done)), "dram_rollout_state", state="RollingBack") == 0


def test_conditions_verdicts_and_expiries_are_told() -> None:
    registry = a_registry(A_FULL_STATUS)
    for kind in RolloutCondition:
        said = {"condition": kind, "status": "Unknown", "reason": "Baking"}
        assert value(registry, "dram_rollout_condition", **said) == 1
    metric = A_FULL_STATUS.analysis[0]
    for verdict in VERDICTS:
        on = value(registry, "dram_rollout_metric_verdict", metric=metric.name, verdict=verdict)
        assert on == float(verdict == metric.verdict)
    role = {"role": "timestamp"}
    assert registry.get_sample_value("dram_releases_expiry_timestamp_seconds", role) == NOW.timestamp() + 20 * HOUR
    assert registry.get_sample_value("dram_releases_half_life_timestamp_seconds", role) == NOW.timestamp() + 8 * HOUR


def test_every_verdict_that_a_look_can_bring_has_a_series() -> None:
    assert set(VERDICTS) == set(get_args(MetricStatus.model_fields["verdict"].annotation))


def test_a_rollout_that_nobody_has_looked_at_is_idle() -> None:
    assert value(a_registry(None), "dram_rollout_state", state="Idle") == 1
