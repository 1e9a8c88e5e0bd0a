"""Trainings that compare hidden states and attention maps of a narrower student: every ZeRO stage, ranks and resumes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from dram_workers.train.gang import Task
from tests.models import ModelShape, write_model
from tests.workers.train.training import Training, write_teacher_and_dataset

pytestmark = pytest.mark.long

IDENTITY: dict[str, Any] = {
    "layers": None,
    "divergence": {"type": "JSD", "beta": 0.2},
    "hidden_states": {"weight": {"start": 0.5, "end": 0.1, "schedule": "Linear"}},
    "attention": {"weight": {"start": 0.2, "end": 0.2}, "layers": [{"student": 1, "teacher": 3}]},
    "validation_every_steps": 4,
}
WHOLE = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}
STAGES: dict[str, dict[str, Any]] = {
    "0": {"zeroStage": 0},
    "3": {"zeroStage": 3, "config": WHOLE},
}
Log = Callable[[str], list[dict[str, float]]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of: one rank; two ranks; one rank that stops, and two that go on."""
    root = tmp_path_factory.mktemp("gangs")
    student = write_model(root / "inputs" / "student", ModelShape(layers=2, hidden=48, heads=6, key_value_heads=3))
    paths = write_teacher_and_dataset(root / "inputs") | {"student": student}

    def order(name: str, settings: dict[str, Any], *, stop: bool = False) -> dict[str, Any]:
        folder = root / name
        if not folder.exists():
            folder.mkdir()
            execution = {"micro_batch_tokens": 100, "deepspeed": settings}
            config = Training(folder, paths, IDENTITY, execution).config()
            inputs = {given: str(path) for given, path in paths.items()}
            task = Task(config=config, inputs=inputs, work=str(folder), supervisor=os.getpid())
            (folder / "task.json").write_text(task.model_dump_json())
        return {"folder": str(folder), "stop": stop}

    def gang(ranks: int, orders: list[dict[str, Any]]) -> None:
        path = root / f"{ranks}.json"
        path.write_text(json.dumps(orders))
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        command = [*torchrun, "-m", "tests.workers.train.zero_program", str(path)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr[-5000:]

    split = order("split-3", STAGES["3"], stop=True)
    gang(1, [order("alone", STAGES["0"]), split])
    pairs = [order(f"pair-{name}", given) for name, given in STAGES.items()]
    gang(2, [*pairs, split | {"stop": False}])
    return root


def log_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "student" / "train-log.jsonl").read_text().splitlines()]


def test_each_term_has_its_own_line_and_weight(root: Path) -> None:
    first, *_, last = log_of(root / "alone")
    assert [first["hiddenWeight"], last["hiddenWeight"]] == pytest.approx([0.5, 0.1])
    assert (first["attentionWeight"], last["attentionWeight"]) == (0.2, 0.2)
    for row in (first, last):
        soft = row["alpha"] * row["soft"] + (1 - row["alpha"]) * row["hard"]
        between = row["hiddenWeight"] * row["hidden"] + row["attentionWeight"] * row["attention"]
        assert row["loss"] == pytest.approx(soft + between)
    assert 0 < last["hidden"] < first["hidden"]
    assert 0 < last["attention"] < first["attention"]


@pytest.mark.parametrize("name", ["pair-0", "pair-3", "split-3"])
def test_every_stage_number_of_ranks_and_resume_gives_the_same_terms(root: Path, name: str) -> None:
    for ours, want in zip(log_of(root / name), log_of(root / "alone"), strict=True):
        assert ours == pytest.approx(want, rel=1e-5, abs=1e-9)


def test_the_student_is_saved_without_the_projections(root: Path) -> None:
    folder = root / "split-3" / "student"
    assert AutoModelForCausalLM.from_pretrained(folder).config.hidden_size == 48
    wanted = load_file(root / "inputs" / "student" / "model.safetensors")
    assert load_file(folder / "model.safetensors").keys() == wanted.keys()
