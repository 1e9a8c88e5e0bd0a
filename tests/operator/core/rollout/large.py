"""One rollout of any size as a pass finds it: listed devices, or a million that are only counted."""

import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property

from dram_operator.api.rollout_status import EdgeRolloutStatus
from dram_operator.core.rollout.analysis import exposure_seconds, metrics_of
from dram_operator.core.rollout.answers import Answer, Sample
from dram_operator.core.rollout.cohort import Sizes, arms, salt_of, sizes
from dram_operator.core.rollout.decide import decide
from dram_operator.core.rollout.document import Delivery
from dram_operator.core.rollout.inventory import Device, Group, Inventory
from dram_operator.core.rollout.observed import ArtifactView, Decision, DeviceReport, Measured, Observed, Totals
from dram_operator.core.times import parse_time
from tests.builders import ARollout
from tests.operator.core.rollout.world import NEW, OLD, START, World, a_release, good, step, stepping

RINGS = ("early", "late")
LONG_AGO = START - timedelta(days=1)
USUAL = stepping(step("10%", 600), step("100%", 600), holdbackPercent="5%")
COUNTED = 1_000_000
COMPARED = {"name": "errors", "preset": "ErrorRatio", "compareTo": "Control", "margin": "10m"}


@dataclass
class Channel:
    """A channel whose devices do at once as they are told; half of them in each ring."""

    devices: int
    manifest: ARollout = USUAL
    now: datetime = START
    failed: int = 0
    """Treated devices of a counted fleet that fell back."""
    offline: int = 0
    """Devices of a counted fleet that have been silent for long."""

    def __post_init__(self) -> None:
        self.world = World(manifest=self.manifest, fleet=0)
        self.status: EdgeRolloutStatus = self.world.status
        self.signed = self.world.signed
        self.events: list[str] = []
        self.told = ""
        self.activated: dict[str, datetime] = {}

    @property
    def is_listed(self) -> bool:
        """Whether telemetry tells of each device."""
        return self.devices < COUNTED

    @cached_property
    def inventory(self) -> Inventory:
        """The devices, listed or in groups."""
        if not self.is_listed:
            each, silent = self.devices // len(RINGS), self.offline // len(RINGS)
            return Inventory(groups=tuple(Group(each, {"ring": ring}, silent) for ring in RINGS))
        dice = random.Random(1)
        ids = (f"{dice.getrandbits(128):032x}" for _ in range(self.devices))
        return Inventory(tuple(Device(name, {"ring": RINGS[index % 2]}) for index, name in enumerate(ids)))

    def observe(self) -> Observed:
        """What the runtime would show."""
        rollout = self.world.rollout.model_copy(update={"status": self.status})
        observed = Observed(rollout, ArtifactView(a_release(NEW)), document=self.signed, inventory=self.inventory)
        if self.is_listed:
            return replace(observed, reports=self._reports(), measured=self._measured())
        return replace(observed, totals=self._totals(), measured=self._measured())

    def go_on(self, seconds: int = 60) -> Decision:
        """One pass; then time goes by."""
        decision = decide(self.observe(), Delivery(), self.now)
        self.status, self.signed = decision.status, decision.document
        self.events += [event.reason.value for event in decision.events]
        self.told += "".join(event.message for event in decision.events)
        self.now += timedelta(seconds=seconds)
        return decision

    def _is_offered(self) -> bool:
        return self.signed is not None and self.signed.candidate is not None

    def _reports(self) -> dict[str, DeviceReport]:
        wanted = NEW if self.status.stable and self.status.stable.release.digest == NEW else OLD
        found = {device.id: DeviceReport(self.now, wanted, LONG_AGO) for device in self.inventory.devices}
        if self._is_offered():
            fleet = self.inventory.salted(salt_of(self.world.rollout.channel, NEW))
            for name in arms(self.status.reach, fleet, {}).treated.values():
                since = self.activated.setdefault(name, self.now)
                found[name] = DeviceReport(self.now, NEW, since, since)
        return found

    def _sizes(self) -> Sizes:
        return (
            sizes(self.status.reach, self.inventory.salted("00"), {}) if self._is_offered() else Sizes(0, self.devices)
        )

    def _totals(self) -> Totals:
        treated = self._sizes().treated
        running = {NEW: treated, OLD: self.devices - treated}
        return Totals(reporting=treated, healthy=treated - self.failed, gave_up=self.failed, running=running)

    def _measured(self) -> tuple[Measured, ...]:
        metrics = metrics_of(self.world.rollout.spec.analysis)
        return tuple(Measured(one.name, self.now, "q", good(self.now), self._windows(one.name)) for one in metrics)

    def _windows(self, name: str) -> tuple[tuple[int, Answer], ...]:
        if self.status.step is None or name != COMPARED["name"] or not self.is_listed:
            return ()
        length, begun = exposure_seconds(self.world.rollout.spec.analysis), parse_time(self.status.step.started_at)
        ends = [begun + timedelta(seconds=length * (number + 1)) for number in range(100)]
        closed = [end for end in ends if end <= self.now]
        return tuple((number, self._answer(number, end)) for number, end in enumerate(closed))

    def _answer(self, window: int, end: datetime) -> Answer:
        dice = random.Random(window)
        return Answer(
            tuple(Sample({"device": one.id}, 0.02 * dice.random()) for one in self.inventory.devices), newest=end
        )
