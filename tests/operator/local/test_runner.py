"""Whole runs on a tiny teacher, with the real workers."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.models import support_rows, write_jsonl
from tests.operator.local.tiny import TinyJob, write_tiny_job

RESULTS_AFTER_DATA = ("train", "export", "evaluate", "bench", "publish")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, teacher: Path) -> TinyJob:
    """A job that ran undisturbed. Copy it to change it."""
    job = write_tiny_job(tmp_path_factory.mktemp("finished"), teacher)
    result = job.run()
    assert result.exit_code == 0, result.output
    return job


@pytest.fixture
def again(finished: TinyJob, tmp_path: Path) -> TinyJob:
    """The finished job in a folder of its own; it still learns from the same file."""
    shutil.copytree(finished.folder, tmp_path / "job")
    return TinyJob(tmp_path / "job", finished.job)


@pytest.fixture
def prepared(again: TinyJob) -> TinyJob:
    """The finished job as it was before its training: with data, without anything later."""
    for kind in RESULTS_AFTER_DATA:
        shutil.rmtree(again.root / "stages" / kind)
    shutil.rmtree(again.root / "artifacts")
    shutil.rmtree(again.root / "checkpoints", ignore_errors=True)
    (again.root / "status.json").unlink()
    return again


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def gguf_digests(job: TinyJob) -> dict[str, str]:
    return {file.name: sha256(file) for file in (job.root / "artifacts").rglob("*.gguf")}


def student_digests(job: TinyJob) -> dict[str, str]:
    files = [file for file in job.files("train") if file.name == "model.safetensors"]
    assert files
    return {file.name: sha256(file) for file in files}


def stages_that_ran(job: TinyJob) -> set[str]:
    return {stage for stage, reason in job.reasons().items() if reason == "Completed"}


class Disturbed:
    """`dram run` as a process of its own, to be disturbed."""

    def __init__(self, job: TinyJob) -> None:
        command = [sys.executable, "-m", "dram_operator.cli", "run", "-f", str(job.manifest)]
        self.job = job
        self.process = subprocess.Popen(
            [*command, "--workdir", str(job.workdir)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def until_step(self, step: int) -> None:
        """Wait for the training's progress to reach a step."""
        while True:
            assert self.process.poll() is None, self.process.stdout and self.process.stdout.read()
            for file in self.job.root.glob(".attempts/*train*/progress.jsonl"):
                lines = file.read_bytes().splitlines()
                if lines and json.loads(lines[-1])["step"] >= step:
                    return
            try:
                self.process.wait(timeout=0.02)
            except subprocess.TimeoutExpired:
                continue

    def descendants(self) -> list[psutil.Process]:
        return list(psutil.Process(self.process.pid).children(recursive=True))


@pytest.fixture
def disturbed(prepared: TinyJob) -> Iterator[Disturbed]:
    run = Disturbed(prepared)
    yield run
    if run.process.poll() is None:
        run.process.send_signal(signal.SIGINT)
    run.process.communicate()


def test_a_run_ends_with_files_that_are_what_the_status_says(finished: TinyJob) -> None:
    status = finished.status()
    summary = {condition["type"]: condition["status"] for condition in status["conditions"]}
    assert summary["Succeeded"] == "True"
    assert len(status["variants"]) == 1
    for variant in status["variants"]:
        folder = Path(variant["uri"].removeprefix("file://"))
        manifest = json.loads((folder / "manifest.json").read_text())
        entries = {entry["path"]: entry["sha256"] for entry in manifest["files"]}
        assert entries == {path: sha256(folder / path) for path in entries}
        assert variant["sizeBytes"] == sum(file.stat().st_size for file in folder.glob("*.gguf"))
        assert variant["sha256"] == folder.name
    report = (finished.root / "report.html").read_text()
    assert "gguf-q8-0" in report
    assert not (finished.root / ".attempts").exists()


def test_an_unchanged_job_finds_every_stage_done(again: TinyJob) -> None:
    before = gguf_digests(again)
    result = again.run()
    assert result.exit_code == 0, result.output
    assert stages_that_ran(again) == {"resolve"}
    assert gguf_digests(again) == before
    assert again.status()["run"] == 2


