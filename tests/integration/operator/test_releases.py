"""From a finished job's variant to a target that a device downloads: real API server, real S3, real release pods."""

import asyncio
import base64
import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from securesystemslib.signer import Signer

from dram_agent.slots import Held, Slot
from dram_operator.adapters.kubernetes import Kubernetes
from dram_operator.adapters.releases.desk import ReleaseDesk
from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.api.rollout_reasons import RolloutReason
from dram_operator.api.rollout_status import ReleaseStatus
from dram_operator.cli import main as dram
from dram_operator.core.installation import Installation as Place
from dram_operator.core.rollout.observed import ArtifactView
from dram_operator.runtime.artifacts import Artifacts
from dram_workers.results import Output, StageMessage, StageResult
from tests.agent.box import Box, Fleet
from tests.agent.site import Site
from tests.builders import a_job, a_rollout
from tests.cluster.api import Api, Object, wait_until
from tests.cluster.controlplane import ControlPlane
from tests.cluster.s3 import S3Server
from tests.integration.operator.jobs import condition
from tests.integration.operator.kubelet import WORKS, Ending, Kubelet
from tests.integration.operator.release_pods import ReleasePods
from tests.integration.operator.replica import Replica
from tests.integration.operator.rollouts import DEVICES, a_site, is_completed
from tests.operator.adapters.releases.installation import Installation

VARIANT = "gguf-q4-k-m"
MODEL = b"GGUF" + bytes(range(256)) * 4096
PATIENCE_SECONDS = 120
LEASE_SECONDS = 120.0
"""A machine that runs much else may keep the operator waiting; that it loses its lease is another story."""
STORY = Counter(Resolved=1, StepStarted=2, Baking=2, StepPassed=2, Completed=1)


