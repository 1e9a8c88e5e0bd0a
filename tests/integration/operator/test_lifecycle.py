"""A job's life on a real API server, with real Job, quota and garbage controllers."""

from itertools import pairwise

import pytest

import dram_workers.errors as worker_errors
from dram_workers.results import StageMessage
from tests.builders import a_job
from tests.cluster.api import Api, wait_until
from tests.cluster.controlplane import ControlPlane
from tests.integration.operator.jobs import condition, stages, wait_for, wait_for_stage
from tests.integration.operator.kubelet import WORKS, Ending, Kubelet
from tests.integration.operator.replica import Replica


def test_a_job_runs_to_succeeded_with_one_status_write_a_transition(
    plane: ControlPlane, api: Api, namespace: str
) -> None:
    with Replica(plane.kubeconfig, (namespace,)) as replica, Kubelet(api):
        api.create(a_job().named("bot", namespace).manifest())
        job = wait_for(api, namespace, "bot", "Succeeded", "True")

    statuses = [write for write in replica.writes if write.is_status]
    told = [[(s["id"], s["state"]) for s in write.answer["status"]["stages"]] for write in statuses]
    assert all(before != after for before, after in pairwise(told)), "a write without a transition"
    assert all(w.body["metadata"]["resourceVersion"] != w.answer["metadata"]["resourceVersion"] for w in statuses)
    assert condition(job, "Published") == ("True", "Completed")
    assert job["status"]["variants"][0]["uri"].startswith("s3://")


def test_a_restart_over_settled_jobs_writes_nothing(plane: ControlPlane, api: Api, namespace: str) -> None:
    with Kubelet(api), Replica(plane.kubeconfig, (namespace,)):
        api.create(a_job().named("done", namespace).manifest())
        wait_for(api, namespace, "done", "Succeeded", "True")
        wait_until(lambda: all_expire(api, namespace), "the finished Jobs to get a time to live")

    with Replica(plane.kubeconfig, (namespace,)) as replica:
        wait_until(lambda: reconciled(replica) >= 1, "the first reconcile")
    assert replica.writes == []


def test_a_restart_over_a_running_job_writes_nothing(plane: ControlPlane, api: Api, namespace: str) -> None:
    with Kubelet(api, lambda stage, _: None if stage == "train" else WORKS):
        with Replica(plane.kubeconfig, (namespace,)):
            api.create(a_job().named("busy", namespace).manifest())
            wait_for_stage(api, namespace, "busy", "train", "Running")
            wait_for_stage(api, namespace, "busy", "evaluate-teacher", "Succeeded")
            wait_until(lambda: all_expire(api, namespace), "the finished Jobs to get a time to live")
            wait_until(lambda: pod_phases(api, namespace, "train") == ["Running"], "the training pod to run")
        before = api.get("DistillationJob", "busy", namespace)

        with Replica(plane.kubeconfig, (namespace,)) as replica:
            wait_until(lambda: reconciled(replica) >= 1, "the first reconcile")
    assert replica.writes == []
    assert (
        api.get("DistillationJob", "busy", namespace)["metadata"]["resourceVersion"]
        == before["metadata"]["resourceVersion"]
    )


def test_a_transient_failure_is_tried_again_and_bad_input_is_not(plane: ControlPlane, api: Api, namespace: str) -> None:
    moody = StageMessage(reason=worker_errors.WorkerReason.STORAGE_UNAVAILABLE, message="no answer").model_dump_json()
    wrong = StageMessage(
        reason=worker_errors.WorkerReason.EMPTY_DATASET, field="spec.dataset.sources[0].uri", message="0 samples"
    ).model_dump_json()

    def script(stage: str, attempt: int) -> Ending:
        if stage == "resolve" and attempt == 1:
            return Ending(75, moody)
        return Ending(64, wrong) if stage == "data" else WORKS

    with Replica(plane.kubeconfig, (namespace,)), Kubelet(api, script) as kubelet:
        api.create(a_job().named("moody", namespace).manifest())
        job = wait_for(api, namespace, "moody", "Succeeded", "False")

    assert condition(job, "DataReady") == ("False", "EmptyDataset")
    assert stages(job)["resolve"]["attempt"] == 2
    assert [name for name in kubelet.started if "-data-" in name] == [kubelet.started[-1]] or stages(job)["data"][
        "attempt"
    ] == 1


def test_suspend_takes_the_pods_away_and_resume_goes_on(plane: ControlPlane, api: Api, namespace: str) -> None:
    held = {"train"}
    with Replica(plane.kubeconfig, (namespace,)), Kubelet(api, lambda stage, _: None if stage in held else WORKS):
        api.create(a_job().named("paused", namespace).manifest())
        wait_until(lambda: pod_phases(api, namespace, "train") == ["Running"], "the training pod to run")
        api.patch("DistillationJob", "paused", namespace, {"spec": {"suspend": True}})
        job = wait_for(api, namespace, "paused", "Reconciling", "False", "Suspended")
        assert pod_phases(api, namespace, "train") == []
        assert condition(job, "Succeeded") == ("Unknown", "Suspended")

        held.clear()
        api.patch("DistillationJob", "paused", namespace, {"spec": {"suspend": False}})
        job = wait_for(api, namespace, "paused", "Succeeded", "True")
    assert stages(job)["train"]["attempt"] == 2
    assert stages(job)["train"]["retries"] == 0


