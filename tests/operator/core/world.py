"""A cluster in a few lines: it carries decisions out write by write, and stages end as the test says."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial

from dram_operator.api.distillation_job import DistillationJob
from dram_operator.api.status import DistillationJobStatus, StageStatus
from dram_operator.core.distillation import decide
from dram_operator.core.installation import Installation
from dram_operator.core.observed import Attempt, AttemptView, Decision, Observed, PodView, ProgressView
from dram_workers.preflight import DECISIVE
from dram_workers.results import Measure, Output, StageMessage, StageResult
from dram_workers.stages import StageKind
from tests.builders import AJob, a_job

START = datetime(2030, 1, 1, tzinfo=UTC)
INSTALLATION = Installation(image="dram-worker:1")

OUTPUTS: dict[StageKind, tuple[str, ...]] = {
    StageKind.RESOLVE: ("teacher", "tokenizer", "sources", "prompts", "student", "golden", "embedder"),
    StageKind.PREFLIGHT: ("bench",),
    StageKind.SYNTHESIZE: ("samples",),
    StageKind.DATA: ("dataset",),
    StageKind.TEACH: ("logits",),
    StageKind.TRAIN: ("student",),
    StageKind.EXPORT: ("artifact",),
    StageKind.EVALUATE: ("evaluation",),
    StageKind.BENCH: ("bench",),
    StageKind.PUBLISH: ("report",),
}
GOOD_SCORES = (
    Measure(name="goldenPassRate", value=0.97, low=0.9, high=1.0, n=40),
    Measure(name="goldenScore", value=0.91, low=0.9, high=0.93, n=40),
    Measure(name="klDivergence", value=0.002, low=0.001, high=0.003, n=2000),
)


def result_of(attempt: Attempt, measures: tuple[Measure, ...] = GOOD_SCORES, *, cached: bool = False) -> StageResult:
    """What a worker would tell: its digests depend on the key alone, as real ones do."""
    config = attempt.config
    outputs = {name: Output(digest=f"sha256:{config.key[:16]}-{name}") for name in OUTPUTS[config.kind]}
    if config.kind is StageKind.PUBLISH:
        outputs["report"] = Output(digest="sha256:report", uri="s3://models/dram/report.html")
        for variant in config.identity.variants:
            if variant.releasable:
                uri = f"s3://models/dram/artifacts/{variant.name}"
                outputs[f"artifact-{variant.name}"] = Output(digest=f"sha256:{variant.name}", uri=uri)
    told = measures if config.kind is StageKind.EVALUATE else ()
    if config.kind is StageKind.PREFLIGHT:
        told = tuple(measure for measure in measures if measure.name in DECISIVE)
    if config.kind is StageKind.EXPORT:
        told = (Measure(name="sizeMiB", value=100.0),)
    return StageResult(key=config.key, cached=cached, outputs=outputs, measures=told)


TWO = ("Q8_0", "Q4_K_M")
"""Two variants."""


def crashed(code: int = 1, **told: str) -> PodView:
    """A pod whose container failed, with what it told."""
    message = StageMessage(**told).model_dump_json() if told else None  # type: ignore[arg-type]
    return PodView("pod", phase="Failed", exit_code=code, message=message, started=True)


@dataclass
class World:
    """The API server and the workers, with a clock that only the test moves."""

    job: DistillationJob
    installation: Installation = INSTALLATION
    now: datetime = START
    views: dict[str, AttemptView] = field(default_factory=dict)
    attempts: dict[str, Attempt] = field(default_factory=dict)
    progress: ProgressView | None = None
    writes: int = 0
    gone: bool = False
    events: list[str] = field(default_factory=list)
    measures: Callable[[Attempt], tuple[Measure, ...]] = lambda _: GOOD_SCORES

    @property
    def status(self) -> DistillationJobStatus:
        return self.job.status

    def stage(self, stage_id: str) -> StageStatus:
        return next(stage for stage in self.status.stages if stage.id == stage_id)

    def condition(self, kind: str) -> tuple[str, str]:
        found = next(condition for condition in self.status.conditions if condition.type == kind)
        return found.status, found.reason

    def observe(self) -> Observed:
        return Observed(self.job, tuple(self.views.values()), self.progress)

    def decide(self) -> Decision:
        return decide(self.observe(), self.installation, self.now)

    def reconcile(self, writes_before_crash: int | None = None) -> Decision:
        """One pass; with a number, the process dies after that many writes."""
        decision = self.decide()
        for done, write in enumerate(self._writes(decision)):
            if writes_before_crash is not None and done >= writes_before_crash:
                return decision
            write()
        self.events += [f"{event.type} {event.reason} {event.message}" for event in decision.events]
        return decision

    def _writes(self, decision: Decision) -> list[Callable[[], None]]:
        writes: list[Callable[[], None]] = [partial(self._delete, name) for name in decision.delete]
        if decision.status != self.status:
            writes.append(partial(self._write_status, decision.status))
        writes += [partial(self._create, attempt) for attempt in decision.start]
        writes += [partial(self._expire, name) for name in decision.expire]
        if decision.delete_self:
            writes.append(self._vanish)
        return writes

    def _delete(self, name: str) -> None:
        self.writes += 1
        self.views[name] = replace(self.views[name], deleting=True)

    def _create(self, attempt: Attempt) -> None:
        self.writes += 1
        if attempt.name not in self.views:
            self.attempts[attempt.name] = attempt
            view = AttemptView(attempt.name, attempt.stage, attempt.attempt, attempt.run, created_at=self.now)
            pods = tuple(PodView(f"{attempt.name}-{i}", index=i) for i in range(attempt.workers))
            self.views[attempt.name] = replace(view, pods=pods)

    def _write_status(self, status: DistillationJobStatus) -> None:
        self.writes += 1
        self.job = self.job.model_copy(update={"status": status})

    def _expire(self, name: str) -> None:
        self.writes += 1
        self.views[name] = replace(self.views[name], expiring=True)

    def _vanish(self) -> None:
        self.gone = True

    # what the cluster and the workers do

    def live(self) -> list[AttemptView]:
        return [view for view in self.views.values() if not view.finished]

    def view_of(self, stage_id: str) -> AttemptView:
        views = [view for view in self.views.values() if view.stage == stage_id]
        return max(views, key=lambda view: view.attempt)

    def change(self, stage_id: str, **changes: object) -> None:
        view = self.view_of(stage_id)
        self.views[view.name] = replace(view, **changes)  # type: ignore[arg-type]

    def pods(self, stage_id: str, *pods: PodView) -> None:
        self.change(stage_id, pods=pods)

    def finish(self, stage_id: str, *, cached: bool = False, facts: dict[str, str] | None = None) -> None:
        """The stage's pods do their work well."""
        view = self.view_of(stage_id)
        attempt = self.attempts[view.name]
        result = result_of(attempt, self.measures(attempt), cached=cached).model_copy(update={"facts": facts or {}})
        message = StageMessage(reason="Completed", result=result)
        pod = PodView(f"{view.name}-0", phase="Succeeded", exit_code=0, message=message.model_dump_json(), started=True)
        self.views[view.name] = replace(view, succeeded=True, finished_at=self.now, pods=(pod,))

    def fail(self, stage_id: str, *pods: PodView) -> None:
        """The stage's Job fails, with its pods as given."""
        self.change(stage_id, failed=True, finished_at=self.now, pods=pods)

    def collect(self) -> None:
        """Foreground deletions end."""
        self.views = {name: view for name, view in self.views.items() if not view.deleting}

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def having(self, **spec: object) -> None:
        """The user edits the spec."""
        metadata = self.job.metadata.model_copy(update={"generation": self.job.metadata.generation + 1})
        self.job = self.job.model_copy(update={"spec": self.job.spec.model_copy(update=spec), "metadata": metadata})

    def run_to(self, stage_id: str) -> None:
        """Let all go well until this stage is at work."""
        self._run(until=stage_id)

    def run(self) -> None:
        """Let all go well until the end."""
        self._run(until=None)

    def _run(self, until: str | None) -> None:
        for _ in range(100):
            self.reconcile()
            working = [view for view in self.live() if not view.deleting]
            if self.status.finished_at or any(view.stage == until for view in working):
                return
            for view in working:
                self.finish(view.stage)
            self.wait(5)
        raise AssertionError(f"stuck at {[stage.state for stage in self.status.stages]}")


def a_world(job: AJob | None = None, installation: Installation = INSTALLATION) -> World:
    """A fresh job on this installation."""
    return World((job or a_job()).build(), installation)
