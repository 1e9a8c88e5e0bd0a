"""A small teach stage and the dataset that it reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dram_workers import teach
from dram_workers.context import StageContext, StageOutcome
from dram_workers.data.dataset import write_dataset
from dram_workers.data.samples import to_samples
from dram_workers.data.sources import read_source
from dram_workers.data.tokenizer import ChatTokenizer
from dram_workers.stages import JobRef, StageKind, TeachConfig, TeacherExecution, TeachIdentity, stage_key
from tests.models import support_rows, write_jsonl
from tests.workers.contexts import Given, a_context, store_settings

IDENTITY: dict[str, Any] = {"topK": 8, "precision": "FP32"}


def write_data(folder: Path, teacher: Path, rows: list[dict[str, object]] | None = None) -> Path:
    """A dataset of these rows, by default a dozen."""
    source = write_jsonl(folder / "rows.jsonl", rows or support_rows(12))
    tokenizer = ChatTokenizer.load(teacher)
    samples = [
        sample
        for record in read_source(source, source="s", weight=1.0, field="spec.dataset")
        for sample in to_samples(record, tokenizer, max_length=128, loss_on_all=False, field="spec.dataset")
    ]
    write_dataset(folder / "dataset", {"train": samples, "validation": []}, {}, {})
    return folder / "dataset"


def a_config(folder: Path, paths: Mapping[str, Path], workers: int = 1, **identity: Any) -> TeachConfig:
    """The config of a stage whose store is below `folder`."""
    inputs = Given(paths).inputs()
    recipe = TeachIdentity.model_validate(IDENTITY | identity)
    return TeachConfig(
        stage="teach",
        key=stage_key(StageKind.TEACH, recipe, inputs),
        job=JobRef(namespace="n", name="j"),
        inputs=inputs,
        identity=recipe,
        execution=TeacherExecution(
            store=store_settings(folder), scratch=str(folder / "scratch"), threads=1, workers=workers
        ),
    )


def models(teacher: Path, dataset: Path) -> dict[str, Path]:
    """The inputs of a student that is cut from its teacher."""
    return {"teacher": teacher, "tokenizer": teacher, "dataset": dataset}


def run(folder: Path, paths: Mapping[str, Path], work: str = "1", **identity: Any) -> StageOutcome:
    """Run the stage; `work` names its scratch folder."""
    outcome = teach.run(a_config(folder, paths, **identity), context_of(folder, paths, work))
    assert outcome is not None
    return outcome


def context_of(folder: Path, paths: Mapping[str, Path], work: str) -> StageContext:
    """The world of a stage whose store is shared by all that run in `folder`."""
    inner = a_context(folder / work, paths)
    return StageContext(
        inner.inputs, a_context(folder, paths).store, inner.execution, inner.reporter, inner.work, inner.stopping
    )
