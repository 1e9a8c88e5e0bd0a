"""Trainings by real processes in which the student writes, and trainings without a teacher."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import kl_div

from dram_workers.data.dataset import Dataset, write_dataset
from dram_workers.data.samples import to_samples
from dram_workers.data.sources import read_source
from dram_workers.data.tokenizer import ChatTokenizer
from dram_workers.objective import OnPolicy
from dram_workers.train.batches import Draw, Plan
from dram_workers.train.generation import Generator
from dram_workers.train.pretrained import load_model
from dram_workers.train.student import cut_from
from tests.models import ModelShape, support_rows, write_jsonl, write_model, write_tokenizer
from tests.workers.train.training import IDENTITY, Training, write_teacher_and_dataset

pytestmark = pytest.mark.long

HALF = {"on_policy": {"fraction": 0.5, "temperature": 1.0, "max_new_tokens": 10}, "max_steps": 3}
TEXT = {"mode": "Sequence", "layers": None, "alpha": {"start": 0.0, "end": 0.0}, "temperature": {"start": 1, "end": 1}}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_teacher_and_dataset(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, paths: dict[str, Path]) -> Training:
    training = Training(tmp_path_factory.mktemp("alone"), paths, HALF, {"checkpoint_every_steps": 1})
    assert training.run().code == 0
    return training


def test_the_students_own_words_are_logged_and_have_no_hard_labels(alone: Training) -> None:
    own = [row for row in alone.log if "ownTargets" in row]
    assert len(own) == len(alone.log) == 3
    for row in own:
        assert 0 < row["ownSamples"] < row["samples"]
        assert 0 < row["ownTargets"] < row["targets"]
        labelled = row["targets"] - row["ownTargets"]
        soft_of_data = row["soft"] * row["targets"] - row["ownSoft"] * row["ownTargets"]
        weighed = row["alpha"] * soft_of_data + (1 - row["alpha"]) * row["hard"] * labelled
        assert row["loss"] * row["targets"] == pytest.approx(weighed + row["ownSoft"] * row["ownTargets"])


@pytest.mark.parametrize(
    ("identity", "execution"),
    [({}, {"workers": 2, "micro_batch_tokens": 60}), ({"packing": False}, {"loss_tile_bytes": 1 << 16})],
    ids=["ranks and micro-batches", "padding and tiles"],
)
def test_no_split_of_the_work_changes_what_is_written_or_learned(
    tmp_path: Path, alone: Training, paths: dict[str, Path], identity: dict[str, Any], execution: dict[str, Any]
) -> None:
    training = Training(tmp_path, paths, HALF | identity, execution)
    assert training.run().code == 0
    for ours, want in zip(training.log, alone.log, strict=True):
        assert ours == pytest.approx(want, rel=1e-5)


def test_stopped_and_resumed_it_writes_the_same_words(tmp_path: Path, alone: Training, paths: dict[str, Path]) -> None:
    training = Training(tmp_path, paths, HALF, {"checkpoint_every_steps": 1})
    with training.started() as attempt:
        attempt.wait_for_step(2)
        attempt.kill()
    assert training.run().code == 0
    assert training.digest == alone.digest


def test_loss_and_gradient_are_those_of_a_dense_divergence_over_all_own_tokens(
    tmp_path: Path, paths: dict[str, Path]
) -> None:
    settings = {"fraction": 1.0, "temperature": 1.0, "max_new_tokens": 10}
    training = Training(
        tmp_path, paths, {"on_policy": settings, "max_steps": 1, "gradient_clipping": 0.0}, {"micro_batch_tokens": 60}
    )
    assert training.run().code == 0
    dataset = Dataset(paths["dataset"], "train")
    samples = next(Plan(dataset, Draw(IDENTITY["seed"], IDENTITY["batch_tokens"], 1, None)).steps())
    teacher = load_model(paths["teacher"], torch.float32, "spec.teacher.uri")
    student = cut_from(teacher, 2, "sdpa")
    stops = ChatTokenizer.load(paths["teacher"]).stop_ids
    generator = Generator(
        dataset,
        OnPolicy.model_validate(settings),
        seed=IDENTITY["seed"],
        max_length=128,
        stop_ids=stops,
        compute=torch.float32,
    )
    drawn = generator.draw(0, samples, student)
    temperature = IDENTITY["temperature"]["start"]
    total = torch.zeros((), dtype=torch.float64)
    for sample in drawn.written:
        tokens = torch.tensor(sample.tokens.tolist())[None]
        wanted = torch.from_numpy(sample.loss_mask[1:].astype(bool))
        ours, theirs = (
            (model(tokens).logits[0, :-1][wanted].double() / temperature).log_softmax(-1)
            for model in (student, teacher)
        )
        total = total + temperature**2 * kl_div(ours, theirs, reduction="sum", log_target=True)
    (total / drawn.targets).backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.get_total_norm([value.grad for value in student.parameters() if value.grad is not None])
    (row,) = training.log
    assert row["targets"] == row["ownTargets"] == drawn.targets
    assert "hard" not in row
    assert row["loss"] == pytest.approx(float(total.detach()) / drawn.targets, rel=1e-5)
    assert row["gradNorm"] == pytest.approx(float(norm), rel=1e-4)


def other_student(folder: Path) -> Path:
    """A student with a tokenizer of its own."""
    student = write_model(folder, ModelShape(layers=2, vocabulary=400), seed=3)
    write_tokenizer(folder, vocabulary=400)
    return student


def test_text_is_learned_without_a_teacher_by_any_tokenizer(tmp_path: Path) -> None:
    student = other_student(tmp_path / "student")
    tokenizer = ChatTokenizer.load(student)
    samples = [
        sample
        for record in read_source(
            write_jsonl(tmp_path / "rows.jsonl", support_rows(20)), source="s", weight=1.0, field="f"
        )
        for sample in to_samples(record, tokenizer, max_length=128, loss_on_all=False, field="f")
    ]
    write_dataset(tmp_path / "dataset", {"train": samples, "validation": []}, {}, {})
    training = Training(tmp_path / "run", {"student": student, "dataset": tmp_path / "dataset"}, TEXT)
    assert training.run().code == 0
    assert training.log[-1]["hard"] < training.log[0]["hard"]
    assert all(row["loss"] == row["hard"] and row["soft"] == 0 for row in training.log)
    assert (training.student / "tokenizer.json").read_bytes() == (student / "tokenizer.json").read_bytes()


def test_text_alone_teaches_what_hard_labels_teach_beside_a_teacher(tmp_path: Path, paths: dict[str, Path]) -> None:
    text = Training(tmp_path / "text", paths, TEXT | {"layers": 2, "max_steps": 2})
    labels = Training(tmp_path / "labels", paths, {"alpha": {"start": 0.0, "end": 0.0}, "max_steps": 2})
    assert (text.run().code, labels.run().code) == (0, 0)
    for ours, want in zip(text.log, labels.log, strict=True):
        for name in ("loss", "hard", "gradNorm"):
            assert ours[name] == pytest.approx(want[name], rel=1e-5)
