"""`decide`, told as stories."""

from dataclasses import replace

import pytest

from dram_operator.api.pods import PodTemplate
from dram_operator.api.spec import DeepSpeed, Training
from dram_operator.api.status import StageState
from dram_operator.core.observed import PodView
from dram_workers.errors import ExitCode
from dram_workers.results import StageMessage, StageResult
from dram_workers.stages import TrainConfig
from tests.builders import a_job
from tests.operator.core.world import INSTALLATION, TWO, a_world, crashed

MORE_MEMORY = PodTemplate.model_validate({"resources": {"train": {"limits": {"memory": "8Gi"}}}})


def test_a_job_runs_its_stages_in_order_and_succeeds() -> None:
    world = a_world(a_job().exporting(*TWO).with_synthetic())
    world.run()
    assert world.condition("Succeeded") == ("True", "Completed")
    assert [world.condition(kind)[0] for kind in ("Reconciling", "Stalled")] == ["False", "False"]
    assert all(stage.state is StageState.SUCCEEDED for stage in world.status.stages)
    assert [variant.gate for variant in world.status.variants] == ["Pass", "Pass"]
    assert world.status.best == "gguf-q8-0"
    assert world.status.variants[0].uri == "s3://models/dram/artifacts/default/support-bot/gguf-q8-0/gguf-q8-0"
    assert world.status.report_uri == "s3://models/dram/report.html"
    assert (world.status.stage, world.status.progress and world.status.progress.percent) == ("Done", 100)


def test_a_settled_job_is_not_written_again() -> None:
    world = a_world()
    world.run()
    world.reconcile()
    before = world.writes
    decision = world.reconcile()
    assert world.writes == before
    assert (decision.start, decision.delete, decision.expire, decision.events) == ((), (), (), ())


def test_every_condition_is_there_on_the_first_visit() -> None:
    world = a_world()
    world.reconcile()
    assert len(world.status.conditions) == 8
    assert world.condition("Succeeded") == ("Unknown", "Running")
    assert all(condition.observed_generation == 1 for condition in world.status.conditions)


def test_a_result_taken_from_an_earlier_run_is_called_cached() -> None:
    world = a_world()
    world.reconcile()
    world.finish("resolve", cached=True)
    world.reconcile()
    assert world.stage("resolve").reason == "Cached"


def test_a_training_that_stopped_early_says_so_where_people_look() -> None:
    world = a_world()
    world.run_to("train")
    world.finish("train", facts={"stoppedEarly": "at step 40 of 100"})
    world.run()
    distilled = next(condition for condition in world.status.conditions if condition.type == "Distilled")
    assert (distilled.status, distilled.message) == ("True", "train: stopped early, at step 40 of 100")


def test_a_deleted_job_is_left_to_garbage_collection() -> None:
    world = a_world()
    metadata = world.job.metadata.model_copy(update={"deletion_timestamp": "2030-01-01T00:00:00Z"})
    world.job = world.job.model_copy(update={"metadata": metadata})
    assert world.decide().start == ()


class TestSpecThatCannotRun:
    def test_without_storage_anywhere(self) -> None:
        world = a_world()
        world.having(storage=None)
        world.reconcile()
        assert world.condition("Succeeded") == ("False", "SpecInvalid")
        assert "spec.storage" in world.status.conditions[0].message
        assert world.condition("Stalled")[0] == "True"

    def test_a_local_folder_on_a_cluster(self) -> None:
        world = a_world(a_job().storing_at("file:///results"))
        world.reconcile()
        assert "file:///results" in world.status.conditions[0].message

    def test_the_installations_storage_serves_a_job_that_names_none(self) -> None:
        storage = a_job().build().spec.storage
        world = a_world(installation=replace(INSTALLATION, storage=storage))
        world.having(storage=None)
        world.run()
        assert world.condition("Succeeded")[0] == "True"


