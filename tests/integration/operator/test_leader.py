"""Two replicas, one leader."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.builders import a_job
from tests.cluster.api import Api, wait_until
from tests.cluster.controlplane import ControlPlane
from tests.integration.operator.jobs import condition, stages, wait_for, wait_for_stage
from tests.integration.operator.kubelet import WORKS, Kubelet
from tests.integration.operator.replica import Replica


@pytest.mark.long
def test_only_one_of_two_replicas_acts_and_the_other_takes_over(plane: ControlPlane, api: Api, namespace: str) -> None:
    lease = {"lease_name": f"pair-{namespace}"}
    first = Replica(plane.kubeconfig, (namespace,), settings=lease)
    with Kubelet(api, lambda stage, _: None if stage == "train" and not first.api.is_dead else WORKS), first:
        wait_until(lambda: first.operator.leads, "the first replica to lead")
        with Replica(plane.kubeconfig, (namespace,), settings=lease) as second:
            api.create(a_job().named("bot", namespace).manifest())
            wait_for_stage(api, namespace, "bot", "train", "Running")
            assert not second.operator.leads
            assert second.writes == []

            first.kill()
            wait_for(api, namespace, "bot", "Succeeded", "True")
            assert created(first) & created(second) == set(), "both made the same Job"
        lease_spec = api.get("Lease", lease["lease_name"], "default")["spec"]
    assert lease_spec["leaseTransitions"] == 2
    assert lease_spec["holderIdentity"] == "", "the second replica gave the lease back"


def test_a_leader_that_stops_hands_over_at_once(plane: ControlPlane, api: Api, namespace: str) -> None:
    name = f"handover-{namespace}"
    lease = {"lease_name": name, "lease_seconds": 600.0}
    with Replica(plane.kubeconfig, (namespace,), settings=lease) as first:
        wait_until(lambda: first.operator.leads, "the first replica to lead")
        first.stop()
        assert api.get("Lease", name, "default")["spec"]["holderIdentity"] == ""
        with Replica(plane.kubeconfig, (namespace,), settings=lease) as second:
            wait_until(lambda: second.operator.leads, "the second replica to lead", patience_seconds=30)


def test_a_leader_whose_lease_is_taken_stops_acting(plane: ControlPlane, api: Api, namespace: str) -> None:
    lease = f"robbed-{namespace}"
    with Replica(plane.kubeconfig, (namespace,), settings={"lease_name": lease}) as replica:
        wait_until(lambda: replica.operator.leads, "the replica to lead")
        api.patch("Lease", lease, "default", {"spec": {"holderIdentity": "somebody@else"}})
        error = wait_until(lambda: replica.error, "the replica to stop")
        replica.error = None
    assert "somebody@else took the lease over" in str(error)
    assert api.get("Lease", lease, "default")["spec"]["holderIdentity"] == "somebody@else"


def test_a_process_told_to_stop_ends_well_and_a_killed_one_is_followed(
    plane: ControlPlane, api: Api, namespace: str, tmp_path: Path
) -> None:
    lease = f"process-{namespace}"
    with Kubelet(api, lambda stage, _: None if stage == "train" else WORKS):
        with operator_process(plane, namespace, lease, tmp_path / "killed.log") as killed:
            api.create(a_job().named("bot", namespace).manifest())
            wait_for_stage(api, namespace, "bot", "train", "Running")
            killed.send_signal(signal.SIGKILL)
        with operator_process(plane, namespace, lease, tmp_path / "stopped.log") as follower:
            api.patch("DistillationJob", "bot", namespace, {"spec": {"suspend": True}})
            job = wait_for(api, namespace, "bot", "Reconciling", "False", "Suspended")
            follower.send_signal(signal.SIGTERM)
            assert follower.wait(30) == 0, (tmp_path / "stopped.log").read_text()
    assert condition(job, "Succeeded") == ("Unknown", "Suspended")
    assert stages(job)["train"]["state"] == "Pending"
    assert api.get("Lease", lease, "default")["spec"]["holderIdentity"] == ""


def created(replica: Replica) -> set[str]:
    return {write.body["metadata"]["name"] for write in replica.writes if write.path.endswith("/jobs")}


@contextmanager
def operator_process(plane: ControlPlane, namespace: str, lease: str, log: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """The operator as its pod runs it."""
    settings = {
        "DRAM_KUBECONFIG": str(plane.kubeconfig),
        "DRAM_NAMESPACES": namespace,
        "DRAM_LEASE_NAMESPACE": "default",
        "DRAM_LEASE_NAME": lease,
        "DRAM_LEASE_SECONDS": "4",
        "DRAM_METRICS_PORT": "0",
        "DRAM_IMAGE": "worker:1",
    }
    program = "import sys; from dram_operator.app import main; sys.exit(main())"
    command = [sys.executable, "-c", program]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=os.environ | settings, stdout=output, stderr=output)
    with process:
        try:
            yield process
        finally:
            process.kill()
