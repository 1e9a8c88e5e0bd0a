"""Whatever happens in between, the end is the same."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dram_operator.core.observed import PodView
from dram_workers.errors import ExitCode
from dram_workers.results import StageMessage
from tests.builders import a_job
from tests.operator.core.world import World

JOB = a_job().exporting("Q8_0", "Q4_K_M").with_synthetic().having("spec.retries", 100).build()
TRANSIENT = PodView(
    "pod",
    phase="Failed",
    exit_code=ExitCode.TRANSIENT,
    message=StageMessage(reason="StorageUnavailable", message="no answer").model_dump_json(),
)
PREEMPTED = PodView("pod", phase="Failed", exit_code=137, disrupted=True)


def end_of(world: World) -> object:
    """What must not depend on the way: results, gates and variants; no times, no attempt numbers."""
    status = world.status
    results = {stage.id: (stage.state, stage.key, stage.result and stage.result.outputs) for stage in status.stages}
    conditions = [(condition.type, condition.status) for condition in status.conditions]
    return results, conditions, status.variants, status.gates, status.best, status.report_uri


def undisturbed() -> object:
    world = World(JOB)
    world.run()
    return end_of(world)


def disturb(world: World, what: str, pick: int) -> None:
    if what == "crash":
        world.reconcile(writes_before_crash=pick % 4)
    elif what in ("suspend", "resume"):
        world.having(suspend=what == "suspend")
    elif what == "wait":
        world.wait(pick)
    elif what == "collect":
        world.collect()
    elif what == "reconcile":
        world.reconcile()
    else:
        disturb_attempt(world, what, pick)


def disturb_attempt(world: World, what: str, pick: int) -> None:
    live = [view for view in world.live() if not view.deleting]
    if not live:
        return
    stage = live[pick % len(live)].stage
    if what == "work":
        world.finish(stage)
    elif what == "delete":
        world.change(stage, deleting=True)
    else:
        world.fail(stage, TRANSIENT if what == "fail" else PREEMPTED)


STEPS = ("work", "fail", "preempt", "delete", "collect", "crash", "suspend", "resume", "wait", "reconcile")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 400)), max_size=60))
def test_any_disturbance_ends_in_the_undisturbed_result(steps: list[tuple[str, int]]) -> None:
    world = World(JOB)
    for what, pick in steps:
        disturb(world, what, pick)
    world.having(suspend=False)
    for _ in range(200):
        world.collect()
        world.reconcile()
        if world.status.finished_at:
            break
        for view in world.live():
            world.finish(view.stage)
        world.wait(400)
    assert end_of(world) == undisturbed()
    assert all(view.attempt <= world.stage(view.stage).attempt for view in world.views.values())


@pytest.mark.parametrize("writes", range(1, 60))
def test_a_crash_after_any_write_changes_nothing(writes: int) -> None:
    world = World(JOB)
    left = writes
    for _ in range(200):
        before = world.writes
        world.reconcile(writes_before_crash=left if left > 0 else None)
        left -= world.writes - before
        if world.status.finished_at:
            break
        for view in world.live():
            world.finish(view.stage)
    assert end_of(world) == undisturbed()
    assert all(stage.attempt == 1 for stage in world.status.stages), "nothing was done twice"


@given(st.integers(0, 30))
@settings(max_examples=31, deadline=None)
def test_a_status_that_was_lost_is_found_again(steps: int) -> None:
    world = World(JOB)
    for step in range(steps):
        world.reconcile()
        for view in world.live():
            world.finish(view.stage)
        if step == steps // 2:
            world.job = world.job.model_copy(update={"status": type(world.status)()})
    world.run()
    assert end_of(world) == undisturbed()


def test_deciding_twice_on_the_same_sight_gives_the_same_decision() -> None:
    world = World(JOB)
    for _ in range(12):
        assert world.decide() == world.decide()
        world.reconcile()
        for view in world.live():
            world.finish(view.stage)