@dataclass
class Tenant:
    """A namespace with a job that has published a variant into the tenant's own bucket, and a rollout of it."""

    api: Api
    kubeconfig: Path
    namespace: str
    server: S3Server
    bucket: str
    releases: Installation
    folder: Path
    signs: bool = True
    key: Signer | None = None
    """The operator's release key, where it is not the present one."""
    jobs: dict[str, Object] = field(default_factory=dict)
    told: list[tuple[RolloutReason, str]] = field(default_factory=list)
    """What the views said, without repetitions."""

    def publish(self, job: str, model: bytes = MODEL, file: str = "model.gguf") -> str:
        """Put an artifact where the job's publish stage would, and say so in the job's status; returns its digest."""
        files = {file: ("model", model), "README.md": ("card", b"# card")}
        entries = [
            {"path": path, "sha256": hashlib.sha256(body).hexdigest(), "size": len(body), "role": role}
            for path, (role, body) in files.items()
        ]
        measures = [{"name": "peakMemoryMiB", "value": 96.0}]
        manifest = json.dumps({"formatVersion": 1, "files": entries, "measures": measures}).encode()
        digest = hashlib.sha256(manifest).hexdigest()
        prefix = self.prefix(job, digest)
        for path, body in [("manifest.json", manifest), *((path, body) for path, (_, body) in files.items())]:
            self.server.client().put_object(Bucket="tenants", Key=f"{prefix}/{path}", Body=body)
        storage = {
            "uri": self.bucket,
            "endpoint": self.server.endpoint,
            "pathStyle": True,
            "secretRef": {"name": "s3-credentials"},
        }
        passed = {"name": VARIANT, "gate": "Pass", "sha256": digest}
        self.jobs[job] = (
            a_job()
            .named(job, self.namespace)
            .exporting("Q4_K_M")
            .having("spec.storage", storage)
            .having("status", {"run": 1, "variants": [passed]})
            .manifest()
        )
        return digest

    def job_to_run(self, job: str) -> Object:
        """The job as its user applies it: nothing of it has run."""
        return {name: value for name, value in self.jobs[job].items() if name != "status"}

    def kubelet(self, digest: str) -> Kubelet:
        """Every stage of a job works, and what it publishes is this artifact."""
        told = {
            f"artifact-{VARIANT}": Output(digest=f"sha256:{digest}"),
            "report": Output(digest="sha256:report", uri=f"{self.bucket}/report.html"),
        }
        message = StageMessage(reason="Completed", result=StageResult(key="0" * 64, outputs=told))
        published = Ending(message=message.model_dump_json(by_alias=True, exclude_none=True))
        return Kubelet(self.api, lambda stage, _: published if stage == "publish" else WORKS)

    def prefix(self, job: str, digest: str) -> str:
        return f"{self.bucket.removeprefix('s3://tenants/')}/artifacts/{self.namespace}/{job}/{VARIANT}/{digest}"

    def spoil(self, job: str, digest: str, path: str, body: bytes) -> None:
        """Change a file in the tenant's bucket behind everybody's back."""
        self.server.client().put_object(Bucket="tenants", Key=f"{self.prefix(job, digest)}/{path}", Body=body)

    def roll_out(self, name: str, artifact: dict[str, Any]) -> EdgeRollout:
        """Create the EdgeRollout."""
        made = self.api.create(
            a_rollout()
            .having("metadata", {"name": name, "namespace": self.namespace})
            .having("spec.artifact", artifact)
            .manifest()
        )
        return EdgeRollout.from_object(made)

    def of_job(self, name: str, job: str) -> EdgeRollout:
        return self.roll_out(name, {"jobRef": {"name": job, "variant": VARIANT}})

    def desk(self) -> ReleaseDesk:
        key = self.key or (self.releases.folder.key("release") if self.signs else None)
        return ReleaseDesk(self.releases.bucket, self.releases.first_root, self.releases.clock, key)

    def artifacts(self, api: Kubernetes) -> Artifacts:
        """A fresh operator process, as far as artifacts are concerned."""
        place = Place(image="worker:1")
        return Artifacts(api, lambda _, name: self.jobs.get(name), self.desk(), place, lambda: datetime.now(UTC))

    def until(
        self,
        rollout: EdgeRollout,
        good: Callable[[ArtifactView], bool],
        between: Callable[[ArtifactView], None] = lambda _: None,
        *,
        restarting: bool = False,
    ) -> ArtifactView:
        """Look as the reconcile does until a view is good; `restarting` replaces the operator at whatever is new."""
        return asyncio.run(self._until(rollout, good, between, restarting))

    async def _until(
        self,
        rollout: EdgeRollout,
        good: Callable[[ArtifactView], bool],
        between: Callable[[ArtifactView], None],
        restarting: bool,
    ) -> ArtifactView:
        api = await Kubernetes.connect(self.kubeconfig)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                artifacts = self.artifacts(api)
                while True:
                    view = await artifacts.view({}, rollout)
                    if view.resolved:
                        status = rollout.status.model_copy(update={"artifact": view.resolved})
                        rollout = rollout.model_copy(update={"status": status})
                    is_new = self.told[-1:] != [(view.reason, view.message)]
                    if is_new:
                        self.told.append((view.reason, view.message))
                        between(view)
                    if good(view):
                        return view
                    if is_new and restarting:
                        artifacts = self.artifacts(api)
                    await asyncio.sleep(0.05)
        finally:
            await api.close()

    def release_jobs(self) -> list[str]:
        return sorted(job["metadata"]["name"] for job in self.api.list("Job", self.namespace))

    def download(self, release: ReleaseStatus) -> Held:
        """What a device makes of it: metadata, manifest and every file verified from the pinned root down."""
        self.releases.repository().renew()
        with Site() as site:
            fleet = Fleet(self.releases, site)
            fleet.copy()
            box = Box(fleet, self.folder / f"device-{uuid.uuid4().hex}")
            box.trust.refresh()
            held = box.slots.fill(Slot.A, release.release.digest, release.release.artifacts[0].path)
            assert box.slots.model_file(Slot.A).read_bytes() == MODEL
            assert box.refused == Counter()
        return held


def is_released(view: ArtifactView) -> bool:
    return view.release is not None


def says(reason: RolloutReason) -> Callable[[ArtifactView], bool]:
    return lambda view: view.reason is reason


