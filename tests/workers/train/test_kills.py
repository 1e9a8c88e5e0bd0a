"""SIGKILL at random steps, twenty times: the same student, from every sample once and in its order."""

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from dram_workers.data.dataset import Dataset
from dram_workers.store.manifest import digest_of
from dram_workers.train.batches import Draw, Plan
from dram_workers.train.gang import Task
from tests.workers.train.training import Training, write_teacher_and_dataset

pytestmark = pytest.mark.long

KILLS = 20
STEPS = 110
IDENTITY: dict[str, Any] = {
    "max_steps": STEPS,
    "layers": 1,
    "freeze_embeddings_steps": 30,
    "validation_every_steps": 10,
    "patience": 100,
}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_teacher_and_dataset(tmp_path_factory.mktemp("inputs"))


def trained(folder: Path, paths: dict[str, Path], kills: int, **identity: Any) -> list[int]:
    """Train in `folder`; returns the steps at which it was killed."""
    folder.mkdir()
    config = Training(folder, paths, IDENTITY | identity, {"checkpoint_every_steps": 2}).config()
    inputs = {name: str(path) for name, path in paths.items()}
    task = Task(config=config, inputs=inputs, work=str(folder), supervisor=os.getpid())
    (folder / "task.json").write_text(task.model_dump_json())
    command = [sys.executable, "-m", "tests.workers.train.kill_program", str(folder), str(kills)]
    ran = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr[-5000:]
    steps: list[int] = json.loads(ran.stdout.splitlines()[-1])
    return steps


def log_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "student" / "train-log.jsonl").read_text().splitlines()]


def test_killed_twenty_times_it_ends_in_the_same_student(tmp_path: Path, paths: dict[str, Path]) -> None:
    assert trained(tmp_path / "calm", paths, 0) == []
    killed = trained(tmp_path / "killed", paths, KILLS)
    assert len(killed) == KILLS, killed
    assert digest_of(tmp_path / "killed" / "student") == digest_of(tmp_path / "calm" / "student")

    dataset = Dataset(paths["dataset"], "train")
    drawn = Plan(dataset, Draw(seed=5, batch_tokens=256, max_steps=STEPS, epochs=None)).steps()
    log = log_of(tmp_path / "killed")
    want = [(step, zlib.crc32(",".join(map(str, samples)).encode())) for step, samples in enumerate(drawn, 1)]
    assert [(row["step"], row["drawn"]) for row in log] == want


def test_patience_ends_a_training_at_the_same_step_whatever_kills_it(tmp_path: Path, paths: dict[str, Path]) -> None:
    """At a rate that makes it worse, the first validation stays the best: its weights are the student."""
    hasty: dict[str, Any] = {"learning_rate": 0.5, "warmup_steps": 0, "freeze_embeddings_steps": 0, "patience": 2}
    hasty |= {name: {"start": 0.5, "end": 0.5} for name in ("temperature", "alpha")}
    hasty |= {"validation_every_steps": 3, "learning_rate_schedule": "Constant", "gradient_clipping": 0.0}
    trained(tmp_path / "calm", paths, 0, **hasty)
    log = log_of(tmp_path / "calm")
    validations = [(row["validationLoss"], row["step"]) for row in log if "validationLoss" in row]
    best, step = min(validations)
    assert len(log) == step + 2 * 3 < STEPS
    facts = json.loads((tmp_path / "calm" / "student" / "train-facts.json").read_bytes())
    assert (facts["bestStep"], facts["validationLoss"]) == (step, best)
    assert facts["stoppedEarly"].startswith(f"at step {len(log)} of {STEPS}: 2 validations were no better")

    trained(tmp_path / "short", paths, 0, **hasty | {"max_steps": step, "patience": None})
    weights = "model.safetensors"
    ended = (tmp_path / "short" / "student" / weights).read_bytes()
    assert (tmp_path / "calm" / "student" / weights).read_bytes() == ended, "the best step's weights are exported"

    trained(tmp_path / "killed", paths, 3, **hasty)
    assert digest_of(tmp_path / "killed" / "student") == digest_of(tmp_path / "calm" / "student")
