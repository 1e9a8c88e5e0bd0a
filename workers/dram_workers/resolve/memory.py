"""Whether a training pod's memory can hold what the training needs."""

from dram_workers.errors import BadInput, WorkerReason
from dram_workers.memory import MIB, ModelSize, TrainingSetup, estimate

FIELD = "spec.podTemplate.resources.train.limits.memory"
REMEDY = (
    "Raise it, use a smaller student, or spread the training: spec.training.workers with "
    "spec.training.deepspeed.zeroStage 1, 2 or 3."
)
ACTIVATIONS_REMEDY = "raise it, or lower spec.training.batchTokens or spec.dataset.maxLength"


def check_memory(teacher: ModelSize, student: ModelSize, setup: TrainingSetup | None) -> str:
    """What to warn of, or nothing; BadInput(MemoryLimitTooLow) when what is certain is above the limit already."""
    if setup is None or setup.limit_bytes is None:
        return ""
    found, limit = estimate(teacher, student, setup), setup.limit_bytes
    if found.certain_bytes > limit:
        raise BadInput(
            WorkerReason.MEMORY_LIMIT_TOO_LOW,
            f"a training pod may use {limit / MIB:,.0f} MiB and needs {found.certain_bytes / MIB:,.0f} MiB for "
            f"weights, gradients, optimizer and teacher alone, about {found.total_bytes / MIB:,.0f} MiB in all "
            f"({found.sentence()})",
            field=FIELD,
            remedy=REMEDY,
        )
    if found.total_bytes > limit:
        return (
            f"{FIELD}: a training pod may use {limit / MIB:,.0f} MiB and is expected to need up to "
            f"{found.total_bytes / MIB:,.0f} MiB ({found.sentence()}): {ACTIVATIONS_REMEDY}"
        )
    return ""