@pytest.fixture
def tenant(
    plane: ControlPlane,
    api: Api,
    namespace: str,
    s3_server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Tenant:
    for name, value in s3_server.owner.environment().items():
        monkeypatch.setenv(name, value)
    # The tenant's credentials may read the tenant's bucket, and write nowhere: what a pod writes is in its URLs.
    secret = {name: base64.b64encode(v.encode()).decode() for name, v in s3_server.reader.environment().items()}
    metadata = {"name": "s3-credentials", "namespace": namespace}
    api.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": secret})
    releases = Installation.begin(s3_server.endpoint, s3_server.bucket("releases"), tmp_path / "keys")
    bucket = f"{s3_server.bucket('tenants')}/{uuid.uuid4().hex}"
    return Tenant(api, plane.kubeconfig, namespace, s3_server, bucket, releases, tmp_path)


@pytest.fixture
def pods(tenant: Tenant) -> Iterator[ReleasePods]:
    with ReleasePods(tenant.api, tenant.namespace, tenant.folder / "pods") as running:
        yield running


def test_a_variant_becomes_a_target_although_operator_and_job_go_on_the_way(tenant: Tenant, pods: ReleasePods) -> None:
    digest = tenant.publish("bot-v1")
    rollout = tenant.of_job("bot", "bot-v1")

    def lose_the_job(_: ArtifactView) -> None:
        if len(pods.ran) == 2:
            tenant.jobs.clear()

    view = tenant.until(rollout, is_released, lose_the_job, restarting=True)
    assert view.release is not None
    assert (view.release.name, view.release.release.digest) == (f"bot-v1/{VARIANT}", digest)
    assert view.release.release.artifacts[0].requires.memory_bytes == 96 << 20
    assert tenant.download(view.release).artifact == digest
    assert tenant.release_jobs() == [f"bot-release-{digest[:8]}-{number}" for number in (1, 2)]
    job = tenant.api.list("Job", tenant.namespace)[0]
    assert job["spec"]["ttlSecondsAfterFinished"] == 3600
    assert job["metadata"]["ownerReferences"][0]["uid"] == rollout.metadata.uid

    pods.ran.clear()
    again = tenant.until(tenant.roll_out("other", {"uri": f"{tenant.bucket}/elsewhere", "sha256": digest}), is_released)
    assert again.release is not None
    assert again.release.release == view.release.release
    assert pods.ran == [], "what is uploaded and signed costs nothing"


def test_an_artifact_by_its_address_brings_its_own_credentials(tenant: Tenant, pods: ReleasePods) -> None:
    digest = tenant.publish("bot-v1")
    storage = {
        "endpoint": tenant.server.endpoint,
        "pathStyle": True,
        "secretRef": {"name": "s3-credentials"},
    }
    uri = f"s3://tenants/{tenant.prefix('bot-v1', digest)}"
    view = tenant.until(tenant.roll_out("bot", {"uri": uri, "sha256": digest, "storage": storage}), is_released)
    assert view.release is not None
    assert tenant.download(view.release).release == digest


def test_a_source_that_was_tampered_with_reaches_nobody_until_it_is_mended(tenant: Tenant, pods: ReleasePods) -> None:
    digest = tenant.publish("bot-v1")
    tenant.spoil("bot-v1", digest, "model.gguf", b"evil" + MODEL[4:])
    rollout = tenant.of_job("bot", "bot-v1")
    view = tenant.until(rollout, says(RolloutReason.UPLOAD_FAILED))
    assert "DigestMismatch" in view.message
    assert "model.gguf" in view.message
    assert [key for key in listed(tenant) if "model.gguf" in key] == []

    tenant.spoil("bot-v1", digest, "model.gguf", MODEL)
    failed = tenant.release_jobs()[-1]
    assert f"when Job {failed} is deleted" in view.message
    tenant.api.delete("Job", failed, tenant.namespace)
    view = tenant.until(rollout, is_released)
    assert view.release is not None
    tenant.download(view.release)


def test_a_missing_manifest_and_a_wrong_digest_are_told_apart(tenant: Tenant, pods: ReleasePods) -> None:
    digest = tenant.publish("bot-v1")
    storage = {"endpoint": tenant.server.endpoint, "pathStyle": True, "secretRef": {"name": "s3-credentials"}}
    right = f"s3://tenants/{tenant.prefix('bot-v1', digest)}"
    nowhere = {"uri": f"{right}/nowhere", "sha256": digest, "storage": storage}
    view = tenant.until(tenant.roll_out("a", nowhere), says(RolloutReason.ARTIFACT_NOT_FOUND))
    assert "nowhere/manifest.json" in view.message
    wrong = {"uri": right, "sha256": "0" * 64, "storage": storage}
    view = tenant.until(tenant.roll_out("b", wrong), says(RolloutReason.UPLOAD_FAILED))
    assert f"manifest.json is {digest}, but {'0' * 64} is to be released" in view.message
    assert listed(tenant) == []


def test_what_devices_could_not_run_is_refused_before_its_files_move(tenant: Tenant, pods: ReleasePods) -> None:
    tenant.publish("bot-v1", file="model.onnx")
    rollout = tenant.of_job("bot", "bot-v1")
    view = tenant.until(rollout, says(RolloutReason.ARTIFACT_NOT_RELEASABLE))
    assert "exactly one file with role model, ending in .gguf" in view.message
    assert [key.rpartition(".")[2] for key in listed(tenant)] == ["json"]
    assert len(pods.ran) == 1


def test_a_release_key_that_was_rotated_out_is_told(tenant: Tenant, pods: ReleasePods) -> None:
    tenant.key = tenant.releases.folder.key("release")
    tenant.releases.ceremony().rotate("release")
    tenant.publish("bot-v1")
    rollout = tenant.of_job("bot", "bot-v1")
    view = tenant.until(rollout, says(RolloutReason.UPLOAD_FAILED))
    assert view.message == "the artifact could not be signed: this is not the release key, or no longer"
    tenant.key = None
    tenant.until(rollout, is_released)
    assert len(pods.ran) == 2


def test_without_the_release_key_it_waits_for_whoever_has_it(tenant: Tenant, pods: ReleasePods) -> None:
    tenant.signs = False
    # The command line knows the real time only.
    tenant.releases.clock.now = datetime.now(UTC)
    digest = tenant.publish("bot-v1")
    rollout = tenant.of_job("bot", "bot-v1")
    view = tenant.until(rollout, says(RolloutReason.AWAITING_SIGNATURE))
    command = view.message.partition("`dram ")[2].partition("`")[0].split()
    keys = tenant.releases.folder
    files = {"release.pem": str(keys.file("release")), "root.json": str(keys.path / "root.json")}
    arguments = [files.get(word, word) for word in command]
    ran = CliRunner().invoke(dram, arguments)
    assert ran.exit_code == 0, ran.output
    view = tenant.until(rollout, is_released)
    assert view.release is not None
    assert tenant.download(view.release).release == digest


def test_what_is_not_wanted_any_more_is_not_carried_on(tenant: Tenant, pods: ReleasePods) -> None:
    pods.held = True
    first, second = tenant.publish("bot-v1"), tenant.publish("bot-v2", MODEL[::-1])
    rollout = tenant.of_job("bot", "bot-v1")
    tenant.until(rollout, lambda _: bool(tenant.release_jobs()))
    changed = {"spec": {"artifact": {"jobRef": {"name": "bot-v2", "variant": VARIANT}}}}
    edited = EdgeRollout.from_object(tenant.api.patch("EdgeRollout", "bot", tenant.namespace, changed))
    tenant.until(edited, lambda _: any(second[:8] in name for name in tenant.release_jobs()))
    wait_until(lambda: not any(first[:8] in name for name in tenant.release_jobs()), "the first pod's Job to go")


def test_a_namespace_without_room_says_so(tenant: Tenant, pods: ReleasePods) -> None:
    metadata = {"name": "none", "namespace": tenant.namespace}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata}
    tenant.api.create(quota | {"spec": {"hard": {"count/jobs.batch": "0"}}})
    wait_until(
        lambda: tenant.api.get("ResourceQuota", "none", tenant.namespace).get("status", {}).get("hard"), "the quota"
    )
    tenant.publish("bot-v1")
    rollout = tenant.of_job("bot", "bot-v1")
    view = tenant.until(rollout, lambda view: "refuses" in view.message)
    assert view.reason is RolloutReason.UPLOADING
    assert "exceeded quota: none" in view.message
    tenant.api.delete("ResourceQuota", "none", tenant.namespace)
    tenant.until(rollout, is_released)


