"""The plan graph and the keys it leads to."""

import pytest

from dram_operator.api.distillation_job import DistillationJob
from dram_operator.api.status import PlannedInput, PlannedStage
from dram_operator.core.plan import execution_hash, plan_stages, proof_items, spec_hash
from dram_workers.stages import StageKind
from tests.builders import AJob, a_job
from tests.operator.core.world import World


def stages_of(job: AJob) -> dict[str, StageKind]:
    built = job.build()
    return {stage.id: stage.kind for stage in plan_stages(built.spec, built.metadata.name)}


def keys_of(job: DistillationJob) -> dict[str, str | None]:
    world = World(job)
    world.run()
    return {stage.id: stage.key for stage in world.status.stages}


def test_every_stage_comes_after_its_inputs() -> None:
    plan = plan_stages(a_job().with_synthetic().exporting("Q8_0", "F16").build().spec, "x")
    seen: set[str] = set()
    for stage in plan:
        assert {source.stage for source in stage.inputs.values()} <= seen
        seen.add(stage.id)


def test_a_variant_has_an_export_an_evaluation_and_a_bench() -> None:
    stages = stages_of(a_job().exporting("Q4_K_M"))
    assert list(stages)[-4:] == ["export-gguf-q4-k-m", "evaluate-gguf-q4-k-m", "bench-gguf-q4-k-m", "publish"]


def test_the_teacher_writes_data_only_when_asked() -> None:
    assert "synthesize" not in stages_of(a_job())
    assert "synthesize" in stages_of(a_job().with_synthetic())


def test_a_dataset_may_be_all_synthetic() -> None:
    job = a_job().with_synthetic().having("spec.dataset.sources", []).build()
    data = next(stage for stage in plan_stages(job.spec, "x") if stage.id == "data")
    assert set(data.inputs) == {"tokenizer", "golden", "samples"}


def test_a_student_of_its_own_is_an_input_of_training() -> None:
    job = a_job().having("spec.student", {"uri": "hf://example/student@main"}).build()
    train = next(stage for stage in plan_stages(job.spec, "x") if stage.id == "train")
    assert train.inputs["student"].output == "student"
    assert train.identity["layers"] is None


def node(job: AJob, stage: str) -> PlannedStage:
    return next(found for found in plan_stages(job.build().spec, "x") if found.id == stage)


def test_text_is_learned_without_the_teachers_logits() -> None:
    train = node(a_job().learning_from_text(), "train")
    assert set(train.inputs) == {"dataset", "student"}
    assert (train.identity["mode"], train.identity["alpha"]["start"], train.identity["alpha"]["end"]) == (
        "Sequence",
        0,
        0,
    )
    cut = node(a_job().having("spec.objective.mode", "Sequence"), "train")
    assert set(cut.inputs) == {"dataset", "teacher"}
    assert node(a_job().learning_from_text(), "resolve").identity["mode"] == "Sequence"


def test_an_endpoint_takes_the_teachers_place() -> None:
    job = a_job().with_endpoint(concurrency=3).with_synthetic()
    wanted = {"url": "https://api.example.com/v1", "model": "example-large"}
    for stage in ("resolve", "synthesize", "evaluate-teacher"):
        assert node(job, stage).identity["endpoint"] == wanted
    for stage in ("synthesize", "evaluate-teacher"):
        assert node(job, stage).execution["endpointConcurrency"] == 3
    sources = {source for stage in plan_stages(job.build().spec, "x") for source in stage.inputs.values()}
    assert PlannedInput(stage="resolve", output="teacher") not in sources


def test_the_students_own_words_are_part_of_the_recipe() -> None:
    assert node(a_job(), "train").identity["onPolicy"] is None
    job = a_job().having("spec.objective.onPolicyFraction", 0.25)
    assert node(job, "train").identity["onPolicy"] == {"fraction": 0.25, "temperature": 1.0, "maxNewTokens": 128}
    job = job.having("spec.objective.onPolicySampling", {"temperature": 0, "maxNewTokens": 9})
    assert node(job, "train").identity["onPolicy"] == {"fraction": 0.25, "temperature": 0.0, "maxNewTokens": 9}


def test_one_epoch_is_trained_unless_steps_are_given() -> None:
    def asked(job: AJob) -> tuple[object, object]:
        train = next(stage for stage in plan_stages(job.build().spec, "x") if stage.id == "train")
        return train.identity["epochs"], train.identity["maxSteps"]

    assert asked(a_job()) == (1.0, None)
    assert asked(a_job().with_training(maxSteps=0)) == (None, 0)
    assert asked(a_job().with_training(epochs=2)) == (2.0, None)


