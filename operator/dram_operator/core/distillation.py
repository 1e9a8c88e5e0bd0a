"""`decide`: what a DistillationJob needs next. A pure function of what is observed and the time."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from dram_operator.api.distillation_job import DistillationJob
from dram_operator.api.status import DistillationJobStatus, PlannedStage, Reason, StageState, StageStatus
from dram_operator.core import attempts, configs
from dram_operator.core.conditions import Finding, Picture, conditions
from dram_operator.core.installation import Installation
from dram_operator.core.jobs import attempt_name, rendezvous
from dram_operator.core.missing import missing
from dram_operator.core.observed import Attempt, AttemptView, Decision, Observed
from dram_operator.core.outcome import active_seconds, is_over, outcome, with_active_clock
from dram_operator.core.preflight import judged
from dram_operator.core.progress import with_progress
from dram_operator.core.rework import to_do_again
from dram_operator.core.runs import current_run, refusal
from dram_operator.core.times import parse_time, stamp
from dram_operator.core.transitions import expired, transitions
from dram_operator.core.variants import TERMINAL, releasable, with_variants
from dram_workers.stages import StageKind

LOST_POD_CHECK_SECONDS = 10.0
"""How soon to look again at a finished Job whose pods are not seen yet."""


def decide(observed: Observed, installation: Installation, now: datetime) -> Decision:
    """The next step. Raises nothing: a job that cannot run says so in its conditions."""
    job = observed.job
    if job.metadata.deletion_timestamp:
        return Decision(status=job.status)
    problem = refusal(job, installation)
    if problem:
        return _refused(job, problem, now)
    status = current_run(job, installation, now)
    work = _Work(replace(observed, job=job.model_copy(update={"status": status})), installation, now)
    work.absorb()
    work.stop()
    work.skip()
    work.start()
    return work.conclude(observed)


def _refused(job: DistillationJob, message: str, now: datetime) -> Decision:
    ended = Finding("False", Reason.SPEC_INVALID, message)
    generation = job.metadata.generation
    status = job.status.model_copy(update={"observed_generation": generation, "stage": "Invalid"})
    picture = Picture(status, generation, frozenset(), False, ended)
    status = status.model_copy(update={"conditions": conditions(picture, now)})
    return Decision(status=status, events=transitions(job.status, status))


@dataclass
class _Work:
    """One pass over one job: the stages as they change, and what is to be done."""

    observed: Observed
    installation: Installation
    now: datetime

    def __post_init__(self) -> None:
        job = self.observed.job
        self.job = job
        self.status = job.status
        plan = job.status.plan
        self.plan = plan.stages if plan else ()
        self.required = frozenset(export.name for export in job.spec.exports if export.required)
        self.nodes = {node.id: node for node in self.plan}
        self.stages = {stage.id: stage for stage in job.status.stages}
        self.views = [view for view in self.observed.attempts if view.run == self.status.run]
        self.deletions: list[str] = []
        self.starts: list[Attempt] = []
        self.wakeups: list[datetime] = []

    # what has happened

    def absorb(self) -> None:
        """Bring every stage up to what its attempts show."""
        for node in self.plan:
            stage = self._adopt(self.stages[node.id])
            view = self._view(stage)
            if stage.state is StageState.RUNNING and view and (view.succeeded or not view.deleting):
                stage = attempts.absorb(stage, node, view, self.now, self.job.spec.retries)
                stage = judged(self._give_up_waiting(stage, node, view), node, self.job.spec)
                self.stages |= to_do_again(stage, node, self.nodes, self.stages)
                if view.succeeded and stage.state is StageState.RUNNING:
                    self.wakeups.append(self.now + timedelta(seconds=LOST_POD_CHECK_SECONDS))
            self.stages[node.id] = stage

    def _adopt(self, stage: StageStatus) -> StageStatus:
        """An attempt that exists although status does not know it was started by a predecessor that died."""
        latest = max(self._views_of(stage.id), key=lambda view: view.attempt, default=None)
        if (
            stage.state is not StageState.PENDING
            or latest is None
            or latest.attempt <= stage.attempt
            or latest.deleting
        ):
            return stage
        update = {"state": StageState.RUNNING, "attempt": latest.attempt, "started_at": stamp(latest.created_at)}
        return stage.model_copy(update=update)

    def _give_up_waiting(self, stage: StageStatus, node: PlannedStage, view: AttemptView) -> StageStatus:
        if stage.state is not StageState.RUNNING or view.finished or view.suspended:
            return stage
        if attempts.is_placed(view, attempts.pods_needed(node)):
            return stage
        until = attempts.pending_until(view, self.job.spec)
        if self.now < until:
            self.wakeups.append(until)
            return stage
        self.deletions.append(view.name)
        failure = attempts.gave_up_waiting(view, self.job.spec)
        return attempts.failed(stage, failure, self.now, self.job.spec.retries)

    # what must not go on

    def stop(self) -> None:
        """Delete attempts of other runs, given up ones, those of a suspended job, and all of them past the deadline."""
        for view in self.observed.attempts:
            if not view.finished and (view.run != self.status.run or self._is_given_up(view)):
                self._delete(view)
        going = not self.job.spec.suspend and not is_over(self.stages.values())
        self.status = with_active_clock(self.status, going=going, now=self.now)
        if self.job.spec.suspend:
            self._suspend()
        limit = self.job.spec.active_deadline_seconds
        if limit is None or is_over(self.stages.values()):
            return
        left = limit - active_seconds(self.status, self.now)
        if left > 0:
            if self.status.active_since:
                self.wakeups.append(self.now + timedelta(seconds=left))
            return
        message = f"active for {limit} s (spec.activeDeadlineSeconds): raise it, or make the job smaller"
        self._end_all(Reason.DEADLINE_EXCEEDED, message)

    def _is_given_up(self, view: AttemptView) -> bool:
        """Whether its stage waits for the next attempt, as it does when the gang is to have another size."""
        stage = self.stages.get(view.stage)
        return stage is not None and stage.state is StageState.PENDING and view.attempt <= stage.attempt

    def _suspend(self) -> None:
        for stage in self.stages.values():
            live = [view for view in self._views_of(stage.id) if not view.finished]
            for view in live:
                self._delete(view)
            if stage.state is StageState.RUNNING and not live:
                update = {"state": StageState.PENDING, "reason": None, "message": None, "retry_at": None}
                self.stages[stage.id] = stage.model_copy(update=update)

    def _end_all(self, reason: Reason, message: str) -> None:
        blamed = next(
            (s for s in self.stages.values() if s.state is StageState.RUNNING),
            next(s for s in self.stages.values() if s.state not in TERMINAL),
        )
        for view in self.views:
            if not view.finished:
                self._delete(view)
        for stage in self.stages.values():
            if stage.state not in TERMINAL:
                state = StageState.FAILED if stage is blamed else StageState.SKIPPED
                update = {"state": state, "reason": reason, "message": message, "finished_at": stamp(self.now)}
                self.stages[stage.id] = stage.model_copy(update=update)

    def skip(self) -> None:
        """Skip what can no longer be done, or is of no use: nothing is published without a stage that serves all variants."""
        while broken := missing(self.plan, self.stages, self.required):
            for name, why in broken.items():
                update = {"state": StageState.SKIPPED, "reason": Reason.NOT_REACHED, "message": f"{why} gave no result"}
                self.stages[name] = self.stages[name].model_copy(update=update | {"retry_at": None})

    # what comes next

    def start(self) -> None:
        """Start what is ready, and start again what status says is running but nobody has seen."""
        self.status = self._with_variants({"stages": tuple(self.stages.values())})
        if self.job.spec.suspend:
            return
        busy = sum(stage.state is StageState.RUNNING for stage in self.stages.values())
        for node in self.plan:
            stage = self.stages[node.id]
            if stage.state is StageState.RUNNING and self._view(stage) is None:
                self._begin(node, stage, stage.attempt)
            elif self._is_ready(node, stage) and busy < (self.installation.max_parallel or len(self.plan)):
                busy += 1
                self._begin(node, stage, self._next_number(stage))
        self.skip()

    def _is_ready(self, node: PlannedStage, stage: StageStatus) -> bool:
        if stage.state is not StageState.PENDING:
            return False
        if not attempts.is_due(stage, self.now):
            self.wakeups.append(parse_time(stage.retry_at or stamp(self.now)))
            return False
        if any(not view.finished for view in self.observed.attempts if view.stage == node.id):
            return False
        states = [self.stages[source.stage].state for source in node.inputs.values()]
        return all(self.stages[name].state in TERMINAL for name in node.after) and all(
            state in TERMINAL if node.kind is StageKind.PUBLISH else state is StageState.SUCCEEDED for state in states
        )

    def _next_number(self, stage: StageStatus) -> int:
        seen = [view.attempt for view in self.observed.attempts if view.stage == stage.id]
        return max([stage.attempt, *seen]) + 1

    def _begin(self, node: PlannedStage, stage: StageStatus, number: int) -> None:
        try:
            attempt = self._attempt(node, number)
        except configs.MissingOutputError as error:
            failure = attempts.Failure(Reason.RESULT_UNREADABLE, f"{error}: use images of one release", final=True)
            self.stages[node.id] = attempts.failed(stage, failure, self.now, self.job.spec.retries)
            return
        self.starts.append(attempt)
        if stage.state is StageState.RUNNING:
            return
        update = {"state": StageState.RUNNING, "attempt": number, "started_at": stamp(self.now)}
        update |= {"key": attempt.config.key, "reason": Reason.RUNNING, "message": None, "retry_at": None}
        self.stages[node.id] = stage.model_copy(update=update | {"finished_at": None})

    def _attempt(self, node: PlannedStage, number: int) -> Attempt:
        storage = configs.storage_of(self.job, self.installation)
        assert storage is not None, "decide refuses a job without storage"
        results = {stage.id: stage.result for stage in self.stages.values() if stage.result}
        inputs = configs.inputs_of(node, self.plan, results, storage.uri)
        if node.kind is StageKind.PUBLISH:
            job = self.job.model_copy(update={"status": self.status})
            node = configs.publish_identity(node, job, releasable(self.status))
        meeting = (
            rendezvous(self.job.metadata.name, node, number, attempts.pods(node))
            if self.installation.on_cluster
            else None
        )
        config = configs.build_config(self.job, node, inputs, number, self.installation, meeting)
        name = attempt_name(self.job.metadata.name, node.id, number)
        return Attempt(name, node.id, number, self.status.run, attempts.pods(node), config)

    # the outcome

    def conclude(self, before: Observed) -> Decision:
        """The decision, with conditions and everything that people see."""
        generation = self.job.metadata.generation
        update = {"stages": tuple(self.stages.values()), "observed_generation": generation}
        status = self._with_variants(update)
        ended = outcome(status, self.nodes, self.required)
        if ended and not status.finished_at:
            status = with_active_clock(status, going=False, now=self.now)
            status = status.model_copy(update={"finished_at": stamp(self.now)})
        status = with_progress(status, self.job, self.observed.progress, self.installation, self.now)
        picture = Picture(status, generation, self.required, self.job.spec.suspend, ended)
        status = status.model_copy(update={"conditions": conditions(picture, self.now)})
        delete_self = self._is_expired(status)
        return Decision(
            status=status,
            start=tuple(self.starts),
            delete=tuple(dict.fromkeys(self.deletions)),
            expire=expired(before),
            delete_self=delete_self,
            events=transitions(before.job.status, status),
            requeue_after=self._requeue_after(),
        )

    def _is_expired(self, status: DistillationJobStatus) -> bool:
        ttl = self.job.spec.ttl_seconds_after_finished
        if ttl is None or not status.finished_at:
            return False
        due = parse_time(status.finished_at) + timedelta(seconds=ttl)
        if due > self.now:
            self.wakeups.append(due)
        return due <= self.now

    def _requeue_after(self) -> float | None:
        return max(0.5, (min(self.wakeups) - self.now).total_seconds()) if self.wakeups else None

    # looking things up

    def _with_variants(self, update: dict[str, object]) -> DistillationJobStatus:
        folder = configs.artifacts_folder(self.job, self.installation)
        return with_variants(self.status.model_copy(update=update), self.job.spec, folder)

    def _delete(self, view: AttemptView) -> None:
        if not view.deleting:
            self.deletions.append(view.name)

    def _views_of(self, stage_id: str) -> list[AttemptView]:
        return [view for view in self.views if view.stage == stage_id]

    def _view(self, stage: StageStatus) -> AttemptView | None:
        return next((view for view in self._views_of(stage.id) if view.attempt == stage.attempt), None)
