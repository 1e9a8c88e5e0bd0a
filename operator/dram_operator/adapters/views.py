"""API objects as what `decide` is shown."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from dram_operator.adapters.resources import Object
from dram_operator.core.observed import AttemptView, PodView
from dram_operator.core.worker_pod import ATTEMPT_LABEL, CONTAINER, RUN_LABEL, STAGE_LABEL

INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"


def attempt_view(job: Object, pods: Iterable[Object], refusal: str | None = None) -> AttemptView:
    """One of our Jobs with its pods; `refusal` is what the API server said when the Job's pods were to be created."""
    metadata, spec, status = job["metadata"], job["spec"], job.get("status", {})
    conditions = true_conditions(status)
    complete, failed = conditions.get("Complete"), conditions.get("Failed")
    end = complete or failed
    return AttemptView(
        name=metadata["name"],
        stage=metadata["labels"][STAGE_LABEL],
        attempt=int(metadata["labels"][ATTEMPT_LABEL]),
        run=int(metadata["labels"][RUN_LABEL]),
        created_at=read_time(metadata["creationTimestamp"]),
        uid=metadata["uid"],
        succeeded=complete is not None,
        failed=failed is not None,
        suspended=bool(spec.get("suspend")),
        deleting="deletionTimestamp" in metadata,
        expiring=spec.get("ttlSecondsAfterFinished") is not None,
        finished_at=read_time(end["lastTransitionTime"]) if end else None,
        failure=_words(failed) if failed else None,
        pods=tuple(sorted((pod_view(pod) for pod in pods), key=lambda pod: (pod.index or 0, pod.name))),
        refusal=refusal,
    )


def pod_view(pod: Object) -> PodView:
    """One pod of a Job."""
    metadata, status = pod["metadata"], pod.get("status", {})
    container = _worker(status.get("containerStatuses", ()))
    state = container.get("state", {})
    terminated, waiting = state.get("terminated", {}), state.get("waiting", {})
    conditions = true_conditions(status)
    index = metadata.get("annotations", {}).get(INDEX_ANNOTATION)
    return PodView(
        name=metadata["name"],
        uid=metadata["uid"],
        index=int(index) if index is not None else None,
        phase=status.get("phase", "Pending"),
        scheduled="PodScheduled" in conditions or bool(pod["spec"].get("nodeName")),
        started="running" in state or "terminated" in state,
        exit_code=terminated.get("exitCode"),
        message=terminated.get("message"),
        waiting_reason=waiting.get("reason"),
        waiting_message=waiting.get("message"),
        reason=status.get("reason") or terminated.get("reason"),
        disrupted="DisruptionTarget" in conditions,
        unschedulable=_unschedulable(status),
        finished_at=read_time(terminated["finishedAt"]) if terminated.get("finishedAt") else None,
    )


def has_ended(pod: Object) -> bool:
    """Whether a pod tells how it ended: an exit code, or that it was disrupted."""
    view = pod_view(pod)
    return view.exit_code is not None or view.disrupted


def owner_uid(obj: Object) -> str | None:
    """UID of the object that controls this one."""
    owners = obj["metadata"].get("ownerReferences", ())
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), None)


def read_time(text: str) -> datetime:
    """A timestamp as the API server writes it, with its zone."""
    return datetime.fromisoformat(text)


def true_conditions(status: Mapping[str, list[Object]]) -> dict[str, Object]:
    """The conditions that hold, by type."""
    return {condition["type"]: condition for condition in status.get("conditions", ()) if condition["status"] == "True"}


def _worker(containers: Iterable[Object]) -> Object:
    known = {container["name"]: container for container in containers}
    return known.get(CONTAINER, {})


def _unschedulable(status: Mapping[str, list[Object]]) -> str | None:
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return str(condition.get("message", "no node fits"))
    return None


def _words(condition: Object) -> str:
    return ": ".join(part for part in (condition.get("reason"), condition.get("message")) if part)