class TestFailures:
    def test_bad_input_is_final_and_names_field_and_remedy(self) -> None:
        world = a_world()
        world.reconcile()
        told = {"reason": "ModelNotFound", "message": "hf://x/y", "field": "spec.teacher.uri", "remedy": "check it"}
        world.fail("resolve", crashed(ExitCode.BAD_INPUT, **told))
        world.reconcile()
        assert world.condition("Succeeded") == ("False", "ModelNotFound")
        assert world.status.conditions[0].message == "resolve: spec.teacher.uri: hf://x/y: check it"
        assert world.condition("DataReady") == ("False", "ModelNotFound")
        assert world.condition("Distilled") == ("False", "NotReached")
        assert world.condition("GatesPassed") == ("False", "NotReached")
        assert world.stage("publish").state is StageState.SKIPPED

    def test_when_nothing_can_be_published_nothing_more_is_started(self) -> None:
        world = a_world(installation=replace(INSTALLATION, max_parallel=1))
        world.run_to("data")
        world.fail("data", crashed(ExitCode.BAD_INPUT, reason="EmptyDataset"))
        world.reconcile()
        assert world.stage("evaluate-teacher").state is StageState.SKIPPED
        assert world.live() == []

    def test_a_transient_failure_waits_and_is_tried_again_until_retries_are_used_up(self) -> None:
        world = a_world(a_job().having("spec.retries", 1))
        world.reconcile()
        world.fail("resolve", crashed(ExitCode.TRANSIENT, reason="StorageUnavailable", message="no answer"))
        decision = world.reconcile()
        assert decision.requeue_after == 5
        assert world.condition("Succeeded") == ("Unknown", "Retrying")
        world.wait(5)
        world.reconcile()
        assert world.stage("resolve").attempt == 2
        world.fail("resolve", crashed(ExitCode.TRANSIENT, reason="StorageUnavailable", message="no answer"))
        world.reconcile()
        assert world.condition("Succeeded") == ("False", "StorageUnavailable")
        assert "after 2 attempts; spec.retries is 1" in world.status.conditions[0].message

    def test_preemption_is_free(self) -> None:
        world = a_world(a_job().having("spec.retries", 0))
        world.reconcile()
        for _ in range(3):
            world.fail("resolve", replace(crashed(137), disrupted=True))
            world.reconcile()
        assert world.stage("resolve").state is StageState.RUNNING
        assert (world.stage("resolve").attempt, world.stage("resolve").retries) == (4, 0)

    def test_the_memory_limit_is_final_and_names_the_field_to_raise(self) -> None:
        world = a_world()
        world.run_to("train")
        world.fail("train", replace(crashed(137), reason="OOMKilled"))
        world.reconcile()
        assert world.condition("Succeeded") == ("False", "OutOfMemory")
        assert "spec.podTemplate.resources.train.limits.memory" in world.status.conditions[0].message

    def test_the_first_rank_that_failed_is_blamed_and_not_the_ones_that_stopped_with_it(self) -> None:
        world = a_world(a_job().with_training(workers=2))
        world.run_to("train")
        told = crashed(ExitCode.BAD_INPUT, reason="LossNotFinite", message="NaN at step 7")
        stopped = crashed(143, reason="Interrupted", message="told to stop")
        world.fail("train", replace(stopped, index=0), replace(told, index=1))
        world.reconcile()
        assert world.condition("Distilled") == ("False", "LossNotFinite")

    def test_a_pod_without_a_message_is_tried_again_and_its_exit_code_named(self) -> None:
        world = a_world()
        world.reconcile()
        world.fail("resolve", replace(crashed(1), reason="Error"))
        world.reconcile()
        assert "exit code 1" in (world.stage("resolve").message or "")

    def test_a_failed_job_whose_pods_vanished_is_tried_again(self) -> None:
        world = a_world()
        world.reconcile()
        world.change("resolve", failed=True, failure="BackoffLimitExceeded")
        world.reconcile()
        assert world.stage("resolve").message == "BackoffLimitExceeded"

    def test_a_pod_that_never_had_a_container_has_no_exit_code(self) -> None:
        world = a_world()
        world.reconcile()
        world.fail("resolve", PodView("pod", phase="Failed", reason="UnexpectedAdmissionError"))
        world.reconcile()
        assert "no exit code (UnexpectedAdmissionError)" in (world.stage("resolve").message or "")

    def test_success_without_a_readable_result_is_asked_for_again(self) -> None:
        world = a_world()
        world.reconcile()
        world.change("resolve", succeeded=True, finished_at=world.now, pods=(PodView("pod", exit_code=0, message="{"),))
        world.reconcile()
        assert (world.stage("resolve").reason, world.stage("resolve").retries) == ("ResultUnreadable", 1)

    def test_success_whose_pods_are_not_seen_yet_is_waited_for(self) -> None:
        world = a_world()
        world.reconcile()
        world.change("resolve", succeeded=True, finished_at=world.now, pods=())
        assert world.reconcile().requeue_after == 10
        assert world.stage("resolve").state is StageState.RUNNING
        world.wait(31)
        world.reconcile()
        assert world.stage("resolve").reason == "ResultUnreadable"


