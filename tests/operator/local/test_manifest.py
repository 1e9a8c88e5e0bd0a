from pathlib import Path

import pytest
import yaml

from dram_operator.local.manifest import ManifestInvalid, read_job
from tests.builders import ABSENT, AJob, a_job


def written(folder: Path, *jobs: AJob) -> Path:
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump_all([job.manifest() for job in jobs]))
    return file


@pytest.mark.parametrize(
    ("change", "field", "want"),
    [
        ("spec.training.maxSteps=0", "training.max_steps", 0),
        ("spec.training.learningRate=2e-4", "training.learning_rate", 2e-4),
        ("spec.training.checkpoint={everySteps: 7}", "training.checkpoint.every_steps", 7),
        ("spec.suspend=true", "suspend", True),
    ],
)
def test_a_change_from_the_command_line_wins(tmp_path: Path, change: str, field: str, want: object) -> None:
    value: object = read_job(written(tmp_path, a_job()), [change]).spec
    for step in field.split("."):
        value = getattr(value, step)
    assert value == want


def test_list_items_are_changed_and_added(tmp_path: Path) -> None:
    changes = ["spec.exports[0].gguf.type=Q6_K", "spec.exports[1]={name: small, gguf: {type: Q4_0}}"]
    job = read_job(written(tmp_path, a_job()), changes)
    assert [(export.name, export.gguf.type.value) for export in job.spec.exports] == [
        ("gguf-q8-0", "Q6_K"),
        ("small", "Q4_0"),
    ]


@pytest.mark.parametrize(
    ("change", "want"),
    [
        ("spec.training.maxSteps", "PATH=VALUE"),
        ("spec..x=1", "PATH=VALUE"),
        ("spec.exports[7].name=a", "leads nowhere"),
        ("metadata.name.first=a", "leads nowhere"),
        ("spec.training.maxSteps=[", "no YAML value"),
        ("spec.training.maxStep=3", "did you mean maxSteps?"),
        ("spec.training.maxSteps=-1", "greater than or equal to 0"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(tmp_path: Path, change: str, want: str) -> None:
    with pytest.raises(ManifestInvalid) as refused:
        read_job(written(tmp_path, a_job()), [change])
    assert want in str(refused.value)


def test_plain_paths_start_where_the_manifest_lies(tmp_path: Path) -> None:
    job = (
        a_job()
        .having("spec.teacher.uri", "models/teacher")
        .having("spec.dataset.sources[0].uri", "../train.jsonl")
        .having("spec.golden.uri", "/data/golden.jsonl")
    )
    spec = read_job(written(tmp_path, job)).spec
    assert spec.teacher.uri == (tmp_path / "models/teacher").as_uri()
    assert spec.dataset.sources[0].uri == (tmp_path.parent / "train.jsonl").as_uri()
    assert spec.golden.uri == "file:///data/golden.jsonl"


def test_the_only_job_of_a_file_is_taken_whatever_else_stands_there(tmp_path: Path) -> None:
    file = written(tmp_path, a_job().named("mine"))
    file.write_text(f"apiVersion: v1\nkind: Secret\nmetadata: {{name: keys}}\n---\n{file.read_text()}")
    assert read_job(file).metadata.name == "mine"


def test_a_file_with_two_jobs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestInvalid, match="holds 2 DistillationJobs"):
        read_job(written(tmp_path, a_job(), a_job()))


def test_every_problem_is_told(tmp_path: Path) -> None:
    job = a_job().having("spec.golden.uri", ABSENT).having("spec.exports[0].gguf.type", "Q3_K")
    with pytest.raises(ManifestInvalid) as refused:
        read_job(written(tmp_path, job))
    told = "\n".join(refused.value.problems)
    assert "spec.golden.uri: Required value" in told
    assert 'Unsupported value: "Q3_K"' in told