@pytest.mark.long
def test_the_operator_takes_a_job_s_variant_to_a_signed_release(tenant: Tenant, pods: ReleasePods) -> None:
    """The whole operator: a job runs to its end, and the rollout that waited for it has its release."""
    digest = tenant.publish("bot-v1")
    manifest = tenant.job_to_run("bot-v1")
    keys = tenant.releases.folder
    settings = {
        "releases_uri": tenant.releases.settings.uri,
        "releases_endpoint": tenant.server.endpoint,
        "releases_aws_access_key_id": tenant.server.owner.access_key,
        "releases_aws_secret_access_key": tenant.server.owner.secret_key,
        "releases_root": keys.path / "roots" / "1.root.json",
        "releases_operator_key": keys.file("operator"),
        "releases_release_key": keys.file("release"),
        "lease_seconds": LEASE_SECONDS,
    }
    with (
        Replica(tenant.kubeconfig, (tenant.namespace,), settings=settings),
        tenant.kubelet(digest),
    ):
        tenant.of_job("bot", "bot-v1")
        wait_for_artifact(tenant, "False", "ArtifactNotFound")
        tenant.api.create(manifest)
        rollout = wait_for_artifact(tenant, "True", "Signed")
        assert rollout["status"]["artifact"]["digest"] == digest
        tenant.api.delete("DistillationJob", "bot-v1", tenant.namespace)
        wait_until(lambda: tenant.api.find("DistillationJob", "bot-v1", tenant.namespace) is None, "the job to go")
        tenant.api.patch("EdgeRollout", "bot", tenant.namespace, {"spec": {"paused": True}})
        generation = rollout["metadata"]["generation"] + 1
        wait_until(
            lambda: wait_for_artifact(tenant, "True", "Signed")["status"]["observedGeneration"] == generation,
            "the rollout to be looked at without its job",
        )


