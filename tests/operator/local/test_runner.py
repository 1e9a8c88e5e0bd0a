"""Whole runs on a tiny teacher, with the real workers."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from tests.models import support_rows, write_jsonl
from tests.operator.local.tiny import TinyJob


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
        self.log = job.folder / "disturbed.log"
        with self.log.open("ab") as log:
            command += ["--workdir", str(job.workdir)]
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the end; a test that failed in between asks for it."""
        if sys.exc_info()[0]:
            self.process.send_signal(signal.SIGINT)
        self.process.wait()

    def until_step(self, step: int) -> None:
        """Wait for the training's progress to reach a step."""
        while True:
            assert self.process.poll() is None, self.log.read_text()
            if self._steps() >= step:
                return
            try:
                self.process.wait(timeout=0.02)
            except subprocess.TimeoutExpired:
                continue

    def _steps(self) -> int:
        """Steps that this run has trained so far."""
        lock = self.job.root / ".lock"
        if not lock.exists() or lock.read_text().split()[:1] != [str(self.process.pid)]:
            return 0
        reports = [file.read_bytes().splitlines() for file in self.job.root.glob(".attempts/*train*/progress.jsonl")]
        return max((json.loads(lines[-1])["step"] for lines in reports if lines), default=0)

    def descendants(self) -> list[psutil.Process]:
        return list(psutil.Process(self.process.pid).children(recursive=True))


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
    its_own = {f"{kind}-gguf-f16" for kind in ("preflight", "export", "evaluate", "bench")}
    assert stages_that_ran(more) == {"resolve", *its_own, "publish"}
    assert len(gguf_digests(more)) == 2


def test_another_golden_file_runs_only_evaluation_and_later(again: TinyJob) -> None:
    rows = support_rows(9, offset=200)
    write_jsonl(again.folder / "golden.jsonl", [{"id": str(n), "prompt": row["prompt"]} for n, row in enumerate(rows)])
    changed = again.having("spec.golden.uri", "golden.jsonl")
    result = changed.run()
    assert result.exit_code == 0, result.output
    ran = stages_that_ran(changed)
    assert {"evaluate-teacher", "evaluate-student", "evaluate-gguf-q8-0"} <= ran
    assert ran.isdisjoint({"data", "train", "export-gguf-q8-0"})


def test_a_failed_gate_has_its_own_exit_code_and_releases_nothing(again: TinyJob) -> None:
    shutil.rmtree(again.root / "artifacts")
    strict = again.having("spec.gates", {"quality": {"maxKLDivergence": 1e-9}})
    result = strict.run()
    assert result.exit_code == 3, result.output
    assert "quality.maxKLDivergence" in result.output
    assert gguf_digests(strict) == {}
    assert all("uri" not in variant for variant in strict.status()["variants"])
    assert (strict.root / "report.html").exists()


def test_a_limit_that_no_training_could_meet_ends_the_job_before_it_trains(untrained: TinyJob) -> None:
    for log in untrained.root.glob("logs/*train*"):
        log.unlink()
    strict = untrained.having("spec.gates", {"performance": {"maxSizeMiB": 0.001}})
    result = strict.run()
    assert result.exit_code == 3, result.output
    assert "PreflightFailed" in result.output
    assert "performance.maxSizeMiB: sizeMiB must be at most 0.001 MiB" in result.output
    assert list(strict.root.glob("logs/*train*")) == []
    (row,) = strict.status()["gates"]
    assert (row["stage"], row["verdict"]) == ("Preflight", "Fail")


def test_a_bucket_mapped_to_a_folder_runs_the_manifest_of_a_cluster(again: TinyJob) -> None:
    bucket = again.folder / "bucket"
    shutil.move(again.root, bucket / "dram")
    shutil.copy(again.folder / "golden.jsonl", bucket)
    job = again.having("spec.golden.uri", "s3://models/golden.jsonl").having("spec.storage.uri", "s3://models/dram")
    result = job.run("--map", f"s3://models={bucket}")
    assert result.exit_code == 0, result.output
    assert stages_that_ran(job) == {"resolve", "publish"}
    digest = job.status()["variants"][0]["sha256"]
    assert job.status()["variants"][0]["uri"] == f"s3://models/dram/artifacts/default/tiny/gguf-q8-0/{digest}"
    assert list((bucket / "dram/artifacts/default/tiny/gguf-q8-0" / digest).glob("*.gguf"))
    assert (job.root / "report.html").exists()
    assert not (job.root / "stages").exists()


@pytest.mark.long
def test_killed_and_interrupted_it_ends_with_the_files_of_the_undisturbed_run(
    finished: TinyJob, untrained: TinyJob
) -> None:
    with Disturbed(untrained) as run:
        run.until_step(15)
        refused = untrained.run()
        assert refused.exit_code == 4
        assert f"process {run.process.pid} is at work here" in refused.output
        orphans = run.descendants()
        run.process.kill()

    with Disturbed(untrained) as run:
        run.until_step(40)
        assert [orphan for orphan in orphans if orphan.is_running()] == []
        workers = run.descendants()
        os.kill(run.process.pid, signal.SIGINT)
    assert run.process.returncode == 130
    assert [worker for worker in workers if worker.is_running()] == []
    status = untrained.status()
    assert {c["type"]: c["reason"] for c in status["conditions"]}["Succeeded"] == "Suspended"
    assert max(int(folder.name) for folder in (untrained.root / "checkpoints").glob("*/*")) >= 40

    result = untrained.run()
    assert result.exit_code == 0, result.output
    assert student_digests(untrained) == student_digests(finished)
    assert gguf_digests(untrained) == gguf_digests(finished)


@pytest.mark.long
def test_a_flipped_bit_in_the_cache_is_found_and_the_shard_written_again(again: TinyJob) -> None:
    cached = (
        again.having("spec.objective", {"teacherLogits": {"mode": "Cached", "topK": 16}})
        .having("spec.training.maxSteps", 3)
        .having("spec.retries", 1)
    )
    first = cached.run()
    assert first.exit_code == 0, first.output
    assert (stage(cached, "teach")["reason"], stage(cached, "train")["reason"]) == ("Completed", "Completed")
    (shard,) = (path for path in (cached.root / "cache/teacher").rglob("*.*") if path.is_file())
    whole = shard.read_bytes()
    logits = stage(cached, "teach")["result"]["outputs"]["logits"]["digest"]

    shard.write_bytes(whole[:-9] + bytes([whole[-9] ^ 4]) + whole[-8:])
    another = cached.having("spec.training.learningRate", 1e-4)
    second = another.run()
    assert second.exit_code == 0, second.output
    # the first attempt wrote the logits, the second found them by name, the third wrote the damaged shard
    assert (stage(another, "teach")["reason"], stage(another, "teach")["attempt"]) == ("Completed", 3)
    assert (stage(another, "train")["reason"], stage(another, "train")["retries"]) == ("Completed", 1)
    assert stage(another, "teach")["result"]["outputs"]["logits"]["digest"] == logits
    assert shard.name.endswith(hashlib.sha256(shard.read_bytes()).hexdigest())
    assert shard.read_bytes() == whole


def stage(job: TinyJob, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(stage for stage in job.status()["stages"] if stage["id"] == name)
    return found
