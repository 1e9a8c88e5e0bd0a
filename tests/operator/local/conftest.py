"""One whole run for all tests of the local run; it takes a minute, so they work on copies."""

import shutil
from pathlib import Path

import pytest

from tests.operator.local.tiny import TinyJob, write_tiny_job

AFTER_DATA = ("train", "export", "evaluate", "bench", "publish")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, teacher: Path) -> TinyJob:
    """A job that ran undisturbed. Copy it to change it."""
    job = write_tiny_job(tmp_path_factory.mktemp("finished"), teacher)
    result = job.run()
    assert result.exit_code == 0, result.output
    return job


@pytest.fixture
def again(finished: TinyJob, tmp_path: Path) -> TinyJob:
    """The finished job in a folder of its own; it still names the same files."""
    shutil.copytree(finished.folder, tmp_path / "job")
    return TinyJob(tmp_path / "job", finished.job)


@pytest.fixture
def untrained(again: TinyJob) -> TinyJob:
    """The finished job as it was before its training: with data, without anything later."""
    for kind in AFTER_DATA:
        shutil.rmtree(again.root / "stages" / kind)
    shutil.rmtree(again.root / "artifacts")
    shutil.rmtree(again.root / "checkpoints", ignore_errors=True)
    (again.root / "status.json").unlink()
    return again