@pytest.mark.long
def test_devices_run_a_job_s_variant(
    tenant: Tenant, pods: ReleasePods, plane: ControlPlane, s3_server: S3Server, tmp_path: Path
) -> None:
    """The whole way: a job, its variant, release pods, signatures, steps judged by telemetry, the channel document, devices."""
    digest = tenant.publish("bot-v1")
    with a_site(plane, s3_server, tmp_path / "site") as site:
        tenant.releases = site.installation
        channel = site.fleet.add(f"{tenant.namespace}/bot", site.repository, DEVICES, "none")
        rollout = site.rollout(tenant.namespace, "bot")
        own = {"releases_release_key": site.installation.folder.file("release")}
        with (
            Replica(tenant.kubeconfig, (tenant.namespace,), settings=site.settings() | own),
            tenant.kubelet(digest),
        ):
            tenant.api.create(
                rollout.having("spec.artifact", {"jobRef": {"name": "bot-v1", "variant": VARIANT}}).manifest()
            )
            tenant.api.create(tenant.job_to_run("bot-v1"))
            obj = site.wait(tenant.namespace, "bot", "to complete", is_completed)
            wait_until(lambda: channel.document and channel.document.candidate is None, "the last document")
            wait_until(lambda: channel.running(digest) == DEVICES, "every device to run it")
        offered = [len(one.cohorts) for one in channel.documents if one.candidate]
        reasons = site.reasons(tenant.namespace, "bot")
    assert channel.document is not None
    assert channel.document.stable is not None
    status = EdgeRollout.from_object(obj).status
    assert status.stable is not None
    assert channel.document.stable == status.stable.release
    assert (status.stable.release.digest, status.stable.name) == (digest, f"bot-v1/{VARIANT}")
    assert status.stable.release.artifacts[0].requires.memory_bytes == 96 << 20
    assert offered
    assert Counter(reason for reason in reasons if reason in STORY) == STORY
    assert {device.moves[0] for device in channel.devices} == {digest}
    assert tenant.download(status.stable).release == digest


def wait_for_artifact(tenant: Tenant, status: str, reason: str) -> Object:
    """Wait until the artifact is as far as that; returns the rollout."""

    def look() -> Object | None:
        rollout = tenant.api.get("EdgeRollout", "bot", tenant.namespace)
        found = condition(rollout, "ArtifactReady")
        return rollout if found == (status, reason) else None

    return wait_until(
        look,
        f"the artifact to be {reason}",
        explain=lambda: json.dumps(tenant.api.list("EdgeRollout", tenant.namespace)),
    )


def listed(tenant: Tenant) -> list[str]:
    return [each.key for each in tenant.releases.bucket.list("targets/")]
