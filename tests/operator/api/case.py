"""What a case of the resource says, and the jobs that cases start from."""

from dataclasses import dataclass
from typing import Any

from tests.builders import AJob, a_job

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


@dataclass(frozen=True)
class Accepted:
    """A manifest that is fine: as a new object, or as an update of `old`."""

    name: str
    job: AJob
    old: AJob | None = None


@dataclass(frozen=True)
class Refused:
    """A manifest that is refused for one reason, at one field."""

    name: str
    job: AJob
    want_field: str
    want_message: str
    old: AJob | None = None
    locally_fine: bool = False
    """Whether a local run takes it."""


def everything() -> AJob:
    """A job that says everything that can be said."""
    return (
        a_job()
        .having("spec.student", {"uri": "s3://models/student"})
        .with_synthetic(responsesPerPrompt=2, temperature=0.7, maxNewTokens=64)
        .having("spec.objective.alpha", {"start": 1, "end": 0, "schedule": "Linear"})
        .having("spec.objective.temperature", {"start": 2, "end": 2})
        .with_training(workers=2, maxSteps=100, warmupSteps=10, learningRate=1, betas=[0.9, 0.99])
        .having("spec.training.deepspeed", {"zeroStage": 3, "offload": "OptimizerAndParameters"})
        .having("spec.training.deepspeed.config", {"steps_per_print": 10, "comms_logger": {"enabled": True}})
        .exporting("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0")
        .having("spec.golden.embedder", "hf://example/embedder@v1.0")
        .with_gates(
            quality={
                "maxScoreDrop": 0.05,
                "minTeacherRetention": 0.9,
                "minGoldenPassRate": 0.9,
                "maxKLDivergence": 0.1,
            },
            performance={"p95LatencyMs": 100, "p99LatencyMs": 200.5, "peakMemoryMiB": 512, "minTokensPerSecond": 5},
            device={"memoryMiB": 1024},
        )
        .having("spec.storage.endpoint", "https://s3.example:8333")
        .having("spec.storage.caBundle", CERTIFICATE)
        .having("spec.storage.region", "eu-west-1")
        .having("spec.storage.retention.keepStagesDays", 30)
        .having("spec.activeDeadlineSeconds", 86_400)
        .having("spec.ttlSecondsAfterFinished", 0)
        .having("spec.podTemplate", _pods())
    )


def _pods() -> dict[str, Any]:
    resources = {"requests": {"cpu": 2, "memory": "1.5Gi"}, "limits": {"nvidia.com/gpu": "1"}}
    return {
        "image": "example.com/dram/worker:1@sha256:abc",
        "resources": dict.fromkeys(("train", "synthesize", "evaluate", "bench", "default"), resources),
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [
            {"key": "gpu", "operator": "Equal", "value": "a100", "effect": "NoExecute", "tolerationSeconds": 60}
        ],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
        "priorityClassName": "batch",
        "runtimeClassName": "nvidia",
        "envFromSecrets": [{"name": "HF_TOKEN", "secretName": "hub", "key": "token"}],
        "labels": {"team": "search", "example.com/cost-center": "42"},
        "annotations": {"example.com/note": "for the demo"},
        "queueName": "gpu-queue",
    }


def finished(job: AJob) -> AJob:
    """The job after it ended."""
    return _with_condition(job, "True")


def running(job: AJob) -> AJob:
    """The job while it runs."""
    return _with_condition(job, "Unknown")


def _with_condition(job: AJob, status: str) -> AJob:
    condition = {
        "type": "Succeeded",
        "status": status,
        "reason": "Running",
        "message": "",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    return job.having("status.conditions", [condition])


JOB = a_job()
SUSPENDED = JOB.suspended()
