"""The study of recipes: its manifests, its own measure, and what it keeps."""

from pathlib import Path

import pytest

from dram_workers.data.samples import to_samples
from dram_workers.data.sources import read_source
from dram_workers.data.tokenizer import ChatTokenizer
from tests.models import support_rows, write_jsonl, write_model
from tests.study.divergence import held_out
from tests.study.quality import Finding, job_of, read, study, table, write
from tests.study.recipes import RECIPES
from tests.study.stages import Laboratory


def a_finding(recipe: str = "ce", seed: int = 0, kl: float = 0.5) -> Finding:
    return Finding(recipe, seed, 20, kl, 1.5, 0.8, 0.7, 16_000, 30.0)


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_differ_in_nothing_but_the_objective(recipe: str) -> None:
    base = job_of("ce", 3, 20).spec
    job = job_of(recipe, 3, 20).spec
    assert job.model_copy(update={"objective": base.objective}) == base
    assert (job.training.seed, job.training.max_steps) == (3, 20)
    assert recipe == "ce" or job.objective != base.objective


def test_what_is_finished_is_kept_and_not_done_again(tmp_path: Path) -> None:
    done = [a_finding(name, seed) for name in ("ce", "kl-t1") for seed in range(2)]
    write(tmp_path / "results.json", done)
    assert study(tmp_path, ["ce", "kl-t1"], range(2), 20) == done
    assert read(tmp_path / "results.json") == done
    assert "| CE only | 2 | 0.500 [0.500, 0.500]" in (tmp_path / "quality.md").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "quality.md"}


def test_a_finished_run_leaves_no_checkpoints(tmp_path: Path) -> None:
    laboratory = Laboratory(tmp_path, {})
    (laboratory.store / "checkpoints" / "key" / "60").mkdir(parents=True)
    (laboratory.store / "stages").mkdir()
    laboratory.forget_checkpoints()
    assert [path.name for path in laboratory.store.iterdir()] == ["stages"]


def test_the_table_has_means_with_bounds_in_the_order_of_the_recipes() -> None:
    findings = [a_finding("kl-t1", 0, 0.25), a_finding("ce", 0, 0.4), a_finding("ce", 1, 0.6)]
    lines = table(findings, 20).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| CE only", "| forward KL, T=1"]
    assert "0.500 [-0.131, 1.131]" in lines[2], "the mean of two with Student's 6.31 standard errors"
    assert " 0.250 |" in lines[3], "one run has no bounds"
    assert table(findings, 999).count("\n") == 2


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dram_workers.data.dataset import write_dataset

    folder = tmp_path_factory.mktemp("study")
    tokenizer = ChatTokenizer.load(write_model(folder / "teacher"))
    rows = write_jsonl(folder / "rows.jsonl", support_rows(6))
    samples = [
        sample
        for record in read_source(rows, source="s", weight=1.0, field="spec.dataset")
        for sample in to_samples(record, tokenizer, max_length=64, loss_on_all=False, field="spec.dataset")
    ]
    write_dataset(folder / "dataset", {"train": [], "validation": samples}, {}, {})
    return folder


def test_a_model_is_at_no_distance_from_itself(dataset: Path) -> None:
    found = held_out(dataset / "teacher", dataset / "teacher", dataset / "dataset")
    assert found.divergence == pytest.approx(0.0, abs=1e-9)
    assert found.targets > 50


def test_the_distance_of_two_models_is_that_of_their_distributions(dataset: Path) -> None:
    """Against the definition, token by token."""
    import torch

    from dram_workers.data.dataset import Dataset
    from dram_workers.train.pretrained import load_model

    student_folder = write_model(dataset / "other", seed=1)
    found = held_out(dataset / "teacher", student_folder, dataset / "dataset")
    teacher, student = (
        load_model(folder, torch.float32, "spec.teacher.uri") for folder in (dataset / "teacher", student_folder)
    )
    data, total, targets = Dataset(dataset / "dataset", "validation"), 0.0, 0
    for number in range(len(data)):
        tokens = torch.tensor(data[number].tokens.tolist())
        with torch.no_grad():
            p, q = (model(input_ids=tokens[None]).logits[0].double().softmax(-1) for model in (teacher, student))
        for position in range(len(tokens) - 1):
            if data[number].loss_mask[position + 1]:
                total += float((p[position] * (p[position] / q[position]).log()).sum())
                targets += 1
    assert found.targets == targets
    assert found.divergence == pytest.approx(total / targets, rel=1e-6)
