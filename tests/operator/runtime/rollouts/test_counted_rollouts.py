"""Whole rollouts of devices that are only counted: real agents' series, the recording rules, a real Prometheus, the operator's looks and its decisions."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from dram_agent.cohort import device_hash, is_member, release_for
from dram_agent.document import ChannelDocument
from dram_agent.standing import Arm
from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.api.rollout_status import EdgeRolloutStatus
from dram_operator.core.rollout.decide import decide
from dram_operator.core.rollout.document import Delivery
from dram_operator.core.rollout.observed import ArtifactView, Observed
from dram_operator.runtime.rollouts.sight import View
from tests.builders import ARollout
from tests.operator.core.rollout.world import NEW, OLD, a_release, step, stepping
from tests.operator.runtime.rollouts.recorded_fleet import Device, RecordedFleet
from tests.operator.runtime.rollouts.test_counted_sight import Eyes, eyes

DEVICES = 24
LIMIT_BYTES = 64 << 10
USUAL = stepping(step("50%", 120), step("100%", 120), metrics=({"name": "p95", "preset": "LatencyP95", "max": "1"},))


@dataclass
class Stage:
    """A channel whose devices obey its signed document."""

    fleet: RecordedFleet
    manifest: ARollout
    candidate: Callable[[Device, float], None] = lambda device, now: None
    """What becomes of a device that runs the candidate."""
    gives_up: Callable[[Device], bool] = lambda device: False
    status: EdgeRolloutStatus = field(default_factory=lambda: EdgeRolloutStatus(attempt=1, stable=a_release(OLD)))
    signed: ChannelDocument | None = None
    events: list[str] = field(default_factory=list)
    views: list[View] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.devices = [Device(f"{number:032x}", {"ring": "early"}) for number in range(DEVICES)]
        self.built = self.manifest.having("spec.artifact", {"uri": "s3://models/new", "sha256": NEW}).build()

    @property
    def rollout(self) -> EdgeRollout:
        """The object."""
        return self.built.model_copy(update={"status": self.status})

    def tick(self) -> None:
        """Half a minute of all devices."""
        for number, one in enumerate(self.devices):
            self._obey(one, number)
        self.fleet.tick(self.devices)
        self.fleet.go()

    def _obey(self, one: Device, number: int) -> None:
        now, document = self.fleet.now, self.signed
        hashed = device_hash(bytes.fromhex(document.salt), one.id) if document else 0
        offered = document.candidate if document else None
        wanted = release_for(document, one.labels, hashed) if document else None
        treated = document is not None and offered is not None and is_member(document, one.labels, hashed)
        gave_up = treated and one.activated > 0 and self.gives_up(one)
        one.run(OLD if gave_up or wanted is None else wanted.digest, now)
        if one.runs == NEW:
            self.candidate(one, now)
        else:
            one.seconds = 0.1
        told = {offered.digest: gave_up} if offered and treated else {}
        one.live(now, document.attempt if document else 1, Arm.TREATED if treated else Arm.CONTROL, told)

    async def go(self, sight: Eyes, minutes: int) -> None:
        """So many minutes, with a look and a decision in each."""
        for _ in range(minutes):
            self.tick()
            self.tick()
            view = await sight.look(self.rollout)
            self.views.append(view)
            observed = Observed(
                self.rollout,
                ArtifactView(a_release(NEW)),
                self.signed,
                inventory=view.inventory,
                reports=view.reports,
                totals=view.totals,
                measured=view.measured,
                sight_problem=view.problem,
                sight_reason=view.reason,
            )
            decision = decide(observed, Delivery(), self.fleet.at)
            self.status, self.signed = decision.status, decision.document or self.signed
            self.events += [event.reason.value for event in decision.events]
            assert len(self.status.model_dump_json(by_alias=True).encode()) < LIMIT_BYTES

    def in_words(self, kind: str) -> str:
        """What a condition says."""
        return next(one.message for one in self.status.conditions if one.type == kind)


def told(stage: Stage, minutes: int, then: Callable[[], None] = lambda: None, more: int = 0) -> Stage:
    """Let it go on, then change something and go on."""

    async def run() -> None:
        async with eyes(stage.fleet, DEVICES // 2) as sight:
            await stage.go(sight, minutes)
            then()
            await stage.go(sight, more)

    with stage.fleet:
        for _ in range(2):
            stage.tick()
        asyncio.run(run())
    return stage


def slow(device: Device, now: float) -> None:
    """A candidate that takes long."""
    device.seconds = 3.0


def test_a_good_release_becomes_stable() -> None:
    stage = told(Stage(RecordedFleet(), USUAL), 17)
    assert stage.events == ["Resolved", *["StepStarted", "Baking", "StepPassed"] * 2, "Completed"]
    assert stage.status.stable is not None
    assert stage.status.stable.release.digest == NEW
    assert {view.reports is None for view in stage.views} == {True}
    assert all(one.runs == NEW for one in stage.devices)


def test_a_breach_of_a_limit_sends_it_back() -> None:
    stage = told(Stage(RecordedFleet(), USUAL, slow), 14)
    assert stage.events[-2:] == ["RollingBack", "RolledBack"]
    assert stage.status.rollback is not None
    assert stage.status.rollback.reason == "MetricBreached"
    assert all(one.runs == OLD for one in stage.devices)


def test_too_many_failed_devices_send_it_back() -> None:
    stage = told(Stage(RecordedFleet(), USUAL, gives_up=lambda one: int(one.id, 16) % 2 == 0), 10)
    assert stage.events[-2:] == ["RollingBack", "RolledBack"]
    assert stage.status.rollback is not None
    assert stage.status.rollback.reason == "DevicesFailed"


def test_when_counting_ends_nothing_passes_and_nothing_goes_back() -> None:
    """The devices report on, and every one of them is ill by then: nobody sees it, and nobody guesses, also when the bake is long over."""
    stage = Stage(RecordedFleet(), stepping(step("50%", 360), step("100%", 360)))

    def end() -> None:
        stage.fleet.records = False
        stage.candidate = slow

    told(stage, 7, end, 9)
    assert stage.events == ["Resolved", "StepStarted", "Baking"]
    assert (stage.views[-1].inventory, stage.views[-1].totals) == (None, None)
    assert (
        "the newest count is of 2020-05-01" in stage.views[-1].problem
        or "nothing was counted" in stage.views[-1].problem
    )


@pytest.mark.long
@pytest.mark.parametrize("limits", [{}, {"max": "1"}])
def test_a_comparison_with_control_asks_people_and_says_why(limits: dict[str, str]) -> None:
    compared = {"name": "errors", "preset": "ErrorRatio", "compareTo": "Control", "margin": "10m", **limits}
    steps = stepping(step("50%", 60), step("100%", 60), metrics=({"inconclusiveLimit": 2, **compared},))
    stage = told(Stage(RecordedFleet(), steps), 22)
    assert "MetricInconclusive" in stage.events
    assert "StepPassed" not in stage.events
    assert "errors: devices that are only counted cannot be compared one by one" in stage.in_words(
        "StepTooSmallToJudge"
    )
    [shown] = [one for one in stage.status.analysis if one.name == "errors"]
    assert shown.verdict == "Inconclusive"
