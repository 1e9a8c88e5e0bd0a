"""What a user does wrong ends a run with an exit code and a sentence that names the field and the remedy."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from click.testing import CliRunner

from dram_operator.cli import main
from tests.models import ModelShape, write_jsonl, write_model
from tests.operator.local.tiny import TinyJob

Change = Callable[[TinyJob], TinyJob]


@dataclass(frozen=True)
class Case:
    name: str
    change: Change
    want: tuple[str, ...]
    exit_code: int = 4


def golden_of(rows: list[dict[str, object]]) -> Change:
    def change(job: TinyJob) -> TinyJob:
        write_jsonl(job.folder / "golden.jsonl", rows)
        return job

    return change


def training_text(text: str) -> Change:
    def change(job: TinyJob) -> TinyJob:
        (job.folder / "train.jsonl").write_text(text)
        return job

    return change


def having(path: str, value: object) -> Change:
    return lambda job: job.having(path, value)


def pickled_teacher(job: TinyJob) -> TinyJob:
    teacher = job.folder / "pickled"
    shutil.copytree(str(job.job.spec["teacher"]["uri"]), teacher)
    (teacher / "model.safetensors").rename(teacher / "pytorch_model.bin")
    return job.having("spec.teacher.uri", str(teacher))


def other_tokenizer(job: TinyJob) -> TinyJob:
    student = write_model(job.folder / "student", ModelShape(layers=2))
    tokenizer = json.loads((student / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    first, second = list(vocabulary)[300:302]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (student / "tokenizer.json").write_text(json.dumps(tokenizer))
    return job.having("spec.student", {"uri": str(student)})


def student_with_weights_of(value: float) -> Change:
    def change(job: TinyJob) -> TinyJob:
        from safetensors.torch import load_file, save_file

        weights = write_model(job.folder / "student", ModelShape(layers=2)) / "model.safetensors"
        tensors = load_file(weights)
        tensors["model.norm.weight"][:] = value
        save_file(tensors, weights, metadata={"format": "pt"})
        return job.having("spec.student", {"uri": str(weights.parent)})

    return change


ROW = '{"prompt": "What about my bill?", "completion": "Open the app."}\n'

CASES = [
    Case("no such model", having("spec.teacher.uri", "nowhere"), ("ModelNotFound", "spec.teacher.uri", "nowhere")),
    Case(
        "no such data",
        having("spec.dataset.sources[0].uri", "none.jsonl"),
        ("SourceNotFound", "spec.dataset.sources[0]"),
    ),
    Case("no such golden file", having("spec.golden.uri", "none.jsonl"), ("SourceNotFound", "spec.golden.uri")),
    Case("an empty dataset", training_text(""), ("EmptyDataset", "spec.dataset")),
    Case("a malformed line", training_text(ROW + "{oops\n"), ("MalformedLine", "spec.dataset", "line 2")),
    Case(
        "duplicate golden ids",
        golden_of([{"id": "a", "prompt": "One?"}, {"id": "a", "prompt": "Two?"}]),
        ("GoldenDuplicateIds", "spec.golden.uri", "'a'"),
    ),
    Case(
        "too few golden items for the limit",
        having("spec.gates", {"quality": {"minGoldenPassRate": 0.9}}),
        ("GoldenTooFewItems", "29"),
    ),
    Case("other tokenizer", other_tokenizer, ("TokenizerMismatch", "spec.student.uri")),
    Case("pickled checkpoint", pickled_teacher, ("UnsafeModel", "spec.teacher.uri", "safetensors")),
    Case(
        "too many layers", having("spec.student.fromTeacher.layers", 5), ("TooManyLayers", "spec.student.fromTeacher")
    ),
    Case(
        "weights that are no numbers",
        student_with_weights_of(float("nan")),
        ("✗ preflight-gguf-q8-0: ConversionUnproven", "output_norm.weight", "another checkpoint"),
    ),
    Case(
        "logits that are no numbers",
        student_with_weights_of(3e38),
        ("✗ preflight-gguf-q8-0: ConversionUnproven", "logits", "another checkpoint"),
    ),
    Case(
        "a key of DeepSpeed that Dram owns",
        having("spec.training.deepspeed", {"config": {"optimizer": {"type": "SGD"}}}),
        ("spec.training.deepspeed.config", "optimizer"),
        exit_code=2,
    ),
    Case(
        "an unknown quantization",
        having("spec.exports[0].gguf.type", "Q3_K_S"),
        ("spec.exports[0].gguf.type", "Q4_K_M"),
        exit_code=2,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_error_names_field_and_remedy(case: Case, tiny_job: TinyJob) -> None:
    job = case.change(tiny_job)
    result = job.run()
    assert result.exit_code == case.exit_code, result.output
    for words in case.want:
        assert words in result.output
    left = {path.relative_to(job.root).parts[0] for path in job.root.rglob("*") if path.is_file()}
    assert left <= {"status.json", "stages", "logs", ".lock"}


@pytest.mark.parametrize(
    ("options", "want"),
    [
        (["--set", "spec.training"], "--set spec.training: write PATH=VALUE"),
        (["--map", "bucket"], "--map bucket: write URI=DIR"),
    ],
)
def test_a_malformed_option_is_a_bad_manifest(tiny_job: TinyJob, options: list[str], want: str) -> None:
    result = tiny_job.run(*options)
    assert result.exit_code == 2
    assert want in result.output
    assert not tiny_job.root.exists()


def test_a_manifest_that_is_not_there_is_a_bad_manifest(tiny_job: TinyJob) -> None:
    tiny_job.folder.joinpath("job.yaml").unlink(missing_ok=True)
    result = CliRunner().invoke(main, ["run", "-f", str(tiny_job.folder / "none.yaml")])
    assert result.exit_code == 2
    assert "none.yaml" in result.output
