"""Jobs and Pods as the API server writes them, as what `decide` is shown."""

from datetime import UTC, datetime
from typing import Any

import pytest

from dram_operator.adapters.views import attempt_view, pod_view
from tests.operator.runtime.objects import a_child

Object = dict[str, Any]
AT = "2030-01-01T00:00:05Z"


def a_pod(status: Object, *, index: int | None = None, node: str | None = None) -> Object:
    pod = a_child("bot-train-2-0-x", "p1", owner="u1", kind="Pod", **status)
    if index is not None:
        pod["metadata"]["annotations"] = {"batch.kubernetes.io/job-completion-index": str(index)}
    return pod | {"spec": {"nodeName": node} if node else {}}


def container(**state: Object) -> list[Object]:
    return [{"name": "sidecar", "state": {"running": {}}}, {"name": "worker", "state": state}]


def test_a_fresh_job_is_an_attempt_at_work() -> None:
    view = attempt_view(a_child("bot-train-2", "u1"), [])
    assert (view.name, view.stage, view.attempt, view.run) == ("bot-train-2", "train", 2, 1)
    assert view.created_at == datetime(2030, 1, 1, tzinfo=UTC)
    assert (view.finished, view.suspended, view.deleting, view.expiring) == (False,) * 4


@pytest.mark.parametrize(
    ("condition", "want_succeeded", "want_failed", "want_failure"),
    [
        ({"type": "Complete"}, True, False, None),
        ({"type": "SuccessCriteriaMet"}, False, False, None),
        ({"type": "FailureTarget"}, False, False, None),
        (
            {"type": "Failed", "reason": "BackoffLimitExceeded", "message": "a pod failed"},
            False,
            True,
            "BackoffLimitExceeded: a pod failed",
        ),
    ],
    ids=["complete", "about to be complete", "about to have failed", "failed"],
)
def test_a_job_ends_when_all_its_pods_have(
    condition: Object, want_succeeded: bool, want_failed: bool, want_failure: str | None
) -> None:
    job = a_child("bot-train-2", "u1", conditions=[condition | {"status": "True", "lastTransitionTime": AT}])
    view = attempt_view(job, [])
    assert (view.succeeded, view.failed, view.failure) == (want_succeeded, want_failed, want_failure)
    assert (view.finished_at is not None) == view.finished


def test_a_job_tells_whether_it_is_held_back_going_or_expiring() -> None:
    job = a_child("bot-train-2", "u1")
    job["spec"] = {"suspend": True, "ttlSecondsAfterFinished": 0}
    job["metadata"]["deletionTimestamp"] = AT
    view = attempt_view(job, [], "exceeded quota")
    assert (view.suspended, view.deleting, view.expiring, view.refusal) == (True, True, True, "exceeded quota")


def test_pods_come_in_the_order_of_their_ranks() -> None:
    pods = [a_pod({}, index=1), a_pod({}, index=0)]
    assert [pod.index for pod in attempt_view(a_child("bot-train-2", "u1"), pods).pods] == [0, 1]


POD_CASES: list[tuple[str, Object, Object]] = [
    ("nothing known", {}, {"phase": "Pending", "scheduled": False, "started": False}),
    (
        "no node",
        {
            "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
            ]
        },
        {"scheduled": False, "unschedulable": "0/1 nodes"},
    ),
    (
        "gated",
        {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]},
        {"scheduled": False, "unschedulable": None},
    ),
    (
        "pulling fails",
        {"containerStatuses": container(waiting={"reason": "ImagePullBackOff", "message": "no such image"})},
        {"waiting_reason": "ImagePullBackOff", "waiting_message": "no such image", "started": False},
    ),
    (
        "running",
        {"phase": "Running", "containerStatuses": container(running={"startedAt": AT})},
        {"phase": "Running", "started": True, "exit_code": None},
    ),
    (
        "out of memory",
        {"phase": "Failed", "containerStatuses": container(terminated={"exitCode": 137, "reason": "OOMKilled"})},
        {"exit_code": 137, "reason": "OOMKilled", "started": True, "disrupted": False},
    ),
    (
        "told why",
        {"containerStatuses": container(terminated={"exitCode": 64, "message": "{}", "finishedAt": AT})},
        {"exit_code": 64, "message": "{}", "finished_at": datetime(2030, 1, 1, 0, 0, 5, tzinfo=UTC)},
    ),
    (
        "evicted",
        {"phase": "Failed", "reason": "Evicted", "conditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"phase": "Failed", "reason": "Evicted", "disrupted": True, "exit_code": None},
    ),
]


@pytest.mark.parametrize(("status", "want"), [case[1:] for case in POD_CASES], ids=[case[0] for case in POD_CASES])
def test_a_pod_is_seen_by_its_worker_container(status: Object, want: Object) -> None:
    view = pod_view(a_pod(status))
    assert {name: getattr(view, name) for name in want} == want


def test_a_pod_with_a_node_is_scheduled() -> None:
    assert pod_view(a_pod({}, node="n1")).scheduled