class TestWaiting:
    @pytest.mark.parametrize(
        ("changes", "want"),
        [
            ({"suspended": True}, "Queued"),
            ({"refusal": "exceeded quota: cpu"}, "QuotaExceeded"),
            (
                {"pods": (PodView("p", waiting_reason="ImagePullBackOff", waiting_message="no such image"),)},
                "ImagePullFailed",
            ),
            ({"pods": (PodView("p", waiting_reason="CreateContainerConfigError"),)}, "ContainerConfigFailed"),
            ({"pods": (PodView("p", unschedulable="0/1 nodes are available"),)}, "Unschedulable"),
            ({"pods": (PodView("a", started=True), PodView("b", unschedulable="0/1 nodes"))}, "GangIncomplete"),
        ],
    )
    def test_why_a_stage_waits_is_shown(self, changes: dict[str, object], want: str) -> None:
        world = a_world(a_job().with_training(workers=2))
        world.run_to("train")
        world.change("train", **changes)
        world.reconcile()
        assert world.condition("Distilled") == ("Unknown", want)
        assert world.condition("Reconciling") == ("True", want)

    @pytest.mark.parametrize("pods", [(), (PodView("p", unschedulable="0/1 nodes are available"),)])
    def test_pods_not_placed_in_time_are_torn_down_and_tried_again(self, pods: tuple[PodView, ...]) -> None:
        world = a_world(a_job().having("spec.pendingDeadlineSeconds", 60))
        world.reconcile()
        world.pods("resolve", *pods)
        assert world.reconcile().requeue_after == 60
        world.wait(60)
        assert world.reconcile().delete == ("support-bot-resolve-1",)
        assert "spec.pendingDeadlineSeconds" in (world.stage("resolve").message or "")
        world.wait(5)
        world.reconcile()
        assert world.stage("resolve").attempt == 1, "the old pods are not gone yet"
        world.collect()
        world.reconcile()
        assert world.stage("resolve").attempt == 2

    def test_pods_at_work_are_never_torn_down_for_waiting(self) -> None:
        world = a_world(a_job().having("spec.pendingDeadlineSeconds", 60))
        world.reconcile()
        world.pods("resolve", PodView("p", phase="Running", started=True))
        world.wait(3600)
        assert world.reconcile().delete == ()

    def test_an_attempt_that_somebody_deleted_is_made_again_once_it_is_gone(self) -> None:
        world = a_world()
        world.reconcile()
        world.change("resolve", deleting=True)
        assert world.reconcile().start == ()
        world.collect()
        assert [attempt.name for attempt in world.reconcile().start] == ["support-bot-resolve-1"]


