"""A channel in a bottle for `decide`: devices that obey the signed document, telemetry that they tell, a virtual clock, and faults on request.

The order of writes is the runtime's: status, then the document, then Events; a crash may come before each of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from dram_agent.cohort import device_hash, release_for
from dram_agent.document import Artifact, ChannelDocument, Release, Requirements
from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.api.rollout_status import EdgeRolloutStatus, ReleaseStatus
from dram_operator.core.rollout.analysis import exposure_seconds, metrics_of
from dram_operator.core.rollout.answers import Answer, Sample, Trouble
from dram_operator.core.rollout.commands import ANNOTATION, Command, Verb
from dram_operator.core.rollout.decide import decide
from dram_operator.core.rollout.document import Delivery
from dram_operator.core.rollout.inventory import Device, Inventory
from dram_operator.core.rollout.observed import ArtifactView, Decision, DeviceReport, Measured, Observed
from dram_operator.core.times import parse_time, stamp
from tests.builders import ARollout, a_rollout

START = datetime(2030, 5, 1, 12, tzinfo=UTC)
OLD, NEW, THIRD = "1" * 64, "2" * 64, "3" * 64
UPDATE_SECONDS = 45
FLEET = 40
UNREACHABLE = Answer(trouble=Trouble.UNREACHABLE)


class Killed(Exception):
    """The operator died."""


def a_release(digest: str) -> ReleaseStatus:
    """A release that is ready to be offered."""
    artifact = Artifact(
        path=f"artifacts/{digest}/manifest.json",
        requires=Requirements(format="gguf", memory_bytes=1, agent_version="1"),
    )
    return ReleaseStatus(name=digest[:6], release=Release(digest=digest, artifacts=(artifact,)), since=stamp(START))


def stepping(*steps: Any, metrics: tuple[dict[str, Any], ...] = (), **strategy: Any) -> ARollout:
    """A rollout of short steps, with a latency limit unless told otherwise."""
    rollout = a_rollout().stepping(*steps)
    for name, value in {"minDevices": 2, **strategy}.items():
        rollout = rollout.having(f"spec.strategy.{name}", value)
    for metric in metrics or ({},):
        rollout = rollout.with_metric(**metric)
    return rollout


def step(percent: str, bake: int = 120) -> dict[str, Any]:
    """A step of so many percent."""
    return {"cohort": {"percent": percent}, "bakeSeconds": bake}


@dataclass
class Agent:
    """One device."""

    id: str
    runs: str = OLD
    healthy_since: datetime = START
    activated_at: datetime | None = None
    gave_up_on: str | None = None
    last_seen: datetime = START
    updating_since: datetime | None = None
    away: bool = False
    refuses: frozenset[str] = frozenset()


@dataclass
class World:
    """One rollout and everything around it."""

    manifest: ARollout = field(default_factory=lambda: stepping(step("10%"), step("50%"), step("100%")))
    fleet: int = FLEET
    figures: Callable[["World", str, datetime], Answer] = lambda world, name, at: good(at)
    each_device: Callable[["World", str, datetime], Mapping[str, float]] = lambda world, name, at: {}
    wanted: str = NEW
    now: datetime = START
    delivery: Delivery = field(default_factory=Delivery)
    repository_problem: str = ""
    telemetry: bool = True
    signed: ChannelDocument | None = None
    status: EdgeRolloutStatus = field(default_factory=EdgeRolloutStatus)
    annotations: dict[str, str] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    moves: list[str] = field(default_factory=list)
    """Releases in the order in which devices first took them up, and steps as they were signed."""
    crash_at: int = -1
    writes: int = 0
    deleted_at: datetime | None = None
    stable: str | None = OLD
    _built: tuple[ARollout, object, EdgeRollout] | None = None

    def __post_init__(self) -> None:
        self.agents = [Agent(f"{number:032x}", runs=self.stable or "") for number in range(self.fleet)]
        if self.stable:
            old = a_release(self.stable)
            self.status = EdgeRolloutStatus(attempt=1, stable=old)

    @property
    def rollout(self) -> EdgeRollout:
        """The object as the API server has it."""
        key = (self.wanted, str(self.annotations), self.deleted_at)
        if self._built is None or self._built[0] is not self.manifest or self._built[1] != key:
            self._built = (self.manifest, key, self._build())
        return self._built[2].model_copy(update={"status": self.status})

    def _build(self) -> EdgeRollout:
        manifest = self.manifest.having("metadata.annotations", self.annotations)
        if self.deleted_at:
            manifest = manifest.having("metadata.deletionTimestamp", stamp(self.deleted_at))
        return manifest.having("spec.artifact", {"uri": "s3://models/new", "sha256": self.wanted}).build()

    def observe(self) -> Observed:
        """What the runtime would show."""
        reports = {agent.id: _report(agent) for agent in self.agents} if self.telemetry else None
        return Observed(
            rollout=self.rollout,
            artifact=ArtifactView(a_release(self.wanted)),
            document=self.signed,
            repository_problem=self.repository_problem,
            inventory=Inventory(tuple(Device(agent.id) for agent in self.agents)),
            reports=reports,
            measured=self.measure(),
            vouched=True,
        )

    def measure(self) -> tuple[Measured, ...]:
        """A look at every metric, now."""
        step_at_work = self.status.step
        found = []
        for metric in metrics_of(self.rollout.spec.analysis):
            windows: list[tuple[int, Answer]] = []
            if metric.compare_to and step_at_work:
                length = exposure_seconds(self.rollout.spec.analysis)
                begun = parse_time(step_at_work.started_at)
                for window in range(int((self.now - begun).total_seconds()) // length):
                    end = begun + timedelta(seconds=(window + 1) * length)
                    values = self.each_device(self, metric.name, end)
                    samples = tuple(Sample({"device": name}, value) for name, value in values.items())
                    windows.append((window, Answer(samples, newest=end) if self.telemetry else UNREACHABLE))
            answer = self.figures(self, metric.name, self.now) if self.telemetry else UNREACHABLE
            found.append(Measured(metric.name, self.now, f"query of {metric.name}", answer, tuple(windows)))
        return tuple(found)

    def reconcile(self, observed: Observed | None = None) -> Decision:
        """One pass of the operator: decide, write status, publish, record events."""
        decision = decide(observed or self.observe(), self.delivery, self.now)
        if decision.status != self.status:
            self._write()
            self.status = decision.status
        if decision.document and decision.document != self.signed and not self.repository_problem:
            self._write()
            self._publish(decision.document)
        self.events += [event.reason.value for event in decision.events]
        return decision

    def _write(self) -> None:
        self.writes += 1
        if self.writes == self.crash_at:
            raise Killed

    def _publish(self, document: ChannelDocument) -> None:
        self.signed = document
        told = (document.candidate.digest[0] if document.candidate else "-", len(self._members(document)))
        if not self.moves or self.moves[-1] != str(told):
            self.moves.append(str(told))

    def _members(self, document: ChannelDocument) -> list[Agent]:
        return [
            agent
            for agent in self.agents
            if document.candidate and self._desired(agent, document) == document.candidate.digest
        ]

    def _desired(self, agent: Agent, document: ChannelDocument) -> str:
        release = release_for(document, {}, device_hash(bytes.fromhex(document.salt), agent.id))
        if document.withdrawing and release is document.candidate and release and agent.runs != release.digest:
            release = document.stable
        return release.digest if release else ""

    def tick(self, seconds: int = 30) -> None:
        """Time passes: devices that are there do as they are told, and tell of it."""
        self.now += timedelta(seconds=seconds)
        for agent in self.agents:
            if not agent.away:
                self._live(agent)

    def _live(self, agent: Agent) -> None:
        agent.last_seen = self.now
        if self.signed is None:
            return
        desired = self._desired(agent, self.signed)
        if desired in agent.refuses:
            agent.gave_up_on = desired
            return
        if desired == agent.runs:
            agent.updating_since = None
            return
        agent.updating_since = agent.updating_since or self.now
        if (self.now - agent.updating_since).total_seconds() >= UPDATE_SECONDS:
            agent.runs, agent.updating_since = desired, None
            agent.healthy_since = agent.activated_at = self.now

    def run(self, seconds: int, *, tick: int = 30) -> "World":
        """Reconcile and let time pass; a killed operator starts again."""
        until = self.now + timedelta(seconds=seconds)
        while self.now < until:
            try:
                self.reconcile()
            except Killed:
                self.reconcile()
            self.tick(tick)
        return self

    def run_until(self, done: Callable[["World"], bool], *, limit: int = 100_000) -> "World":
        """Run until something is so; an assertion when it does not come."""
        until = self.now + timedelta(seconds=limit)
        while not done(self):
            assert self.now < until, f"not reached: {self.events} {self.status.step} {self.status.conditions}"
            self.run(30)
        return self

    def command(
        self, verb: Verb, *, digest: str | None = None, step_index: int | None = None, who: str = "ann"
    ) -> None:
        """Write a command as the plugin does."""
        at = self.status.step.index if self.status.step and step_index is None else step_index
        about = digest or (self.status.candidate.release.digest if self.status.candidate else self.wanted)
        made = Command(
            id=f"c{len(self.status.commands)}-{verb}-{self.now.timestamp():.0f}",
            verb=verb,
            attempt=self.status.attempt,
            step=at,
            digest=about,
            who=who,
        )
        self.annotations = {ANNOTATION: made.encode()}

    def condition(self, name: str) -> str:
        """`status reason` of a condition."""
        found = next(one for one in self.status.conditions if one.type == name)
        return f"{found.status} {found.reason}"

    def running(self, digest: str) -> int:
        """How many devices run a release."""
        return sum(agent.runs == digest for agent in self.agents)


def _report(agent: Agent) -> DeviceReport:
    return DeviceReport(agent.last_seen, agent.runs, agent.healthy_since, agent.activated_at, agent.gave_up_on)


def figure(value: float, at: datetime, support: float = 1000) -> Answer:
    """One figure, fresh."""
    return Answer((Sample({}, value),), newest=at, support=support)


def good(at: datetime) -> Answer:
    """A figure within every limit of these tests."""
    return figure(0.1, at)


def bad_from(moment: datetime, value: float = 0.9) -> Callable[[World, str, datetime], Answer]:
    """The latency is beyond its limit from a moment on, where the candidate runs."""

    def figures(world: World, name: str, at: datetime) -> Answer:
        offered = world.status.candidate and world.status.candidate.release.digest == NEW
        hurt = name == "latency" and at >= moment and offered and world.running(NEW)
        return figure(value if hurt else 0.1, at)

    return figures


def is_completed(world: World) -> bool:
    """The candidate became stable and everybody runs it."""
    stable = world.status.stable
    return stable is not None and stable.release.digest == NEW and world.running(NEW) == len(world.agents)


def is_rolled_back(world: World) -> bool:
    """The rollback is over."""
    return world.status.rollback is not None and world.status.rollback.completed_at is not None


def at_step(index: int, state: str) -> Callable[[World], bool]:
    """A step stands somewhere."""
    return lambda world: (
        world.status.step is not None and (world.status.step.index, world.status.step.state.value) == (index, state)
    )
