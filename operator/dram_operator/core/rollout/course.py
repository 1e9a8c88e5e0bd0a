"""One pass over one rollout: the status as it changes, what is told of it, and when to look again."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dram_operator.api.rollout_reasons import RolloutReason
from dram_operator.api.rollout_spec import EdgeRolloutSpec, Step
from dram_operator.api.rollout_status import DeviceCounts, EdgeRolloutStatus, Reach, ReleaseStatus, StepStatus
from dram_operator.core.rollout.cohort import Arms, Sizes, arms, offline, salt_of, sizes
from dram_operator.core.rollout.document import Delivery
from dram_operator.core.rollout.evidence import (
    FRESH_INTERVALS,
    DeviceView,
    Expectation,
    OfflinePolicy,
    count_devices,
)
from dram_operator.core.rollout.inventory import Fleet, Inventory
from dram_operator.core.rollout.observed import DeviceReport, Observed, RolloutEvent, Totals
from dram_operator.core.rollout.windows import WindowInvalid, opening
from dram_operator.core.times import parse_time, stamp

SOAK_INTERVALS = 3
"""How long a device has to be well before it counts: as long as a silence that makes it doubtful."""


@dataclass
class Course:
    """The rollout at work. Functions of the engine read and change it in the order in which `decide` calls them."""

    observed: Observed
    delivery: Delivery
    now: datetime
    events: list[RolloutEvent] = field(default_factory=list)
    wakeups: list[datetime] = field(default_factory=list)
    waits_for: tuple[RolloutReason, str] | None = None
    """Why nothing moves forward; for conditions."""

    def __post_init__(self) -> None:
        self.rollout = self.observed.rollout
        self.status: EdgeRolloutStatus = self.rollout.status
        self.spec: EdgeRolloutSpec = self.rollout.spec
        self.problem = ""
        self._fleets: dict[str, Fleet] = {}
        self._arms: tuple[Reach, dict[str, str], Arms] | None = None

    def update(self, **fields: object) -> None:
        """Change fields of the status."""
        self.status = self.status.model_copy(update=fields)

    def update_step(self, **fields: object) -> None:
        """Change fields of the step at work."""
        self.update(step=self.step.model_copy(update=fields))

    def tell(self, reason: RolloutReason, message: str, *, warning: bool = False) -> None:
        """Record a transition."""
        self.events.append(RolloutEvent("Warning" if warning else "Normal", reason, message))

    def wait(self, reason: RolloutReason, message: str = "", until: datetime | None = None) -> None:
        """Say why nothing moves; the first reason counts."""
        self.waits_for = self.waits_for or (reason, message)
        if until:
            self.wakeups.append(until)

    @property
    def stamp(self) -> str:
        """Now, as status writes it."""
        return stamp(self.now)

    @property
    def step(self) -> StepStatus:
        """The step at work; there has to be one."""
        assert self.status.step is not None
        return self.status.step

    @property
    def planned(self) -> Step:
        """The step at work, as the spec has it; an edit that removed it leaves the last one."""
        steps = self.spec.strategy.steps
        return steps[min(self.step.index, len(steps) - 1)]

    @property
    def candidate(self) -> ReleaseStatus:
        """What is being rolled out; there has to be something."""
        assert self.status.candidate is not None
        return self.status.candidate

    def is_going_back(self) -> bool:
        """Whether a rollback is on its way."""
        return self.status.rollback is not None and self.status.rollback.completed_at is None

    @property
    def inventory(self) -> Inventory:
        """The known devices; nobody while the list cannot be had."""
        return self.observed.inventory or Inventory()

    def knows_devices(self) -> bool:
        """Whether there are devices to share out; says why not. What is cut from an empty list reaches nobody who comes later."""
        if self.observed.inventory is None:
            why = self.observed.sight_problem or "nobody has looked at the devices yet"
            self.wait(self.observed.sight_reason, why)
        elif not self.inventory.known:
            self.wait(RolloutReason.NO_DEVICES, self.observed.sight_problem or "no device has reported yet")
        return self.inventory.known > 0

    def salt(self) -> str:
        """The salt of the candidate's attempt."""
        return salt_of(self.rollout.channel, self.candidate.release.digest)

    def fleet(self) -> Fleet:
        """The devices by their hashes under that salt."""
        salt = self.salt()
        if salt not in self._fleets:
            self._fleets[salt] = self.inventory.salted(salt)
        return self._fleets[salt]

    def arms(self) -> Arms:
        """Treated and control devices of the step's stratum."""
        labels, known = self._stratum(), self._arms
        if known is None or known[0] is not self.status.reach or known[1] != labels:
            known = self._arms = (self.status.reach, labels, arms(self.status.reach, self.fleet(), labels))
        return known[2]

    def sizes(self) -> Sizes:
        """How many they are."""
        return sizes(self.status.reach, self.fleet(), self._stratum())

    def _stratum(self) -> dict[str, str]:
        """Labels of the devices that the step's share is taken of."""
        cohort = self.planned.cohort
        return dict(cohort.selector.match_labels) if cohort and cohort.selector else {}

    def report(self, device: str) -> DeviceReport | None:
        """What a device told last."""
        return (self.observed.reports or {}).get(device)

    def views(self) -> list[DeviceView]:
        """Every known device, as the step sees it."""
        treated = set(self.arms().treated.values())
        digest = self.candidate.release.digest
        return [_view(self.report(one.id), digest, in_cohort=one.id in treated) for one in self.inventory.devices]

    def counts(self) -> DeviceCounts | None:
        """The step's devices by state; None when nobody can tell."""
        if self.inventory.groups:
            return self._counted(self.observed.totals) if self.observed.totals else None
        if self.observed.reports is None or self.observed.inventory is None:
            return None
        return count_devices(self.views(), self.expectation(), self.now)

    def _counted(self, totals: Totals) -> DeviceCounts:
        """The same of devices that were counted before they were stored."""
        treated, policy = self.sizes().treated, self.expectation().offline_policy
        gone = min(offline(self.status.reach, self.fleet(), totals.silent), treated)
        return DeviceCounts(
            known=self.inventory.known,
            expected=treated - gone if policy is OfflinePolicy.EXCLUDE else treated,
            reporting=totals.reporting,
            healthy=totals.healthy,
            failed=totals.gave_up + totals.silent + (gone if policy is OfflinePolicy.COUNT_AS_FAILED else 0),
            offline=gone,
        )

    def expectation(self) -> Expectation:
        """What the step expects of its devices."""
        interval, offline = self.spec.analysis.interval_seconds, self.spec.strategy.offline
        return Expectation(
            digest=self.candidate.release.digest,
            soak_seconds=SOAK_INTERVALS * interval,
            interval_seconds=interval,
            offline_after_seconds=offline.after_seconds,
            offline_policy=OfflinePolicy(offline.policy),
            min_devices=self.spec.strategy.min_devices,
        )

    def is_fresh(self, seen: datetime) -> bool:
        """Whether this is not older than three intervals."""
        return self.now - seen <= timedelta(seconds=FRESH_INTERVALS * self.spec.analysis.interval_seconds)

    def since(self, moment: str) -> float:
        """Seconds since a moment of the status; never less than none, also when the clock was set back."""
        return max(0.0, (self.now - parse_time(moment)).total_seconds())

    def _is_unwanted(self) -> bool:
        """Whether spec.artifact names something else than the candidate: it goes no further, also while that is not ready yet."""
        return self.candidate.source not in (None, self.spec.artifact.source)

    def may_move(self) -> bool:
        """Whether forward moves are allowed now; says why not, and when to look again."""
        if self.spec.paused:
            self.wait(RolloutReason.PAUSED, "spec.paused is true")
        elif self.delivery.frozen:
            self.wait(RolloutReason.FROZEN, "the installation is frozen")
        elif self._is_unwanted():
            self.wait(self.observed.artifact.reason, "spec.artifact is another one by now")
        else:
            try:
                found = opening(self.spec.strategy.windows, self.now)
            except WindowInvalid as error:
                self.problem = str(error)
                self.wait(RolloutReason.SPEC_INVALID, self.problem)
                return False
            if found.changes_at:
                self.wakeups.append(found.changes_at)
            if found.is_open:
                return True
            self.wait(RolloutReason.AWAITING_WINDOW, "no window is open")
        return False


def _view(report: DeviceReport | None, digest: str, *, in_cohort: bool) -> DeviceView:
    if report is None:
        return DeviceView(in_cohort)
    return DeviceView(
        in_cohort,
        last_seen=report.last_seen,
        release=report.release,
        healthy_since=report.healthy_since,
        activated_at=report.activated_at,
        gave_up=report.gave_up_on == digest,
        excused=report.excused,
    )