def test_a_suspended_job_goes_on_with_another_number_of_workers(plane: ControlPlane, api: Api, namespace: str) -> None:
    held = {"train"}
    with Replica(plane.kubeconfig, (namespace,)), Kubelet(api, lambda stage, _: None if stage in held else WORKS):
        api.create(a_job().named("resized", namespace).manifest())
        wait_until(lambda: pod_phases(api, namespace, "train") == ["Running"], "the training pod to run")
        before = api.get("DistillationJob", "resized", namespace)
        api.patch("DistillationJob", "resized", namespace, {"spec": {"suspend": True}})
        wait_for(api, namespace, "resized", "Reconciling", "False", "Suspended")

        resized = {"suspend": False, "training": {"workers": 2, "deepspeed": {"zeroStage": 2}}}
        api.patch("DistillationJob", "resized", namespace, {"spec": resized})
        wait_until(lambda: pod_phases(api, namespace, "train") == ["Running"] * 2, "both training pods to run")
        held.clear()
        job = wait_for(api, namespace, "resized", "Succeeded", "True")
    assert job["status"]["run"] == 1
    assert stages(job)["train"]["attempt"] == 2
    assert stages(job)["train"]["key"] == stages(before)["train"]["key"], "it goes on from the checkpoint"
    assert {stages(job)[name]["attempt"] for name in ("resolve", "data", "evaluate-teacher")} == {1}


@pytest.mark.long
def test_a_quota_on_pods_is_named_and_waited_for(plane: ControlPlane, api: Api, namespace: str) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few", "namespace": namespace}}
    api.create(quota | {"spec": {"hard": {"pods": "0"}}})
    wait_until(lambda: api.get("ResourceQuota", "few", namespace).get("status", {}).get("hard"), "the quota to count")
    with Replica(plane.kubeconfig, (namespace,)), Kubelet(api):
        api.create(a_job().named("crowded", namespace).manifest())
        job = wait_for(api, namespace, "crowded", "Succeeded", "Unknown", "QuotaExceeded")
        assert "exceeded quota: few" in stages(job)["resolve"]["message"]
        api.patch("ResourceQuota", "few", namespace, {"spec": {"hard": {"pods": "100"}}})
        wait_for(api, namespace, "crowded", "Succeeded", "True")


@pytest.mark.long
def test_a_quota_on_jobs_is_named_and_waited_for(plane: ControlPlane, api: Api, namespace: str) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none", "namespace": namespace}}
    api.create(quota | {"spec": {"hard": {"count/jobs.batch": "0"}}})
    wait_until(lambda: api.get("ResourceQuota", "none", namespace).get("status", {}).get("hard"), "the quota to count")
    with Replica(plane.kubeconfig, (namespace,)), Kubelet(api):
        api.create(a_job().named("refused", namespace).manifest())
        job = wait_for(api, namespace, "refused", "Succeeded", "Unknown", "QuotaExceeded")
        assert "exceeded quota: none" in stages(job)["resolve"]["message"]
        api.delete("ResourceQuota", "none", namespace)
        wait_for(api, namespace, "refused", "Succeeded", "True")


def test_deleting_a_job_leaves_nothing(plane: ControlPlane, api: Api, namespace: str) -> None:
    with Replica(plane.kubeconfig, (namespace,)), Kubelet(api, lambda stage, _: None if stage == "train" else WORKS):
        api.create(a_job().named("gone", namespace).manifest())
        wait_until(lambda: pod_phases(api, namespace, "train") == ["Running"], "the training pod to run")
        api.delete("DistillationJob", "gone", namespace)
        wait_until(
            lambda: leftovers(api, namespace) == [],
            "the children to go",
            explain=lambda: str(leftovers(api, namespace)),
        )


def test_a_job_deletes_itself_after_its_time_to_live(plane: ControlPlane, api: Api, namespace: str) -> None:
    with Replica(plane.kubeconfig, (namespace,)), Kubelet(api):
        api.create(a_job().named("brief", namespace).having("spec.ttlSecondsAfterFinished", 1).manifest())
        wait_until(lambda: api.find("DistillationJob", "brief", namespace) is None, "the job to go")
        wait_until(lambda: leftovers(api, namespace) == [], "the children to go")


def all_expire(api: Api, namespace: str) -> bool:
    finished = [job for job in api.list("Job", namespace) if job["status"].get("completionTime")]
    return bool(finished) and all("ttlSecondsAfterFinished" in job["spec"] for job in finished)


def reconciled(replica: Replica) -> float:
    value = replica.operator.metrics.registry.get_sample_value(
        "dram_operator_reconcile_seconds_count", {"kind": "DistillationJob"}
    )
    return value or 0.0


def pod_phases(api: Api, namespace: str, stage: str) -> list[str]:
    return [pod["status"]["phase"] for pod in api.list("Pod", namespace, labels=f"dram.dev/stage={stage}")]


def leftovers(api: Api, namespace: str) -> list[str]:
    kinds = ("DistillationJob", "Job", "Pod", "Service")
    return [f"{kind} {obj['metadata']['name']}" for kind in kinds for obj in api.list(kind, namespace)]
