"""How attempts look: from the cache, plus what no watch tells, namely why the API server refuses their pods."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from dram_operator.adapters.kubernetes import Kubernetes
from dram_operator.adapters.resources import EVENTS, Object
from dram_operator.adapters.views import attempt_view, read_time, true_conditions
from dram_operator.api.distillation_job import DistillationJob
from dram_operator.core.observed import Attempt, AttemptView
from dram_operator.runtime.cache import Key, Snapshot

PODLESS_SECONDS = 5.0
"""A Job without its pods for this long is asked for its events; the Job controller usually needs well under one second."""
ASK_AGAIN_SECONDS = 15.0
"""How often to ask again, and to try again what was refused: quota is freed by other people's work."""


@dataclass(frozen=True)
class _Refusal:
    message: str | None
    asked_at: datetime
    attempt: Attempt | None = None
    """Set when the Job itself was refused."""


class Sight:
    """Turns snapshots into attempts; remembers refusals until they are asked for again."""

    def __init__(self, api: Kubernetes, clock: Callable[[], datetime]) -> None:
        self._api = api
        self._clock = clock
        self._refusals: dict[Key, dict[str, _Refusal]] = {}

    async def attempts(
        self, key: Key, snapshot: Snapshot, job: DistillationJob
    ) -> tuple[tuple[AttemptView, ...], float | None]:
        """The job's attempts, and the seconds after which to look again."""
        views, waits = [], []
        for child in snapshot.jobs:
            pods = snapshot.pods[child["metadata"]["uid"]]
            refusal, wait = await self._refusal(key, child) if _lacks_pods(child, pods) else (None, None)
            views.append(attempt_view(child, pods, refusal))
            waits.append(wait)
        known = {view.name for view in views}
        for name, refused in list(self._refusals.get(key, {}).items()):
            wait = self._left(refused.asked_at, ASK_AGAIN_SECONDS)
            if refused.attempt and name not in known and wait > 0:
                views.append(_refused_view(refused.attempt, refused, job))
                waits.append(wait)
        return tuple(views), min((wait for wait in waits if wait is not None), default=None)

    def refused(self, key: Key, attempt: Attempt, message: str) -> None:
        """The API server refused the attempt's Job itself."""
        self._refusals.setdefault(key, {})[attempt.name] = _Refusal(message, self._clock(), attempt)

    def forget(self, key: Key, name: str | None = None) -> None:
        """An attempt, or the whole job, is gone or no longer refused."""
        if name is not None:
            self._refusals.get(key, {}).pop(name, None)
        if name is None or not self._refusals.get(key, True):
            self._refusals.pop(key, None)

    async def _refusal(self, key: Key, child: Object) -> tuple[str | None, float]:
        """What the Job controller was told when it wanted to create pods, asked for now and then."""
        metadata = child["metadata"]
        young = self._left(read_time(metadata["creationTimestamp"]), PODLESS_SECONDS)
        if young > 0:
            return None, young
        known = self._refusals.get(key, {}).get(metadata["name"])
        if known and not known.attempt and (wait := self._left(known.asked_at, ASK_AGAIN_SECONDS)) > 0:
            return known.message, wait
        fields = f"involvedObject.uid={metadata['uid']},reason=FailedCreate"
        events, _ = await self._api.list(EVENTS, key.namespace, fields=fields)
        latest = max(events, key=_last_seen, default=None)
        message = latest.get("message") if latest else None
        self._refusals.setdefault(key, {})[metadata["name"]] = _Refusal(message, self._clock())
        return message, ASK_AGAIN_SECONDS

    def _left(self, since: datetime, seconds: float) -> float:
        return (since + timedelta(seconds=seconds) - self._clock()).total_seconds()


def _lacks_pods(child: Object, pods: tuple[Object, ...]) -> bool:
    """Whether a Job that should have pods has too few of them."""
    if true_conditions(child.get("status", {})).keys() & {"Complete", "Failed", "FailureTarget", "SuccessCriteriaMet"}:
        return False
    held_back = child["spec"].get("suspend") or "deletionTimestamp" in child["metadata"]
    return not held_back and len(pods) < child["spec"].get("parallelism", 1)


def _refused_view(attempt: Attempt, refusal: _Refusal, job: DistillationJob) -> AttemptView:
    """An attempt whose Job does not exist: it waits since status says so, and so meets spec.pendingDeadlineSeconds."""
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
