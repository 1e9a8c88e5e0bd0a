"""The operator of the simulation: observe, `decide`, write status, sign, tell, on a clock that nobody waits for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil

import numpy as np

from dram_agent.document import Artifact, Release, Requirements
from dram_agent.fleet.scenario import Scenario
from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.api.rollout_reasons import RolloutCondition, RolloutReason
from dram_operator.api.rollout_status import EdgeRolloutStatus, ReleaseStatus, StepState
from dram_operator.core.rollout.commands import ANNOTATION, Command, Verb
from dram_operator.core.rollout.decide import decide
from dram_operator.core.rollout.document import Delivery
from dram_operator.core.rollout.inventory import Inventory
from dram_operator.core.rollout.observed import ArtifactView, Decision, DeviceReport, Measured, Observed
from dram_operator.core.times import parse_time, stamp
from dram_operator.simulation.devices import Devices, Site
from dram_operator.simulation.population import populate
from dram_operator.simulation.prometheus import Prometheus
from dram_operator.simulation.telemetry import Meters
from dram_operator.simulation.timeline import Line, Look, Sample, Timeline, Verdict

STABLE_DIGEST = "0" * 64
"""The release that the fleet has before; it is not in any manifest."""
PATIENCE_SECONDS = 3600
"""How long a rollout that waits for people is watched for what may still happen to it."""
RECORDS_PER_INTERVAL = 2
"""How often devices are scraped between two looks."""
GOING_BACK_SECONDS = 10.0
"""How often the operator looks at devices that are going back, where the interval is longer."""
HAPPENINGS = {"PrometheusDown": "Prometheus", "RepositoryDown": "the release repository", "Frozen": "the freeze"}

ENDS = {"PrometheusDown": "PrometheusUp", "RepositoryDown": "RepositoryUp", "Frozen": "Thawed"}


@dataclass(frozen=True)
class _Sight:
    """What a look showed."""

    at: int
    step: tuple[int, str]
    inventory: Inventory | None
    reports: Mapping[str, DeviceReport] | None
    measured: tuple[Measured, ...]


@dataclass
class Simulation:
    """One attempt, from the moment at which the artifact is signed."""

    rollout: EdgeRollout
    scenario: Scenario
    digest: str
    """Of the candidate."""
    on_line: Callable[[Line], None] = lambda _: None
    timeline: Timeline = field(default_factory=Timeline)
    now: int = 0
    """Seconds since the start."""

    def __post_init__(self) -> None:
        self._people = populate(self.scenario)
        begun = self.scenario.starts_at
        loads, dice = tuple(group.load for group in self.scenario.groups), np.random.default_rng
        midnight = float(begun.hour * 3600 + begun.minute * 60 + begun.second)
        meters = Meters(self._people, loads, dice([self.scenario.seed, 1]), midnight)
        self.site = Site()
        self.devices = Devices(
            self.scenario, self._people, meters, self.site, self.digest, dice([self.scenario.seed, 2])
        )
        self.prometheus = Prometheus(self.devices, self.rollout.spec.analysis, begun)
        self.status = EdgeRolloutStatus(attempt=1, stable=self._release("the release before", STABLE_DIGEST))
        self._candidate = self._release(_name(self.rollout, self.digest), self.digest)
        self._sight: _Sight | None = None
        self._annotations: dict[str, str] = {}
        self._waited_for = ("", "")
        self._asked_at: int | None = None
        self._stalled_since: int | None = None
        self._on = dict.fromkeys(HAPPENINGS, False)

    def run(self) -> Timeline:
        """Run to the end."""
        self.prometheus.record(0.0)
        decision = self.step()
        while (verdict := self._ended()) is None:
            self._live(self.now + self._pause(decision))
            decision = self.step()
        self.timeline.verdict, self.timeline.message = verdict, self._why(verdict)
        return self.timeline

    def step(self) -> Decision:
        """One pass of the operator."""
        self._look_around()
        self._approve()
        delivery = Delivery(**self.scenario.polling.model_dump(by_alias=False), frozen=self._on["Frozen"])
        decision = decide(self.observe(), delivery, self._moment())
        self.status = decision.status
        if decision.document and decision.document != self.site.document and self.site.is_up:
            self.site.publish(decision.document, self.now)
        if self.status.step:
            self.prometheus.begin_step(self._step(), self.now)
        asks = self.status.step is not None and self.status.step.state is StepState.AWAITING_APPROVAL
        self._asked_at = (self.now if self._asked_at is None else self._asked_at) if asks else None
        self._note(decision)
        return decision

    def observe(self) -> Observed:
        """What the runtime would show of this moment."""
        step = self._step()
        if self._sight is None or self._sight.step[0] != step[0] or self.now - self._sight.at >= self._every():
            self._sight = self._look(step)
        metadata = self.rollout.metadata.model_copy(update={"annotations": dict(self._annotations)})
        return Observed(
            rollout=self.rollout.model_copy(update={"status": self.status, "metadata": metadata}),
            artifact=ArtifactView(self._candidate),
            document=self.site.document,
            repository_problem="" if self.site.is_up else "it does not answer",
            inventory=self._sight.inventory,
            reports=self._sight.reports,
            measured=self._sight.measured if self._sight.step == step else (),
            vouched=True,
        )

    def _look(self, step: tuple[int, str]) -> "_Sight":
        """Look at the devices and at every metric."""
        told, source = self.prometheus, self.rollout.spec.inventory
        known = told.is_up or source.uri is not None
        lookback = None if source.uri else float(source.lookback_seconds)
        return _Sight(
            self.now,
            step,
            told.inventory(self.now, lookback) if known else None,
            told.reports(STABLE_DIGEST, self.digest) if told.is_up else None,
            told.measure(self.now, step[0], self._began()) if self.status.step and not self._is_going_back() else (),
        )

    def _began(self) -> float:
        """When the attempt began."""
        candidate = self.status.candidate
        return (parse_time(candidate.since) - self.scenario.starts_at).total_seconds() if candidate else 0.0

    def _every(self) -> float:
        """How often to look."""
        interval = float(self.rollout.spec.analysis.interval_seconds)
        return min(interval, GOING_BACK_SECONDS) if self._is_going_back() else interval

    def _is_going_back(self) -> bool:
        return self.status.rollback is not None and self.status.rollback.completed_at is None

    def _step(self) -> tuple[int, str]:
        """What figures are about: the attempt, and when its step started."""
        return self.status.attempt, self.status.step.started_at if self.status.step else ""

    def _look_around(self) -> None:
        """Switch on and off what the scenario has happen to the installation."""
        for event, name in HAPPENINGS.items():
            is_on = self.scenario.is_on(event, self.now)
            if is_on != self._on[event]:
                self._tell("Fleet", event if is_on else ENDS[event], f"{name} {_turned(event, is_on)}")
            self._on[event] = is_on
        self.prometheus.is_up, self.site.is_up = not self._on["PrometheusDown"], not self._on["RepositoryDown"]

    def _approve(self) -> None:
        """Write the command of the person who approves, when the time has come."""
        step, candidate, approvals = self.status.step, self.status.candidate, self.scenario.approvals
        if step is None or candidate is None or approvals is None or self._asked_at is None:
            return
        if self.now - self._asked_at >= approvals.after_seconds:
            command = Command(
                id=f"approval-{self.now}", verb=Verb.APPROVE, attempt=self.status.attempt, step=step.index,
                digest=candidate.release.digest, who="fleet-file",
            )  # fmt: skip
            self._annotations = {ANNOTATION: command.encode()}

    def _live(self, until: int) -> None:
        """Let time pass for everybody else."""
        devices, tick = self.devices, max(1, self.rollout.spec.analysis.interval_seconds // RECORDS_PER_INTERVAL)
        while self.now < until:
            closes = self.prometheus.next_close() if self.status.step else float("inf")
            stop = int(min(until, closes, self.now + tick))
            devices.meters.serve(self.now, stop, ~devices.offline)
            devices.advance(stop)
            self.now = stop
            self.prometheus.record(stop)
            if stop == closes:
                self.prometheus.close_window(stop)

    def _pause(self, decision: Decision) -> int:
        """Seconds until the next pass."""
        due = self._every() - (self.now - self._sight.at if self._sight else 0)
        pause = max(1, ceil(min(decision.requeue_after or due, due)))
        later = [one - self.now for one in self.scenario.changes() if one > self.now]
        if self._asked_at is not None and self.scenario.approvals is not None:
            later.append(max(1, self._asked_at + self.scenario.approvals.after_seconds - self.now))
        return min(pause, *later) if later else pause

    def _ended(self) -> Verdict | None:
        status = self.status
        if status.candidate is None and status.stable and status.stable.release.digest == self.digest:
            return Verdict.COMPLETED
        if status.rollback and status.rollback.completed_at:
            return Verdict.ROLLED_BACK
        if self._is_stuck():
            return Verdict.STALLED
        return Verdict.UNFINISHED if self.now >= self.scenario.longest_seconds else None

    def _is_stuck(self) -> bool:
        """Whether only people could go on, nobody will, and nothing that was scripted is left to happen."""
        condition = next((one for one in self.status.conditions if one.type is RolloutCondition.STALLED), None)
        if condition is None or condition.status != "True" or (self._asked_at is not None and self.scenario.approvals):
            self._stalled_since = None
            return False
        self._stalled_since = self.now if self._stalled_since is None else self._stalled_since
        faults = [fault for group in self.scenario.groups for fault in group.faults]
        latest = max((getattr(fault, "after_seconds", 0) for fault in faults), default=0)
        scripted = max(self.scenario.changes(), default=0)
        return self.now > max(scripted, self._stalled_since + latest) + PATIENCE_SECONDS

    def _note(self, decision: Decision) -> None:
        """Put the pass on the timeline."""
        self.timeline.passes += 1
        for event in decision.events:
            self._tell(event.type, event.reason.value, event.message)
        ready = next(one for one in self.status.conditions if one.type is RolloutCondition.READY)
        shown = self.status.step.shown if self.status.step else ""
        if (ready.reason, shown) != self._waited_for:
            self._waited_for = (ready.reason, shown)
            told = {event.reason for event in decision.events} | {RolloutReason.PENDING}
            if ready.reason not in told and ready.status != "True":
                self._tell("Waits", ready.reason, ready.message)
        self.timeline.samples.append(self._sample())

    def _sample(self) -> Sample:
        step = self.status.step
        looks = {
            one.name: Look(one.verdict, one.value, one.limit, one.upper)
            for one in self.status.analysis
            if one.looked_at == stamp(self._moment())
        }
        devices = self.devices.by_state(self.now)
        return Sample(self.now, step.index + 1 if step else 0, step.percent if step else 0, devices, looks)

    def _tell(self, kind: str, reason: str, message: str) -> None:
        line = Line(self.now, stamp(self._moment()), kind, reason, message)
        self.timeline.lines.append(line)
        self.on_line(line)

    def _why(self, verdict: Verdict) -> str:
        ready = next(one for one in self.status.conditions if one.type is RolloutCondition.READY)
        match verdict:
            case Verdict.COMPLETED:
                return f"{self._candidate.name} is stable"
            case Verdict.ROLLED_BACK:
                back = self.status.rollback
                return f"{back.reason}: {back.message}" if back else ""
            case Verdict.STALLED | Verdict.UNFINISHED:
                return f"{ready.reason}: {ready.message}".removesuffix(": ")

    def _moment(self) -> datetime:
        return self.scenario.starts_at + timedelta(seconds=self.now)

    def _release(self, name: str, digest: str) -> ReleaseStatus:
        """A release with one build that every device can run."""
        needs = Requirements(format="gguf", memory_bytes=0, agent_version="0")
        build = Artifact(path=f"artifacts/{digest}/manifest.json", requires=needs)
        release = Release(digest=digest, artifacts=(build,))
        return ReleaseStatus(name=name, release=release, since=stamp(self.scenario.starts_at))


def _name(rollout: EdgeRollout, digest: str) -> str:
    """What people call the candidate."""
    job = rollout.spec.artifact.job_ref
    return f"{job.name}/{job.variant}" if job else digest[:12]


def _turned(event: str, is_on: bool) -> str:
    if event == "Frozen":
        return "is on" if is_on else "is off"
    return "does not answer" if is_on else "answers again"
