"""The release pod's Job, and the step after each end of it."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from dram_operator.api.rollout_reasons import RolloutReason
from dram_operator.api.rollout_status import ArtifactStatus
from dram_operator.api.spec import Storage
from dram_operator.core.installation import Installation
from dram_operator.core.observed import AttemptView, PodView
from dram_operator.core.rollout.artifacts import Resolved
from dram_operator.core.rollout.observed import ArtifactView
from dram_operator.core.rollout.release import Errand, next_move, release_job
from dram_operator.core.worker_pod import CONFIG_ANNOTATION, Manifest
from dram_workers.errors import ExitCode, WorkerReason
from dram_workers.release.contract import ArtifactFile, ReleaseConfig, Upload
from dram_workers.results import StageMessage
from tests.builders import a_rollout

NOW = datetime(2030, 1, 1, tzinfo=UTC)
DIGEST = "ab" * 32


def ended(number: int, code: int = 0, reason: str = "", ago: float = 1000, **pod: object) -> AttemptView:
    """An attempt whose pod ended; code 0 is well."""
    message = StageMessage(reason=reason or "Completed", message="so it was").model_dump_json()
    view = PodView("pod", phase="Failed" if code else "Succeeded", exit_code=code, message=message, started=True)
    return an_attempt(
        number, succeeded=not code, failed=bool(code), pods=(view,), finished=NOW - timedelta(seconds=ago)
    )


def an_attempt(number: int, finished: datetime | None = None, **fields: object) -> AttemptView:
    return AttemptView(f"bot-release-{number}", "release", number, 1, NOW, finished_at=finished, **fields)  # type: ignore[arg-type]


def moody(number: int, ago: float = 1000) -> AttemptView:
    return ended(number, ExitCode.TRANSIENT, WorkerReason.STORAGE_UNAVAILABLE, ago)


EVICTED = an_attempt(
    1, failed=True, pods=(PodView("pod", phase="Failed", disrupted=True),), finished=NOW - timedelta(seconds=1)
)


@dataclass(frozen=True)
class Case:
    """Attempts so far, and what comes next."""

    name: str
    attempts: tuple[AttemptView, ...]
    want: int | RolloutReason
    want_text: str = ""
    lacking: bool = False


WELL = ended(1)
PULLING = PodView("pod", waiting_reason="ImagePullBackOff")
SECRETLESS = PodView("pod", waiting_reason="CreateContainerConfigError", waiting_message='secret "s3" not found')
CASES = (
    Case("nothing yet", (), 1),
    Case("a pod at work", (an_attempt(1, pods=(PodView("pod", started=True),)),), RolloutReason.UPLOADING, "uploaded"),
    Case("no image", (an_attempt(1, pods=(PULLING,)),), RolloutReason.UPLOADING, "the installation's worker image"),
    Case("no secret", (an_attempt(1, pods=(SECRETLESS,)),), RolloutReason.UPLOADING, 'secret "s3" not found; create'),
    Case("no quota", (an_attempt(1, refusal="exceeded"),), RolloutReason.UPLOADING, "exceeded; raise the quota"),
    Case("the manifest came", (WELL,), 2),
    Case("nothing came", (ended(1, ago=1),), RolloutReason.UPLOADING, "not in the repository", lacking=True),
    Case("nothing came, a while ago", (WELL,), 2, lacking=True),
    Case("an eviction is free", (EVICTED,), 2),
    Case("a failure just now", (moody(1, ago=1),), RolloutReason.UPLOADING, "tried again in 5 s"),
    Case("a failure a while ago", (moody(1),), 2),
    Case("the third failure", (moody(1), moody(2), moody(3, ago=19)), RolloutReason.UPLOADING, "again in 20 s"),
    Case("the third failure, 20 s ago", (moody(1), moody(2), moody(3, ago=20)), 4),
    Case("the fourth failure", tuple(map(moody, range(1, 5))), RolloutReason.UPLOAD_FAILED, "after 4 attempts"),
    Case("failures before a success are forgotten", (*map(moody, range(1, 4)), ended(4), moody(5)), 6),
    Case(
        "no permission",
        (ended(1, ExitCode.NO_PERMISSION, WorkerReason.STORAGE_DENIED),),
        RolloutReason.UPLOAD_FAILED,
        "StorageDenied: so it was; tried again within 60 minutes, or when Job bot-release-1 is deleted",
    ),
    Case(
        "tampered with",
        (ended(1, ExitCode.BAD_INPUT, WorkerReason.DIGEST_MISMATCH),),
        RolloutReason.UPLOAD_FAILED,
        "DigestMismatch",
    ),
    Case(
        "no such artifact",
        (ended(1, ExitCode.BAD_INPUT, WorkerReason.SOURCE_NOT_FOUND),),
        RolloutReason.ARTIFACT_NOT_FOUND,
        "SourceNotFound",
    ),
    Case(
        "nothing for devices",
        (ended(1, ExitCode.BAD_INPUT, WorkerReason.ARTIFACT_UNFIT),),
        RolloutReason.ARTIFACT_NOT_RELEASABLE,
        "ArtifactUnfit",
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_next_step(case: Case) -> None:
    move = next_move(case.attempts, NOW, lacking=case.lacking)
    if isinstance(case.want, RolloutReason):
        assert isinstance(move, ArtifactView)
        assert move.reason is case.want
        assert case.want_text in move.message
        assert move.look_again_seconds
    else:
        assert move == case.want


STORAGE = Storage.model_validate(
    {"uri": "s3://models/bot", "endpoint": "https://s3", "secretRef": {"name": "s3"}, "caBundle": "PEM of the tenant"}
)
UPLOAD = Upload(path="model.gguf", url="https://releases/x?X-Amz-Signature=1", headers={"x-amz-checksum-sha256": "="})


def a_release_job(storage: Storage = STORAGE, files: tuple[ArtifactFile, ...] = ()) -> Manifest:
    rollout = a_rollout().having("metadata.uid", "4f5a").build()
    status = ArtifactStatus(source=rollout.spec.artifact.source, name="bot/q4", digest=DIGEST)
    errand = Errand(Resolved(status, storage), 2, files, (UPLOAD,), "PEM of the releases")
    return release_job(rollout, errand, Installation(image="dram-worker:1", image_pull_secrets=("pull",)))


def test_the_job_is_named_after_rollout_artifact_and_attempt_and_goes_with_its_rollout() -> None:
    metadata = a_release_job()["metadata"]
    assert (metadata["name"], metadata["namespace"]) == ("support-bot-release-abababab-2", "tv")
    owner = metadata["ownerReferences"][0]
    assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == (
        "EdgeRollout",
        "support-bot",
        "4f5a",
        True,
    )
    assert all(len(value) <= 63 for value in metadata["labels"].values())
    assert "dram.dev/job" not in metadata["labels"], "the watches of DistillationJobs would take it for a stage"


def test_the_pod_is_restricted_and_holds_the_tenants_credentials_by_reference_only() -> None:
    pod = a_release_job()["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert (container["image"], pod["imagePullSecrets"]) == ("dram-worker:1", [{"name": "pull"}])
    assert container["command"] == ["dram", "worker", "release", "--config", "/etc/dram/config.json"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    env = {entry["name"]: entry for entry in container["env"]}
    assert env["AWS_SECRET_ACCESS_KEY"]["valueFrom"]["secretKeyRef"]["name"] == "s3"
    assert "value" not in env["AWS_SECRET_ACCESS_KEY"]


def test_a_service_account_with_the_rights_is_used_instead() -> None:
    pod = a_release_job(Storage(uri="s3://models/bot", service_account_name="publisher"))["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "publisher"
    assert not [entry for entry in pod["containers"][0]["env"] if "valueFrom" in entry]


def test_the_pod_reads_what_the_operator_wrote() -> None:
    template = a_release_job()["spec"]["template"]
    config = ReleaseConfig.model_validate_json(template["metadata"]["annotations"][CONFIG_ANNOTATION])
    assert (config.digest, config.uploads) == (DIGEST, (UPLOAD,))
    assert (config.store.uri, config.store.ca_file) == ("s3://models/bot", "/etc/dram/storage-ca.crt")
    assert config.ca_file == "/etc/dram/releases-ca.crt"
    mounted = {item["path"] for item in template["spec"]["volumes"][0]["downwardAPI"]["items"]}
    assert mounted == {"config.json", "storage-ca.crt", "releases-ca.crt"}
    assert {"PEM of the tenant", "PEM of the releases"} < {*template["metadata"]["annotations"].values()}


def test_scratch_holds_one_file_at_a_time() -> None:
    files = tuple(ArtifactFile(path=f"{size}", sha256=DIGEST, size=size) for size in (1 << 30, 1 << 20))
    resources = a_release_job(files=files)["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert resources["requests"]["ephemeral-storage"] == str((1 << 30) + (64 << 20))


def test_a_full_batch_of_urls_fits_into_the_annotations() -> None:
    rollout = a_rollout().having("metadata.uid", "4f5a").build()
    status = ArtifactStatus(source=rollout.spec.artifact.source, name="bot/q4", digest=DIGEST)
    url = "https://releases.example/" + "x" * 2500
    uploads = tuple(Upload(path="p" * 255, url=url, headers=UPLOAD.headers) for _ in range(32))
    storage = STORAGE.model_copy(update={"ca_bundle": "x" * 65_536})
    errand = Errand(Resolved(status, storage), 1, (), uploads, "x" * 65_536)
    annotations = release_job(rollout, errand, Installation())["spec"]["template"]["metadata"]["annotations"]
    assert len(json.dumps(annotations)) < 256 * 1024
