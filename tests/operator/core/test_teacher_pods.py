"""Pods that write the teacher's part side by side, and logits that training finds damaged."""

from dataclasses import replace

from dram_operator.api.status import StageState
from dram_operator.core.observed import PodView
from dram_workers.errors import ExitCode
from dram_workers.results import StageMessage
from tests.builders import a_job
from tests.operator.core.world import a_world, crashed


def test_of_the_teachers_pods_any_one_has_the_result() -> None:
    world = a_world(a_job().with_synthetic().having("spec.teacher.workers", 3))
    world.run_to("synthesize")
    world.finish("synthesize")
    told = world.view_of("synthesize").pods[0]
    silent = replace(told, name="silent", message=StageMessage(reason="Completed").model_dump_json())
    world.pods("synthesize", silent)
    world.reconcile()
    assert world.stage("synthesize").state is StageState.RUNNING
    world.pods("synthesize", silent, silent, told)
    world.reconcile()
    assert world.stage("synthesize").state is StageState.SUCCEEDED


def test_the_teachers_pods_do_not_wait_for_each_other() -> None:
    world = a_world(a_job().with_synthetic().having("spec.teacher.workers", 2))
    world.run_to("synthesize")
    stuck = PodView("second", unschedulable="0/1 nodes are available")
    world.pods("synthesize", PodView("first", phase="Running", scheduled=True, started=True), stuck)
    world.wait(world.job.spec.pending_deadline_seconds + 1)
    world.reconcile()
    assert world.stage("synthesize").state is StageState.RUNNING
    assert not world.view_of("synthesize").deleting


def test_logits_that_training_finds_damaged_are_written_again() -> None:
    world = a_world(a_job().having("spec.objective.teacherLogits", {"mode": "Cached"}))
    world.run_to("train")
    first = world.stage("train").attempt
    world.fail("train", crashed(ExitCode.TRANSIENT, reason="PartLost", message="the shard was damaged"))
    world.reconcile()
    assert (world.stage("teach").state, world.stage("teach").reason) == (StageState.RUNNING, "Running")
    assert (world.stage("teach").attempt, world.stage("teach").result) == (2, None)
    assert (world.stage("train").state, world.stage("train").retries) == (StageState.PENDING, 1)
    world.wait(60)
    world.reconcile()
    assert world.stage("train").state is StageState.PENDING
    world.finish("teach")
    world.reconcile()
    assert (world.stage("train").state, world.stage("train").attempt) == (StageState.RUNNING, first + 1)
    world.run()
    assert world.condition("Succeeded") == ("True", "Completed")


def test_a_store_that_keeps_losing_logits_ends_the_job() -> None:
    world = a_world(a_job().having("spec.objective.teacherLogits", {"mode": "Cached"}).having("spec.retries", 1))
    for _ in range(2):
        world.run_to("train")
        world.fail("train", crashed(ExitCode.TRANSIENT, reason="PartLost", message="the shard was damaged"))
        world.reconcile()
        world.wait(60)
    world.reconcile()
    assert world.condition("Succeeded") == ("False", "PartLost")
