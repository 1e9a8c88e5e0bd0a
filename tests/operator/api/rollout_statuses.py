"""A status of an EdgeRollout in which every field says something."""

from dram_agent.document import Artifact, Control, Release, Requirements
from dram_operator.api.rollout_reasons import RolloutCondition, RolloutReason
from dram_operator.api.rollout_spec import ArtifactSource, JobRef
from dram_operator.api.rollout_status import (
    ArtifactStatus,
    AttemptRecord,
    CommandStatus,
    Cutoff,
    DeviceCounts,
    EdgeRolloutStatus,
    MetricStatus,
    Quarantine,
    Reach,
    ReleaseStatus,
    RollbackStatus,
    RolloutConditionStatus,
    StepState,
    StepStatus,
)

NOW = "2026-01-01T00:00:00Z"
FIFTH, SIXTH, SEVENTH, BAD = ("05" * 32, "06" * 32, "07" * 32, "bd" * 32)
HALF = "7fffffffffffffff"


def a_release_status(version: int, digest: str) -> ReleaseStatus:
    """A release of the support bot."""
    return ReleaseStatus(
        name=f"support-bot-v{version}/gguf-q4-k-m",
        release=Release(
            digest=digest,
            artifacts=(
                Artifact(
                    device_class="tv",
                    path=f"artifacts/{digest}/manifest.json",
                    requires=Requirements(format="gguf", memory_bytes=1 << 28, agent_version="0.1"),
                ),
            ),
        ),
        source=ArtifactSource(job_ref=JobRef(name=f"support-bot-v{version}", variant="gguf-q4-k-m")),
        since=NOW,
    )


A_FULL_STATUS = EdgeRolloutStatus(
    observed_generation=3,
    conditions=tuple(
        RolloutConditionStatus(
            type=kind,
            status="Unknown",
            observed_generation=3,
            last_transition_time=NOW,
            reason=RolloutReason.BAKING,
            message="Step 2 is watched.",
        )
        for kind in RolloutCondition
    ),
    attempt=7,
    artifact=ArtifactStatus(
        source=ArtifactSource(job_ref=JobRef(name="support-bot-v7", variant="gguf-q4-k-m")),
        name="support-bot-v7/gguf-q4-k-m",
        digest=SEVENTH,
    ),
    stable=a_release_status(6, SIXTH),
    previous=a_release_status(5, FIFTH),
    candidate=a_release_status(7, SEVENTH),
    reach=Reach(
        named=("00000000000000ff",),
        cutoffs=(Cutoff(cutoff=HALF, match_labels={"ring": "early"}), Cutoff(cutoff="0fffffffffffffff")),
        control=Control(cutoff="f000000000000000"),
    ),
    step=StepStatus(
        index=1,
        shown="2/5",
        percent=10,
        state=StepState.BAKING,
        started_at=NOW,
        bake_started_at=NOW,
        active_seconds=12,
        active_since=NOW,
        approved_by="ada",
        cutoff="0fffffffffffffff",
        approximate=True,
        devices=DeviceCounts(known=100, expected=10, reporting=9, healthy=8, failed=1, offline=1),
    ),
    gate="Pass",
    analysis=(
        MetricStatus(
            name="error-rate",
            verdict="Pass",
            message="0.1 % of the requests failed.",
            query='sum(rate(dram_device_requests_total{channel="tv/support-bot"}[5m]))',
            value=0.001,
            limit=0.02,
            lower=-0.01,
            upper=0.002,
            samples=1000,
            devices=9,
            evidence=1.5,
            looks="PPIEM",
            failed=1,
            inconclusive=1,
            errors=1,
            missing=1,
            dry_run=True,
            looked_at=NOW,
        ),
    ),
    rollback=RollbackStatus(
        digest=BAD,
        reason="MetricBreached",
        message="Too slow.",
        started_at=NOW,
        completed_at=NOW,
        percent=100,
        remaining=1,
    ),
    quarantined=(Quarantine(digest=BAD, reason="MetricBreached", since=NOW),),
    commands=(
        CommandStatus(
            id="c1",
            verb="approve",
            who="ada",
            reason="Looks good.",
            outcome="Refused",
            message="Too late.",
            handled_at=NOW,
        ),
    ),
    history=(
        AttemptRecord(
            attempt=6,
            name="support-bot-bad",
            digest=BAD,
            outcome="RolledBack",
            reason="MetricBreached",
            started_at=NOW,
            finished_at=NOW,
        ),
    ),
)
