"""The cache in the place of a teacher: the same targets, whatever the batch, and the same training."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from dram_workers.data.dataset import Dataset
from dram_workers.errors import Transient
from dram_workers.store.folder import FolderStore
from dram_workers.train.attention import SEGMENTS
from dram_workers.train.batches import lay_out
from dram_workers.train.cached import CachedTeacher
from dram_workers.train.distiller import Teacher, projection_of, target_hidden
from dram_workers.train.losses import Objective, distillation_loss
from dram_workers.train.pretrained import load_model
from tests.models import ModelShape, write_model
from tests.workers.teach.teaching import run, write_data
from tests.workers.train.training import Training

ROWS = 500


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory, tiny_teacher: Path) -> dict[str, Path]:
    """Models and data, and the logits with every token of the vocabulary kept."""
    folder = tmp_path_factory.mktemp("cached")
    student = write_model(folder / "student", ModelShape(layers=2), seed=3)
    found = {"teacher": tiny_teacher, "tokenizer": tiny_teacher, "dataset": write_data(folder, tiny_teacher)}
    found["student"] = student
    return found | {"logits": run(folder, found, topK=ROWS).folders["logits"], "folder": folder}


def a_cache(paths: dict[str, Path], folder: Path) -> tuple[Dataset, CachedTeacher]:
    dataset = Dataset(paths["dataset"], "train")
    return dataset, CachedTeacher(paths["logits"], dataset, FolderStore(paths["folder"] / "store"), folder)


@pytest.mark.parametrize("samples", [(3,), (5, 0, 3, 7), (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)])
@pytest.mark.parametrize("packed", [True, False])
def test_loss_and_gradient_are_those_of_the_teacher(
    paths: dict[str, Path], tmp_path: Path, samples: tuple[int, ...], packed: bool
) -> None:
    dataset, cached = a_cache(paths, tmp_path)
    teacher, student = (
        load_model(paths[name], torch.float32, "spec", attention=SEGMENTS if packed else "sdpa")
        for name in ("teacher", "student")
    )
    batch = lay_out(dataset, samples, packed=packed)
    objective = Objective(temperature=1.0, alpha=0.7, normalizer=len(batch.labels_N))
    gradients, losses = [], []
    for source in (Teacher(teacher, dataset, packed=packed), cached):
        hidden_ND = target_hidden(student, batch).detach().requires_grad_()
        found = distillation_loss(
            projection_of(student), hidden_ND, source.target(batch, 1.0), batch.labels_N, objective
        )
        found.total.backward()  # type: ignore[no-untyped-call]
        assert hidden_ND.grad is not None
        gradients.append(hidden_ND.grad)
        losses.append(float(found.total.detach()))
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
    assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) < 0.03


def test_a_batch_without_samples_has_no_targets(paths: dict[str, Path], tmp_path: Path) -> None:
    dataset, cached = a_cache(paths, tmp_path)
    target = cached.target(lay_out(dataset, (), packed=True), 1.0)
    assert target.ids_NK.shape == (0, ROWS)
    assert target.tail_N.shape == (0,)


def test_another_temperature_is_refused(paths: dict[str, Path], tmp_path: Path) -> None:
    dataset, cached = a_cache(paths, tmp_path)
    with pytest.raises(ValueError, match="not 2"):
        cached.target(lay_out(dataset, (0,), packed=True), 2.0)


def test_damage_is_found_on_the_first_read(paths: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(paths["folder"] / "store", tmp_path / "store")
    (shard,) = [path for path in (tmp_path / "store/cache").rglob("*") if path.is_file()]
    body = bytearray(shard.read_bytes())
    body[-1] ^= 0x10
    shard.write_bytes(body)
    dataset = Dataset(paths["dataset"], "train")
    cached = CachedTeacher(paths["logits"], dataset, FolderStore(tmp_path / "store"), tmp_path / "shards")
    with pytest.raises(Transient, match="was damaged"):
        cached.target(lay_out(dataset, (0,), packed=True), 1.0)
    assert not shard.exists()


@pytest.mark.long
def test_training_with_the_cache_reads_no_teacher_and_learns_the_same(paths: dict[str, Path], tmp_path: Path) -> None:
    """The teacher's folder has no weights when the cache is used."""
    constant = {"start": 1.0, "end": 1.0, "schedule": "Constant"}
    identity = {"temperature": constant, "layers": None, "max_steps": 6}
    models = {name: paths[name] for name in ("teacher", "dataset", "student")}
    online = Training(tmp_path / "online", models, identity)
    assert online.run().code == 0
    bare = shutil.copytree(paths["teacher"], tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    cached = Training(tmp_path / "cached", models | {"teacher": bare, "logits": paths["logits"]}, identity)
    shutil.copytree(paths["folder"] / "store/cache", tmp_path / "cached/store/cache")
    assert cached.run().code == 0
    for row, want in zip(cached.log, online.log, strict=True):
        assert row["soft"] == pytest.approx(want["soft"], rel=2e-2)
        assert row["hard"] == pytest.approx(want["hard"], rel=1e-2)

    shutil.rmtree(tmp_path / "cached/store/cache")
    lost = Training(tmp_path / "cached", cached.paths, identity | {"max_steps": 7}, attempts=1).run()
    assert (lost.code, lost.message["reason"]) == (75, "PartLost"), json.dumps(lost.message)
