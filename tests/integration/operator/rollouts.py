"""What the tests of EdgeRollouts stand on: a release repository, a fleet, and what they ask of the API server."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dram_agent.document import Artifact, ChannelDocument, Release, Requirements
from dram_operator.adapters.releases.bucket import Bucket, BucketSettings
from dram_operator.adapters.releases.ceremony import Ceremony
from dram_operator.adapters.releases.keys import KeyFolder
from dram_operator.adapters.releases.repository import ReleaseRepository
from dram_operator.adapters.resources import Object as ApiObject
from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.api.rollout_reasons import RolloutReason
from dram_operator.api.rollout_status import ReleaseStatus
from dram_operator.core.rollout.observed import ArtifactView
from dram_operator.core.times import stamp
from dram_operator.runtime.rollouts.releases import Repository
from dram_operator.runtime.surroundings import Surroundings
from tests.builders import ARollout, a_rollout
from tests.cluster.api import Api, Object, wait_until
from tests.cluster.controlplane import ControlPlane
from tests.cluster.prometheus import PrometheusServer
from tests.cluster.s3 import S3Server
from tests.integration.operator.fleet import Fault, Fleet, FleetChannel
from tests.integration.operator.replica import Faults, Replica
from tests.operator.adapters.releases.installation import Clock, Installation

INTERVAL = 5
DEVICES = 6


class WallClock(Clock):
    """The real time: Prometheus knows no other."""

    def __call__(self) -> datetime:
        return datetime.now(UTC)


def release_of(digest: str) -> Release:
    """A release as devices are told of it."""
    artifact = Artifact(
        path=f"artifacts/{digest}/manifest.json",
        requires=Requirements(format="gguf", memory_bytes=1, agent_version="1"),
    )
    return Release(digest=digest, artifacts=(artifact,))


@dataclass
class SignedArtifacts:
    """Finds what was signed already."""

    repository: ReleaseRepository

    async def view(self, obj: ApiObject, rollout: EdgeRollout) -> ArtifactView:
        digest = rollout.spec.artifact.sha256 or ""
        if f"artifacts/{digest}/manifest.json" not in self.repository.read().roles["artifacts"].targets:
            why = "`dram release sign` goes on"
            return ArtifactView(reason=RolloutReason.AWAITING_SIGNATURE, message=why, look_again_seconds=INTERVAL)
        return ArtifactView(ReleaseStatus(name=digest[:12], release=release_of(digest), since=stamp(datetime.now(UTC))))


def signed_artifacts(around: Surroundings, repository: Repository) -> SignedArtifacts:
    return SignedArtifacts(repository.releases)


@dataclass
class Site:
    """An installation: API server, bucket, keys, metrics server and devices."""

    plane: ControlPlane
    s3: S3Server
    installation: Installation
    prometheus: PrometheusServer
    fleet: Fleet
    api: Api = field(init=False)

    def __post_init__(self) -> None:
        self.api = self.plane.api()
        self.old, self.new = (self.release(name) for name in (b"old", b"new"))
        self.repository = self.installation.repository()

    def release(self, content: bytes) -> str:
        """Upload and sign an artifact; returns its digest."""
        digest = self.installation.upload(model=content + uuid.uuid4().bytes)
        self.installation.signer().sign([digest])
        return digest

    def settings(self) -> dict[str, Any]:
        """What the operator's pod gets."""
        keys = self.installation.folder.path
        return {
            "releases_uri": self.installation.settings.uri,
            "releases_endpoint": self.s3.endpoint,
            "releases_aws_access_key_id": self.s3.owner.access_key,
            "releases_aws_secret_access_key": self.s3.owner.secret_key,
            "releases_root": keys / "roots" / "1.root.json",
            "releases_operator_key": keys / "operator.pem",
            "prometheus": [{"name": "default", "url": self.prometheus.url, "timeoutSeconds": 5}],
            "commands_vouched": True,
        }

    def replica(self, *namespaces: str, faults: Faults | None = None, **settings: Any) -> Replica:
        """An operator that serves these namespaces."""
        return Replica(
            self.plane.kubeconfig,
            namespaces,
            faults or Faults(),
            settings=self.settings() | settings,
            make_artifacts=signed_artifacts,
        )

    def channel(self, namespace: str, name: str, **faults: Fault) -> FleetChannel:
        """Devices that run the old release, which is stable by a document that is signed already."""
        document = ChannelDocument(
            channel=f"{namespace}/{name}",
            attempt=1,
            salt="00",
            stable=release_of(self.old),
            poll_seconds=300,
            active_poll_seconds=60,
            backoff_seconds=3600,
            candidate_lease_seconds=86_400,
        )
        self.installation.repository().publish({f"channels/{namespace}/{name}.json": document.encode()})
        return self.fleet.add(f"{namespace}/{name}", self.repository, DEVICES, self.old, **faults)

    def rollout(self, namespace: str, name: str, *steps: str | dict[str, Any]) -> ARollout:
        """A quick rollout of the new release."""
        given = steps or (step("50%"), step("100%"))
        return (
            a_rollout()
            .named(name)
            .having("metadata.namespace", namespace)
            .having("spec.artifact", {"uri": "s3://models/new", "sha256": self.new})
            .having("spec.analysis", {"intervalSeconds": INTERVAL})
            .having("spec.strategy.minDevices", 2)
            .stepping(*given)
        )

    def get(self, namespace: str, name: str) -> Object:
        """The object as the API server has it."""
        return self.api.get("EdgeRollout", name, namespace)

    def wait(self, namespace: str, name: str, what: str, look: Callable[[Object], Any]) -> Object:
        """Wait until the object is as it should; returns it."""

        def found() -> Object | None:
            obj = self.get(namespace, name)
            return obj if look(obj) else None

        return wait_until(
            found, f"{namespace}/{name} {what}", patience_seconds=400, explain=lambda: self.tell(namespace)
        )

    def tell(self, namespace: str) -> str:
        """A namespace in a few lines."""
        lines = []
        for obj in self.api.list("EdgeRollout", namespace):
            status = obj.get("status", {})
            shown = {name: status.get(name) for name in ("attempt", "step", "analysis", "rollback", "quarantined")}
            lines.append(f"{obj['metadata']['name']}: {shown}")
            lines += [str((c["type"], c["status"], c["reason"], c["message"])) for c in status.get("conditions", ())]
            lines.append(str(self.reasons(namespace, obj["metadata"]["name"])))
        return "\n".join(lines)

    def reasons(self, namespace: str, name: str) -> list[str]:
        """Reasons of the object's Events, a repeated one as often as it came."""
        events = [one for one in self.api.list("Event", namespace) if one["involvedObject"]["name"] == name]
        events.sort(key=lambda one: str(one["firstTimestamp"]))
        return [one["reason"] for one in events for _ in range(one["count"])]


