"""The teach stage as a whole: what it writes, what it finds, and what it does about damage."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from dram_workers import teach
from dram_workers.data.dataset import Dataset
from dram_workers.errors import BadInput, Interrupted, Transient, WorkerReason
from dram_workers.parts import Parts
from dram_workers.stages import StageKind
from dram_workers.store.folder import FolderStore
from dram_workers.store.manifest import digest_of, file_sha256
from dram_workers.store.stage import publish_result
from dram_workers.teach import shards
from dram_workers.teach.encoding import Encoding
from dram_workers.teach.index import Index
from dram_workers.teach.shards import ShardFile, plan_shards, sample_key
from dram_workers.train.attention import SEGMENTS
from dram_workers.train.batches import lay_out
from dram_workers.train.pretrained import load_model
from tests.models import ModelShape, support_rows, write_model
from tests.workers.contexts import Remembered
from tests.workers.teach.teaching import a_config, context_of, models, run, write_data

pytestmark = pytest.mark.usefixtures("small_shards")


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_TARGETS", 64)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, tiny_teacher: Path) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), tiny_teacher)


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "store/cache").rglob("*") if path.is_file())


def without_weights(teacher: Path, folder: Path) -> Path:
    shutil.copytree(teacher, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


def test_the_logits_are_the_teachers(tmp_path: Path, tiny_teacher: Path, dataset: Path) -> None:
    outcome = run(tmp_path, models(tiny_teacher, dataset), topK=8)
    index = Index.read(outcome.folders["logits"])
    data = Dataset(dataset, "train")
    assert len(index.shards) > 2
    assert outcome.facts["samples"] == len(data)
    model = load_model(tiny_teacher, torch.float32, "spec.teacher.uri", attention=SEGMENTS)
    for shard, part in zip(plan_shards(data), index.parts(), strict=True):
        Parts(FolderStore(tmp_path / "store"), index.folder).fetch(part, tmp_path / "shard")
        file = ShardFile(tmp_path / "shard")
        for number, key in zip(shard.samples, shard.keys, strict=True):
            batch = lay_out(data, (number,), packed=True)
            logits_LV = model(input_ids=batch.tokens_RL, segments=batch.segments, use_cache=False).logits[0]
            log_probs_NV = logits_LV[batch.targets_N].float().log_softmax(-1).detach()
            ids, values = file.targets(key)
            want_NK, ids_NK = log_probs_NV.topk(8)
            assert {frozenset(row) for row in ids.tolist()} == {frozenset(row) for row in ids_NK.tolist()}
            kept = log_probs_NV.gather(1, torch.from_numpy(ids)).numpy()
            assert np.abs(values[:, :-1] - kept).max() < Encoding(500, 8).error_bound(float(kept.min())) + 1e-4
            tail = (1 - want_NK.exp().sum(-1)).log().numpy()
            assert np.abs(values[:, -1] - tail).max() < Encoding(500, 8).error_bound(float(tail.min())) + 1e-4


def test_a_second_visit_asks_no_teacher_and_gives_the_same(tmp_path: Path, tiny_teacher: Path, dataset: Path) -> None:
    paths = models(tiny_teacher, dataset)
    first = run(tmp_path, paths)
    before = {path: path.stat().st_mtime_ns for path in files_of(tmp_path)}
    config = a_config(tmp_path, paths)
    gone = without_weights(tiny_teacher, tmp_path / "gone")
    context = context_of(tmp_path, paths | {"teacher": gone}, "2")
    second = teach.run(config, context)
    assert second is not None
    assert digest_of(second.folders["logits"]) == digest_of(first.folders["logits"])
    assert second.facts == first.facts
    assert {path: path.stat().st_mtime_ns for path in files_of(tmp_path)} == before


def test_another_dataset_reuses_the_samples_that_both_have(tmp_path: Path, tiny_teacher: Path, dataset: Path) -> None:
    run(tmp_path, models(tiny_teacher, dataset))
    fewer = write_data(tmp_path / "fewer", tiny_teacher, [*support_rows(12)[:9:2]])
    paths = models(tiny_teacher, fewer)
    context = context_of(tmp_path, paths | {"teacher": without_weights(tiny_teacher, tmp_path / "gone")}, "2")
    reused = teach.run(a_config(tmp_path, paths), context)
    assert reused is not None
    afresh = run(tmp_path / "afresh", paths)
    assert digest_of(reused.folders["logits"]) == digest_of(afresh.folders["logits"])


def test_another_way_of_asking_finds_nothing(tmp_path: Path, tiny_teacher: Path, dataset: Path) -> None:
    paths = models(tiny_teacher, dataset)
    folders = {Index.read(run(tmp_path, paths).folders["logits"]).folder}
    others: tuple[dict[str, object], ...] = ({"topK": 9}, {"precision": "BF16"}, {"packing": False})
    for number, other in enumerate(others):
        folders.add(Index.read(run(tmp_path, paths, f"other-{number}", **other).folders["logits"]).folder)
    assert len(folders) == 4


def test_the_key_of_a_sample_is_its_tokens_and_mask(tmp_path: Path, tiny_teacher: Path, dataset: Path) -> None:
    data = Dataset(dataset, "train")
    assert len({sample_key(data[number]) for number in range(len(data))}) == len(data)
    other = Dataset(write_data(tmp_path, tiny_teacher, list(reversed(support_rows(12)))), "train")
    assert {sample_key(other[n]) for n in range(len(other))} == {sample_key(data[n]) for n in range(len(data))}


def test_padding_of_either_head_has_no_probability(tmp_path: Path, tiny_teacher: Path, dataset: Path) -> None:
    wide = write_model(tmp_path / "wide", ModelShape(vocabulary=520))
    paths = models(wide, dataset) | {"student": tiny_teacher}
    index = Index.read(run(tmp_path, paths).folders["logits"])
    assert index.rows == 500
    part = index.parts()[0]
    Parts(FolderStore(tmp_path / "store"), index.folder).fetch(part, tmp_path / "shard")
    _, values = ShardFile(tmp_path / "shard").targets(plan_shards(Dataset(dataset, "train"))[0].keys[0])
    np.testing.assert_allclose(np.exp(values).sum(1), 1, atol=0.02)


def test_a_flipped_bit_is_found_and_the_shard_made_again(tmp_path: Path, tiny_teacher: Path, dataset: Path) -> None:
    paths, config = models(tiny_teacher, dataset), a_config(tmp_path, models(tiny_teacher, dataset))
    context = context_of(tmp_path, paths, "1")
    outcome = teach.run(config, context)
    assert outcome is not None
    result = publish_result(context.store, config, outcome, started_at=datetime(2030, 1, 1, 12, tzinfo=UTC))
    assert teach.recheck(config, context_of(tmp_path, paths, "2"), result)
    index = Index.read(outcome.folders["logits"])
    parts = Parts(context.store, index.folder)
    damaged = next(path for path in files_of(tmp_path) if path.name.startswith(index.shards[1].key))
    untouched = {path: path.stat().st_mtime_ns for path in files_of(tmp_path) if path != damaged}
    flip(damaged)

    with pytest.raises(Transient, match="was damaged, and is removed") as caught:
        parts.fetch(index.parts()[1], tmp_path / "fetched")
    assert caught.value.reason == WorkerReason.PART_LOST
    assert not (tmp_path / "fetched").exists()
    assert not damaged.exists()

    again = context_of(tmp_path, paths, "3")
    assert not teach.recheck(config, again, result)
    assert context.store.get_bytes(f"stages/{StageKind.TEACH}/{config.key}/manifest.json") is None
    rebuilt = teach.run(config, again)
    assert rebuilt is not None
    assert digest_of(rebuilt.folders["logits"]) == digest_of(outcome.folders["logits"])
    assert file_sha256(damaged) == index.shards[1].sha256
    assert {path: path.stat().st_mtime_ns for path in untouched} == untouched


def test_a_stop_is_obeyed_and_finished_shards_stay(tmp_path: Path, tiny_teacher: Path, dataset: Path) -> None:
    paths = models(tiny_teacher, dataset)
    context = context_of(tmp_path, paths, "1")

    class Stopping(Remembered):
        def report(self, step: int, total_steps: int, metrics: dict[str, float] | None = None) -> None:
            if step > 64:
                context.stopping.set()

    with pytest.raises(Interrupted):
        teach.run(a_config(tmp_path, paths), replace(context, reporter=Stopping()))
    assert len(files_of(tmp_path)) == 1


def test_a_temperature_whose_gradient_is_not_the_teachers_is_refused(
    tmp_path: Path, tiny_teacher: Path, dataset: Path
) -> None:
    paths = models(tiny_teacher, dataset)
    with pytest.raises(BadInput, match="at temperature 5 the gradient from the top 2 logits has cosine 0") as caught:
        run(tmp_path, paths, temperature=5.0, topK=2, layers=2)
    assert caught.value.reason == WorkerReason.CACHE_UNFAITHFUL
    assert caught.value.field == "spec.objective.teacherLogits.mode"
    assert "Online" in str(caught.value.remedy)
    assert not files_of(tmp_path)


def test_a_temperature_whose_gradient_is_the_teachers_is_served(
    tmp_path: Path, tiny_teacher: Path, dataset: Path
) -> None:
    paths = models(tiny_teacher, dataset)
    outcome = run(tmp_path, paths, temperature=2.0, topK=256, layers=2)
    assert 0.95 <= float(outcome.facts["gradientCosine"]) <= 1
    assert Index.read(outcome.folders["logits"]).temperature == 2.0


def flip(path: Path) -> None:
    """Turn one bit in the middle over."""
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)
