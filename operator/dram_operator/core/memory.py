"""What a training pod may use of memory, and what that follows from."""

from dram_operator.api.distillation_job import DistillationJob
from dram_operator.api.pods import Resources
from dram_operator.api.quantity import quantity
from dram_operator.core.installation import Installation
from dram_workers.deepspeed_settings import DeepSpeedSettings
from dram_workers.memory import TrainingSetup
from dram_workers.train.settings import effective_stage


def training_setup(job: DistillationJob, installation: Installation) -> TrainingSetup:
    """What `resolve` needs to know to estimate the memory of training."""
    training, objective = job.spec.training, job.spec.objective
    world = training.workers * training.processes_per_worker
    settings = DeepSpeedSettings(zero_stage=training.deepspeed.zero_stage, offload=training.deepspeed.offload)
    return TrainingSetup(
        precision=training.precision,
        zero_stage=effective_stage(settings, world),
        offload=training.deepspeed.offload != "None",
        world=world,
        # A local run trains all ranks on this one machine.
        ranks_in_pod=training.processes_per_worker if installation.on_cluster else world,
        batch_tokens=training.batch_tokens,
        max_length=job.spec.dataset.max_length,
        max_steps=training.max_steps,
        without_teacher=objective.mode == "Sequence" or objective.teacher_logits.mode == "Cached",
        attention_maps=objective.attention is not None,
        hidden_states=objective.hidden_states is not None,
        limit_bytes=_limit_bytes(_resources(job, installation)),
    )


def _resources(job: DistillationJob, installation: Installation) -> Resources:
    own = job.spec.pod_template.resources
    asked = own.train or own.default
    return asked if asked and installation.on_cluster else installation.default_resources


def _limit_bytes(resources: Resources) -> int | None:
    """None without a limit, and for a pod with GPUs: the models live in their memory, whose size nothing states."""
    if any("gpu" in name for name in (*resources.limits, *resources.requests)):
        return None
    limit = resources.limits.get("memory")
    return None if limit is None else int(quantity(limit))
