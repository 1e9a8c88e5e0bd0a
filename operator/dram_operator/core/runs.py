"""The beginning of a run: whether one is due, and whether the job can run at all."""

from datetime import datetime

from dram_operator.api.distillation_job import DistillationJob
from dram_operator.api.status import DistillationJobStatus, StageState, StageStatus
from dram_operator.core import configs
from dram_operator.core.installation import Installation
from dram_operator.core.plan import make_plan, spec_hash
from dram_operator.core.times import stamp


def is_current(job: DistillationJob) -> bool:
    """Whether the pinned plan is the plan of this spec."""
    return job.status.plan is not None and job.status.plan.spec_hash == spec_hash(job.spec)


def begin_run(job: DistillationJob, installation: Installation, now: datetime) -> DistillationJobStatus:
    """A fresh run: a new plan, all stages to do. Attempt numbers go on, so that no name is used twice."""
    plan = make_plan(job, job.spec.pod_template.image or installation.image)
    numbers = {stage.id: stage.attempt for stage in job.status.stages}
    stages = (StageStatus(id=n.id, state=StageState.PENDING, attempt=numbers.get(n.id, 0)) for n in plan.stages)
    return DistillationJobStatus(
        run=job.status.run + 1,
        plan=plan,
        stages=tuple(stages),
        conditions=job.status.conditions,
        started_at=stamp(now),
    )


def refusal(job: DistillationJob, installation: Installation) -> str | None:
    """Why the job cannot run here at all, with field and remedy; None when it can."""
    storage = configs.storage_of(job, installation)
    if storage is None:
        return "spec.storage: is absent and the installation has no storage: set spec.storage.uri to s3://bucket/prefix"
    if installation.on_cluster and storage.uri.startswith("file:"):
        return f"spec.storage.uri: {storage.uri} is a local folder, which pods do not share: use s3://bucket/prefix"
    return None