class TestSuspend:
    def test_pods_are_deleted_and_the_stage_goes_on_with_its_next_attempt(self) -> None:
        world = a_world()
        world.run_to("train")
        world.having(suspend=True)
        assert world.reconcile().delete == ("support-bot-train-1",)
        assert world.condition("Reconciling") == ("True", "Suspending")
        assert world.reconcile().delete == ()
        world.collect()
        world.reconcile()
        assert world.condition("Succeeded") == ("Unknown", "Suspended")
        assert world.condition("Reconciling") == ("False", "Suspended")
        assert world.reconcile().start == ()
        world.having(suspend=False)
        assert [attempt.name for attempt in world.reconcile().start] == ["support-bot-train-2"]

    def test_a_stage_that_ends_while_it_is_being_suspended_counts(self) -> None:
        world = a_world()
        world.run_to("train")
        world.having(suspend=True)
        world.reconcile()
        world.finish("train")
        world.reconcile()
        assert world.stage("train").state is StageState.SUCCEEDED

    def test_suspended_time_does_not_count_against_the_deadline(self) -> None:
        world = a_world(a_job().having("spec.activeDeadlineSeconds", 100))
        world.reconcile()
        world.wait(60)
        world.having(suspend=True)
        world.reconcile()
        world.collect()
        world.wait(1000)
        world.reconcile()
        world.having(suspend=False)
        assert world.reconcile().requeue_after == 40
        world.wait(40)
        world.reconcile()
        assert world.condition("Succeeded") == ("False", "DeadlineExceeded")

    def test_resumed_before_the_old_pods_are_gone_it_waits_for_them(self) -> None:
        world = a_world()
        world.run_to("train")
        world.having(suspend=True)
        world.reconcile()
        world.change("train", failed=True, pods=(crashed(143, reason="Interrupted", message="saved"),))
        world.having(suspend=False)
        assert world.reconcile().start == ()
        assert world.stage("train").retries == 0
        world.collect()
        assert [attempt.name for attempt in world.reconcile().start] == ["support-bot-train-1"]

    def test_pods_that_the_watch_shows_late_hold_the_next_attempt_back(self) -> None:
        world = a_world()
        world.run_to("train")
        world.having(suspend=True)
        world.reconcile()
        late = dict(world.views)
        world.collect()
        world.reconcile()
        world.views = late
        world.having(suspend=False)
        assert world.reconcile().start == ()
        assert world.condition("Succeeded") == ("Unknown", "Pending")

    def test_pods_told_to_stop_by_somebody_else_are_replaced_for_free(self) -> None:
        world = a_world(a_job().having("spec.retries", 0))
        world.run_to("train")
        world.fail("train", crashed(143, reason="Interrupted", message="saved"))
        world.reconcile()
        assert (world.stage("train").attempt, world.stage("train").retries) == (2, 0)

    def test_a_job_suspended_from_the_start_makes_nothing(self) -> None:
        world = a_world(a_job().suspended())
        assert world.reconcile().start == ()
        assert world.condition("Succeeded") == ("Unknown", "Suspended")


class TestDeadline:
    def test_what_runs_is_deleted_and_the_rest_is_skipped(self) -> None:
        world = a_world(a_job().having("spec.activeDeadlineSeconds", 100))
        world.run_to("train")
        world.wait(100)
        decision = world.reconcile()
        assert decision.delete == ("support-bot-train-1",)
        assert world.stage("train").state is StageState.FAILED
        assert world.stage("publish").state is StageState.SKIPPED
        assert "spec.activeDeadlineSeconds" in world.status.conditions[0].message

    def test_between_two_attempts_the_first_stage_left_is_blamed(self) -> None:
        world = a_world(a_job().having("spec.activeDeadlineSeconds", 2))
        world.reconcile()
        world.fail("resolve", crashed(1))
        world.wait(2)
        world.reconcile()
        assert world.stage("resolve").reason == "DeadlineExceeded"

    def test_a_finished_job_has_no_deadline(self) -> None:
        world = a_world(a_job().having("spec.activeDeadlineSeconds", 1000))
        world.run()
        world.wait(5000)
        world.reconcile()
        assert world.condition("Succeeded")[0] == "True"


