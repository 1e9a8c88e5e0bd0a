"""EdgeRollouts while the world fails: metrics server and bucket away, operators killed, others in power."""

from collections.abc import Iterator

import pytest

from tests.cluster.api import Api, wait_until
from tests.cluster.controlplane import ControlPlane
from tests.cluster.s3 import S3Server
from tests.integration.operator.fleet import Fault
from tests.integration.operator.rollouts import (
    DEVICES,
    Site,
    a_site,
    condition,
    is_completed,
    is_rolled_back,
    step,
)

pytestmark = pytest.mark.long

LATENCY = {"name": "latency", "preset": "LatencyP95", "max": "300m"}


@pytest.fixture(scope="module")
def bucket() -> Iterator[S3Server]:
    """A server of our own: it is stopped."""
    with S3Server() as server:
        yield server


@pytest.fixture(scope="module")
def site(plane: ControlPlane, bucket: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with a_site(plane, bucket, tmp_path_factory.mktemp("site")) as site:
        yield site


def errors(obj: dict[str, dict[str, list[dict[str, int]]]]) -> int:
    return max((one.get("errors", 0) for one in obj.get("status", {}).get("analysis", ())), default=0)


def test_a_metrics_server_that_was_away_changes_nothing(site: Site, api: Api, namespace: str) -> None:
    channel = site.channel(namespace, "blind")
    with site.replica(namespace):
        api.create(site.rollout(namespace, "blind", step("50%", 20), step("100%", 0)).with_metric(**LATENCY).manifest())
        # Before they have run it for long: afterwards all of them seem to have fallen silent with it.
        wait_until(lambda: channel.running(site.new), "a device to run it", explain=lambda: site.tell(namespace))
        site.prometheus.stop()
        try:
            blind = site.wait(namespace, "blind", "to count errors", lambda o: errors(o) >= 3)
        finally:
            site.prometheus.start()
        assert blind["status"]["step"]["index"] == 0
        assert "rollback" not in blind["status"]
        obj = site.wait(namespace, "blind", "to complete", is_completed)
    assert "rollback" not in obj["status"]
    wait_until(lambda: all(device.moves == [site.new] for device in channel.devices), "every device to have moved once")


def test_a_rollback_waits_for_the_bucket_and_says_so(site: Site, api: Api, namespace: str, bucket: S3Server) -> None:
    channel = site.channel(namespace, "stuck", **{f"r{site.new}": Fault(seconds=0.9)})
    with site.replica(namespace):
        api.create(site.rollout(namespace, "stuck", step("50%", 3600), step("100%")).with_metric(**LATENCY).manifest())
        wait_until(lambda: channel.running(site.new), "a device to run it", explain=lambda: site.tell(namespace))
        bucket.stop()
        try:
            obj = site.wait(
                namespace, "stuck", "to be blocked", lambda o: condition(o, "RollbackBlocked").startswith("True")
            )
            assert condition(obj, "Published") == "False RepositoryUnavailable"
        finally:
            bucket.start()
        site.wait(namespace, "stuck", "to be rolled back", is_rolled_back)
        wait_until(lambda: channel.running(site.old) == DEVICES, "every device to run the old release")
        obj = site.wait(namespace, "stuck", "to be free", lambda o: condition(o, "RollbackBlocked").startswith("False"))


def test_a_new_object_decides_nothing_while_nobody_knows_what_is_signed(
    site: Site, api: Api, namespace: str, bucket: S3Server
) -> None:
    site.channel(namespace, "early")
    with site.replica(namespace):
        bucket.stop()
        try:
            api.create(site.rollout(namespace, "early", step("100%", 0)).manifest())
            obj = site.wait(namespace, "early", "to wait", lambda o: condition(o, "Ready"))
        finally:
            bucket.start()
        assert condition(obj, "Ready") == "False RepositoryUnavailable"
        assert obj["status"].get("attempt", 0) == 0
        obj = site.wait(namespace, "early", "to complete", is_completed)
    assert obj["status"]["attempt"] == 2, "the signed attempt was taken over"


def test_the_follower_goes_on_where_the_killed_leader_stopped(site: Site, api: Api, namespace: str) -> None:
    lease = f"pair-{namespace}"
    channel = site.channel(namespace, "handed")
    with site.replica(namespace, lease_name=lease) as first:
        wait_until(lambda: first.operator.leads, "the first replica to lead")
        with site.replica(namespace, lease_name=lease) as second:
            api.create(site.rollout(namespace, "handed", step("50%", 0), step("100%", 0)).manifest())
            site.wait(namespace, "handed", "to begin", lambda o: "step" in o.get("status", {}))
            assert second.writes == []
            first.kill()
            obj = site.wait(namespace, "handed", "to complete", is_completed)
    assert obj["status"]["attempt"] == 2
    assert all(device.moves == [site.new] for device in channel.devices)
