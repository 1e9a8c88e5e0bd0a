"""The story of an attempt, told by `decide` alone: forward, back, held up, taken over, and never by the clock alone."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from dram_operator.api.rollout_reasons import RolloutCondition
from dram_operator.core.rollout.answers import Answer, Trouble
from dram_operator.core.rollout.commands import Verb
from dram_operator.core.rollout.document import Delivery
from dram_operator.core.rollout.looks import metric_looks
from tests.operator.core.rollout.world import (
    NEW,
    OLD,
    START,
    THIRD,
    World,
    at_step,
    bad_from,
    figure,
    good,
    is_completed,
    is_rolled_back,
    step,
    stepping,
)

FORWARD = [
    "Resolved",
    *["StepStarted", "Baking", "StepPassed"] * 3,
    "Completed",
]


def after(seconds: int) -> datetime:
    return START + timedelta(seconds=seconds)


def test_a_good_release_goes_through_its_steps_and_becomes_stable() -> None:
    world = World().run_until(is_completed)
    world.run(60)
    assert world.events == FORWARD
    assert world.moves == ["('2', 4)", "('2', 20)", "('2', 40)", "('-', 0)"]
    assert world.status.previous is not None
    assert world.status.previous.release.digest == OLD
    assert [record.outcome for record in world.status.history] == ["Completed"]
    assert world.condition("Ready") == "True Completed"


def test_every_condition_is_there_from_the_first_visit() -> None:
    world = World()
    world.reconcile()
    assert [condition.type for condition in world.status.conditions] == list(RolloutCondition)


def test_a_first_release_needs_no_stable_one() -> None:
    world = World(stable=None)
    world.run_until(is_completed)
    assert world.status.previous is None


def test_a_breach_sends_every_device_back_and_keeps_the_release_away() -> None:
    world = World(figures=bad_from(after(400))).run_until(is_rolled_back)
    world.run(600)
    assert world.events[-2:] == ["RollingBack", "RolledBack"]
    assert world.running(OLD) == len(world.agents)
    assert [one.digest for one in world.status.quarantined] == [NEW]
    assert world.signed is not None
    assert world.signed.denied == (NEW,)
    assert world.condition("Stalled") == "True Quarantined"
    assert [(record.outcome, record.reason) for record in world.status.history] == [("RolledBack", "MetricBreached")]


def test_a_metric_that_swings_around_its_limit_rolls_back_once() -> None:
    def swinging(world: World, name: str, at: datetime) -> Answer:
        return figure(0.9 if int(at.timestamp()) // 60 % 2 else 0.1, at)

    world = World(figures=swinging).run(20_000)
    assert world.events.count("RollingBack") == 1
    assert world.status.attempt == 2


class TestBreachEverywhere:
    """Rule 12: a breach is looked for whatever the rollout is doing."""

    @pytest.mark.parametrize(
        ("state", "manifest", "delivery"),
        [
            ("Updating", stepping(step("10%"), step("100%"), minDevices=50), Delivery()),
            ("Baking", stepping(step("10%", 5000), step("100%")), Delivery()),
            ("AwaitingApproval", stepping(step("10%"), "pause", step("100%")), Delivery()),
            ("AwaitingApproval", stepping(step("5%"), step("100%"), minDevices=3), Delivery()),
            ("Baking", stepping(step("100%", 50_000)), Delivery()),
        ],
        ids=["updating", "baking", "pause", "awaiting approval", "watch window"],
    )
    def test_in_every_state_of_a_step(self, state: str, manifest: Any, delivery: Delivery) -> None:
        world = World(manifest=manifest, delivery=delivery, figures=bad_from(after(1500)))
        if state == "Updating":
            world.manifest = stepping(step("10%"), step("100%"), minDevices=4, offline={"policy": "Wait"})
            world.run(60)
            stuck = next(agent for agent in world.agents if world._desired(agent, world.signed) == NEW)  # type: ignore[arg-type]
            stuck.away = True
        world.run_until(lambda w: w.now >= after(1490))
        assert world.status.step is not None
        assert world.status.step.state == state
        world.run(300)
        assert "RollingBack" in world.events

    @pytest.mark.parametrize("held", ["paused", "frozen", "window"])
    def test_while_nothing_may_move_forward(self, held: str) -> None:
        world = World(figures=bad_from(after(1500))).run_until(at_step(0, "Baking"))
        if held == "paused":
            world.manifest = world.manifest.having("spec.paused", True)
        elif held == "frozen":
            world.delivery = Delivery(frozen=True)
        else:
            closed = [{"schedule": "0 2 * * *", "durationSeconds": 60}]
            world.manifest = world.manifest.having("spec.strategy.windows", closed)
        world.run_until(lambda w: w.now >= after(1490))
        assert world.status.step is not None
        assert (world.status.step.index, world.status.step.state) == (0, "Passed")
        world.run_until(is_rolled_back, limit=600)
        assert world.running(OLD) == len(world.agents)


class TestNothingPassesByTheClock:
    """Rules 1 to 3: what is not there is not good."""

    @pytest.mark.parametrize(
        "answer",
        [
            Answer(),
            Answer(trouble=Trouble.TIMED_OUT),
            figure(0.1, START),
            figure(float("nan"), after(10**6)),
            figure(0.1, after(10**6), 0),
        ],
        ids=["empty", "timeout", "stale", "NaN", "no samples"],
    )
    def test_a_metric_without_a_figure_holds_the_step(self, answer: Answer) -> None:
        world = World(figures=lambda world, name, at: answer).run(8000)
        assert world.status.step is not None
        assert world.status.step.index == 0
        assert "RollingBack" not in world.events

    def test_without_looks_an_old_pass_is_worth_nothing(self) -> None:
        world = World(manifest=stepping(step("10%", 600), step("100%"))).run_until(at_step(0, "Baking"))
        world.run(60)
        for _ in range(100):
            world.reconcile(replace(world.observe(), measured=()))
            world.tick()
        assert world.status.step is not None
        assert (world.status.step.index, world.status.step.state) == (0, "Baking")

    @pytest.mark.parametrize("gone", ["devices", "figures"])
    @pytest.mark.parametrize("approved", [False, True])
    def test_a_step_that_passed_before_a_pause_is_weighed_again_after_it(self, gone: str, approved: bool) -> None:
        world = World(manifest=stepping(step("10%"), step("100%"), minDevices=5 if approved else 2))
        paused, going_on = (world.manifest.having("spec.paused", value) for value in (True, False))
        world.run_until(at_step(0, "AwaitingApproval" if approved else "Baking"))
        world.manifest = paused
        if approved:
            world.command(Verb.APPROVE)
        world.run_until(at_step(0, "Passed"))
        if gone == "devices":
            for agent in world.agents:
                agent.away = agent.runs == NEW
        else:
            world.figures = lambda world, name, at: Answer(newest=at)
        world.run(7200)
        world.manifest = going_on
        world.run(1200)
        assert world.moves == ["('2', 4)"]
        assert world.condition("Ready") == "False AwaitingEvidence"
        for agent in world.agents:
            agent.away = False
        world.figures = lambda world, name, at: good(at)
        world.run_until(is_completed)

    def test_too_few_healthy_devices_hold_the_step(self) -> None:
        world = World(manifest=stepping(step("50%"), step("100%"), minDevices=20))
        for agent in world.agents[::4]:
            agent.refuses = frozenset({NEW})
        world.run(50_000)
        assert world.status.stable is not None
        assert world.status.stable.release.digest == OLD

    def test_a_small_step_waits_for_a_person(self) -> None:
        world = World(manifest=stepping(step("5%"), step("100%"), minDevices=5))
        world.run_until(at_step(0, "AwaitingApproval"))
        world.run(5000)
        assert world.status.step is not None
        assert world.status.step.index == 0
        world.command(Verb.APPROVE)
        world.run_until(is_completed)
        assert "Approved" in world.events

    def test_an_outage_shorter_than_the_limit_changes_nothing(self) -> None:
        manifest = stepping(step("10%"), step("50%"), step("100%"), metrics=({"missingData": "Fail"},))
        world = World(manifest=manifest).run_until(at_step(1, "Baking"))
        world.telemetry = False
        world.run(8 * 30)
        assert world.status.step is not None
        assert (world.status.step.index, world.status.step.state) == (1, "Baking")
        world.telemetry = True
        world.run_until(is_completed)
        assert world.events == FORWARD

    @pytest.mark.parametrize(("policy", "want"), [("Wait", None), ("Pause", "MetricMissing"), ("Fail", "RollingBack")])
    def test_missing_data_is_followed(self, policy: str, want: str | None) -> None:
        manifest = stepping(step("10%"), step("100%"), metrics=({"missingData": policy},))
        world = World(
            manifest=manifest, figures=lambda world, name, at: Answer(newest=at) if name == "latency" else good(at)
        )
        world.run(3000)
        assert [event for event in world.events if event in ("MetricMissing", "RollingBack")] == (
            [want] if want else []
        )

    def test_a_dry_run_metric_decides_nothing(self) -> None:
        manifest = stepping(step("10%"), step("100%"), metrics=({"dryRun": True},))
        world = World(manifest=manifest, figures=bad_from(START)).run_until(is_completed)
        assert "RollingBack" not in world.events


class TestDevices:
    """Rules 5 and 6: what devices say of themselves."""

    def test_devices_that_fall_back_send_the_release_back(self) -> None:
        world = World()
        for agent in world.agents:
            agent.refuses = frozenset({NEW})
        world.run_until(is_rolled_back)
        assert world.status.rollback is not None
        assert world.status.rollback.reason == "DevicesFailed"

    def test_one_dead_device_blocks_nothing_and_gets_the_present_release_when_it_is_back(self) -> None:
        world = World(manifest=stepping(step("10%"), step("100%"), minDevices=3))
        world.run(60)
        dead = next(agent for agent in world.agents if world._desired(agent, world.signed) == NEW)  # type: ignore[arg-type]
        dead.away = True
        world.run_until(lambda w: w.status.stable is not None and w.status.stable.release.digest == NEW)
        world.wanted = THIRD
        world.run_until(lambda w: w.status.stable is not None and w.status.stable.release.digest == THIRD)
        dead.away = False
        world.run(120)
        assert dead.runs == THIRD

    def test_the_deadline_of_a_step_asks_a_person(self) -> None:
        manifest = stepping(
            step("10%"), step("100%"), offline={"policy": "Wait"}, stepDeadlineSeconds=600, minDevices=4
        )
        world = World(manifest=manifest)
        for agent in world.agents[::2]:
            agent.away = True
        world.run(5000)
        assert world.condition("Stalled") == "True AwaitingApproval"
        assert "StepDeadlineExceeded" in world.events

    def test_the_deadline_of_a_step_rolls_back_where_the_spec_says_so(self) -> None:
        manifest = stepping(
            step("50%"),
            step("100%"),
            offline={"policy": "Wait"},
            stepDeadlineSeconds=600,
            onStepDeadline="Rollback",
            minDevices=20,
        )
        world = World(manifest=manifest)
        for agent in world.agents[::2]:
            agent.away = True
        world.run_until(is_rolled_back)
        assert world.status.rollback is not None
        assert world.status.rollback.reason == "StepDeadlineExceeded"

    @pytest.mark.parametrize("policy", ["Pause", "Rollback"])
    @pytest.mark.parametrize("down", ["operator", "telemetry"])
    def test_time_in_which_nobody_looked_does_not_count_towards_the_deadline(self, policy: str, down: str) -> None:
        manifest = stepping(step("50%"), step("100%"), stepDeadlineSeconds=600, onStepDeadline=policy)
        world = World(manifest=manifest).run(60)
        for _ in range(120):
            if down == "telemetry":
                world.reconcile(replace(world.observe(), reports=None, inventory=None, measured=()))
            world.tick()
        world.reconcile(replace(world.observe(), reports=None, inventory=None, measured=()))
        assert world.status.step is not None
        assert world.status.step.active_seconds <= 60
        world.run_until(is_completed)
        assert not {"StepDeadlineExceeded", "RollingBack"} & set(world.events)

    def test_bakes_and_pauses_do_not_count_towards_the_deadline(self) -> None:
        manifest = stepping(step("10%", 5000), "pause", step("100%"), stepDeadlineSeconds=600)
        world = World(manifest=manifest).run_until(at_step(1, "AwaitingApproval"))
        world.run(5000)
        world.command(Verb.APPROVE)
        world.run_until(is_completed)
        assert "StepDeadlineExceeded" not in world.events


class TestRollback:
    """Rule 10: it survives, has a deadline, says when it is blocked, and does not bar the way forward."""

    def breached(self) -> World:
        return World(figures=bad_from(after(400))).run_until(lambda w: "RollingBack" in w.events)

    def test_it_waits_for_devices_that_are_online_only(self) -> None:
        world = self.breached()
        stubborn = next(agent for agent in world.agents if agent.runs == NEW)
        stubborn.away = True
        world.run(60)
        assert not is_rolled_back(world)
        world.run_until(is_rolled_back, limit=600)
        assert stubborn.runs == NEW

    def test_it_says_that_the_repository_blocks_it_and_goes_on_afterwards(self) -> None:
        world = World(figures=bad_from(after(400))).run_until(lambda w: w.now >= after(395))
        world.repository_problem = "no answer"
        world.run(600)
        assert world.condition("RollbackBlocked") == "True RollbackBlocked"
        assert world.events.count("RollbackBlocked") == 1
        assert world.running(NEW)
        world.repository_problem = ""
        world.run_until(is_rolled_back, limit=600)
        world.run(60)
        assert world.condition("RollbackBlocked") == "False Pending"

    def test_it_says_when_it_takes_too_long(self) -> None:
        world = self.breached()
        next(agent for agent in world.agents if agent.runs == NEW).refuses = frozenset({OLD})
        world.run(4000)
        assert world.condition("RollbackBlocked") == "True RollbackBlocked"

    def test_nobody_knows_that_devices_are_back_without_telemetry(self) -> None:
        world = self.breached()
        world.telemetry = False
        world.run(1000)
        assert not is_rolled_back(world)

    def test_a_new_artifact_goes_on_while_it_is_blocked(self) -> None:
        world = self.breached()
        next(agent for agent in world.agents if agent.runs == NEW).refuses = frozenset({OLD})
        world.run(4000)
        world.wanted = THIRD
        world.run_until(lambda w: w.status.stable is not None and w.status.stable.release.digest == THIRD)
        assert "Superseded" in world.events

    def test_it_goes_as_fast_as_the_spec_says(self) -> None:
        world = World(
            manifest=stepping(step("100%", 5000)).having("spec.rollback.maxPercentPerMinute", 20),
            figures=bad_from(after(400)),
        )
        world.run_until(lambda w: "RollingBack" in w.events)
        world.run(60)
        assert 0 < world.running(NEW) < len(world.agents)
        world.run_until(is_rolled_back, limit=1000)
        assert world.running(OLD) == len(world.agents)

    def test_it_waits_for_a_person_where_the_spec_says_so(self) -> None:
        world = World(manifest=World().manifest.having("spec.rollback.automatic", False), figures=bad_from(after(400)))
        world.run(3000)
        assert "RollingBack" not in world.events
        assert world.condition("Stalled") == "True MetricBreached"
        world.command(Verb.ABORT)
        world.run_until(is_rolled_back, limit=600)

    def test_it_needs_no_stable_release(self) -> None:
        world = World(stable=None, figures=bad_from(after(400))).run_until(is_rolled_back)
        assert world.running("") == len(world.agents)


class TestCommands:
    """What people can do."""

    def test_promote_makes_the_candidate_stable_at_once(self) -> None:
        world = World().run_until(at_step(0, "Baking"))
        world.command(Verb.PROMOTE)
        world.run(300)
        assert is_completed(world)
        assert "Promoted" in world.events

    def test_abort_sends_it_back_and_retry_brings_it_to_the_same_devices(self) -> None:
        world = World().run_until(at_step(0, "Baking"))
        exposed = {agent.id for agent in world.agents if agent.runs == NEW}
        world.command(Verb.ABORT)
        world.run_until(is_rolled_back, limit=600)
        world.run(60)
        assert world.running(NEW) == 0
        world.command(Verb.RETRY, digest=NEW)
        world.run_until(at_step(0, "Baking"))
        assert {agent.id for agent in world.agents if agent.runs == NEW} == exposed
        assert world.status.attempt == 3

    def test_undo_brings_the_stable_release_before_back(self) -> None:
        world = World().run_until(is_completed)
        world.command(Verb.UNDO, digest=NEW)
        world.run(300)
        assert world.running(OLD) == len(world.agents)
        assert world.status.stable is not None
        assert (world.status.stable.release.digest, world.condition("Stalled")) == (OLD, "True Quarantined")

    def test_a_command_is_carried_out_once_and_a_late_one_refused(self) -> None:
        world = World().run_until(at_step(0, "Baking"))
        world.command(Verb.APPROVE)
        world.run(90)
        assert world.events.count("CommandRefused") == 1
        assert [(one.verb, one.outcome) for one in world.status.commands] == [("approve", "Refused")]

    def test_a_writer_who_was_not_vouched_for_is_named_so(self) -> None:
        world = World().run_until(at_step(0, "Baking"))
        world.command(Verb.PROMOTE)
        world.reconcile(replace(world.observe(), vouched=False))
        assert [one.who for one in world.status.commands] == ["unverified:ann"]


def test_a_clock_that_is_set_back_leaves_no_attempt_in_the_future() -> None:
    """Figures do not reach back before the attempt: until the clock had caught up, they would have been of one second."""
    world = World().run_until(at_step(0, "Baking")).run(120)
    world.now -= timedelta(hours=1)
    world.run(150)
    latency, *_ = metric_looks(world.rollout, world.now, {})
    assert "[2m]" in latency.query


def test_the_clock_may_be_set_back_by_an_hour() -> None:
    world = World().run_until(at_step(1, "Baking"))
    world.now -= timedelta(hours=1)
    world.run_until(is_completed)
    assert world.events == FORWARD


def test_status_stays_small_when_every_query_fails() -> None:
    metrics = tuple({"name": f"metric-{n}"} for n in range(10))
    world = World(
        manifest=stepping(step("10%"), step("100%"), metrics=metrics),
        figures=lambda world, name, at: Answer(trouble=Trouble.MALFORMED),
    )
    world.run(20_000)
    assert len(world.status.model_dump_json().encode()) < 64 << 10


def test_a_fleet_that_nobody_knows_yet_is_waited_for() -> None:
    """Shares and hold-back of nobody would reach nobody who comes later."""
    world = World(fleet=0).run(300)
    assert world.condition("Ready") == "False NoDevices"
    assert world.status.candidate is None
    world.agents = World(fleet=20).agents
    world.run_until(is_completed)
    assert world.moves[:2] == ["('-', 0)", "('2', 2)"]
