"""DeepSpeed's ZeRO stages, with and without offload, on one and on two ranks: the same losses, whatever stops in between.

Everything runs in three gangs: one rank, two ranks, one rank again. Each trains to the end, stops, and goes on from where
another one stopped.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from dram_workers.train.gang import Task
from tests.workers.train.training import Training, write_teacher_and_dataset

pytestmark = pytest.mark.long

WHOLE = {"stage3_param_persistence_threshold": 0}
"""Lets ZeRO 3 share out even the small parameters of a tiny model."""
SETTINGS: dict[str, dict[str, Any]] = {
    "0": {"zeroStage": 0},
    "1": {"zeroStage": 1},
    "1-offload": {"zeroStage": 1, "offload": "Optimizer"},
    "2": {"zeroStage": 2},
    "2-offload": {"zeroStage": 2, "offload": "Optimizer", "config": {"zero_optimization": {"reduce_scatter": False}}},
    "3": {"zeroStage": 3, "config": {"zero_optimization": WHOLE}},
    "3-persistent": {"zeroStage": 3},
    "3-offload": {"zeroStage": 3, "offload": "Optimizer", "config": {"zero_optimization": WHOLE}},
    "3-all-offload": {"zeroStage": 3, "offload": "OptimizerAndParameters", "config": {"zero_optimization": WHOLE}},
}
MOVED = ("0", "1", "2-offload", "3", "3-all-offload")
"""Those that go on with another number of ranks."""
TRAININGS = [
    *(f"{how}-{name}" for how in ("alone", "pair") for name in SETTINGS),
    *(f"{how}-{name}" for how in ("split", "join") for name in MOVED),
]
"""`split` went from one rank to two, `join` from two to one."""
IDENTITY: dict[str, Any] = {"freeze_embeddings_steps": 3, "validation_every_steps": 4, "weight_decay": 0.1}


@dataclass
class Gangs:
    """What the three gangs left."""

    folder: Path

    def log(self, name: str) -> list[dict[str, float]]:
        lines = (self.folder / name / "student" / "train-log.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def facts(self, name: str) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.folder / name / "outcome.json").read_bytes())["facts"]
        return facts


@pytest.fixture(scope="module")
def gangs(tmp_path_factory: pytest.TempPathFactory) -> Gangs:
    root = tmp_path_factory.mktemp("gangs")
    paths = write_teacher_and_dataset(root / "inputs")
    made = Gangs(root)

    def task(name: str, settings: dict[str, Any], identity: dict[str, Any]) -> str:
        folder = root / name
        folder.mkdir(parents=True)
        execution = {"micro_batch_tokens": 100, "deepspeed": settings, "checkpoint_every_steps": 50}
        config = Training(folder, paths, IDENTITY | identity, execution).config()
        inputs = {given: str(path) for given, path in paths.items()}
        body = Task(config=config, inputs=inputs, work=str(folder), supervisor=os.getpid()).model_dump_json()
        (folder / "task.json").write_text(body)
        return name

    def gang(name: str, ranks: int, *orders: tuple[str, bool]) -> None:
        path = root / f"{name}.json"
        path.write_text(json.dumps([{"folder": str(root / folder), "stop": stop} for folder, stop in orders]))
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        command = [*torchrun, "-m", "tests.workers.train.zero_program", str(path)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr[-5000:]

    alone = [task(f"alone-{name}", given, {}) for name, given in SETTINGS.items()]
    pairs = [task(f"pair-{name}", given, {}) for name, given in SETTINGS.items()]
    split = [task(f"split-{name}", SETTINGS[name], {}) for name in MOVED]
    joined = [task(f"join-{name}", SETTINGS[name], {}) for name in MOVED]
    half = {"precision": "BF16"}
    halves = [task(name, SETTINGS["1"], half) for name in ("half-calm", "half-split", "half-join")]
    calm = task("thawed", SETTINGS["0"], {"freeze_embeddings_steps": 0})
    frozen = task("frozen", SETTINGS["0"], {"freeze_embeddings_steps": 12})
    first = [
        *((name, False) for name in (*alone, calm, frozen, halves[0])),
        *((name, True) for name in (*split, halves[1])),
    ]
    gang("first", 1, *first)
    gang(
        "second",
        2,
        *((name, False) for name in (*pairs, *split, halves[1])),
        *((name, True) for name in (*joined, halves[2])),
    )
    gang("third", 1, *((name, False) for name in (*joined, halves[2])))
    return made


@pytest.mark.parametrize("name", TRAININGS)
def test_every_stage_gives_the_same_losses_on_any_number_of_ranks(gangs: Gangs, name: str) -> None:
    for ours, want in zip(gangs.log(name), gangs.log("alone-0"), strict=True):
        assert ours == pytest.approx(want, rel=1e-5, abs=1e-9)


def test_in_half_precision_the_first_loss_after_a_resume_is_near(gangs: Gangs) -> None:
    calm = gangs.log("half-calm")
    for name in ("half-split", "half-join"):
        for ours, want in zip(gangs.log(name)[:8], calm[:8], strict=True):
            assert ours["loss"] == pytest.approx(want["loss"], rel=1e-3)


def test_a_teacher_under_zero_3_is_shared_out_but_for_its_head(gangs: Gangs) -> None:
    teacher = load_file(gangs.folder / "inputs" / "teacher" / "model.safetensors")
    body = sum(value.numel() for name, value in teacher.items() if not name.startswith("lm_head"))
    for name in ("pair-3", "split-3", "pair-3-offload", "pair-3-all-offload"):
        held = gangs.facts(name)["teacherElementsPerRank"]
        assert body / 2 <= held <= body / 2 + len(teacher), name
    assert gangs.facts("pair-3-persistent")["teacherElementsPerRank"] > body, "small parameters stay gathered"
    for name in ("pair-2", "alone-3"):
        assert "teacherElementsPerRank" not in gangs.facts(name)


def test_frozen_embeddings_do_not_change_while_all_else_learns(gangs: Gangs) -> None:
    """They are tied to the head, whose gradient and decay are dropped with theirs."""
    teacher = load_file(gangs.folder / "inputs" / "teacher" / "model.safetensors")["model.embed_tokens.weight"]
    students = {
        name: load_file(gangs.folder / name / "student" / "model.safetensors")
        for name in ("frozen", "thawed", "alone-0")
    }
    assert students["frozen"]["model.embed_tokens.weight"].equal(teacher)
    for name in ("thawed", "alone-0"):
        assert not students[name]["model.embed_tokens.weight"].equal(teacher)
    attention = "model.layers.0.self_attn.q_proj.weight"
    assert not students["frozen"][attention].equal(students["thawed"][attention])
    first, thawed = gangs.log("alone-0"), gangs.log("thawed")
    assert first[0]["gradNorm"] < thawed[0]["gradNorm"], "a gradient that is dropped counts for no norm"
    assert first[0]["loss"] == pytest.approx(thawed[0]["loss"])
    assert first[1]["loss"] != pytest.approx(thawed[1]["loss"], rel=1e-5)


def test_validation_is_logged_every_so_many_steps_and_at_the_end(gangs: Gangs) -> None:
    log = gangs.log("alone-0")
    assert [row["step"] for row in log if "validationLoss" in row] == [4, 8, 12]
    for row in log[3::4]:
        # alpha ends at 0.5
        assert row["validationLoss"] == pytest.approx(0.5 * row["validationKL"] + 0.5 * row["validationCE"])
