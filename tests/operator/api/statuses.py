"""A status in which every field says something."""

from dram_operator.api.status import (
    CheckpointStatus,
    Condition,
    ConditionType,
    DistillationJobStatus,
    Plan,
    PlannedInput,
    PlannedStage,
    ProgressStatus,
    Reason,
    StageState,
    StageStatus,
    VariantStatus,
)
from dram_workers.results import GateRow, Measure, Output, StageResult
from dram_workers.stages import StageKind

NOW = "2026-01-01T00:00:00Z"
DIGEST = "sha256:" + "ab" * 32

A_RESULT = StageResult(
    key="cd" * 32,
    cached=True,
    outputs={"artifact": Output(digest=DIGEST, uri="s3://models/a", path="model.gguf")},
    measures=(Measure(name="score", value=0.93, low=0.9, high=0.95, n=30, unit="ms", baseline=1.0, note="greedy"),),
    facts={"bits": 4.5, "tokens": 12, "tied": True, "runtime": "llama.cpp"},
)

A_FULL_STATUS = DistillationJobStatus(
    observed_generation=3,
    run=2,
    plan=Plan(
        spec_hash="ef" * 32,
        execution_hash="ab" * 32,
        image="worker:1",
        stages=(
            PlannedStage(
                id="export-q8",
                kind=StageKind.EXPORT,
                inputs={"student": PlannedInput(stage="train", output="student")},
                identity={"variant": "q8", "gguf": "Q8_0", "modelName": "support-bot"},
                execution={"threads": 2},
                variant="q8",
            ),
        ),
    ),
    stages=(
        StageStatus(
            id="export-q8",
            state=StageState.SUCCEEDED,
            attempt=2,
            retries=1,
            key="cd" * 32,
            reason="Cached",
            message="An earlier result was taken.",
            started_at=NOW,
            finished_at=NOW,
            retry_at=NOW,
            result=A_RESULT,
        ),
    ),
    conditions=tuple(
        Condition(
            type=kind,
            status="Unknown",
            observed_generation=3,
            last_transition_time=NOW,
            reason=Reason.RUNNING,
            message="At work.",
        )
        for kind in ConditionType
    ),
    progress=ProgressStatus(
        stage="train", step=40, total_steps=100, percent=40, eta_seconds=90, loss=1.25, updated_at=NOW
    ),
    checkpoint=CheckpointStatus(step=40, uri="s3://models/checkpoints/40"),
    variants=(
        VariantStatus(
            name="q8", uri="s3://models/q8", sha256="ab" * 32, size_bytes=1, scores={"golden": 0.93}, gate="Pass"
        ),
    ),
    gates=(
        GateRow(
            variant="q8",
            gate="quality.minGoldenPassRate",
            target="worker",
            baseline=1.0,
            value=0.97,
            low=0.91,
            high=0.99,
            limit=0.9,
            unit="ms",
            verdict="Pass",
            message="30 of 30 items passed.",
        ),
    ),
    best="q8",
    best_score="0.93",
    gate="Pass",
    stage="train",
    report_uri="s3://models/report.html",
    started_at=NOW,
    finished_at=NOW,
    active_seconds=12,
    active_since=NOW,
)
