"""A job of the tiniest size with all its files in one folder, for real local runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner, Result

from dram_operator.cli import main
from tests.builders import AJob, a_job
from tests.models import support_rows, write_jsonl

STEPS = 100
"""Enough that a run can be disturbed while it trains; each takes a few hundredths of a second."""


@dataclass
class TinyJob:
    """A folder with the files of a job; `job` is its manifest."""

    folder: Path
    job: AJob

    @property
    def manifest(self) -> Path:
        """The manifest as a file."""
        file = self.folder / "job.yaml"
        file.write_text(yaml.safe_dump(self.job.manifest()))
        return file

    @property
    def workdir(self) -> Path:
        """The --workdir of every run."""
        return self.folder / "run"

    @property
    def root(self) -> Path:
        """Where the run leaves its files."""
        return self.workdir / "tiny"

    def having(self, path: str, value: Any) -> "TinyJob":
        """The same folder with another manifest."""
        return TinyJob(self.folder, self.job.having(path, value))

    def run(self, *options: str) -> Result:
        """`dram run` of this job."""
        return CliRunner().invoke(main, ["run", "-f", str(self.manifest), "--workdir", str(self.workdir), *options])

    def reasons(self) -> dict[str, str]:
        """Reason of every stage that has one, from status.json."""
        return {stage["id"]: stage["reason"] for stage in self.status()["stages"] if "reason" in stage}

    def status(self) -> dict[str, Any]:
        """status.json."""
        status: dict[str, Any] = yaml.safe_load((self.root / "status.json").read_text())
        return status

    def files(self, kind: str) -> Iterator[Path]:
        """Files of a kind of stage in the store."""
        return (path for path in sorted((self.root / "stages" / kind).rglob("*")) if path.is_file())


def write_tiny_job(folder: Path, teacher: Path) -> TinyJob:
    """Write the data of a job that distils `teacher` into two layers, by plain paths."""
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "train.jsonl", support_rows(48))
    write_jsonl(
        folder / "golden.jsonl", [_golden(number, row) for number, row in enumerate(support_rows(8, offset=90))]
    )
    job = (
        a_job()
        .named("tiny")
        .having("spec.teacher.uri", str(teacher))
        .having("spec.dataset", {"sources": [{"uri": str(folder / "train.jsonl")}], "maxLength": 64})
        .having("spec.golden", {"uri": str(folder / "golden.jsonl"), "maxTokens": 8, "minSimilarity": 0.9})
        .having("spec.storage", {"uri": "s3://tiny/store"})
        .having("spec.retries", 0)
        .with_training(maxSteps=STEPS, batchTokens=256, precision="FP32", checkpoint={"everySteps": 10})
    )
    del job.spec["storage"]
    return TinyJob(folder, job)


def _golden(number: int, row: dict[str, object]) -> dict[str, object]:
    return {"id": f"item-{number}", "prompt": row["prompt"]}
