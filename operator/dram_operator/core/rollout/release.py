"""The release pod: its Job, and what its attempts so far mean for the next step.

Nothing of it stands in the rollout's status. The Jobs in the API server and the files in the repository's bucket say how
far an artifact has come, so that an operator that starts anew goes on where the last one was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from dram_operator.api.distillation_job import GROUP
from dram_operator.api.edge_rollout import KIND, EdgeRollout
from dram_operator.api.pods import Resources
from dram_operator.api.rollout_reasons import RolloutReason
from dram_operator.api.status import Reason
from dram_operator.core import configs, worker_pod
from dram_operator.core.attempts import (
    FIRST_BACKOFF_SECONDS,
    LONGEST_BACKOFF_SECONDS,
    Failure,
    Remedies,
    classify,
    waiting,
)
from dram_operator.core.installation import Installation
from dram_operator.core.jobs import attempt_name
from dram_operator.core.observed import AttemptView
from dram_operator.core.rollout.artifacts import Resolved
from dram_operator.core.rollout.observed import ArtifactView
from dram_operator.core.worker_pod import (
    ATTEMPT_LABEL,
    CONFIG_ANNOTATION,
    DEFAULT_GRACE_SECONDS,
    KIND_LABEL,
    RUN_LABEL,
    STAGE_LABEL,
    STORAGE_CA_ANNOTATION,
    Manifest,
)
from dram_workers.errors import WorkerReason
from dram_workers.release.contract import RELEASE, ArtifactFile, ReleaseConfig, Upload

ROLLOUT_LABEL = f"{GROUP}/rollout"
ARTIFACT_LABEL = f"{GROUP}/artifact"
RELEASES_CA_ANNOTATION = f"{GROUP}/releases-ca"
RELEASES_CA_FILE = f"{configs.CONFIG_FOLDER}/releases-ca.crt"

BATCH = 32
"""Files of one pod: their URLs stand in an annotation, and all annotations of an object take at most 256 KiB."""
RETRIES = 3
"""As many as a DistillationJob's stage has by default."""
KEEP_SECONDS = 3600
"""How long a finished Job stays to be read. A failed one that is gone is tried again: the world may have been mended."""
WATCH_SECONDS = 5.0
"""How often to look at a pod at work."""
IDLE_SECONDS = 60.0
"""How often to look where somebody has to act."""
SPARE_BYTES = 64 << 20

UPLOADING = "the artifact is being uploaded"
CAUSES: dict[str, RolloutReason] = {
    WorkerReason.SOURCE_NOT_FOUND: RolloutReason.ARTIFACT_NOT_FOUND,
    WorkerReason.ARTIFACT_UNFIT: RolloutReason.ARTIFACT_NOT_RELEASABLE,
}
"""What the end of a release pod means for the rollout, where it is not simply that the upload failed."""
MEMORY = "a LimitRange of the namespace, or report it: a release takes little"
REMEDIES = Remedies(
    quota="raise the quota",
    image="check the installation's worker image and pull secrets",
    container="create the Secret that the artifact's storage names",
    nodes="add nodes",
)


def short(digest: str) -> str:
    """Enough of a digest for a label."""
    return digest[:32]


def release_name(rollout: str, digest: str, attempt: int) -> str:
    """Name of an attempt's Job: of the rollout, the artifact and the number, so that it is made once."""
    return attempt_name(rollout, f"{RELEASE}-{digest[:8]}", attempt)


def next_move(attempts: Sequence[AttemptView], now: datetime, *, lacking: bool) -> int | ArtifactView:
    """The number of the attempt to start now, or why none is started. `attempts` are those so far, oldest first.

    `lacking` says that the last one ended well, but brought nothing.
    """
    if not attempts:
        return 1
    last = attempts[-1]
    if not last.finished:
        reason, message = waiting(last, REMEDIES)
        return _telling(UPLOADING if reason == Reason.RUNNING else f"{reason}: {message}")
    if last.succeeded and not lacking:
        return last.attempt + 1
    failure = _failure(last)
    return last.attempt + 1 if failure.free else _after_failure(attempts, failure, now)


def _after_failure(attempts: Sequence[AttemptView], failure: Failure, now: datetime) -> int | ArtifactView:
    last, counted = attempts[-1], _failures_in_a_row(attempts)
    if failure.final or counted > RETRIES:
        return _given_up(last, failure, counted)
    backoff = min(FIRST_BACKOFF_SECONDS * 2 ** (counted - 1), LONGEST_BACKOFF_SECONDS)
    left = ((last.finished_at or last.created_at) + timedelta(seconds=backoff) - now).total_seconds()
    if left <= 0:
        return last.attempt + 1
    return _telling(f"{failure.reason}: {failure.message} (attempt {last.attempt}; tried again in {backoff} s)", left)


