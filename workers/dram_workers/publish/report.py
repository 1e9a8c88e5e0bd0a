"""The report: one HTML file with everything in it, so that it can be mailed, archived and opened anywhere."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from dram_workers.context import StageContext
from dram_workers.publish import figures, plots
from dram_workers.publish.evidence import STUDENT, TEACHER, Evidence, Row
from dram_workers.publish.rendering import render
from dram_workers.results import GateRow, Measure, Output
from dram_workers.stages import PublishConfig, PublishVariant
from dram_workers.store.manifest import Manifest

OPEN_ITEMS = 8
"""Golden items that are shown unfolded: the worst."""

BARS = (
    ("sizeMiB", "Size", "MiB"),
    ("tokensPerSecond", "Generated tokens per second", "tokens/s"),
    ("p95LatencyMs", "Latency of a whole answer, p95", "ms"),
    ("peakMemoryMiB", "Peak memory", "MiB"),
)


@dataclass(frozen=True)
class Gauge:
    """A gate's value, interval and limit as positions on a line, in percent."""

    low: float
    high: float
    value: float
    limit: float


@dataclass(frozen=True)
class Answer:
    """One subject's answer to a golden item."""

    subject: str
    row: Row


@dataclass(frozen=True)
class Item:
    """One golden item with everybody's answers."""

    id: str
    prompt: str
    reference: str
    answers: tuple[Answer, ...]
    worst: float
    """The lowest score of a variant."""
    failed: bool


@dataclass(frozen=True)
class Stage:
    """A stage in the table of stages."""

    id: str
    seconds: float
    share: float
    """Of the longest stage, in percent."""
    manifest: Manifest


def write_report(
    config: PublishConfig, context: StageContext, evidence: Evidence, artifacts: Mapping[str, Output]
) -> Path:
    """Write `report.html` into the work folder."""
    path = context.work / "report.html"
    path.write_text(build_report(config, evidence, artifacts), encoding="utf-8")
    return path


def build_report(config: PublishConfig, evidence: Evidence, artifacts: Mapping[str, Output]) -> str:
    """The report as one HTML document; the same inputs make the same bytes."""
    variants = config.identity.variants
    measures = {variant.name: evidence.of_variant(variant.name) for variant in variants}
    items = sorted(_items(evidence, [variant.name for variant in variants]), key=lambda item: (item.worst, item.id))
    return render(
        "report.html.j2",
        config=config,
        job=config.job,
        variants=variants,
        lost=_lost(config),
        best=_best(variants, measures),
        measures=measures,
        measure_names=list(dict.fromkeys(name for found in measures.values() for name in found)),
        teacher=evidence.measures(f"evaluate-{TEACHER}"),
        student=evidence.measures(f"evaluate-{STUDENT}"),
        gates=[(variant, [(row, gauge(row)) for row in _gates_of(config, variant)]) for variant in variants],
        items=items,
        open_items=OPEN_ITEMS,
        subjects=[TEACHER, STUDENT, *(variant.name for variant in variants)],
        artifacts={name.removeprefix("artifact-"): output for name, output in artifacts.items()},
        files={variant.name: _files(evidence, variant) for variant in variants},
        stages=_stages(evidence),
        evidence=evidence,
        first=evidence.train_log[0] if evidence.train_log else None,
        last=evidence.train_log[-1] if evidence.train_log else None,
        plots=_plots(evidence, variants, measures),
        manifest=_manifest_yaml(config),
        figures=figures,
    )


def gauge(row: GateRow) -> Gauge | None:
    """Where to draw a gate's figures; None when nothing was measured."""
    if row.value is None:
        return None
    low, high = (row.value if side is None else side for side in (row.low, row.high))
    least, most = min(0.0, low, row.limit), max(low, high, row.value, row.limit)
    if row.unit == "" and most <= 1:
        most = 1.0
    span = (most - least) * 1.04 or 1.0
    return Gauge(*(100 * (figure - least) / span for figure in (low, high, row.value, row.limit)))