def test_training_is_told_all_of_its_recipe() -> None:
    asked = {"gradientClipping": 0.5, "freezeEmbeddingsSteps": 7, "validation": {"everySteps": 9}, "patience": 2}
    plan = plan_stages(a_job().with_training(**asked, precision="FP16").build().spec, "x")
    identity = next(stage for stage in plan if stage.id == "train").identity
    want = {"gradientClipping": 0.5, "freezeEmbeddingsSteps": 7, "validationEverySteps": 9, "patience": 2}
    assert want.items() <= identity.items()
    assert identity["precision"] == "FP16"


@pytest.mark.parametrize(("limit", "want"), [(0.905, 31), (0.9, 29), (0.98, 149), (0.95, 59), (0.99, 299), (0.0, 1)])
def test_items_that_prove_a_limit(limit: float, want: int) -> None:
    assert proof_items(limit) == want


def test_resolve_is_told_what_the_gates_need() -> None:
    job = a_job().with_gates(quality={"minGoldenPassRate": 0.9}).build()
    resolve = plan_stages(job.spec, "x")[0]
    need = {"field": "spec.gates.quality.minGoldenPassRate", "limit": 0.9, "items": 29}
    assert resolve.identity["needs"] == [need]


def test_the_limits_say_how_many_timings() -> None:
    def timings(job: AJob) -> object:
        plan = plan_stages(job.build().spec, "x")
        return next(stage for stage in plan if stage.kind is StageKind.BENCH).identity["timings"]

    assert timings(a_job()) == 29
    assert timings(a_job().with_gates(performance={"p95LatencyMs": 10})) == 59
    assert timings(a_job().with_gates(performance={"p99LatencyMs": 10})) == 299


def test_switches_are_not_part_of_a_run() -> None:
    base = a_job()
    for job in (base.suspended(), base.having("spec.retries", 9), base.having("spec.ttlSecondsAfterFinished", 1)):
        assert spec_hash(job.build().spec) == spec_hash(base.build().spec)
    assert spec_hash(base.with_training(maxSteps=3).build().spec) != spec_hash(base.build().spec)
    assert spec_hash(base.having("spec.podTemplate.image", "w:2").build().spec) != spec_hash(base.build().spec)


def test_the_way_to_carry_a_run_out_is_told_apart_from_what_it_makes() -> None:
    base = a_job().build().spec
    for job in (a_job().with_training(workers=2), a_job().having("spec.podTemplate.queueName", "gpus")):
        spec = job.build().spec
        assert spec_hash(spec) == spec_hash(base)
        assert execution_hash(spec) != execution_hash(base)
    other = a_job().with_training(seed=7).build().spec
    assert execution_hash(other) == execution_hash(base)


class TestKeys:
    BASE = a_job().exporting("Q8_0")

    def changed(self, job: AJob) -> set[str]:
        before, after = keys_of(self.BASE.build()), keys_of(job.build())
        return {stage for stage in before if before[stage] != after.get(stage)}

    def test_workers_and_zero_stage_keep_every_key(self) -> None:
        job = self.BASE.with_training(workers=2, deepspeed={"zeroStage": 2}, checkpoint={"everySteps": 7})
        assert self.changed(job) == {"publish"}, "the report shows the spec"

    def test_another_export_changes_only_its_own_stages(self) -> None:
        assert self.changed(self.BASE.exporting("Q8_0", "Q4_0")) == {"publish"}

    def test_another_rate_changes_training_and_what_follows(self) -> None:
        changed = self.changed(self.BASE.with_training(learningRate=1e-5))
        assert {"resolve", "data", "evaluate-teacher"}.isdisjoint(changed)
        assert {"train", "export-gguf-q8-0", "evaluate-gguf-q8-0", "bench-gguf-q8-0"} <= changed

    def test_another_golden_limit_changes_only_the_evaluations(self) -> None:
        changed = self.changed(self.BASE.having("spec.golden.minSimilarity", 0.7))
        assert changed == {"evaluate-teacher", "evaluate-student", "evaluate-gguf-q8-0", "publish"}


def test_the_teacher_writes_logits_only_when_they_are_cached() -> None:
    job = a_job().having("spec.teacher.workers", 3)
    assert "teach" not in stages_of(job)
    cached = job.having("spec.objective.teacherLogits", {"mode": "Cached", "topK": 32})
    plan = {stage.id: stage for stage in plan_stages(cached.build().spec, "x")}
    assert (plan["teach"].identity["topK"], plan["teach"].execution) == (32, {"workers": 3})
    assert set(plan["teach"].inputs) == {"teacher", "tokenizer", "dataset"}
    assert plan["train"].inputs["logits"].stage == "teach"


def test_logits_at_temperature_one_serve_students_of_any_depth() -> None:
    def layers(temperature: float) -> object:
        schedule = {"start": temperature, "end": temperature}
        job = a_job().having("spec.objective", {"teacherLogits": {"mode": "Cached"}, "temperature": schedule})
        plan = plan_stages(job.build().spec, "x")
        return next(stage for stage in plan if stage.id == "teach").identity["layers"]

    assert (layers(1.0), layers(2.0)) == (None, 2)