def test_a_new_export_runs_only_what_follows_from_it(again: TinyJob) -> None:
    more = again.having("spec.exports[1]", {"name": "gguf-f16", "gguf": {"type": "F16"}})
    result = more.run()
    assert result.exit_code == 0, result.output
    assert stages_that_ran(more) == {"resolve", "export-gguf-f16", "evaluate-gguf-f16", "bench-gguf-f16", "publish"}
    assert len(gguf_digests(more)) == 2


def test_another_golden_file_runs_only_evaluation_and_later(again: TinyJob) -> None:
    rows = support_rows(9, offset=200)
    write_jsonl(again.folder / "golden.jsonl", [{"id": str(n), "prompt": row["prompt"]} for n, row in enumerate(rows)])
    result = again.run()
    assert result.exit_code == 0, result.output
    ran = stages_that_ran(again)
    assert {"evaluate-teacher", "evaluate-student", "evaluate-gguf-q8-0"} <= ran
    assert ran.isdisjoint({"data", "train", "export-gguf-q8-0"})


def test_a_failed_gate_has_its_own_exit_code_and_releases_nothing(again: TinyJob) -> None:
    shutil.rmtree(again.root / "artifacts")
    strict = again.having("spec.gates", {"performance": {"maxSizeMiB": 0.001}})
    result = strict.run()
    assert result.exit_code == 3, result.output
    assert "performance.maxSizeMiB" in result.output
    assert gguf_digests(strict) == {}
    assert all("uri" not in variant for variant in strict.status()["variants"])
    assert (strict.root / "report.html").exists()


def test_a_bucket_mapped_to_a_folder_runs_the_manifest_of_a_cluster(prepared: TinyJob) -> None:
    bucket = prepared.folder / "bucket"
    bucket.mkdir()
    for name in ("train.jsonl", "golden.jsonl"):
        shutil.copy(prepared.folder / name, bucket)
    job = (
        prepared.having("spec.dataset.sources[0].uri", "s3://models/train.jsonl")
        .having("spec.golden.uri", "s3://models/golden.jsonl")
        .having("spec.storage", {"uri": "s3://models/dram"})
        .having("spec.training.maxSteps", 1)
    )
    result = job.run("--map", f"s3://models={bucket}")
    assert result.exit_code == 0, result.output
    assert job.status()["variants"][0]["uri"].startswith("s3://models/dram/artifacts/default/tiny/")
    assert list((bucket / "dram" / "artifacts").rglob("*.gguf"))
    assert (job.root / "report.html").exists()


def test_a_killed_run_goes_on_at_its_checkpoint_and_ends_with_the_same_student(
    finished: TinyJob, disturbed: Disturbed
) -> None:
    disturbed.until_step(3)
    orphans = disturbed.descendants()
    disturbed.process.kill()
    disturbed.process.wait()
    result = disturbed.job.run()
    assert result.exit_code == 0, result.output
    assert [orphan for orphan in orphans if orphan.is_running()] == []
    assert student_digests(disturbed.job) == student_digests(finished)
    assert gguf_digests(disturbed.job) == gguf_digests(finished)


def test_ctrl_c_saves_a_checkpoint_and_the_next_run_goes_on_from_it(finished: TinyJob, disturbed: Disturbed) -> None:
    disturbed.until_step(3)
    workers = disturbed.descendants()
    os.kill(disturbed.process.pid, signal.SIGINT)
    output, _ = disturbed.process.communicate()
    assert disturbed.process.returncode == 130, output
    assert [worker for worker in workers if worker.is_running()] == []
    status = disturbed.job.status()
    assert {c["type"]: c["reason"] for c in status["conditions"]}["Succeeded"] == "Suspended"
    steps = [int(folder.name) for folder in (disturbed.job.root / "checkpoints").glob("*/*")]
    assert max(steps) >= 3
    result = disturbed.job.run()
    assert result.exit_code == 0, result.output
    assert student_digests(disturbed.job) == student_digests(finished)


def test_two_runs_never_work_in_one_folder(disturbed: Disturbed) -> None:
    disturbed.until_step(1)
    result = disturbed.job.run()
    assert result.exit_code == 4
    assert f"process {disturbed.process.pid} is at work here" in result.output
