"""The one reconcile: what is seen → `decide` → deletions → status once, only if it differs → new children.

The status carries the resource version of what was decided on: when anybody changed the object since, the server answers
409, nothing is started, and the key is decided anew. It may be cut off anywhere: an attempt to delete goes before the
status that forgets it, and `decide` starts what status calls running but nobody has seen.
"""

import logging
from collections.abc import Callable
from datetime import datetime

from pydantic import ValidationError

from dram_operator.adapters.kubernetes import Kubernetes
from dram_operator.adapters.resources import BY_KIND, DISTILLATION_JOBS, JOBS, Object
from dram_operator.adapters.views import owner_uid
from dram_operator.api.distillation_job import DistillationJob
from dram_operator.api.status import DistillationJobStatus
from dram_operator.core.distillation import decide
from dram_operator.core.installation import Installation
from dram_operator.core.jobs import children
from dram_operator.core.observed import Attempt, Decision, JobEvent, Observed
from dram_operator.errors import NameTaken, NotFound, Refused
from dram_operator.runtime.board import ProgressBoard
from dram_operator.runtime.cache import Cache, Key
from dram_operator.runtime.events import Recorder
from dram_operator.runtime.sight import Sight
from dram_operator.runtime.status import status_patch

log = logging.getLogger(__name__)

EXPIRE_AFTER_SECONDS = 600
"""Time to live of a Job whose result is in status: long enough to read its pods' logs, short enough to free etcd."""


class Reconciler:
    """Reconciles DistillationJobs; one call a key at a time."""

    def __init__(
        self,
        api: Kubernetes,
        cache: Cache,
        board: ProgressBoard,
        recorder: Recorder,
        installation: Installation,
        clock: Callable[[], datetime],
    ) -> None:
        self._api = api
        self._cache = cache
        self._board = board
        self._recorder = recorder
        self._installation = installation
        self._clock = clock
        self._sight = Sight(api, clock)

    async def __call__(self, key: Key) -> float | None:
        """One pass; returns the seconds after which to look again although nothing changed."""
        snapshot = self._cache.snapshot(key)
        if snapshot is None:
            self._forget(key)
            return None
        try:
            job = DistillationJob.from_object(snapshot.job)
        except ValidationError as error:
            self._report_unreadable(snapshot.job, error)
            return None
        views, look_again = await self._sight.attempts(key, snapshot, job)
        decision = decide(Observed(job, views, self._board.view(key)), self._installation, self._clock())
        known = {child["metadata"]["name"]: child for child in snapshot.jobs}
        await self._delete(key, decision, known)
        wrote = await self._write_status(snapshot.job, job.status, decision.status)
        for attempt in decision.start:
            await self._start(key, snapshot.job, job.model_copy(update={"status": decision.status}), attempt)
        for name in decision.expire:
            await self._expire(known[name])
        if decision.delete_self:
            await self._delete_self(snapshot.job)
        for event in decision.events:
            self._recorder.record(snapshot.job, event)
        if wrote or decision.start:
            # What was done may itself ask for more, and no watch tells of an attempt that was refused.
            return 0.0
        return min((due for due in (decision.requeue_after, look_again) if due is not None), default=None)

    async def _write_status(self, obj: Object, old: DistillationJobStatus, new: DistillationJobStatus) -> bool:
        """Patch what differs; Conflict when the object changed since it was read."""
        if old == new:
            return False
        metadata = obj["metadata"]
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": status_patch(old, new)}
        written = await self._api.patch(DISTILLATION_JOBS, metadata["namespace"], metadata["name"], body, "status")
        self._cache.apply(DISTILLATION_JOBS, written)
        log.info("status written", extra=about(metadata, stage=new.stage, gate=new.gate))
        return True

    async def _delete(self, key: Key, decision: Decision, known: dict[str, Object]) -> None:
        for name in decision.delete:
            self._sight.forget(key, name)
            if name in known:
                await self._delete_attempt(known[name])

    async def _start(self, key: Key, obj: Object, job: DistillationJob, attempt: Attempt) -> None:
        """Create the attempt's objects; one that the API server refuses is shown to `decide` as refused."""
        try:
            for child in children(job, attempt, self._installation):
                await self._create(key.namespace, job.metadata.uid, child)
        except Refused as refusal:
            self._sight.refused(key, attempt, str(refusal))
            self._recorder.record(obj, JobEvent("Warning", "CreateRefused", f"{attempt.stage}: {refusal}"))
            return
        self._sight.forget(key, attempt.name)
        log.info(
            "attempt started",
            extra={"namespace": key.namespace, "job": key.name, "stage": attempt.stage, "attempt": attempt.attempt},
        )

    async def _create(self, namespace: str, owner: str, child: Object) -> None:
        """Create a child, or find that we did; NameTaken while another object has its name."""
        resource, name = BY_KIND[child["kind"]], child["metadata"]["name"]
        try:
            created = await self._api.create(resource, namespace, child)
        except NameTaken:
            watched = resource is JOBS
            found = (
                self._cache.find(JOBS, namespace, name) if watched else await self._api.get(resource, namespace, name)
            )
            if found is None or owner_uid(found) != owner:
                raise
            created = found
        if resource is JOBS:
            self._cache.apply(JOBS, created)

    async def _delete_attempt(self, attempt: Object) -> None:
        """Delete in the foreground: the Job stays visible until its pods have saved and stopped."""
        metadata = attempt["metadata"]
        try:
            answer = await self._api.delete(
                JOBS, metadata["namespace"], metadata["name"], uid=metadata["uid"], propagation="Foreground"
            )
        except NotFound:
            return
        if answer.get("kind") == "Job":
            self._cache.apply(JOBS, answer)

    async def _expire(self, attempt: Object) -> None:
        metadata = attempt["metadata"]
        body = {"metadata": {"uid": metadata["uid"]}, "spec": {"ttlSecondsAfterFinished": EXPIRE_AFTER_SECONDS}}
        try:
            self._cache.apply(JOBS, await self._api.patch(JOBS, metadata["namespace"], metadata["name"], body))
        except NotFound:
            return

    async def _delete_self(self, obj: Object) -> None:
        metadata = obj["metadata"]
        try:
            await self._api.delete(
                DISTILLATION_JOBS,
                metadata["namespace"],
                metadata["name"],
                uid=metadata["uid"],
                propagation="Background",
            )
        except NotFound:
            return

    def _forget(self, key: Key) -> None:
        self._board.forget(key)
        self._sight.forget(key)

    def _report_unreadable(self, obj: Object, error: ValidationError) -> None:
        """The schema let something pass that this operator does not know: most likely it is older than the CRD."""
        first = error.errors()[0]
        message = (
            f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}; operator and CRD do not fit together"
        )
        self._recorder.record(obj, JobEvent("Warning", "SpecInvalid", message))
        log.error("unreadable object: %s", message, extra=about(obj["metadata"]))


def about(metadata: Object, **more: object) -> dict[str, object]:
    """The fields by which log lines of one object are found."""
    return {"namespace": metadata["namespace"], "job": metadata["name"], **more}
