"""What holds of `decide` after any story at all: telemetry, commands, edits, crashes, lost status and clocks in any order."""

from dataclasses import replace
from datetime import datetime, timedelta
from math import inf, nan

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dram_agent.document import ChannelDocument
from dram_operator.api.rollout_reasons import RolloutReason
from dram_operator.api.rollout_status import EdgeRolloutStatus
from dram_operator.core.rollout.answers import Answer, Sample, Trouble
from dram_operator.core.rollout.commands import Verb
from dram_operator.core.rollout.decide import decide
from dram_operator.core.rollout.document import Delivery
from dram_operator.core.rollout.edits import leading_to
from dram_operator.core.rollout.observed import Decision, Observed
from dram_operator.core.rollout.rollback import DEADLINE_SECONDS
from tests.operator.core.rollout.world import NEW, OLD, THIRD, World, figure, step, stepping

FLEET, MIN_DEVICES, SOAK_SECONDS, FRESH_SECONDS = 12, 2, 180, 180
PLANS = (
    (step("25%"), step("100%")),
    (step("10%", 60), "pause", step("50%", 300), step("100%", 60)),
    ({"cohort": {"deviceIds": [f"{5:032x}"]}, "bakeSeconds": 60}, step("100%", 60)),
    (step("100%", 0),),
    (step("50%", 60), step("10%", 60), step("100%", 600)),
)
TICKS = st.integers(0, 20)
"""Half minutes that go by after something happened."""
NIGHT = [{"schedule": "0 3 * * *", "durationSeconds": 600}]


def answers(kind: str, at: datetime) -> Answer:
    """A look of each kind at a metric whose largest good value is 0.3."""
    two = (Sample({"a": "1"}, 0.1), Sample({"a": "2"}, 0.1))
    return {
        "good": figure(0.1, at),
        "bad": figure(0.9, at),
        "NaN": figure(nan, at),
        "infinite": figure(inf, at),
        "empty": Answer(newest=at),
        "stale": figure(0.1, at - timedelta(hours=1)),
        "several": Answer(two, newest=at, support=1000),
        "few": figure(0.1, at, 3),
        "malformed": Answer(trouble=Trouble.MALFORMED),
        "timeout": Answer(trouble=Trouble.TIMED_OUT),
    }[kind]


KINDS = ("good", "bad", "NaN", "infinite", "empty", "stale", "several", "few", "malformed", "timeout")