def step(percent: str, bake: int = 5) -> dict[str, Any]:
    """A step of so many percent."""
    return {"cohort": {"percent": percent}, "bakeSeconds": bake}


@contextmanager
def a_site(
    plane: ControlPlane, s3: S3Server, folder: Path, clock: Callable[[], datetime] | None = None
) -> Iterator[Site]:
    """Begin an installation, with devices and a metrics server."""
    installation = begin(s3, folder, clock)
    with ExitStack() as stack:
        fleet = stack.enter_context(Fleet())
        prometheus = stack.enter_context(PrometheusServer(config=scraping(fleet.target), receives=True))
        yield Site(plane, s3, installation, prometheus, fleet)


def a_twin(site: Site, folder: Path) -> Site:
    """Another installation over the same servers, so that its operator is alone in its repository."""
    return Site(site.plane, site.s3, begin(site.s3, folder), site.prometheus, site.fleet)


def begin(s3: S3Server, folder: Path, clock: Callable[[], datetime] | None = None) -> Installation:
    """Make keys and an empty repository."""
    settings = BucketSettings(
        f"{s3.bucket('releases')}/{uuid.uuid4().hex}",
        s3.endpoint,
        access_key_id=s3.owner.access_key,
        secret_access_key=s3.owner.secret_key,
    )
    bucket, keys = Bucket(settings), KeyFolder(folder / "keys")
    installation = Installation(settings, keys, WallClock(), bucket=bucket)
    Ceremony(bucket, keys, clock or installation.clock).init(root_keys=1, threshold=1)
    return installation


def scraping(target: str) -> dict[str, Any]:
    """A configuration of Prometheus."""
    job = {"job_name": "devices", "honor_labels": True, "scrape_interval": "2s"}
    return {"scrape_configs": [job | {"static_configs": [{"targets": [target]}]}]}


def condition(obj: Object, kind: str) -> str:
    """`status reason` of a condition; empty before the first visit."""
    found = (one for one in obj.get("status", {}).get("conditions", ()) if one["type"] == kind)
    return next((f"{one['status']} {one['reason']}" for one in found), "")


def is_completed(obj: Object) -> bool:
    """The spec's artifact is stable and told to all."""
    stable = obj.get("status", {}).get("stable", {})
    return bool(condition(obj, "Ready") == "True Completed" and stable.get("source") == obj["spec"]["artifact"])


def is_rolled_back(obj: Object) -> bool:
    """The rollback is over."""
    return "completedAt" in obj.get("status", {}).get("rollback", {})