def _telling(message: str, again_seconds: float = WATCH_SECONDS) -> ArtifactView:
    return ArtifactView(reason=RolloutReason.UPLOADING, message=message, look_again_seconds=again_seconds)


def _given_up(last: AttemptView, failure: Failure, counted: int) -> ArtifactView:
    reason = CAUSES.get(failure.reason, RolloutReason.UPLOAD_FAILED)
    often = "" if failure.final else f" after {counted} attempts"
    again = f"tried again within {KEEP_SECONDS // 60} minutes, or when Job {last.name} is deleted"
    message = f"{failure.reason}: {failure.message}{often}; {again}"
    return ArtifactView(reason=reason, message=message, look_again_seconds=IDLE_SECONDS)


def _failure(view: AttemptView) -> Failure:
    if view.succeeded:
        return Failure(WorkerReason.UPLOAD_REFUSED, "the pod ended well, but the files are not in the repository")
    return classify(view, MEMORY)


def _failures_in_a_row(attempts: Sequence[AttemptView]) -> int:
    """Failures that count since the last success, the last attempt in any case."""
    counted = 0
    for number, view in enumerate(reversed(attempts)):
        if view.succeeded and number:
            break
        counted += not _failure(view).free
    return counted


@dataclass(frozen=True)
class Errand:
    """One attempt: what it has to carry, and where."""

    resolved: Resolved
    attempt: int
    files: tuple[ArtifactFile, ...]
    """None but the manifest when empty."""
    uploads: tuple[Upload, ...]
    releases_ca: str | None = None
    """PEM of the authority of the repository's server."""


def release_job(rollout: EdgeRollout, errand: Errand, installation: Installation) -> Manifest:
    """The Job of one attempt, create-only: restricted, with the credentials of the artifact's storage and no others."""
    labels = worker_pod.COMMON_LABELS | {
        ROLLOUT_LABEL: rollout.metadata.name,
        KIND_LABEL: RELEASE,
        STAGE_LABEL: RELEASE,
        ARTIFACT_LABEL: short(errand.resolved.status.digest),
        ATTEMPT_LABEL: str(errand.attempt),
        RUN_LABEL: "1",
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": release_name(rollout.metadata.name, errand.resolved.status.digest, errand.attempt),
            "namespace": rollout.metadata.namespace,
            "labels": labels,
            "ownerReferences": worker_pod.owner(KIND, rollout.metadata),
        },
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": KEEP_SECONDS,
            "podReplacementPolicy": "Failed",
            "template": {
                "metadata": {"labels": labels, "annotations": _annotations(errand, installation)},
                "spec": _pod(errand, installation),
            },
        },
    }


def _annotations(errand: Errand, installation: Installation) -> dict[str, str]:
    storage = errand.resolved.storage
    assert storage is not None, "nothing is started for an artifact that cannot be fetched"
    config = ReleaseConfig(
        store=configs.store_settings(storage, configs.STORAGE_CA_FILE),
        digest=errand.resolved.status.digest,
        uploads=errand.uploads,
        fields=dict(errand.resolved.fields),
        ca_file=RELEASES_CA_FILE if errand.releases_ca else None,
        scratch=installation.scratch,
    )
    authorities = {STORAGE_CA_ANNOTATION: storage.ca_bundle, RELEASES_CA_ANNOTATION: errand.releases_ca}
    known = {name: text for name, text in authorities.items() if text}
    return {CONFIG_ANNOTATION: config.model_dump_json(exclude_none=True), **known}


def _pod(errand: Errand, installation: Installation) -> Manifest:
    storage = errand.resolved.storage
    files = {"config.json": CONFIG_ANNOTATION}
    if storage and storage.ca_bundle:
        files[worker_pod.file_name(configs.STORAGE_CA_FILE)] = STORAGE_CA_ANNOTATION
    if errand.releases_ca:
        files[worker_pod.file_name(RELEASES_CA_FILE)] = RELEASES_CA_ANNOTATION
    return {
        **worker_pod.pod_settings(storage, installation, DEFAULT_GRACE_SECONDS),
        "containers": [
            {
                **worker_pod.container(RELEASE, installation.image, _resources(errand), installation),
                "env": worker_pod.environment(storage, installation),
                "volumeMounts": worker_pod.mounts(installation),
            }
        ],
        "volumes": worker_pod.volumes(files),
    }


def _resources(errand: Errand) -> Resources:
    """One file at a time lies in scratch; memory holds pieces only."""
    largest = max((file.size for file in errand.files), default=0) + SPARE_BYTES
    requests = {"cpu": "100m", "memory": "256Mi", "ephemeral-storage": str(largest)}
    return Resources(requests=requests, limits={"memory": "512Mi"})
