"""Everything that earlier stages found out, read back from their results."""

import json
from dataclasses import dataclass
from typing import Any

from dram_workers.context import StageContext
from dram_workers.results import Measure
from dram_workers.stages import PublishConfig, StageKind
from dram_workers.store.manifest import Manifest
from dram_workers.store.objects import ObjectStore
from dram_workers.store.stage import output_folder, read_manifest

Row = dict[str, Any]
"""A line of an earlier stage's JSON Lines."""

TEACHER, STUDENT = "teacher", "student"
"""The subjects of evaluation beside the variants."""


@dataclass(frozen=True)
class Evidence:
    """What is known when a run is over. A stage that has no result is absent."""

    stages: dict[str, Manifest]
    """Manifests by the stage's id, in the order in which a job passes them."""
    train_log: tuple[Row, ...]
    """One row for each optimizer step."""
    answers: dict[str, dict[str, Row]]
    """By subject (`teacher`, `student` or a variant's name) and golden item's id."""

    def measures(self, *stages: str) -> dict[str, Measure]:
        """The figures of these stages by name."""
        found = (self.stages[stage] for stage in stages if stage in self.stages)
        return {measure.name: measure for manifest in found for measure in manifest.result.measures}

    def of_variant(self, variant: str) -> dict[str, Measure]:
        """Every figure of a variant."""
        return self.measures(f"export-{variant}", f"evaluate-{variant}", f"bench-{variant}")

    def fact(self, stage: str, name: str) -> str | int | float | bool | None:
        """One fact of a stage; None when it is not known."""
        return self.stages[stage].result.facts.get(name) if stage in self.stages else None

    @property
    def licence(self) -> str | None:
        """The licence that the student inherits: the teacher's, or its own checkpoint's where the teacher is an endpoint."""
        found = self.fact("resolve", "teacherLicence") or self.fact("resolve", "studentLicence")
        return None if found is None else str(found)

    @property
    def heir_of(self) -> str:
        """Whose licence that is, in words; weights that are at hand are known by their number."""
        return "the teacher" if self.fact("resolve", "studentParameters") is None else "the student's checkpoint"


def gather(config: PublishConfig, context: StageContext) -> Evidence:
    """Read the manifests of all inputs' stages, the training log and the answers."""
    stages = {}
    for name, given in config.inputs.items():
        found = stage_of(given.uri, context.store)
        if found is not None and (manifest := read_manifest(context.store, *found)):
            stages[name.rpartition(".")[0]] = manifest
    order = {kind: number for number, kind in enumerate(StageKind)}
    stages = dict(sorted(stages.items(), key=lambda item: order[item[1].kind]))
    return Evidence(
        stages=stages, train_log=_train_log(stages.get("train"), context.store), answers=_answers(config, context)
    )


def stage_of(uri: str, store: ObjectStore) -> tuple[StageKind, str] | None:
    """Kind and key of the stage in whose folder this lies; None when it lies elsewhere."""
    root = store.uri("stages/").rstrip("/") + "/"
    parts = uri.removeprefix(root).split("/") if uri.startswith(root) else []
    return (StageKind(parts[0]), parts[1]) if len(parts) > 1 else None


def _train_log(train: Manifest | None, store: ObjectStore) -> tuple[Row, ...]:
    """Only the log of the student's folder is read: the weights would be a long download for nothing."""
    if train is None:
        return ()
    body = store.get_bytes(f"{output_folder(StageKind.TRAIN, train.result, 'student')}/train-log.jsonl")
    return tuple(json.loads(line) for line in (body or b"").splitlines())


def _answers(config: PublishConfig, context: StageContext) -> dict[str, dict[str, Row]]:
    found = {}
    for name in config.inputs:
        stage, _, output = name.rpartition(".")
        if output == "evaluation":
            path = context.inputs.path(name) / "answers.jsonl"
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            found[stage.removeprefix("evaluate-")] = {row["id"]: row for row in rows}
    return found
