"""What the operator knows of a training pod's memory, and what becomes of a warning."""

from dram_operator.api.pods import Resources
from dram_operator.core.installation import Installation
from dram_operator.core.memory import training_setup
from dram_workers.results import StageMessage
from dram_workers.stages import PublishConfig, ResolveConfig
from tests.builders import AJob, a_job
from tests.operator.core.world import INSTALLATION, a_world, result_of

GIB = 1024**3
WARNING = "spec.podTemplate.resources.train.limits.memory: a training pod may use 300 MiB"


class TestLimit:
    def limit(self, job: AJob, installation: Installation = INSTALLATION) -> int | None:
        return training_setup(job.build(), installation).limit_bytes

    def test_of_the_training_pods_comes_first(self) -> None:
        job = a_job().having("spec.podTemplate.resources.default", {"limits": {"memory": "1Gi"}})
        assert self.limit(job) == GIB
        assert self.limit(job.having("spec.podTemplate.resources.train", {"limits": {"memory": "2Gi"}})) == 2 * GIB

    def test_of_the_installation_serves_a_job_that_says_nothing(self) -> None:
        assert self.limit(a_job()) == 8 * GIB

    def test_is_unknown_where_none_is_set(self) -> None:
        assert self.limit(a_job().having("spec.podTemplate.resources.train", {"requests": {"cpu": "1"}})) is None

    def test_of_a_pod_with_gpus_says_nothing_about_their_memory(self) -> None:
        limits = {"memory": "2Gi", "nvidia.com/gpu": "1"}
        assert self.limit(a_job().having("spec.podTemplate.resources.train", {"limits": limits})) is None

    def test_of_a_local_run_is_the_machines_whatever_the_manifest_asks_of_a_cluster(self) -> None:
        local = Installation(on_cluster=False, default_resources=Resources(limits={"memory": "4096"}))
        job = a_job().having("spec.podTemplate.resources.train", {"limits": {"memory": "2Gi"}})
        assert self.limit(job, local) == 4096


def test_ranks_of_a_local_run_share_the_machine() -> None:
    job = a_job().with_training(workers=3, processesPerWorker=2, deepspeed={"zeroStage": 2, "offload": "Optimizer"})
    there = training_setup(job.build(), INSTALLATION)
    assert (there.world, there.ranks_in_pod, there.zero_stage, there.offload) == (6, 2, 2, True)
    assert training_setup(job.build(), Installation(on_cluster=False)).ranks_in_pod == 6


def test_a_single_rank_runs_without_zero() -> None:
    assert training_setup(a_job().with_training(deepspeed={"zeroStage": 2}).build(), INSTALLATION).zero_stage == 0


def test_what_the_loss_needs_is_told() -> None:
    objective = {"temperature": {"start": 1, "end": 1}, "alpha": {"start": 0.5, "end": 0.5}}
    layers = {**objective, "hiddenStates": {"weight": {"start": 1, "end": 1}}}
    maps = {**objective, "attention": {"weight": {"start": 1, "end": 1}}}
    cached = {**objective, "teacherLogits": {"mode": "Cached"}}
    found = [
        training_setup(a_job().having("spec.objective", asked).build(), INSTALLATION)
        for asked in (objective, layers, maps, cached)
    ]
    told = [(setup.hidden_states, setup.attention_maps, setup.without_teacher) for setup in found]
    assert told == [(False, False, False), (True, False, False), (False, True, False), (False, False, True)]


def test_resolve_is_told() -> None:
    world = a_world()
    world.reconcile()
    config = world.attempts["support-bot-resolve-1"].config
    assert isinstance(config, ResolveConfig)
    assert config.execution.training == training_setup(world.job, INSTALLATION)


def test_a_warning_is_an_event_a_conditions_message_and_a_line_of_the_report() -> None:
    world = a_world()
    world.reconcile()
    view = world.view_of("resolve")
    message = StageMessage(reason="Completed", message=WARNING, result=result_of(world.attempts[view.name]))
    pod = world.view_of("resolve").pods[0]
    told = type(pod)(pod.name, phase="Succeeded", exit_code=0, message=message.model_dump_json(), started=True)
    world.change("resolve", succeeded=True, finished_at=world.now, pods=(told,))
    world.run()
    assert f"Warning Warned resolve (attempt 1): {WARNING}" in world.events
    ready = next(condition for condition in world.status.conditions if condition.type == "DataReady")
    assert (ready.status, ready.message) == ("True", f"resolve: {WARNING}")
    publish = world.attempts["support-bot-publish-1"].config
    assert isinstance(publish, PublishConfig)
    assert publish.identity.warnings == (f"resolve: {WARNING}",)
