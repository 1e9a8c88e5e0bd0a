"""The series of EdgeRollouts, read from the cache at scrape time: they go when their object goes. Only transitions are counted, and dropped with it."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dram_operator.adapters.resources import EDGE_ROLLOUTS, Object
from dram_operator.api.quantity import quantity
from dram_operator.api.rollout_reasons import RolloutCondition
from dram_operator.api.rollout_status import EdgeRolloutStatus, StepState
from dram_operator.core.rollout.observed import Decision
from dram_operator.core.times import parse_time
from dram_operator.runtime.cache import Key
from dram_operator.runtime.metrics import OBJECT, add_conditions, condition_family

if TYPE_CHECKING:
    from dram_operator.adapters.releases.repository import Expiries

DEVICE_STATES = ("known", "expected", "reporting", "healthy", "failed", "offline")
IDLE, PENDING, ROLLING_BACK = "Idle", "Pending", "RollingBack"
STATES = (IDLE, PENDING, *(state.value for state in StepState), ROLLING_BACK)
"""What a rollout is at: nothing, a candidate before its first step, a step, or a rollback."""
VERDICTS = ("Pass", "Breach", "Inconclusive", "Error", "Missing")

Change = tuple[str, str, str]
"""From, to, reason."""


class Transitions:
    """How often each rollout went from one state to another, since this replica leads."""

    def __init__(self) -> None:
        self._counts: dict[Key, Counter[Change]] = defaultdict(Counter)

    def count(self, key: Key, old: EdgeRolloutStatus, decision: Decision) -> None:
        """Count the change that a decision made, if any."""
        before, after = _state(old), _state(decision.status)
        if before != after:
            ready = next(one for one in decision.status.conditions if one.type is RolloutCondition.READY)
            reason = decision.events[-1].reason.value if decision.events else ready.reason
            self._counts[key][before[0], after[0], reason] += 1

    def forget(self, key: Key) -> None:
        """The rollout is gone."""
        self._counts.pop(key, None)

    def of(self, key: Key) -> Mapping[Change, int]:
        """The counts of one rollout."""
        return self._counts.get(key, {})


class RolloutCollector(Collector):
    """The `dram_rollout_*` series, and the expiries of the repository."""

    def __init__(
        self,
        rollouts: Callable[[], Iterable[Object]],
        transitions: Transitions,
        expiries: "Callable[[], Expiries | None]",
        clock: Callable[[], datetime],
    ) -> None:
        self._rollouts = rollouts
        self._transitions = transitions
        self._expiries = expiries
        self._clock = clock

    def describe(self) -> Iterator[Metric]:
        """Nothing in advance: the registry must not scrape an empty cache to learn the names."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """Read every rollout once."""
        families = _Families()
        for obj in self._rollouts():
            name, status = [obj["metadata"]["namespace"], obj["metadata"]["name"]], obj.get("status", {})
            families.add_releases(name, status)
            families.add_state(name, status)
            families.add_step(name, status, self._clock())
            families.add_metrics(name, obj)
            for change, count in self._transitions.of(Key(name[0], name[1], EDGE_ROLLOUTS.kind)).items():
                families.transitions.add_metric([*name, *change], count)
        if expiries := self._expiries():
            families.add_expiries(expiries)
        yield from families.all()


class _Families:
    """One scrape."""

    def __init__(self) -> None:
        self.info = GaugeMetricFamily(
            "dram_rollout_info",
            "1; digests of the releases of a channel.",
            labels=[*OBJECT, "channel", "stable", "candidate"],
        )
        self.state = GaugeMetricFamily("dram_rollout_state", "1 for what the rollout is at.", labels=[*OBJECT, "state"])
        self.conditions = condition_family("dram_rollout_condition", "1; each condition as it stands.")
        self.step = GaugeMetricFamily("dram_rollout_step", "The step at work, from 1; 0 without one.", labels=OBJECT)
        self.cohort = GaugeMetricFamily(
            "dram_rollout_cohort_ratio", "Share of the known devices that is meant to run the candidate.", labels=OBJECT
        )
        self.devices = GaugeMetricFamily(
            "dram_rollout_devices", "Devices of the step at work by state.", labels=[*OBJECT, "state"]
        )
        self.value = GaugeMetricFamily(
            "dram_rollout_metric_value", "What a metric showed last.", labels=[*OBJECT, "metric"]
        )
        self.verdict = GaugeMetricFamily(
            "dram_rollout_metric_verdict", "1 for what the latest look said.", labels=[*OBJECT, "metric", "verdict"]
        )
        self.threshold = GaugeMetricFamily(
            "dram_rollout_metric_threshold", "What it is compared with.", labels=[*OBJECT, "metric", "bound"]
        )
        self.transitions = CounterMetricFamily(
            "dram_rollout_transitions", "Changes of state.", labels=[*OBJECT, "from", "to", "reason"]
        )
        self.seconds = GaugeMetricFamily(
            "dram_rollout_seconds", "How long the step or the rollback at work takes.", labels=[*OBJECT, "stage"]
        )
        self.expiries = GaugeMetricFamily(
            "dram_releases_expiry_timestamp_seconds",
            "When a role of the release repository expires: devices take nothing from then on.",
            labels=["role"],
        )

        self.half_lives = GaugeMetricFamily(
            "dram_releases_half_life_timestamp_seconds",
            "When half of a role's life is over: by then it should have been signed again.",
            labels=["role"],
        )

    def all(self) -> Iterator[Metric]:
        """Every family."""
        yield from vars(self).values()

    def add_releases(self, name: list[str], status: Object) -> None:
        """Which releases there are."""
        digests = [status.get(kind, {}).get("release", {}).get("digest", "") for kind in ("stable", "candidate")]
        self.info.add_metric([*name, "/".join(name), *digests], 1)

    def add_state(self, name: list[str], status: Object) -> None:
        """What it is at, and its conditions."""
        now = _stored_state(status)
        for state in STATES:
            self.state.add_metric([*name, state], state == now)
        add_conditions(self.conditions, name, status.get("conditions", ()))

    def add_step(self, name: list[str], status: Object, now: datetime) -> None:
        """The step at work, and how long it or the rollback takes."""
        step, rollback = status.get("step"), status.get("rollback", {})
        self.step.add_metric(name, step["index"] + 1 if step else 0)
        self.cohort.add_metric(name, step.get("percent", 0) / 100 if step else 0)
        if step:
            for state in DEVICE_STATES:
                self.devices.add_metric([*name, state], step.get("devices", {}).get(state, 0))
            self.seconds.add_metric([*name, step["shown"]], _seconds(step["startedAt"], now))
        if rollback and "completedAt" not in rollback:
            self.seconds.add_metric([*name, "rollback"], _seconds(rollback["startedAt"], now))

    def add_expiries(self, expiries: "Expiries") -> None:
        """Until when the repository is valid."""
        for role, moment in expiries.by_role.items():
            self.expiries.add_metric([role], moment.timestamp())
        for role, moment in expiries.half_lives.items():
            self.half_lives.add_metric([role], moment.timestamp())

    def add_metrics(self, name: list[str], obj: Object) -> None:
        """Values and their limits."""
        for found in obj.get("status", {}).get("analysis", ()):
            if "value" in found:
                self.value.add_metric([*name, found["name"]], found["value"])
            for verdict in VERDICTS:
                self.verdict.add_metric([*name, found["name"], verdict], verdict == found["verdict"])
        for metric in obj["spec"].get("analysis", {}).get("metrics", ()):
            for bound in ("min", "max", "margin"):
                if bound in metric:
                    self.threshold.add_metric([*name, metric["name"], bound], quantity(str(metric[bound])))


def _state(status: EdgeRolloutStatus) -> tuple[str, int]:
    """The state in a word, and the step."""
    rollback, step = status.rollback, status.step
    goes_back = rollback is not None and rollback.completed_at is None
    return _word(status.candidate is not None, goes_back, (step.state.value, step.index) if step else None)


def _stored_state(status: Object) -> str:
    """The same word of a status as the API server has it."""
    rollback, step = status.get("rollback"), status.get("step")
    goes_back = rollback is not None and "completedAt" not in rollback
    return _word("candidate" in status, goes_back, (step["state"], step["index"]) if step else None)[0]


def _word(is_on_its_way: bool, goes_back: bool, step: tuple[str, int] | None) -> tuple[str, int]:
    if not is_on_its_way:
        return IDLE, 0
    return (ROLLING_BACK, 0) if goes_back else step or (PENDING, 0)


def _seconds(since: str, now: datetime) -> float:
    return max(0.0, (now - parse_time(since)).total_seconds())