class Operator(World):
    """The world with an eye on every pass."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.kind = "good"
        self.looks: list[tuple[datetime, str]] = []
        self.knows_devices = True
        self.documents: list[ChannelDocument] = []
        self.offered: dict[int, str] = {}
        """Releases by attempt."""
        self.figures = lambda world, name, at: answers(self.kind, at)

    def observe(self) -> Observed:
        observed = super().observe()
        return observed if self.knows_devices else replace(observed, inventory=None)

    def reconcile(self, observed: Observed | None = None) -> Decision:
        observed, before = observed or self.observe(), self.status
        self.looks.append((self.now, self.kind if self.telemetry else "timeout"))
        decision = decide(observed, self.delivery, self.now)
        reasons = [event.reason for event in decision.events]
        if RolloutReason.STEP_PASSED in reasons:
            self._has_evidence(observed, before)
        if RolloutReason.COMPLETED in reasons:
            self._was_the_last_step(observed, before, decision)
        return super().reconcile(observed)

    def _has_evidence(self, observed: Observed, before: EdgeRolloutStatus) -> None:
        """A step passes by healthy devices and good looks of now, whoever pretends otherwise."""
        assert observed.reports is not None
        assert self.looks[-1][1] == "good"
        # Where status was lost, the document of this very pass says what is being rolled out.
        candidate = before.candidate.release if before.candidate else observed.document and observed.document.candidate
        assert candidate
        digest = candidate.digest
        well = [
            agent
            for agent in self.agents
            if agent.runs == digest
            and (self.now - agent.last_seen).total_seconds() <= FRESH_SECONDS
            and (self.now - agent.healthy_since).total_seconds() >= SOAK_SECONDS
        ]
        assert well

    def _was_the_last_step(self, observed: Observed, before: EdgeRolloutStatus, decision: Decision) -> None:
        steps = observed.rollout.spec.strategy.steps
        assert decision.status.history[-1].outcome == "Completed"
        if before.step is None:
            return
        if before.step.plan in (None, leading_to(steps, before.step.index)):
            assert before.step.index == len(steps) - 1
        assert any(one.cutoff == "f" * 16 and not one.match_labels for one in before.reach.cutoffs)

    def _publish(self, document: ChannelDocument) -> None:
        last = self.documents[-1] if self.documents else None
        if last and self._is_same_attempt(last, document):
            assert self._meant(last) <= self._meant(document)
        if document.candidate:
            assert self.offered.setdefault(document.attempt, document.candidate.digest) == document.candidate.digest
        self.documents.append(document)
        super()._publish(document)

    def _is_same_attempt(self, one: ChannelDocument, other: ChannelDocument) -> bool:
        going_on = one.candidate == other.candidate and not other.withdrawing and other.candidate is not None
        return going_on and one.attempt == other.attempt

    def _meant(self, document: ChannelDocument) -> set[str]:
        return {agent.id for agent in self._members(document)}


class Stories(RuleBasedStateMachine):
    """Any story of one rollout."""

    def __init__(self) -> None:
        super().__init__()
        manifest = stepping(*PLANS[0], minDevices=MIN_DEVICES, metrics=({"errorLimit": 4, "inconclusiveLimit": 4},))
        self.world = Operator(manifest=manifest, fleet=FLEET)
        self.attempt = self.world.status.attempt
        self.going_back_since: datetime | None = None

    @initialize(percent=st.sampled_from([100, 10]), plan=st.sampled_from(PLANS))
    def a_rollout_is_applied(self, percent: int, plan: tuple[object, ...]) -> None:
        self._edit("spec.rollback.maxPercentPerMinute", percent)
        self._edit("spec.strategy.steps", stepping(*plan).spec["strategy"]["steps"])

    @rule(ticks=TICKS)
    def time_passes(self, ticks: int) -> None:
        self._go_on(ticks)

    @rule(ticks=TICKS, kind=st.sampled_from(KINDS))
    def telemetry_says(self, ticks: int, kind: str) -> None:
        self.world.kind = kind
        self._go_on(ticks)

    @rule(ticks=TICKS)
    def telemetry_is_good_again(self, ticks: int) -> None:
        self.world.kind, self.world.telemetry, self.world.knows_devices = "good", True, True
        self._go_on(ticks)

    @rule(ticks=TICKS)
    def it_turns_bad(self, ticks: int) -> None:
        self.world.kind, self.world.telemetry = "bad", True
        self._go_on(ticks)

    @rule(ticks=TICKS, telemetry=st.booleans(), knows_devices=st.booleans())
    def servers_come_and_go(self, ticks: int, telemetry: bool, knows_devices: bool) -> None:
        self.world.telemetry, self.world.knows_devices = telemetry, knows_devices
        self._go_on(ticks)

    @rule(ticks=TICKS, problem=st.sampled_from(["", "no answer"]))
    def the_repository_comes_and_goes(self, ticks: int, problem: str) -> None:
        self.world.repository_problem = problem
        self._go_on(ticks)

    @rule(ticks=TICKS, number=st.integers(0, FLEET - 1), away=st.booleans())
    def a_device_comes_and_goes(self, ticks: int, number: int, away: bool) -> None:
        self.world.agents[number].away = away
        self._go_on(ticks)

    @rule(ticks=TICKS, number=st.integers(0, FLEET - 1), refuses=st.sampled_from([(), (NEW,), (THIRD,), (OLD,)]))
    def a_device_refuses(self, ticks: int, number: int, refuses: tuple[str, ...]) -> None:
        self.world.agents[number].refuses = frozenset(refuses)
        self._go_on(ticks)

    @rule(ticks=TICKS, wanted=st.sampled_from([NEW, THIRD, OLD]))
    def the_artifact_changes(self, ticks: int, wanted: str) -> None:
        self.world.wanted = wanted
        self._go_on(ticks)

    @rule(ticks=TICKS, plan=st.sampled_from(PLANS))
    def the_steps_change(self, ticks: int, plan: tuple[object, ...]) -> None:
        self._edit("spec.strategy.steps", stepping(*plan).spec["strategy"]["steps"])
        self._go_on(ticks)

    @rule(
        ticks=TICKS,
        edit=st.sampled_from(
            [
                ("spec.paused", True),
                ("spec.paused", False),
                ("spec.strategy.windows", NIGHT),
                ("spec.strategy.windows", []),
                ("spec.rollback.automatic", False),
                ("spec.rollback.automatic", True),
                ("spec.rollback.maxPercentPerMinute", 20),
                ("spec.analysis.metrics.0.max", "950m"),
                ("spec.analysis.metrics.0.max", "300m"),
                ("spec.analysis.metrics.0.missingData", "Fail"),
                ("spec.analysis.metrics.0.missingData", "Pause"),
            ]
        ),
    )
    def the_spec_changes(self, ticks: int, edit: tuple[str, object]) -> None:
        self._edit(*edit)
        self._go_on(ticks)

    @rule(ticks=TICKS, verb=st.sampled_from(Verb), digest=st.sampled_from([NEW, THIRD, OLD]), index=st.integers(0, 3))
    def a_person_says(self, ticks: int, verb: Verb, digest: str, index: int) -> None:
        self.world.command(verb, digest=digest, step_index=index)
        self._go_on(ticks)

    @rule(ticks=TICKS)
    def a_person_aborts(self, ticks: int) -> None:
        self.world.command(Verb.ABORT)
        self._go_on(ticks)

    @rule(ticks=TICKS)
    def a_person_approves(self, ticks: int) -> None:
        self.world.command(Verb.APPROVE)
        self._go_on(ticks)

    @rule(ticks=TICKS)
    def the_operator_dies_after_its_next_write(self, ticks: int) -> None:
        self.world.crash_at = self.world.writes + 2
        self._go_on(ticks)

    @rule(ticks=TICKS)
    def status_is_lost(self, ticks: int) -> None:
        # Without a signed document nothing could be known of the channel.
        if self.world.signed is not None:
            self.world.status = EdgeRolloutStatus()
        self._go_on(ticks)

    @rule(ticks=TICKS)
    def the_clock_is_set_back(self, ticks: int) -> None:
        self.world.now -= timedelta(hours=1)
        for agent in self.world.agents:
            agent.last_seen, agent.updating_since = min(agent.last_seen, self.world.now), None
            agent.healthy_since = min(agent.healthy_since, self.world.now)
        self.going_back_since = None
        self._go_on(ticks)

    @rule(ticks=TICKS, frozen=st.booleans())
    def the_installation_freezes(self, ticks: int, frozen: bool) -> None:
        self.world.delivery = Delivery(frozen=frozen)
        self._go_on(ticks)

    @invariant()
    def the_attempt_never_falls(self) -> None:
        signed = self.world.signed
        attempt = self.world.status.attempt or (signed.attempt if signed else 0)
        assert attempt >= self.attempt or attempt == (signed.attempt if signed else 0)
        self.attempt = attempt

    @invariant()
    def status_and_document_stay_small(self) -> None:
        assert len(self.world.status.model_dump_json(by_alias=True).encode()) < 64 << 10

    @invariant()
    def what_is_denied_is_never_offered(self) -> None:
        document = self.world.signed
        if document is not None:
            offered = {release.digest for release in (document.stable, document.candidate) if release}
            assert not offered & set(document.denied)

    @invariant()
    def what_is_in_quarantine_is_offered_on_its_way_out_only(self) -> None:
        status = self.world.status
        held = {one.digest for one in status.quarantined}
        assert status.stable is None or status.stable.release.digest not in held
        assert status.candidate is None or status.candidate.release.digest not in held or status.rollback is not None

    @invariant()
    def at_one_instant_it_comes_to_rest(self) -> None:
        observed, delivery, now = self.world.observe(), self.world.delivery, self.world.now
        for _ in range(12):
            decision = decide(observed, delivery, now)
            rollout = observed.rollout.model_copy(update={"status": decision.status})
            document = observed.document if self.world.repository_problem else decision.document
            after = replace(observed, rollout=rollout, document=document)
            if after == observed:
                return
            observed = after
        raise AssertionError("twelve passes at one instant, and still something changes")

    def teardown(self) -> None:
        """In a world where everything works again, no rollback is left on its way."""
        world = self.world
        world.kind, world.telemetry, world.knows_devices, world.repository_problem = "good", True, True, ""
        world.annotations, world.delivery = {}, Delivery()
        for agent in world.agents:
            agent.away, agent.refuses = False, frozenset()
        world.run(3600)
        assert world.status.rollback is None or world.status.rollback.completed_at is not None

    def _go_on(self, ticks: int) -> None:
        for _ in range(ticks):
            self.world.run(30)
            self._watch_the_rollback()

    def _edit(self, path: str, value: object) -> None:
        self.world.manifest = self.world.manifest.having(path, value)

    def _watch_the_rollback(self) -> None:
        """A rollback ends, or says that it is blocked."""
        rollback, now = self.world.status.rollback, self.world.now
        if rollback is None or rollback.completed_at is not None:
            self.going_back_since = None
            return
        self.going_back_since = self.going_back_since or now
        if now - self.going_back_since > timedelta(seconds=DEADLINE_SECONDS + 60):
            assert self.world.condition("RollbackBlocked") == "True RollbackBlocked"


TestStories = Stories.TestCase
TestStories.settings = settings(
    max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
