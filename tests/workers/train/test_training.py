"""Trainings by real processes: what comes out, and what kills, stops and mistakes do to it."""

import json
import random
import re
import shutil
import signal
import socket
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from dram_workers.data.dataset import Dataset
from dram_workers.train.batches import Draw, Plan
from dram_workers.train.heap import HUGE_PAGES
from dram_workers.train.watch import WINDOW, Watch
from tests.workers.contexts import store_settings
from tests.workers.train.training import Training, write_teacher_and_dataset


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_teacher_and_dataset(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, paths: dict[str, Path]) -> Training:
    """An undisturbed training by one rank."""
    training = Training(tmp_path_factory.mktemp("alone"), paths)
    assert training.run().code == 0
    return training


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, paths: dict[str, Path]) -> Training:
    """The same by two ranks, undisturbed."""
    training = Training(tmp_path_factory.mktemp("pair"), paths, execution={"workers": 2})
    assert training.run().code == 0
    return training


def test_the_student_is_a_plain_folder_that_transformers_loads(alone: Training) -> None:
    student = AutoModelForCausalLM.from_pretrained(alone.student)
    assert student.config.num_hidden_layers == 2
    assert student.lm_head.weight.data_ptr() == student.model.embed_tokens.weight.data_ptr()
    assert AutoTokenizer.from_pretrained(alone.student).chat_template
    assert "lm_head.weight" not in load_file(alone.student / "model.safetensors")


def test_every_value_of_every_step_is_logged(alone: Training) -> None:
    assert [row["step"] for row in alone.log] == list(range(1, 13))
    first, last = alone.log[0], alone.log[-1]
    assert set(first) == {
        "step", "loss", "soft", "hard", "gradNorm", "targets", "alpha", "temperature", "learningRate", "tokens", "samples",
        "drawn",
    }  # fmt: skip
    assert (first["temperature"], last["temperature"]) == (2.0, 1.0)
    assert (first["alpha"], last["alpha"]) == (0.9, 0.5)
    assert last["loss"] == pytest.approx(0.5 * last["soft"] + 0.5 * last["hard"])
    assert last["hard"] < first["hard"]


def test_the_number_of_ranks_does_not_change_the_losses(alone: Training, pair: Training) -> None:
    for ours, want in zip(pair.log, alone.log, strict=True):
        assert ours == pytest.approx(want, rel=1e-5)


@pytest.mark.long
def test_killed_at_a_random_step_and_run_again_it_ends_in_the_same_student(
    tmp_path: Path, paths: dict[str, Path]
) -> None:
    long = {"max_steps": 40, "precision": "BF16"}
    calm = Training(tmp_path / "calm", paths, long, {"checkpoint_every_steps": 7})
    assert calm.run().code == 0
    killed = Training(tmp_path / "killed", paths, long, {"checkpoint_every_steps": 7})
    for step in sorted(random.SystemRandom().sample(range(1, 30), 2)):
        with killed.started() as attempt:
            attempt.wait_for_step(step)
            attempt.kill()
            assert attempt.process.returncode == -signal.SIGKILL
    assert killed.run().code == 0
    assert killed.digest == calm.digest


@pytest.mark.long
def test_a_gang_survives_a_dead_rank_and_a_stop(tmp_path: Path, pair: Training, paths: dict[str, Path]) -> None:
    training = Training(tmp_path, paths, execution={"workers": 2, "checkpoint_every_steps": 1})
    with training.started() as attempt:
        attempt.wait_for_step(2)
        dying = attempt.ranks()[1]
        assert dying.environ()["GLIBC_TUNABLES"] == HUGE_PAGES
        dying.kill()
        attempt.process.wait()
    assert attempt.code == 75
    assert attempt.message["reason"] == "RankFailed"

    with training.started() as attempt:
        attempt.wait_for_step(3)
        assert attempt.terminate() == 143
    assert attempt.message["reason"] == "Interrupted"
    stopped_at = max(training.checkpoints())
    assert attempt.message["message"] == f"told to stop, checkpointed at step {stopped_at}"
    files = training.checkpoints()[stopped_at]
    assert files == ["attempt-2-rank-0.safetensors", "attempt-2-rank-1.safetensors", "manifest.json"]

    on_one_rank = Training(tmp_path / "alone", paths)
    shutil.copytree(tmp_path / "store", tmp_path / "alone" / "store")  # the checkpoint of two ranks
    assert training.run().code == 0
    assert training.digest == pair.digest
    assert on_one_rank.run().code == 0
    assert on_one_rank.log[-1] == pytest.approx(pair.log[-1], rel=1e-5)


