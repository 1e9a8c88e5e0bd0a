"""Edits of the spec in the middle of an attempt, and what outlives them: resolved digests, quarantine, a lost status."""

from dataclasses import replace
from datetime import timedelta

import pytest

from dram_operator.api.rollout_reasons import RolloutReason
from dram_operator.api.rollout_status import ArtifactStatus, EdgeRolloutStatus
from dram_operator.core.rollout.observed import ArtifactView
from tests.operator.core.rollout.world import (
    NEW,
    OLD,
    START,
    THIRD,
    World,
    at_step,
    bad_from,
    is_completed,
    is_rolled_back,
    step,
    stepping,
)


def test_another_artifact_takes_the_place_of_the_candidate() -> None:
    world = World().run_until(at_step(1, "Baking"))
    world.wanted = THIRD
    world.run_until(lambda w: w.status.stable is not None and w.status.stable.release.digest == THIRD)
    assert world.events.count("Superseded") == 1
    assert world.running(THIRD) == len(world.agents)
    assert [record.outcome for record in world.status.history] == ["Superseded", "Completed"]


def test_going_back_to_the_stable_artifact_ends_the_attempt() -> None:
    world = World().run_until(is_completed)
    world.wanted = THIRD
    world.run_until(at_step(1, "Baking"))
    world.wanted = NEW
    world.run(300)
    assert world.status.candidate is None
    assert world.running(NEW) == len(world.agents)
    assert world.status.quarantined == ()


def test_a_digest_once_resolved_needs_the_job_no_more() -> None:
    world = World().run_until(at_step(0, "Baking"))
    for _ in range(200):
        gone = replace(world.observe(), artifact=replace(world.observe().artifact, release=None))
        world.reconcile(gone)
        world.tick()
    assert is_completed(world)


def test_what_an_artifact_was_resolved_to_is_recorded_while_it_is_awaited_and_kept() -> None:
    world = World(stable=None)
    source = world.rollout.spec.artifact.source
    resolved = ArtifactStatus(source=source, name="bot/q4", digest=NEW)
    waits = ArtifactView(reason=RolloutReason.UPLOADING, message="1 of 2", resolved=resolved, look_again_seconds=5.0)
    decision = world.reconcile(replace(world.observe(), artifact=waits))
    assert world.status.artifact == resolved
    assert world.condition("ArtifactReady") == "False Uploading"
    assert decision.requeue_after == 5.0
    assert world.condition("Stalled").startswith("False")
    failed = replace(waits, reason=RolloutReason.UPLOAD_FAILED)
    world.reconcile(replace(world.observe(), artifact=failed))
    assert world.condition("Stalled") == "True UploadFailed"
    world.reconcile()
    assert world.status.candidate is not None
    assert world.status.artifact == resolved
    world.wanted = THIRD
    world.reconcile(replace(world.observe(), artifact=ArtifactView()))
    assert world.status.artifact is None, "it was of another artifact"


def test_lost_status_takes_over_what_is_signed() -> None:
    world = World().run_until(at_step(1, "Baking")).run(60)
    exposed = world.running(NEW)
    assert exposed == 20
    world.status = EdgeRolloutStatus()
    world.run(30)
    assert "Adopted" in world.events
    assert world.status.step is not None
    assert world.status.step.index == 1
    world.run(60)
    assert world.running(NEW) == exposed
    world.run_until(is_completed)


@pytest.mark.parametrize("stable", [OLD, None])
def test_quarantine_survives_the_loss_of_status(stable: str | None) -> None:
    world = World(stable=stable, figures=bad_from(START + timedelta(seconds=400))).run_until(is_rolled_back)
    world.run(60)
    world.status = EdgeRolloutStatus()
    world.run(3000)
    assert world.running(NEW) == 0
    assert world.condition("Stalled") == "True Quarantined"


def test_a_zone_that_does_not_exist_stops_the_way_forward_with_words() -> None:
    windows = [{"schedule": "0 2 * * *", "durationSeconds": 60, "timeZone": "Mars/Olympus"}]
    world = World(manifest=World().manifest.having("spec.strategy.windows", windows)).run(300)
    assert world.condition("Stalled") == "True SpecInvalid"


def test_held_back_devices_stay_on_stable_until_the_end() -> None:
    world = World(manifest=stepping(step("100%", 600), holdbackPercent="20%"))
    world.run_until(at_step(0, "Baking"))
    assert world.running(OLD) == 8
    world.run_until(is_completed)


def test_a_candidate_goes_no_further_while_the_spec_waits_for_another_one() -> None:
    world = World().run_until(at_step(0, "Baking"))
    world.wanted = THIRD
    awaited = ArtifactView(reason=RolloutReason.AWAITING_SIGNATURE, message="sign it")
    for _ in range(100):
        world.reconcile(replace(world.observe(), artifact=awaited))
        world.tick()
    assert world.moves == ["('2', 4)"]
    assert world.condition("Ready") == "False AwaitingSignature"
    world.figures = bad_from(world.now)
    for _ in range(10):
        world.reconcile(replace(world.observe(), artifact=awaited))
        world.tick()
    assert "RollingBack" in world.events
    world.run_until(lambda w: w.status.stable is not None and w.status.stable.release.digest == THIRD)