def _gates_of(config: PublishConfig, variant: PublishVariant) -> list[GateRow]:
    return [row for row in config.identity.gates if row.variant == variant.name]


def _lost(config: PublishConfig) -> list[tuple[str, list[GateRow]]]:
    """Variants that were asked for and have no file, with the gates that they missed before training."""
    made = {variant.name for variant in config.identity.variants}
    asked = (export["name"] for export in config.identity.manifest.get("exports", []))
    return [(name, [row for row in config.identity.gates if row.variant == name]) for name in asked if name not in made]


def _best(variants: tuple[PublishVariant, ...], measures: Mapping[str, Mapping[str, Measure]]) -> PublishVariant | None:
    """The releasable variant with the highest golden score; the first of equals."""
    scored = [variant for variant in variants if variant.releasable and "goldenScore" in measures[variant.name]]
    return max(scored, key=lambda variant: measures[variant.name]["goldenScore"].value, default=None)


def _items(evidence: Evidence, variants: list[str]) -> Iterator[Item]:
    subjects = [subject for subject in (TEACHER, STUDENT, *variants) if subject in evidence.answers]
    for row in next(iter(evidence.answers.values()), {}).values():
        answers = tuple(
            Answer(subject, evidence.answers[subject][row["id"]])
            for subject in subjects
            if row["id"] in evidence.answers[subject]
        )
        judged = [answer for answer in answers if answer.subject in variants] or answers
        yield Item(
            id=row["id"],
            prompt=row["prompt"],
            reference=row["reference"],
            answers=answers,
            worst=min(answer.row["score"] for answer in judged),
            failed=any(answer.row["failed"] for answer in judged),
        )


def _files(evidence: Evidence, variant: PublishVariant) -> list[tuple[str, int, str]]:
    manifest = evidence.stages.get(f"export-{variant.name}")
    found = manifest.files if manifest else ()
    return [(file.path.rpartition("/")[2], file.size, file.sha256) for file in found]


def _stages(evidence: Evidence) -> list[Stage]:
    seconds = {name: _seconds(manifest) for name, manifest in evidence.stages.items()}
    longest = max(seconds.values(), default=0.0) or 1.0
    return [
        Stage(name, seconds[name], 100 * seconds[name] / longest, manifest)
        for name, manifest in evidence.stages.items()
    ]


def _seconds(manifest: Manifest) -> float:
    started, finished = (datetime.fromisoformat(moment) for moment in (manifest.started_at, manifest.finished_at))
    return (finished - started).total_seconds()


def _plots(
    evidence: Evidence, variants: tuple[PublishVariant, ...], measures: Mapping[str, Mapping[str, Measure]]
) -> dict[str, Any]:
    found: dict[str, Any] = {"bars": []}
    if len(evidence.train_log) > 1:
        found["loss"] = plots.loss_plot(evidence.train_log)
        found["schedules"] = plots.schedule_plot(evidence.train_log)
    scored = [
        plots.Subject(variant.name, measures[variant.name]["sizeMiB"].value, measures[variant.name]["goldenScore"])
        for variant in variants
        if {"sizeMiB", "goldenScore"} <= measures[variant.name].keys()
    ]
    if scored:
        found["score"] = plots.score_plot(scored, evidence.measures(f"evaluate-{TEACHER}").get("goldenScore"))
    for name, title, unit in BARS:
        values = [
            (variant.name, measures[variant.name][name].value) for variant in variants if name in measures[variant.name]
        ]
        if values:
            found["bars"].append(plots.bar_plot(title, unit, values))
    return found


def _manifest_yaml(config: PublishConfig) -> str:
    metadata = {"name": config.job.name, "namespace": config.job.namespace}
    document = {"apiVersion": "dram.dev/v1alpha1", "kind": "DistillationJob", "metadata": metadata}
    return yaml.safe_dump(
        {**document, "spec": config.identity.manifest}, sort_keys=False, allow_unicode=True, width=110
    )