@pytest.mark.long
def test_a_stop_of_one_pod_stops_them_all_at_the_same_step(
    tmp_path: Path, pair: Training, paths: dict[str, Path]
) -> None:
    """Two pods of an Indexed Job, each with its own scratch, over one store."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    more = {"workers": 2, "threads": 1, "rendezvous": f"127.0.0.1:{port}", "store": store_settings(tmp_path / "pod-0")}
    pods = [
        Training(tmp_path / f"pod-{index}", paths, execution=more, environment={"JOB_COMPLETION_INDEX": str(index)})
        for index in (0, 1)
    ]
    with pods[0].started() as first, pods[1].started() as second:
        first.wait_for_step(2)
        assert second.terminate() == 143
        assert first.process.wait() == 143
    assert first.message == second.message
    assert first.message["message"].endswith(f"checkpointed at step {max(pods[0].checkpoints())}")

    with pods[0].started() as first, pods[1].started() as second:
        assert (first.process.wait(), second.process.wait()) == (0, 0)
    assert "student" in first.message["result"]["outputs"]
    assert "result" not in second.message
    assert pods[0].digest == pair.digest


def test_a_cached_training_imports_no_torch_and_drops_its_checkpoints(alone: Training) -> None:
    attempt = alone.run()
    assert attempt.message["reason"] == "Cached"
    assert alone.checkpoints() == {}


def test_no_steps_export_the_untrained_student(tmp_path: Path, paths: dict[str, Path]) -> None:
    training = Training(tmp_path, paths, {"max_steps": 0, "layers": 3})
    assert training.run().code == 0
    teacher, student = (load_file(folder / "model.safetensors") for folder in (paths["teacher"], training.student))
    kept = {0: 0, 1: 2, 2: 3}
    for number, original in kept.items():
        name = "self_attn.q_proj.weight"
        ours, want = student[f"model.layers.{number}.{name}"], teacher[f"model.layers.{original}.{name}"]
        assert torch.equal(ours, want)
    assert training.log == []


def test_a_loss_that_is_no_number_names_step_and_samples(tmp_path: Path, paths: dict[str, Path]) -> None:
    dataset = Dataset(paths["dataset"], "train")
    holders = defaultdict(set)
    for number in range(len(dataset)):
        for token in dataset[number].tokens.tolist():
            holders[token].add(number)
    rare, broken = min(holders.items(), key=lambda item: len(item[1]))
    steps = Plan(dataset, Draw(seed=5, batch_tokens=256, max_steps=12, epochs=None)).steps()
    step, samples = next(
        (step, broken & set(samples)) for step, samples in enumerate(steps, 1) if broken & set(samples)
    )
    student = shutil.copytree(paths["teacher"], tmp_path / "student")
    weights = load_file(student / "model.safetensors")
    weights["model.embed_tokens.weight"][rare] = float("nan")
    save_file(weights, student / "model.safetensors", {"format": "pt"})
    # Untied, or the bad row would be in every sample's logits.
    config = json.loads((student / "config.json").read_text())
    weights["lm_head.weight"] = load_file(paths["teacher"] / "model.safetensors")["model.embed_tokens.weight"]
    save_file(weights, student / "model.safetensors", {"format": "pt"})
    (student / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    training = Training(tmp_path / "run", {**paths, "student": student}, {"layers": None})
    attempt = training.run()
    assert attempt.code == 64
    assert attempt.message["reason"] == "LossNotFinite"
    ids = ", ".join(dataset.ids[sample] for sample in sorted(samples))
    assert attempt.message["message"] == (
        f"the loss is not finite at step {step}; samples: {ids}; no checkpoint, only the start is good"
    )


def test_a_loss_that_goes_up_and_stays_there_ends_the_training_at_its_last_good_checkpoint(
    tmp_path: Path, paths: dict[str, Path]
) -> None:
    """The rate rises so far that what was learned is lost again."""
    runaway = {"max_steps": 500, "warmup_steps": 400, "learning_rate": 5.0, "gradient_clipping": 0.0, "layers": 1}
    training = Training(tmp_path, paths, runaway, {"checkpoint_every_steps": 1})
    attempt = training.run()
    assert (attempt.code, attempt.message["reason"]) == (64, "LossDiverged")
    kept = max(training.checkpoints())
    found = re.fullmatch(
        r"the loss has diverged at step (\d+): hard .* \(it was .*\), soft .*; samples: .*; the checkpoint of step (\d+) is good",
        attempt.message["message"],
    )
    assert found is not None, attempt.message
    assert int(found[2]) == kept < int(found[1]) - WINDOW // 4
    (manifest,) = (tmp_path / "store").glob(f"checkpoints/*/{kept}/manifest.json")
    log = [json.loads(line) for line in json.loads(manifest.read_bytes())["log"]]
    assert not Watch.over(log).suspicious


def test_the_curves_lie_beside_the_student_for_tensorboard(alone: Training) -> None:
    (events,) = (alone.folder / "store").glob("stages/train/*/tensorboard/events.out.tfevents.*")
    body = events.read_bytes()
    assert body.count(b"train/loss") == body.count(b"train/learningRate") == 12
    assert not list(alone.student.rglob("events*"))
