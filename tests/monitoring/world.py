"""A busy installation, as its own metrics code shows it: two jobs, two rollouts, the operator, and devices. Every scrape finds a little more done."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from threading import Thread
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from dram_agent.errors import Cause
from dram_agent.gateway import metrics as gateway
from dram_agent.gateway.refusal import Reason
from dram_agent.gateway.stamp import Dropped
from dram_agent.standing import Arm, Standing
from dram_agent.telemetry import FallbackCause, Identity, Outcome, ServedBy, Telemetry
from dram_operator.adapters.releases.repository import Expiries
from dram_operator.adapters.resources import DISTILLATION_JOBS
from dram_operator.api.rollout_status import EdgeRolloutStatus
from dram_operator.core.rollout.observed import Decision
from dram_operator.runtime.board import ProgressBoard
from dram_operator.runtime.cache import Cache, Key
from dram_operator.runtime.metrics import JobCollector, Metrics
from dram_operator.runtime.rollouts.metrics import RolloutCollector, Transitions
from dram_workers.results import Progress
from tests.builders import a_rollout
from tests.http_server import HttpServer
from tests.operator.api.rollout_statuses import A_FULL_STATUS
from tests.operator.runtime.objects import a_job

NOW = datetime(2026, 1, 1, 1, tzinfo=UTC)
STABLE, CANDIDATE = "06" * 32, "07" * 32
STATUS: dict[str, Any] = {
    "conditions": [{"type": kind, "status": "Unknown", "reason": "Running"} for kind in ("Succeeded", "Stalled")],
    "progress": {"percent": 40},
    "stages": [{"id": "resolve", "startedAt": "2030-01-01T00:00:00Z", "finishedAt": "2030-01-01T00:00:07Z"}],
    "gates": [
        {"variant": "q8", "gate": "quality.maxKLDivergence", "verdict": "Pass"},
        {"variant": "q4", "gate": "quality.maxKLDivergence", "verdict": "Fail"},
    ],
    "variants": [{"name": "q8", "sizeBytes": 1000, "scores": {"goldenScore": 0.9, "tokensPerSecond": 20.0}}],
}
LIMITS = [{"name": "error-rate", "preset": "ErrorRatio", "max": "0.02"}]
assert A_FULL_STATUS.rollback
BAKING = A_FULL_STATUS.model_copy(update={"rollback": None})
GOING_BACK = A_FULL_STATUS.model_copy(
    update={"rollback": A_FULL_STATUS.rollback.model_copy(update={"completed_at": None})}
)


class Operator:
    """A replica that leads."""

    def __init__(self) -> None:
        cache, board, transitions = Cache(), ProgressBoard(lambda: NOW), Transitions()
        for number, name in enumerate(("bot", "other")):
            cache.apply(DISTILLATION_JOBS, a_job(name, f"job-{number}", **STATUS))
        self._board = board
        expiries = Expiries(
            {role: NOW + timedelta(days=36500) for role in ("root", "timestamp")},
            {role: NOW + timedelta(days=18250) for role in ("root", "timestamp")},
        )
        rollouts = [rollout("bot", BAKING), rollout("radio", GOING_BACK)]
        transitions.count(Key("tv", "bot", "EdgeRollout"), GOING_BACK, Decision(BAKING))
        transitions.count(Key("tv", "radio", "EdgeRollout"), BAKING, Decision(GOING_BACK))
        self.metrics = Metrics(
            {"DistillationJob": lambda: 3, "EdgeRollout": lambda: 0},
            JobCollector(cache.distillation_jobs, board),
            RolloutCollector(lambda: rollouts, transitions, lambda: expiries, lambda: NOW),
        )
        self.metrics.leader.set(1)
        self._scrapes = 0

    def work(self) -> CollectorRegistry:
        """One more of everything."""
        self._scrapes += 1
        told = {"loss": 2.0, "soft": 1.5, "tokens": 512.0 * self._scrapes}
        report = Progress(stage="train", attempt=1, step=self._scrapes, total_steps=10**6, metrics=told)
        self._board.post(Key("ns", "bot"), report)
        for kind in ("DistillationJob", "EdgeRollout"):
            self.metrics.reconcile_seconds.labels(kind).observe(0.02)
        self.metrics.count_write("patch", DISTILLATION_JOBS)
        return self.metrics.registry


def rollout(name: str, status: EdgeRolloutStatus) -> dict[str, Any]:
    made = a_rollout().named(name).having("metadata.namespace", "tv")
    manifest = made.having("spec.analysis", {"metrics": LIMITS}).manifest()
    return manifest | {"status": status.model_dump(mode="json", by_alias=True, exclude_none=True)}


class Device:
    """A device at work; those with odd numbers run the candidate."""

    def __init__(self, number: int) -> None:
        release, arm = (CANDIDATE, Arm.TREATED) if number % 2 else (STABLE, Arm.CONTROL)
        self.telemetry = Telemetry(Identity("tv/bot", f"{number:032x}", "tv", "1.2.3"))
        self.telemetry.use(release)
        gave_up = {STABLE: False, CANDIDATE: False}
        self.telemetry.show_standing(Standing(7, arm, gave_up, release, release_seconds=60))
        self.telemetry.show_golden(0.9)

    def work(self) -> CollectorRegistry:
        """One more of everything."""
        for served_by in ServedBy:
            self.telemetry.count_request(Outcome.OK, served_by, 0.3)
        self.telemetry.count_fallback(FallbackCause.OVERLOAD)
        self.telemetry.count_refusal(Cause.EXPIRED)
        self.telemetry.show_health(60, memory_bytes=200 << 20)
        return self.telemetry.registry


class Gateway:
    """A gateway at work."""

    def __init__(self) -> None:
        self.metrics = gateway.Metrics()

    def work(self) -> CollectorRegistry:
        """One more of everything."""
        self.metrics.count_accepted(0.02)
        self.metrics.count_refused(Reason.EXPIRED)
        self.metrics.count_dropped(Dropped.LABELS, 2)
        self.metrics.show(4, is_stale=False)
        return self.metrics.registry


@contextmanager
def served(targets: dict[str, Callable[[], CollectorRegistry]]) -> Iterator[str]:
    """`host:port` where each target's metrics stand under its path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = generate_latest(targets[self.path]())
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    with HttpServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
