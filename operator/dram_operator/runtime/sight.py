"""How attempts look: from the cache, plus what no watch tells, namely why the API server refuses their pods."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from dram_operator.adapters.kubernetes import Kubernetes
from dram_operator.adapters.resources import EVENTS, Object
from dram_operator.adapters.views import attempt_view, read_time, true_conditions
from dram_operator.api.distillation_job import DistillationJob
from dram_operator.core.observed import Attempt, AttemptView
from dram_operator.runtime.cache import Key, Snapshot

PODLESS_SECONDS = 10.0
"""A Job without its pods for this long is asked for its events; the Job controller usually needs well under one second."""
FAILED_CREATE = "involvedObject.kind=Job,reason=FailedCreate"
ASK_AGAIN_SECONDS = 15.0
"""How often to ask again, and to try again what was refused: quota is freed by other people's work."""


@dataclass(frozen=True)
class _Refusal:
    """The API server refused an attempt's Job itself."""

    attempt: Attempt
    message: str
    asked_at: datetime


@dataclass(frozen=True)
class _Told:
    """What the Job controller was told in one namespace, by the UID of the Job."""

    messages: dict[str, str]
    asked_at: datetime


class Sight:
    """Turns snapshots into attempts; remembers refusals until they are asked for again."""

    def __init__(self, api: Kubernetes, clock: Callable[[], datetime]) -> None:
        self._api = api
        self._clock = clock
        self._refusals: dict[Key, dict[str, _Refusal]] = {}
        self._told: dict[str, _Told] = {}
        self._asking = asyncio.Lock()

    async def attempts(
        self, key: Key, snapshot: Snapshot, job: DistillationJob
    ) -> tuple[tuple[AttemptView, ...], float | None]:
        """The job's attempts, and the seconds after which to look again."""
        views, waits = [], []
        for child in snapshot.jobs:
            view, wait = await self.attempt(child, snapshot.pods[child["metadata"]["uid"]])
            views.append(view)
            waits.append(wait)
        known = {view.name for view in views}
        for name, refused in self._refusals.get(key, {}).items():
            wait = self._left(refused.asked_at, ASK_AGAIN_SECONDS)
            if name not in known and wait > 0:
                views.append(_refused_view(refused, job))
                waits.append(wait)
        return tuple(views), min((wait for wait in waits if wait is not None), default=None)

    async def attempt(self, child: Object, pods: tuple[Object, ...]) -> tuple[AttemptView, float | None]:
        """One Job with its pods, and the seconds after which to look again."""
        namespace = child["metadata"]["namespace"]
        refusal, wait = await self._refusal(namespace, child) if _lacks_pods(child, pods) else (None, None)
        return attempt_view(child, pods, refusal), wait

    def refused(self, key: Key, attempt: Attempt, message: str) -> None:
        """The API server refused the attempt's Job itself."""
        self._refusals.setdefault(key, {})[attempt.name] = _Refusal(attempt, message, self._clock())

    def forget(self, key: Key, name: str | None = None) -> None:
        """An attempt, or the whole job, is gone or no longer refused."""
        if name is not None:
            self._refusals.get(key, {}).pop(name, None)
        if name is None or not self._refusals.get(key, True):
            self._refusals.pop(key, None)

    async def _refusal(self, namespace: str, child: Object) -> tuple[str | None, float]:
        """What the Job controller was told when it wanted to create pods, once it had time to try."""
        young = self._left(read_time(child["metadata"]["creationTimestamp"]), PODLESS_SECONDS)
        if young > 0:
            return None, young
        told = await self._ask(namespace)
        return told.messages.get(child["metadata"]["uid"]), max(1.0, self._left(told.asked_at, ASK_AGAIN_SECONDS))

    async def _ask(self, namespace: str) -> _Told:
        """One listing a namespace and quarter of a minute, whatever the number of Jobs that wait in it."""
        async with self._asking:
            told = self._told.get(namespace)
            if told is None or self._left(told.asked_at, ASK_AGAIN_SECONDS) <= 0:
                events, _ = await self._api.list(EVENTS, namespace, fields=FAILED_CREATE)
                latest = {event["involvedObject"].get("uid", ""): event for event in sorted(events, key=_last_seen)}
                messages = {uid: event.get("message", "") for uid, event in latest.items()}
                told = self._told[namespace] = _Told(messages, self._clock())
            return told

    def _left(self, since: datetime, seconds: float) -> float:
        return (since + timedelta(seconds=seconds) - self._clock()).total_seconds()


def _lacks_pods(child: Object, pods: tuple[Object, ...]) -> bool:
    """Whether a Job that should have pods has too few of them."""
    if true_conditions(child.get("status", {})).keys() & {"Complete", "Failed", "FailureTarget", "SuccessCriteriaMet"}:
        return False
    held_back = child["spec"].get("suspend") or "deletionTimestamp" in child["metadata"]
    return not held_back and len(pods) < child["spec"].get("parallelism", 1)


def _refused_view(refusal: _Refusal, job: DistillationJob) -> AttemptView:
    """An attempt whose Job does not exist: it waits since status says so, and so meets spec.pendingDeadlineSeconds."""
    attempt = refusal.attempt
    started = next((stage.started_at for stage in job.status.stages if stage.id == attempt.stage), None)
    return AttemptView(
        name=attempt.name,
        stage=attempt.stage,
        attempt=attempt.attempt,
        run=attempt.run,
        created_at=read_time(started) if started else refusal.asked_at,
        refusal=refusal.message,
    )


def _last_seen(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])
