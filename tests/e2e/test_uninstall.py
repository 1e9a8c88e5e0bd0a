"""The chart is uninstalled, and installed again: jobs, rollouts and devices go on as if nothing had happened."""

from tests.bench.__main__ import RESULTS
from tests.bench.results import timed
from tests.cluster.api import Api, Object, wait_until
from tests.e2e.bench import Bench
from tests.e2e.fleet import SIZE
from tests.e2e.installation import Installation


def test_uninstalling_leaves_objects_and_devices_alone_and_another_installation_takes_them_over(
    bench: Bench, installation: Installation
) -> None:
    api, story = installation.api, bench.story
    before, restarts, served = left(api, story.namespace), story.fleet.restarts(), answered(bench)
    runs = story.running()

    with timed("story.helm_uninstall_seconds", "until the operator's pods are gone", RESULTS):
        installation.uninstall()

    assert left(api, story.namespace) == before
    more = 20 * SIZE
    wait_until(lambda: answered(bench) >= served + more, "answers of the devices themselves", explain=story.explain)
    assert story.running() == runs
    assert len(runs) == SIZE
    assert story.fleet.restarts() == restarts

    installation.install()

    wait_until(installation.leader, "a leader", explain=installation.explain)
    assert left(api, story.namespace) == before


def left(api: Api, namespace: str) -> dict[str, Object]:
    """Every job and rollout of a namespace with what was decided, by uid; those of other tests go with their namespaces meanwhile."""
    objects = [obj for kind in ("DistillationJob", "EdgeRollout") for obj in api.list(kind, namespace)]
    assert {obj["kind"] for obj in objects} == {"DistillationJob", "EdgeRollout"}
    assert not [obj for obj in objects if "deletionTimestamp" in obj["metadata"]]
    return {
        obj["metadata"]["uid"]: {
            name: obj["status"].get(name) for name in ("conditions", "stages", "history", "stable")
        }
        for obj in objects
    }


def answered(bench: Bench) -> float:
    """Requests that the devices of the bench answered by their own model, as far as Prometheus knows."""
    channel = f'channel="{bench.story.channel}"'
    query = f'sum(dram_device_requests_total{{{channel},outcome="ok",served_by="device"}})'
    ((_, count),) = bench.story.query(query)
    return count