class TestRuns:
    def test_another_spec_starts_another_run_and_never_uses_a_name_twice(self) -> None:
        world = a_world()
        world.run()
        world.having(training=Training(max_steps=7))
        world.reconcile()
        assert world.status.run == 2
        assert world.stage("resolve").attempt == 2
        world.run()
        assert world.condition("Succeeded")[0] == "True"

    def test_switches_that_do_not_touch_the_result_start_no_run(self) -> None:
        world = a_world()
        world.run()
        world.having(retries=9)
        world.reconcile()
        assert world.status.run == 1
        assert world.status.observed_generation == 2

    def test_attempts_of_an_earlier_run_are_deleted(self) -> None:
        world = a_world()
        world.run_to("train")
        world.having(training=Training(max_steps=7))
        assert "support-bot-train-1" in world.reconcile().delete

    def test_workers_change_the_plan_but_not_the_key(self) -> None:
        world = a_world()
        world.run_to("train")
        key = world.stage("train").key
        world.having(suspend=True)
        world.reconcile()
        world.collect()
        world.having(suspend=False, training=Training(workers=2))
        world.run_to("train")
        assert world.stage("train").key == key
        attempt = world.attempts["support-bot-train-2"]
        assert isinstance(attempt.config, TrainConfig)
        assert attempt.config.execution.rendezvous == "support-bot-train-2-0.support-bot-train:29500"
        assert (attempt.workers, attempt.run, world.status.run) == (2, 1, 1), "the same run goes on"
        assert world.stage("data").attempt == 1, "and nothing is done twice"
        world.run()
        assert world.condition("Succeeded")[0] == "True"

    @pytest.mark.parametrize(
        "changed", [{"workers": 2}, {"processes_per_worker": 2}, {"deepspeed": DeepSpeed(zero_stage=3)}]
    )
    def test_a_gang_of_the_old_size_is_replaced_even_when_the_suspension_was_never_seen(
        self, changed: dict[str, object]
    ) -> None:
        world = a_world()
        world.run_to("train")
        world.having(training=Training.model_validate(changed))
        for writes in (1, None):
            decision = world.reconcile(writes_before_crash=writes)
            assert (decision.delete, decision.start) == (("support-bot-train-1",) if writes else (), ())
        world.collect()
        (attempt,) = world.reconcile().start
        assert (attempt.name, attempt.run) == ("support-bot-train-2", 1)
        assert world.stage("train").retries == 0

    def test_an_upgrade_in_between_changes_the_workers_and_nothing_else(self) -> None:
        world = a_world(a_job().suspended())
        world.reconcile()
        plan = world.status.plan
        assert plan is not None
        older = tuple(node.model_copy(update={"identity": {**node.identity, "old": 1}}) for node in plan.stages)
        update = {"plan": plan.model_copy(update={"stages": older, "image": "worker:0"})}
        world.job = world.job.model_copy(update={"status": world.status.model_copy(update=update)})
        world.having(training=Training(workers=2))
        world.reconcile()
        assert world.status.plan is not None
        assert world.status.plan.image == "worker:0"
        train = next(node for node in world.status.plan.stages if node.id == "train")
        assert (train.execution["workers"], train.identity["old"]) == (2, 1)

    @pytest.mark.parametrize("changed", [{"training": Training(workers=2)}, {"pod_template": MORE_MEMORY}])
    def test_a_finished_job_is_run_again_with_other_pods(self, changed: dict[str, object]) -> None:
        world = a_world()
        world.run()
        world.having(**changed)
        world.reconcile()
        assert world.status.run == 2

    def test_at_most_so_many_stages_work_at_once(self) -> None:
        world = a_world(a_job().exporting(*TWO), replace(INSTALLATION, max_parallel=1))
        for _ in range(50):
            world.reconcile()
            assert len(world.live()) <= 1
            for view in world.live():
                world.finish(view.stage)
        assert world.condition("Succeeded")[0] == "True"

    def test_a_plan_that_does_not_fit_the_results_fails_in_the_open(self) -> None:
        world = a_world()
        world.reconcile()
        attempt = world.attempts["support-bot-resolve-1"]
        message = StageMessage(reason="Completed", result=StageResult(key=attempt.config.key))
        world.change("resolve", succeeded=True, pods=(PodView("p", exit_code=0, message=message.model_dump_json()),))
        world.reconcile()
        assert world.condition("Succeeded") == ("False", "ResultUnreadable")
        assert "resolve left no output" in world.status.conditions[0].message


class TestEnd:
    def test_jobs_get_a_time_to_live_only_when_their_result_is_safe(self) -> None:
        world = a_world()
        world.reconcile()
        world.finish("resolve")
        assert world.decide().expire == ()
        world.reconcile()
        assert world.reconcile().expire == ("support-bot-resolve-1",)
        assert world.reconcile().expire == ()

    def test_the_resource_goes_when_its_time_is_over(self) -> None:
        world = a_world(a_job().having("spec.ttlSecondsAfterFinished", 60))
        world.run()
        assert world.reconcile().requeue_after == 60
        world.wait(60)
        world.reconcile()
        assert world.gone

    def test_there_is_one_event_a_transition(self) -> None:
        world = a_world()
        world.run()
        assert len(world.events) == len(set(world.events))
        assert world.events[0].startswith("Normal Running resolve (attempt 1)")
        assert world.events[-1].startswith("Normal Completed")
