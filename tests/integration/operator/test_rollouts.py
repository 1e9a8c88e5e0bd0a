"""EdgeRollouts by the real operator: a real API server, a real bucket, a real Prometheus, and devices that obey what is signed."""

from collections.abc import Iterator

import pytest

from tests.cluster.api import Api, wait_until
from tests.integration.operator.conftest import NewNamespace
from tests.integration.operator.fleet import Fault
from tests.integration.operator.replica import Replica
from tests.integration.operator.rollouts import DEVICES, Site, condition, is_completed, is_rolled_back

pytestmark = pytest.mark.long

FORWARD = [
    "Adopted",
    "Resolved",
    "StepStarted",
    "Baking",
    "StepPassed",
    "StepStarted",
    "Baking",
    "StepPassed",
    "Completed",
]


BREACHES = {
    "slow": ({"name": "latency", "preset": "LatencyP95", "max": "300m"}, Fault(seconds=0.9), "MetricBreached"),
    "failing": ({"name": "errors", "preset": "ErrorRatio", "max": "0.02"}, Fault(errors=0.3), "MetricBreached"),
    "silly": ({"name": "golden", "preset": "GoldenPassRatio", "min": "0.9"}, Fault(golden=0.5), "MetricBreached"),
    "refused": ({"name": "latency", "preset": "LatencyP95", "max": "300m"}, Fault(refused=True), "DevicesFailed"),
}


@pytest.fixture(scope="module")
def ended(site: Site, new_namespace: NewNamespace) -> Iterator[tuple[str, Replica]]:
    """One good rollout and one for each way to be bad, side by side, run to their ends."""
    namespace = new_namespace()
    site.channel(namespace, "good")
    for name, (_, fault, _) in BREACHES.items():
        site.channel(namespace, name, **{f"r{site.new}": fault})
    with site.replica(namespace) as replica:
        good = site.rollout(namespace, "good").with_metric()
        rollouts = [
            good,
            *(site.rollout(namespace, name).with_metric(**metric) for name, (metric, *_) in BREACHES.items()),
        ]
        for rollout in rollouts:
            site.api.create(rollout.manifest())
        site.wait(namespace, "good", "to complete", is_completed)
        for name in BREACHES:
            site.wait(namespace, name, "to be rolled back", is_rolled_back)
        yield namespace, replica


def test_a_good_release_goes_through_its_steps_and_becomes_stable(site: Site, ended: tuple[str, Replica]) -> None:
    namespace, _ = ended
    channel = site.fleet.channels[f"{namespace}/good"]
    assert channel.running(site.new) == DEVICES
    offered = [sum(device.moves == [site.new] for device in channel.devices)]
    assert offered == [DEVICES], "no device was ever sent back"
    wait_until(lambda: len(site.reasons(namespace, "good")) >= len(FORWARD), "the Events")
    assert sorted(site.reasons(namespace, "good")) == sorted(FORWARD)


@pytest.mark.parametrize("name", BREACHES)
def test_a_bad_release_is_rolled_back(site: Site, ended: tuple[str, Replica], name: str) -> None:
    namespace, _ = ended
    obj = site.get(namespace, name)
    channel = site.fleet.channels[f"{namespace}/{name}"]
    wait_until(lambda: channel.running(site.old) == DEVICES, "every device to run the old release")
    assert obj["status"]["rollback"]["reason"] == BREACHES[name][2]
    assert [one["digest"] for one in obj["status"]["quarantined"]] == [site.new]
    assert channel.document is not None
    assert channel.document.denied == (site.new,)
    assert channel.document.candidate is None
    assert (
        condition(
            site.wait(namespace, name, "to stall", lambda o: condition(o, "Stalled").startswith("True")), "Stalled"
        )
        == "True Quarantined"
    )


def test_status_is_written_once_a_transition_or_look(ended: tuple[str, Replica]) -> None:
    _, replica = ended
    bodies = [(write.path, str(write.body["status"])) for write in replica.writes if write.is_status]
    assert len(set(bodies)) == len(bodies), "the same was written twice"


def test_metrics_tell_the_story_and_go_with_the_object(site: Site, ended: tuple[str, Replica], api: Api) -> None:
    namespace, replica = ended
    text = scrape(replica)
    labels = f'name="good",namespace="{namespace}"'
    assert f'dram_rollout_info{{candidate="",channel="{namespace}/good",{labels},stable="{site.new}"}} 1.0' in text
    assert f"dram_rollout_step{{{labels}}} 0.0" in text
    assert f'dram_rollout_metric_threshold{{bound="max",metric="latency",{labels}}} 0.3' in text
    assert 'dram_rollout_transitions_total{from="Baking"' in text
    assert 'dram_releases_half_life_timestamp_seconds{role="timestamp"}' in text
    api.delete("EdgeRollout", "good", namespace)
    wait_until(lambda: api.find("EdgeRollout", "good", namespace) is None, "the object to go")
    wait_until(lambda: labels not in scrape(replica), "its series to go")


def scrape(replica: Replica) -> str:
    from prometheus_client import generate_latest

    return generate_latest(replica.operator.metrics.registry).decode()
