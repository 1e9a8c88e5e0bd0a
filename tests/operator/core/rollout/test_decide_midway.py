"""Rules 10, 13 and 14 in the middle of an attempt: edited steps, lost status, closed windows, a clock set back."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from dram_operator.api.rollout_status import EdgeRolloutStatus
from dram_operator.core.rollout.answers import Answer
from dram_operator.core.rollout.commands import Verb
from tests.builders import ARollout
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

EVERYBODY = "('2', 40)"


def after(seconds: int) -> datetime:
    return START + timedelta(seconds=seconds)


def with_steps(world: World, *steps: dict[str, Any] | str) -> World:
    world.manifest = world.manifest.having("spec.strategy.steps", stepping(*steps).spec["strategy"]["steps"])
    return world


def named(*numbers: int) -> dict[str, Any]:
    return {"cohort": {"deviceIds": [f"{number:032x}" for number in numbers]}, "bakeSeconds": 120}


class TestEditedSteps:
    """An edit never lets a release become stable without the steps that the spec has."""

    @pytest.mark.parametrize(
        "steps",
        [[step("10%"), step("100%")], [step("100%")], [step("90%"), step("100%")], [step("1%"), "pause", step("100%")]],
        ids=["middle removed", "only the last", "larger", "smaller"],
    )
    def test_the_last_step_always_takes_everybody_first(self, steps: list[dict[str, Any] | str]) -> None:
        world = World().run_until(at_step(1, "Baking"))
        with_steps(world, *steps)
        for _ in range(200):
            if at_step(1, "AwaitingApproval")(world) and "pause" in steps:
                world.command(Verb.APPROVE)
            world.run(30)
        assert is_completed(world)
        assert world.moves[-2:] == [EVERYBODY, "('-', 0)"]

    def test_devices_of_a_changed_first_step_come_before_the_next_one(self) -> None:
        manifest = stepping(named(1, 2), step("100%", 600))
        world = World(manifest=manifest).run_until(at_step(0, "Baking"))
        with_steps(world, named(3, 4), step("100%", 600)).run_until(at_step(1, "Updating"))
        assert world.moves == ["('2', 2)", "('2', 4)", EVERYBODY]

    def test_an_edit_of_a_later_step_or_of_a_bake_disturbs_nothing(self) -> None:
        world = World(manifest=stepping(step("10%", 600), step("100%"))).run_until(at_step(0, "Baking"))
        before = world.status.step
        with_steps(world, step("10%", 900), "pause", step("100%")).run(60)
        assert before is not None
        assert world.status.step is not None
        assert world.status.step.bake_started_at == before.bake_started_at
        assert (before.shown, world.status.step.shown) == ("1/2", "1/3")

    def test_nothing_becomes_stable_while_nobody_knows_the_devices(self) -> None:
        closed = [{"schedule": "0 12 * * *", "durationSeconds": 200}]
        world = World(manifest=stepping(step("10%"), step("100%"), windows=closed))
        world.run_until(at_step(0, "Passed"))
        with_steps(world, step("100%"))
        world.manifest = world.manifest.having("spec.strategy.windows", [])
        for _ in range(20):
            world.reconcile(replace(world.observe(), inventory=None))
            world.tick()
        assert world.status.candidate is not None
        assert world.condition("Ready") == "False InventoryUnavailable"
        world.run_until(is_completed)
        assert world.moves[-2:] == [EVERYBODY, "('-', 0)"]


class TestEditedMetrics:
    """Looks by a limit that was edited away decide nothing."""

    @pytest.mark.parametrize("before", [{"dryRun": True}, {"failureLimit": 50, "looks": 100}])
    def test_breaches_of_another_limit_send_nothing_back(self, before: dict[str, Any]) -> None:
        steps = step("10%", 3000), step("100%", 600)
        world = World(manifest=stepping(*steps, metrics=({"max": "50m", **before},))).run(300)
        assert world.status.analysis[0].failed >= 2
        assert "RollingBack" not in world.events
        world.manifest = stepping(*steps, metrics=({"max": "500m"},))
        world.run_until(is_completed)
        assert "RollingBack" not in world.events

    def test_a_metric_that_was_shown_only_decides_by_its_next_looks(self) -> None:
        steps = step("10%", 3000), step("100%", 600)
        world = World(manifest=stepping(*steps, metrics=({"dryRun": True, "max": "50m"},)))
        world.run_until(at_step(0, "Baking")).run(300)
        world.manifest = stepping(*steps, metrics=({"max": "50m"},))
        world.run(30)
        assert "RollingBack" not in world.events
        world.run(60)
        assert "RollingBack" in world.events


class TestLostStatus:
    """What is signed brings back what status said, a rollback on its way included."""

    def slow(self) -> ARollout:
        return stepping(step("100%", 5000)).having("spec.rollback.maxPercentPerMinute", 10)

    def test_a_rollback_goes_on_and_no_device_comes_to_it_anew(self) -> None:
        world = World(manifest=self.slow(), figures=bad_from(after(400)))
        late = world.agents[7]
        late.away = True
        world.run_until(lambda w: w.status.rollback is not None and w.status.rollback.percent >= 30)
        left = world.running(NEW)
        assert 0 < left < len(world.agents) - 1
        world.status, late.away = EdgeRolloutStatus(), False
        world.figures = lambda world, name, at: good(at)
        while not is_rolled_back(world):
            world.run(30)
            assert world.running(NEW) <= left
            left = world.running(NEW)
        world.run(60)
        assert late.runs == OLD
        assert world.running(OLD) == len(world.agents)
        assert [one.digest for one in world.status.quarantined] == [NEW]
        assert world.condition("Stalled") == "True Quarantined"

    @pytest.mark.parametrize("percent", [100, 10])
    @pytest.mark.parametrize("retried", [False, True])
    def test_an_older_copy_offers_no_release_that_was_sent_back_since(self, percent: int, retried: bool) -> None:
        manifest = stepping(step("50%", 5000), step("100%")).having("spec.rollback.maxPercentPerMinute", percent)
        world = World(manifest=manifest, figures=bad_from(after(400))).run_until(at_step(0, "Baking"))
        copy = world.status
        world.run_until(lambda w: "RollingBack" in w.events)
        if percent == 100:
            world.run_until(is_rolled_back)
        if retried:
            world.run_until(is_rolled_back)
            world.command(Verb.RETRY, digest=NEW)
            world.run_until(lambda w: w.events.count("RolledBack") == 2)
        world.run(60)
        left, world.status = world.running(NEW), copy
        world.figures = lambda world, name, at: good(at)
        for _ in range(40):
            world.run(30)
            assert world.running(NEW) <= left
            left = world.running(NEW)
        assert world.running(OLD) == len(world.agents)
        assert [one.digest for one in world.status.quarantined] == [NEW]

    def test_an_older_copy_takes_back_no_release_that_became_stable_since(self) -> None:
        world = World().run_until(at_step(1, "Baking"))
        copy = world.status
        world.run_until(is_completed).run(60)
        moves, world.status = list(world.moves), copy
        world.run(600)
        assert world.moves == moves
        assert world.running(NEW) == len(world.agents)

    def test_a_step_that_was_never_complete_is_not_taken_for_done(self) -> None:
        world = World(manifest=stepping(step("10%"), step("100%"))).run_until(at_step(0, "Baking"))
        with_steps(world, step("100%"))
        world.status = EdgeRolloutStatus()
        world.run_until(is_completed)
        assert world.moves[-2:] == [EVERYBODY, "('-', 0)"]

    def test_a_command_that_was_carried_out_is_not_carried_out_again(self) -> None:
        world = World().run_until(at_step(0, "Baking"))
        world.command(Verb.ABORT)
        world.run_until(is_rolled_back, limit=600)
        world.command(Verb.RETRY, digest=NEW)
        world.run_until(at_step(0, "Baking"))
        attempt = world.status.attempt
        world.status = EdgeRolloutStatus()
        world.run(60)
        assert [one.outcome for one in world.status.commands] == ["Refused"]
        assert world.status.attempt == attempt
        world.run_until(is_completed)


class TestRollbackStatus:
    """`status.rollback` speaks of the present attempt only."""

    def test_it_goes_when_another_attempt_begins(self) -> None:
        world = World(figures=bad_from(after(400))).run_until(is_rolled_back)
        world.wanted = THIRD
        world.run(60)
        assert world.status.candidate is not None
        assert world.status.rollback is None

    def test_it_goes_when_an_earlier_release_is_stable_again(self) -> None:
        world = World().run_until(is_completed)
        world.wanted = THIRD
        world.run_until(at_step(0, "Baking"))
        world.command(Verb.ABORT)
        world.run_until(is_rolled_back, limit=600).run(60)
        world.command(Verb.UNDO, digest=NEW)
        world.run(120)
        assert world.status.rollback is None
        assert world.running(OLD) == len(world.agents)

    def test_a_new_artifact_goes_on_while_the_repository_blocks_a_rollback(self) -> None:
        world = World(figures=bad_from(after(400))).run_until(lambda w: w.now >= after(395))
        world.repository_problem = "no answer"
        world.run(120)
        world.wanted = THIRD
        world.run(60)
        world.repository_problem = ""
        world.run_until(lambda w: w.running(THIRD) == len(w.agents))
        assert [one.digest for one in world.status.quarantined] == [NEW]

    def test_a_document_that_nobody_signs_blocks_it_with_words(self) -> None:
        world = World(figures=bad_from(after(400))).run_until(lambda w: w.now >= after(395))
        before = world.signed
        for _ in range(140):
            world.reconcile()
            world.signed = before
            world.tick()
            for agent in world.agents:
                agent.runs = OLD if "RollingBack" in world.events else agent.runs
        assert world.condition("RollbackBlocked") == "True RollbackBlocked"
        found = next(one for one in world.status.conditions if one.type == "RollbackBlocked")
        assert "could not be signed" in found.message


class TestWindows:
    """Windows hold forward moves only."""

    def test_one_that_closes_in_the_middle_of_a_step_holds_the_next_until_it_opens(self) -> None:
        nightly = [{"schedule": "0 12 * * *", "durationSeconds": 300}]
        world = World(manifest=stepping(step("10%"), step("100%"), windows=nightly))
        world.run_until(at_step(0, "Passed"))
        assert world.now > after(300)
        world.run(3600)
        assert world.condition("Ready") == "False AwaitingWindow"
        decision = world.reconcile()
        assert decision.requeue_after is not None
        world.now = after(86_400 - 60)
        world.tick()
        assert at_step(0, "Passed")(world)
        world.run_until(is_completed, limit=3 * 86_400)
        assert world.events.count("StepStarted") == 2

    def test_the_hour_that_comes_twice_opens_once(self) -> None:
        berlin = [{"schedule": "30 2 * * *", "durationSeconds": 240, "timeZone": "Europe/Berlin"}]
        world = World(manifest=stepping(step("10%"), step("100%"), windows=berlin))
        world.now = datetime.fromisoformat("2030-10-27T00:29:30+00:00")
        world.run(7200)
        assert world.events == ["Resolved", "StepStarted", "Baking", "StepPassed"]


class TestClockSetBack:
    """An hour that comes twice is neither waited out nor blind."""

    def set_back(self, world: World) -> World:
        world.now -= timedelta(hours=1)
        for agent in world.agents:
            agent.last_seen = min(agent.last_seen, world.now)
            agent.updating_since = None
            agent.healthy_since = min(agent.healthy_since, world.now)
            agent.activated_at = agent.activated_at and min(agent.activated_at, world.now)
        return world

    def test_a_breach_is_found_at_once(self) -> None:
        world = self.set_back(World().run_until(at_step(1, "Baking")))
        world.figures = lambda world, name, at: figure(0.9, at)
        world.run_until(lambda w: "RollingBack" in w.events, limit=300)

    def test_the_way_forward_takes_no_hour_longer(self) -> None:
        self.set_back(World().run_until(at_step(1, "Baking"))).run_until(is_completed, limit=1800)

    def test_a_look_from_before_lets_nothing_pass(self) -> None:
        world = self.set_back(World(manifest=stepping(step("10%", 60), step("100%"))).run_until(at_step(0, "Baking")))
        for _ in range(60):
            world.reconcile(replace(world.observe(), measured=()))
            world.tick()
        assert at_step(0, "Baking")(world)

    def test_a_rollback_still_says_when_it_takes_too_long(self) -> None:
        world = World(figures=bad_from(after(400))).run_until(lambda w: "RollingBack" in w.events)
        next(agent for agent in world.agents if agent.runs == NEW).refuses = frozenset({OLD})
        self.set_back(world).run(3900)
        assert world.condition("RollbackBlocked") == "True RollbackBlocked"


class TestComparison:
    """A metric with control, as the rollout takes it."""

    def compared(self, **metric: Any) -> ARollout:
        usual = {"name": "errors", "preset": "ErrorRatio", "compareTo": "Control", "margin": "50m", "minSamples": 1}
        return stepping(step("50%", 600), step("100%"), metrics=(usual | metric,))

    def world(self, harm: float, **metric: Any) -> World:
        def each(world: World, name: str, at: datetime) -> dict[str, float]:
            return {
                agent.id: 0.02 * (number % 5) + (harm if agent.runs == NEW else 0.0)
                for number, agent in enumerate(world.agents)
            }

        return World(manifest=self.compared(**metric), fleet=400, each_device=each)

    @pytest.mark.parametrize("harm", [0.0, 0.025])
    def test_a_candidate_within_the_margin_passes(self, harm: float) -> None:
        world = self.world(harm).run_until(lambda w: "StepPassed" in w.events, limit=3600)
        assert world.status.rollback is None

    def test_one_beyond_the_margin_goes_back(self) -> None:
        world = self.world(0.2).run_until(lambda w: "RollingBack" in w.events, limit=3600)
        assert world.status.rollback is not None
        assert "worse than control by at least" in world.status.rollback.message

    def test_missing_data_is_not_held_against_it_before_a_window_has_closed(self) -> None:
        world = self.world(0.0, missingData="Fail").run_until(lambda w: "StepPassed" in w.events, limit=3600)
        assert "RollingBack" not in world.events

    def test_it_is_not_called_undecided_before_devices_could_tell(self) -> None:
        world = self.world(0.0, inconclusiveLimit=1)
        world.manifest = world.manifest.having("spec.strategy.steps.0.bakeSeconds", 0)
        world.run_until(lambda w: "StepPassed" in w.events, limit=3600)
        assert "MetricInconclusive" not in world.events

    @pytest.mark.parametrize(("figures", "want"), [(0.9, "RollingBack"), (0.1, "Completed")])
    def test_without_control_absolute_limits_decide(self, figures: float, want: str) -> None:
        manifest = self.compared(max="300m").having(
            "spec.strategy.steps", stepping(step("100%")).spec["strategy"]["steps"]
        )
        world = World(
            manifest=manifest, figures=lambda world, name, at: figure(figures if name == "errors" else 0.1, at)
        )
        world.run(3000)
        assert [event for event in world.events if event in ("RollingBack", "Completed")] == [want]

    def test_without_control_and_without_a_limit_it_has_no_say(self) -> None:
        manifest = self.compared().having("spec.strategy.steps", stepping(step("100%")).spec["strategy"]["steps"])
        figures = lambda world, name, at: Answer() if name == "errors" else good(at)  # noqa: E731
        World(manifest=manifest, figures=figures).run_until(is_completed)
