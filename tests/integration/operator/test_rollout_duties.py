"""What the operator owes an EdgeRollout besides moving it: farewell, memory, the switch, signatures in time, and plain words."""

import json
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from dram_operator.core.rollout import decide
from dram_operator.core.rollout.recording import AGES, COUNTS, KNOWN, SOAKS
from dram_operator.runtime.rollouts.floor import ANNOTATION
from dram_operator.runtime.rollouts.publish import FINALIZER
from tests.cluster.api import Api, wait_until
from tests.cluster.controlplane import ControlPlane
from tests.cluster.remote_write import write
from tests.cluster.s3 import S3Server
from tests.integration.operator.replica import Replica
from tests.integration.operator.rollouts import DEVICES, Site, a_site, condition, is_completed, step

pytestmark = pytest.mark.long


def is_offered(site: Site, namespace: str, name: str) -> bool:
    document = site.fleet.channels[f"{namespace}/{name}"].document
    return document is not None and document.candidate is not None


def message(obj: dict[str, object], kind: str) -> str:
    status: dict[str, list[dict[str, str]]] = obj.get("status", {})  # type: ignore[assignment]
    return next((one["message"] for one in status.get("conditions", ()) if one["type"] == kind), "")


def test_a_deleted_rollout_sends_its_devices_back_before_it_goes(site: Site, api: Api, namespace: str) -> None:
    channel = site.channel(namespace, "leaving")
    with site.replica(namespace):
        api.create(site.rollout(namespace, "leaving", step("50%", 3600), step("100%")).manifest())
        site.wait(namespace, "leaving", "to offer", lambda _: channel.running(site.new) == DEVICES // 2)
        assert site.get(namespace, "leaving")["metadata"]["finalizers"] == [FINALIZER]
        api.delete("EdgeRollout", "leaving", namespace)
        wait_until(lambda: api.find("EdgeRollout", "leaving", namespace) is None, "the object to go")
        wait_until(lambda: channel.running(site.old) == DEVICES, "every device to run the old release")
        wait_until(lambda: "Deleting" in site.reasons(namespace, "leaving"), "the Event")
    assert channel.document is not None
    assert channel.document.candidate is None


def test_a_restored_rollout_that_is_deleted_at_once_sends_its_devices_back_too(
    site: Site, api: Api, namespace: str
) -> None:
    channel = site.channel(namespace, "brief")
    with site.replica(namespace):
        api.create(site.rollout(namespace, "brief", step("50%", 3600), step("100%")).manifest())
        site.wait(namespace, "brief", "to offer", lambda _: channel.running(site.new) == DEVICES // 2)
    api.patch("EdgeRollout", "brief", namespace, {"status": None}, subresource="status")
    api.delete("EdgeRollout", "brief", namespace)
    with site.replica(namespace):
        wait_until(lambda: api.find("EdgeRollout", "brief", namespace) is None, "the object to go")
        wait_until(lambda: channel.running(site.old) == DEVICES, "every device to run the old release")


def test_a_farewell_that_cannot_be_signed_is_given_up(
    site: Site, api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decide, "FAREWELL_SECONDS", 2)
    channel = site.channel(namespace, "mute")
    with site.replica(namespace):
        api.create(site.rollout(namespace, "mute", step("50%", 3600), step("100%")).manifest())
        wait_until(lambda: is_offered(site, namespace, "mute"), "the offer", explain=lambda: site.tell(namespace))
    # Another key's operator may not sign: it is the repository that refuses, whoever is in power.
    wrong = site.installation.folder.path / "targets.pem"
    with site.replica(namespace, releases_operator_key=wrong):
        api.delete("EdgeRollout", "mute", namespace)
        wait_until(lambda: api.find("EdgeRollout", "mute", namespace) is None, "the object to go")
        wait_until(lambda: "DeletionGaveUp" in site.reasons(namespace, "mute"), "the Event")
    assert channel.document is not None
    assert channel.document.candidate is not None, "nobody could sign"


def test_a_lost_status_is_taken_over_from_the_signed_document(site: Site, api: Api, namespace: str) -> None:
    channel = site.channel(namespace, "restored")
    with site.replica(namespace):
        api.create(site.rollout(namespace, "restored", step("100%", 0)).manifest())
        site.wait(namespace, "restored", "to complete", is_completed)
        wait_until(lambda: not is_offered(site, namespace, "restored"), "the last document")
        before = channel.document
        api.patch("EdgeRollout", "restored", namespace, {"metadata": {"finalizers": []}})
        api.patch("EdgeRollout", "restored", namespace, {"status": None}, subresource="status")
        obj = site.wait(
            namespace,
            "restored",
            "to be taken over, its finalizer put back",
            lambda o: condition(o, "Ready") == "True Completed" and o["metadata"].get("finalizers"),
        )
    assert obj["status"]["stable"]["release"]["digest"] == site.new
    assert obj["status"]["attempt"] == 2
    assert obj["metadata"]["finalizers"] == [FINALIZER]
    assert site.reasons(namespace, "restored").count("Adopted") == 2
    assert channel.document == before


def test_the_switch_holds_every_channel_and_lets_it_go_again(
    site: Site, api: Api, namespace: str, tmp_path: Path
) -> None:
    switch = tmp_path / "frozen"
    channel = site.channel(namespace, "frozen")
    with site.replica(namespace, frozen=switch):
        # The bake leaves time to freeze the first step.
        api.create(site.rollout(namespace, "frozen", step("50%", 5), step("100%", 0)).manifest())
        site.wait(namespace, "frozen", "to begin", lambda o: "step" in o.get("status", {}))
        switch.write_text("true\n")
        wait_until(lambda: channel.document and channel.document.frozen, "the document to say so")
        site.wait(namespace, "frozen", "to stop", lambda o: condition(o, "Ready") == "False Frozen")
        assert channel.running(site.new) <= DEVICES // 2
        switch.write_text("false\n")
        site.wait(namespace, "frozen", "to complete", is_completed)
    assert channel.document is not None
    assert not channel.document.frozen


def test_without_a_repository_each_rollout_says_so(plane: ControlPlane, site: Site, api: Api, namespace: str) -> None:
    with Replica(plane.kubeconfig, (namespace,)):
        api.create(site.rollout(namespace, "alone").manifest())
        obj = site.wait(namespace, "alone", "to say so", lambda o: condition(o, "Published"))
    assert condition(obj, "Published") == "False RepositoryUnavailable"
    assert "DRAM_RELEASES_URI" in message(obj, "Published")
    assert "finalizers" not in obj["metadata"]


def test_an_unknown_metrics_server_is_named(site: Site, api: Api, namespace: str) -> None:
    site.channel(namespace, "lost")
    with site.replica(namespace):
        rollout = site.rollout(namespace, "lost").having("spec.analysis.prometheusRef", {"name": "fleet"})
        api.create(rollout.manifest())
        obj = site.wait(namespace, "lost", "to say so", lambda o: "'fleet', it has: default" in message(o, "Ready"))
    assert condition(obj, "Ready") == "False InventoryUnavailable"


def test_a_bucket_that_went_back_is_noticed(site: Site, api: Api, namespace: str) -> None:
    site.channel(namespace, "back")
    lease = f"floor-{namespace}"
    with site.replica(namespace, lease_name=lease):
        api.create(site.rollout(namespace, "back", step("100%", 3600)).manifest())
        wait_until(lambda: is_offered(site, namespace, "back"), "the offer", explain=lambda: site.tell(namespace))
        wait_until(lambda: ANNOTATION in annotations(api, lease), "the floor")
    seen = json.loads(annotations(api, lease)[ANNOTATION])
    assert seen["sequence"] <= site.repository.read().versions.sequence
    api.patch(
        "Lease", lease, "default", {"metadata": {"annotations": {ANNOTATION: json.dumps(seen | {"sequence": 10**6})}}}
    )
    with site.replica(namespace, lease_name=lease):
        obj = site.wait(namespace, "back", "to say so", lambda o: condition(o, "Published").startswith("False"))
    assert "dram keys recover --above 1000000" in message(obj, "Published")


def annotations(api: Api, lease: str) -> dict[str, str]:
    found: dict[str, str] = api.get("Lease", lease, "default")["metadata"].get("annotations", {})
    return found


def test_what_is_due_is_signed_again_without_any_rollout(
    plane: ControlPlane, s3_server: S3Server, tmp_path: Path, namespace: str
) -> None:
    class Earlier:
        def __call__(self) -> datetime:
            return datetime.now().astimezone() - timedelta(hours=5)

    with a_site(plane, s3_server, tmp_path, clock=Earlier()) as site:
        before = site.repository.read().timestamp
        with site.replica(namespace):
            wait_until(lambda: site.repository.read().timestamp.version > before.version, "a new timestamp")
        assert site.repository.read().timestamp.expires > before.expires


def test_the_largest_analysis_fits_into_status(site: Site, api: Api, namespace: str) -> None:
    """Ten queries as long as they may be, none of which finds anything."""
    site.channel(namespace, "wordy")
    rollout = site.rollout(namespace, "wordy", step("100%", 3600))
    for number in range(10):
        selectors = " + ".join(f'sum(absent_{number}{{a="{letter * 60}"}})' for letter in "abcdefghijklmnopqrstuvwxyz")
        rollout = rollout.with_metric(name=f"{number}-{'m' * 61}", query=selectors, max="1")
    with site.replica(namespace):
        api.create(rollout.manifest())
        obj = site.wait(
            namespace,
            "wordy",
            "to count its looks",
            lambda o: max((one["missing"] for one in o.get("status", {}).get("analysis", ())), default=0) >= 2,
        )
    assert len(obj["status"]["analysis"]) == 11
    assert len(json.dumps(obj["status"])) < 64 * 1024


def test_a_fleet_too_large_to_be_listed_says_what_to_do(site: Site, api: Api, namespace: str) -> None:
    site.fleet.add(f"{namespace}/crowd", site.repository, 400, site.old)
    short = {"name": "default", "url": site.prometheus.url, "largestAnswerBytes": 1 << 16}
    with site.replica(namespace, prometheus=[short]):
        api.create(site.rollout(namespace, "crowd").manifest())
        obj = site.wait(namespace, "crowd", "to say so", lambda o: condition(o, "Stalled") == "True FleetTooLarge")
    assert condition(obj, "Ready") == "False FleetTooLarge"
    assert "load Dram's recording rules where devices are scraped" in message(obj, "Ready")
    assert "candidate" not in obj["status"]


def test_a_fleet_that_was_counted_where_it_is_scraped_moves_on(site: Site, api: Api, namespace: str) -> None:
    """The operator's own process, over counts of twenty thousand devices of which it sees none."""
    own = {"channel": f"{namespace}/counts"}
    arm = {"attempt": "1", "arm": "treated", "release": site.new, "within": str(SOAKS[0])}
    points = [({"__name__": KNOWN, **own, "within": str(age)}, 20_000.0) for age in AGES]
    points += [({"__name__": COUNTS, **own, **arm, "state": state}, 9_990.0) for state in ("reporting", "healthy")]
    write(site.prometheus.url.removeprefix("http://"), time.time(), points)
    with site.replica(namespace):
        api.create(site.rollout(namespace, "counts").manifest())
        obj = site.wait(
            namespace,
            "counts",
            "to see its devices",
            lambda o: o.get("status", {}).get("step", {}).get("devices", {}).get("healthy") == 9_990,
        )
    told = obj["status"]["step"]
    assert (told["approximate"], told["devices"]["known"], told["devices"]["expected"]) == (True, 20_000, 10_000)
