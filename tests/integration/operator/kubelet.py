"""The kubelet's part of a cluster without nodes: pods end as the test says, with a worker's termination message."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from dram_operator.core.jobs import JOB_LABEL
from dram_operator.core.observed import Attempt
from dram_operator.core.worker_pod import CONFIG_ANNOTATION, CONTAINER, STAGE_LABEL
from dram_workers.results import StageMessage
from dram_workers.stages import STAGE_CONFIG
from tests.cluster.api import Api, ApiError, Object
from tests.cluster.rounds import Rounds
from tests.operator.core.world import result_of

AT_WORK = "status.phase!=Succeeded,status.phase!=Failed"


@dataclass(frozen=True)
class Ending:
    """How a pod's container ends."""

    exit_code: int = 0
    message: str | None = None
    reason: str | None = None
    disrupted: bool = False


Script = Callable[[str, int], Ending | None]
"""From stage and attempt to the ending; None leaves the pod running."""


def worked(pod: Object) -> Ending:
    """What a worker says that did its work: digests follow from the stage's key alone, as real ones do."""
    config = STAGE_CONFIG.validate_json(pod["metadata"]["annotations"][CONFIG_ANNOTATION])
    attempt = Attempt(pod["metadata"]["name"], config.stage, config.attempt, config.job.run, 1, config)
    message = StageMessage(reason="Completed", result=result_of(attempt))
    return Ending(message=message.model_dump_json(by_alias=True, exclude_none=True))


WORKS = Ending(message="worked")
"""The pod does its work well."""


@dataclass
class Kubelet(Rounds):
    """`with Kubelet(api):` ends every pod of ours; `script` says how, for the stages that should not simply work."""

    api: Api
    script: Script = lambda _stage, _attempt: WORKS
    started: list[str] = field(default_factory=list)
    """Pods in the order in which they ran."""
    _done: dict[str, str] = field(default_factory=dict)

    def look(self) -> bool:
        """Let every pod go on."""
        for pod in self.api.list("Pod", labels=JOB_LABEL, fields=AT_WORK):
            metadata = pod["metadata"]
            # Another test's pod may only look like one of ours: it has the labels, and no Job that made it.
            if "deletionTimestamp" not in metadata and "ownerReferences" in metadata:
                self._play(pod)
        return False

    def _play(self, pod: Object) -> None:
        uid, labels = pod["metadata"]["uid"], pod["metadata"]["labels"]
        phase = self._done.get(uid)
        if phase == "ended":
            return
        ending = self.script(labels[STAGE_LABEL], int(labels["dram.dev/attempt"]))
        if phase is None:
            self.started.append(pod["metadata"]["name"])
        if ending is None and phase is None:
            self._write(pod, running(pod))
            self._done[uid] = "running"
        elif ending is not None:
            self._write(pod, ended(pod, worked(pod) if ending is WORKS else ending))
            self._done[uid] = "ended"

    def _write(self, pod: Object, status: Object) -> None:
        metadata = pod["metadata"]
        try:
            self.api.patch("Pod", metadata["name"], metadata["namespace"], {"status": status}, subresource="status")
        except ApiError as error:
            if error.status != 404:
                raise


def running(pod: Object) -> Object:
    """Status of a pod at work."""
    return _status("Running", {"running": {"startedAt": _now()}}, [])


def ended(pod: Object, ending: Ending) -> Object:
    """Status of a pod that ended."""
    terminated = {"exitCode": ending.exit_code, "finishedAt": _now(), "startedAt": _now()}
    terminated["reason"] = ending.reason or ("Completed" if ending.exit_code == 0 else "Error")
    terminated |= {"message": ending.message} if ending.message else {}
    disrupted = [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]
    phase = "Succeeded" if ending.exit_code == 0 else "Failed"
    return _status(phase, {"terminated": terminated}, disrupted if ending.disrupted else [])


def _status(phase: str, state: Object, conditions: list[Object]) -> Object:
    container = {"name": CONTAINER, "image": "stub", "imageID": "", "ready": False, "restartCount": 0, "state": state}
    scheduled = {"type": "PodScheduled", "status": "True"}
    return {"phase": phase, "conditions": [scheduled, *conditions], "containerStatuses": [container]}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
