"""Rule 11: a release that was sent back stays away until the artifact, or what judged it, changes, or a person says `retry`."""

from datetime import timedelta
from typing import Any

import pytest

from dram_operator.api.rollout_status import EdgeRolloutStatus
from dram_operator.core.rollout.commands import Verb
from dram_operator.core.rollout.edits import judging, leading_to
from tests.builders import a_rollout
from tests.operator.core.rollout.world import (
    NEW,
    START,
    THIRD,
    World,
    bad_from,
    is_completed,
    is_rolled_back,
    step,
    stepping,
)


def sent_back() -> World:
    """A candidate breached its limit, and its devices are back on stable."""
    world = World(figures=bad_from(START + timedelta(seconds=400))).run_until(is_rolled_back)
    return world.run(120)


def edit(world: World, path: str, value: Any) -> World:
    world.manifest = world.manifest.having(path, value)
    return world


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.paused", True),
        ("spec.rollback.maxPercentPerMinute", 50),
        ("spec.inventory.lookbackSeconds", 86_400),
        ("spec.strategy.windows", [{"schedule": "0 2 * * *", "durationSeconds": 60}]),
        ("spec.analysis.alpha", "0.05"),
        ("spec.strategy.onStepDeadline", "Pause"),
    ],
)
def test_other_edits_do_not_lift_it(path: str, value: Any) -> None:
    world = edit(sent_back(), path, value)
    attempt = world.status.attempt
    world.run(1200)
    assert world.condition("Stalled") == "True Quarantined"
    assert (world.status.attempt, world.running(NEW)) == (attempt, 0)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.analysis.metrics.0.max", "950m"),
        ("spec.analysis.metrics.0.dryRun", True),
        ("spec.strategy.steps.0.cohort.percent", "20%"),
        ("spec.strategy.steps.0.bakeSeconds", 240),
        ("spec.strategy.minDevices", 3),
    ],
)
def test_it_is_tried_again_when_what_judged_it_changes(path: str, value: Any) -> None:
    world = sent_back()
    attempt = world.status.attempt
    edit(world, path, value).run(60)
    assert world.events[-3:-1] == ["Retried", "Resolved"]
    assert (world.status.attempt, world.status.quarantined) == (attempt + 1, ())
    assert world.signed is not None
    assert world.signed.denied == ()


def test_judged_by_other_limits_it_may_become_stable() -> None:
    edit(sent_back(), "spec.analysis.metrics.0.max", "950m").run_until(is_completed)


def test_judged_in_the_same_way_it_is_sent_back_once_only() -> None:
    world = edit(sent_back(), "spec.strategy.minDevices", 3)
    world.run(20_000)
    assert world.events.count("RollingBack") == 2
    assert world.condition("Stalled") == "True Quarantined"


def test_an_edit_while_it_is_sent_back_tries_it_again_afterwards() -> None:
    world = World(figures=bad_from(START + timedelta(seconds=400))).run_until(lambda w: "RollingBack" in w.events)
    edit(world, "spec.analysis.metrics.0.max", "950m").run_until(is_completed)
    assert world.events.index("RolledBack") < world.events.index("Retried")


def test_another_artifact_does_not_lift_it() -> None:
    world = sent_back()
    world.wanted = THIRD
    world.run_until(lambda w: w.status.stable is not None and w.status.stable.release.digest == THIRD)
    assert [one.digest for one in world.status.quarantined] == [NEW]
    world.wanted = NEW
    world.run(300)
    assert world.condition("Stalled") == "True Quarantined"


def test_a_candidate_goes_no_further_when_the_spec_goes_back_to_one_in_quarantine() -> None:
    world = sent_back()
    world.wanted = THIRD
    world.run_until(lambda w: w.running(THIRD) > 0)
    world.wanted = NEW
    world.run(3000)
    assert world.condition("Stalled") == "True Quarantined"
    assert (world.running(THIRD), world.running(NEW)) == (0, 0)
    assert world.status.history[-1].outcome == "Superseded"


def test_it_survives_the_loss_of_status_under_the_present_spec() -> None:
    world = sent_back()
    world.status = EdgeRolloutStatus()
    world.run(1200)
    assert [(one.digest, one.judged_by) for one in world.status.quarantined] == [(NEW, judging(world.rollout.spec))]
    assert (world.condition("Stalled"), world.running(NEW)) == ("True Quarantined", 0)
    edit(world, "spec.analysis.metrics.0.max", "950m").run_until(is_completed)


def test_one_whose_judge_is_not_known_waits_for_a_person() -> None:
    world = sent_back()
    held = tuple(one.model_copy(update={"judged_by": None}) for one in world.status.quarantined)
    world.status = world.status.model_copy(update={"quarantined": held})
    edit(world, "spec.strategy.minDevices", 3).run(600)
    assert world.condition("Stalled") == "True Quarantined"
    world.command(Verb.RETRY, digest=NEW)
    world.run(60)
    assert world.status.candidate is not None


def test_fingerprints_are_what_they_have_always_been() -> None:
    """Another value of an unchanged spec would lift every quarantine, and start steps anew, with an upgrade."""
    spec = (
        stepping(step("10%"), "pause", step("100%"), metrics=({"margin": "0.01", "compareTo": "Control"},)).build().spec
    )
    assert judging(a_rollout().build().spec) == "817d877cb3d795c8"
    assert judging(spec) == "6935d11a478f8be5"
    assert [leading_to(spec.strategy.steps, index) for index in (0, 1, 2)] == [
        "8d426b84e63d9031",
        "fd3e7a06ad117b9b",
        "36c44cee7670dc30",
    ]
