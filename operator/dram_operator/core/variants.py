"""Each variant's figures and gates, from the results of its stages."""

from typing import Literal

from dram_operator.api.distillation_job import DistillationJobSpec
from dram_operator.api.spec import Export
from dram_operator.api.status import DistillationJobStatus, StageState, StageStatus, VariantStatus
from dram_operator.core.gates import Evidence, decide_gates, worst_verdict
from dram_operator.core.preflight import missed_gates
from dram_workers.results import GateRow, Measure, Output

TERMINAL = frozenset({StageState.SUCCEEDED, StageState.FAILED, StageState.SKIPPED})
MIB = 1024 * 1024


def with_variants(
    status: DistillationJobStatus, spec: DistillationJobSpec, artifacts_uri: str
) -> DistillationJobStatus:
    """The status with variants, gates, best and the gate column brought up to its stages."""
    by_id = {stage.id: stage for stage in status.stages}
    rows: list[GateRow] = []
    variants: list[VariantStatus] = []
    for export in spec.exports:
        decided = _rows(export, spec, by_id)
        rows += decided if decided is not None else _missed(export, spec, by_id)
        variants.append(_variant(export, by_id, decided, artifacts_uri))
    best = max((v for v in variants if v.uri), key=lambda v: v.scores.get("goldenScore", 0.0), default=None)
    score = best.scores.get("goldenScore") if best else None
    return status.model_copy(
        update={
            "variants": tuple(variants),
            "gates": tuple(rows),
            "best": best.name if best else None,
            "best_score": None if score is None else f"{score:.3f}",
            "gate": _gate_column(variants, rows, spec),
            "report_uri": _report(by_id.get("publish")),
        }
    )


def releasable(status: DistillationJobStatus) -> dict[str, bool]:
    """Variants that have a file, and whether their gates let it out."""
    exported = {stage.id for stage in status.stages if stage.state is StageState.SUCCEEDED}
    return {v.name: v.gate in ("Pass", "Warn") for v in status.variants if f"export-{v.name}" in exported}


def _rows(export: Export, spec: DistillationJobSpec, by_id: dict[str, StageStatus]) -> tuple[GateRow, ...] | None:
    """The variant's gates, or None while its figures are not all in, or when there is no file to judge."""
    stages = [by_id.get(f"{kind}-{export.name}") for kind in ("export", "evaluate", "bench")]
    if any(stage is None or stage.state not in TERMINAL for stage in stages):
        return None
    if stages[0] is None or stages[0].state is not StageState.SUCCEEDED:
        return None
    parameters = _facts(by_id.get("train")).get("parameters")
    evidence = Evidence(
        variant=export.name,
        gguf=export.gguf.type,
        measures={measure.name: measure for stage in stages for measure in _measures(stage)},
        parameters=int(parameters) if parameters is not None else None,
    )
    return decide_gates(spec.gates, evidence)


def _missed(export: Export, spec: DistillationJobSpec, by_id: dict[str, StageStatus]) -> tuple[GateRow, ...]:
    """The gates that the variant's preflight missed."""
    preflight = by_id.get(f"preflight-{export.name}")
    return missed_gates(preflight, export, spec.gates) if preflight else ()


def _variant(
    export: Export, by_id: dict[str, StageStatus], rows: tuple[GateRow, ...] | None, artifacts_uri: str
) -> VariantStatus:
    stages = [by_id.get(f"{kind}-{export.name}") for kind in ("export", "evaluate", "bench")]
    scores = {measure.name: measure.value for stage in stages for measure in _measures(stage)}
    size = scores.get("sizeMiB")
    published = _outputs(by_id.get("publish")).get(f"artifact-{export.name}")
    digest = published.digest.removeprefix("sha256:") if published else None
    return VariantStatus(
        name=export.name,
        # Made from the digest rather than read: with many variants the addresses do not fit a termination message.
        uri=f"{artifacts_uri}/{export.name}/{digest}" if digest else None,
        sha256=digest,
        size_bytes=None if size is None else round(size * MIB),
        scores=scores,
        gate=_gate(stages, rows),
    )


def _gate(
    stages: list[StageStatus | None], rows: tuple[GateRow, ...] | None
) -> Literal["Pending", "Pass", "Warn", "Fail"]:
    if rows is not None:
        return worst_verdict(rows)
    dead = any(stage and stage.state in (StageState.FAILED, StageState.SKIPPED) for stage in stages)
    return "Fail" if dead else "Pending"


def _gate_column(variants: list[VariantStatus], rows: list[GateRow], spec: DistillationJobSpec) -> str:
    required = {export.name for export in spec.exports if export.required} or {export.name for export in spec.exports}
    verdicts = {variant.gate for variant in variants if variant.name in required}
    failing = next((row.gate for row in rows if row.variant in required and row.verdict not in ("Pass", "Warn")), None)
    if failing:
        return failing
    return next(word for word in ("Fail", "Pending", "Warn", "Pass") if word in verdicts)


def _measures(stage: StageStatus | None) -> tuple[Measure, ...]:
    return stage.result.measures if stage and stage.result else ()


def _facts(stage: StageStatus | None) -> dict[str, str | int | float | bool]:
    return stage.result.facts if stage and stage.result else {}


def _outputs(stage: StageStatus | None) -> dict[str, Output]:
    return stage.result.outputs if stage and stage.result else {}


def _report(stage: StageStatus | None) -> str | None:
    report = _outputs(stage).get("report")
    return report.uri if report else None
