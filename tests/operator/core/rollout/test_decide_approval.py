"""Rules 2 and 3 where people are asked: what they approve goes on, and an approval never stands for data."""

from datetime import timedelta

import pytest

from dram_operator.core.rollout.answers import Answer
from dram_operator.core.rollout.commands import Verb
from tests.builders import ARollout
from tests.operator.core.rollout.world import (
    START,
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

LIMIT = 4


def impatient(*more: str, **metric: object) -> ARollout:
    """Two steps whose metric bears four failed queries in a row."""
    return stepping(step("10%", 600), *more, step("100%"), metrics=({"errorLimit": LIMIT} | metric,))


def an_outage(world: World, looks: int) -> World:
    world.telemetry = False
    world.run(30 * looks)
    world.telemetry = True
    return world


def place(world: World) -> tuple[int, str]:
    assert world.status.step is not None
    return world.status.step.index, world.status.step.state.value


@pytest.mark.parametrize("policy", ["Wait", "Pause", "Fail"])
def test_an_outage_below_the_limit_leaves_everything_where_it_was(policy: str) -> None:
    world = World(manifest=impatient(missingData=policy)).run_until(at_step(0, "Baking"))
    baking_since = world.status.step and world.status.step.bake_started_at
    an_outage(world, LIMIT - 1).run(60)
    assert place(world) == (0, "Baking")
    assert world.status.step is not None
    assert world.status.step.bake_started_at == baking_since
    world.run_until(is_completed)
    assert not {"MetricError", "RollingBack"} & set(world.events)


@pytest.mark.parametrize(
    ("policy", "want"), [("Wait", "MetricError"), ("Pause", "MetricError"), ("Fail", "RollingBack")]
)
def test_an_outage_at_the_limit_asks_a_person_or_fails_as_the_spec_says(policy: str, want: str) -> None:
    world = an_outage(World(manifest=impatient(missingData=policy)).run_until(at_step(0, "Baking")), LIMIT + 1)
    assert [event for event in world.events if event in ("MetricError", "RollingBack")] == [want]


def test_after_an_outage_it_waits_for_approval_and_then_goes_on_where_it_was() -> None:
    world = an_outage(World(manifest=impatient()).run_until(at_step(0, "Baking")), LIMIT + 1)
    baking_since = world.status.step and world.status.step.bake_started_at
    world.run(60)
    assert place(world) == (0, "AwaitingApproval")
    assert "MetricError" in next(one.message for one in world.status.conditions if one.type == "Stalled")
    world.command(Verb.APPROVE)
    world.reconcile()
    assert place(world) == (0, "Baking")
    assert world.status.step is not None
    assert world.status.step.bake_started_at == baking_since
    world.run_until(is_completed)
    assert world.events.count("MetricError") == 1


def test_approval_while_devices_take_up_the_candidate_skips_neither_soak_nor_bake() -> None:
    world = an_outage(World(manifest=impatient()), LIMIT + 2)
    assert place(world) == (0, "AwaitingApproval")
    world.command(Verb.APPROVE)
    world.reconcile()
    assert place(world) == (0, "Updating")
    world.run_until(at_step(0, "Baking"))
    world.run(540)
    assert place(world) == (0, "Baking")
    world.run_until(is_completed)


def test_approval_during_an_outage_buys_patience_and_no_progress() -> None:
    world = World(manifest=impatient()).run_until(at_step(0, "Baking"))
    world.telemetry = False
    for times in (1, 2, 3):
        world.run_until(at_step(0, "AwaitingApproval"))
        assert world.events.count("MetricError") == times
        world.command(Verb.APPROVE)
        world.run(60)
        assert place(world) == (0, "Baking")
    world.telemetry = True
    world.run_until(is_completed)


def test_missing_data_that_pauses_goes_on_by_approval_once_it_is_there() -> None:
    world = World(manifest=impatient(missingData="Pause")).run_until(at_step(0, "Baking"))
    world.figures = lambda world, name, at: Answer(newest=at)
    world.run_until(at_step(0, "AwaitingApproval"))
    world.command(Verb.APPROVE)
    world.run(60)
    assert place(world) == (0, "AwaitingApproval")
    assert world.events.count("MetricMissing") == 2
    world.figures = lambda world, name, at: good(at)
    world.command(Verb.APPROVE)
    world.run_until(is_completed)


def test_a_step_that_decides_nothing_is_for_a_person_to_pass() -> None:
    few = lambda world, name, at: figure(0.1, at, 10)  # noqa: E731
    world = World(manifest=impatient(inconclusiveLimit=3), figures=few)
    world.run_until(at_step(0, "AwaitingApproval"))
    assert "MetricInconclusive" in world.events
    world.command(Verb.APPROVE)
    world.run_until(at_step(1, "AwaitingApproval"))
    world.command(Verb.APPROVE)
    world.run_until(is_completed)


def test_a_breach_that_only_pauses_is_for_a_person_to_pass_or_to_abort() -> None:
    manual = impatient().having("spec.rollback.automatic", False)
    world = World(manifest=manual, figures=bad_from(START + timedelta(seconds=400)))
    for index in (0, 1):
        world.run_until(at_step(index, "AwaitingApproval"))
        assert world.condition("Stalled") == "True MetricBreached"
        world.command(Verb.APPROVE)
        world.run(30)
    world.run_until(is_completed)
    assert "RollingBack" not in world.events


def test_the_approval_of_a_small_step_is_none_of_a_later_breach() -> None:
    closing = [{"schedule": "0 12 * * *", "durationSeconds": 900}]
    small = stepping(step("5%", 60), step("100%"), minDevices=5, windows=closing)
    world = World(manifest=small.having("spec.rollback.automatic", False))
    world.run_until(lambda w: w.now >= START + timedelta(seconds=930))
    world.command(Verb.APPROVE)
    world.run(60)
    assert place(world) == (0, "Passed")
    world.figures = bad_from(world.now)
    world.run(300)
    assert place(world) == (0, "AwaitingApproval")
    assert world.condition("Stalled") == "True MetricBreached"
    world.command(Verb.ABORT)
    world.run_until(is_rolled_back, limit=900)
