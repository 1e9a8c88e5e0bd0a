"""The beginning of a run: whether one is due, and whether the job can run at all."""

from datetime import datetime

from dram_operator.api.distillation_job import DistillationJob
from dram_operator.api.status import DistillationJobStatus, Plan, StageState, StageStatus
from dram_operator.core import configs, worker_pod
from dram_operator.core.installation import Installation
from dram_operator.core.plan import execution_hash, make_plan, spec_hash
from dram_operator.core.times import stamp


def current_run(job: DistillationJob, installation: Installation, now: datetime) -> DistillationJobStatus:
    """The run of this spec: the one that is going on, carried out as the spec now says, or a fresh one."""
    plan = job.status.plan
    if plan is None or plan.spec_hash != spec_hash(job.spec):
        return begin_run(job, installation, now)
    if plan.execution_hash == execution_hash(job.spec):
        return job.status
    return begin_run(job, installation, now) if job.status.finished_at else _carried_out_anew(job, plan)


def _carried_out_anew(job: DistillationJob, plan: Plan) -> DistillationJobStatus:
    """The same run with another number of workers or other pods; what is at work starts again, from its checkpoint."""

    def waiting(stage: StageStatus) -> StageStatus:
        # A suspended job's pods are on their way out already.
        if stage.state is not StageState.RUNNING or job.spec.suspend:
            return stage
        return stage.model_copy(update={"state": StageState.PENDING, "reason": None, "message": None})

    # An upgrade of the operator must not change what a run computes, so nothing but the execution is taken over.
    planned = {node.id: node.execution for node in make_plan(job, plan.image).stages}
    stages = tuple(node.model_copy(update={"execution": planned.get(node.id, node.execution)}) for node in plan.stages)
    update = {"execution_hash": execution_hash(job.spec), "stages": stages}
    return job.status.model_copy(
        update={"plan": plan.model_copy(update=update), "stages": tuple(map(waiting, job.status.stages))}
    )


def begin_run(job: DistillationJob, installation: Installation, now: datetime) -> DistillationJobStatus:
    """A fresh run: a new plan, all stages to do. Attempt numbers go on, so that no name is used twice."""
    plan = make_plan(job, worker_pod.image_of(job.spec.pod_template, installation))
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
