"""From spec.artifact to what it is: a digest, where it lies, and what a device needs to run it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from pathlib import PurePosixPath

from pydantic import ValidationError

from dram_agent.document import Artifact, Release, Requirements
from dram_operator.api.distillation_job import DistillationJob
from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.api.rollout_reasons import RolloutReason
from dram_operator.api.rollout_spec import JobRef
from dram_operator.api.rollout_status import ArtifactStatus, ReleaseStatus
from dram_operator.api.spec import Storage
from dram_operator.api.status import VariantStatus
from dram_operator.core import configs
from dram_operator.core.installation import Installation
from dram_operator.core.rollout.observed import ArtifactView
from dram_workers.release.contract import ArtifactFile, ArtifactManifest

RELEASABLE = ("Pass", "Warn")
FORMATS = {".gguf": "gguf"}
"""Formats that devices run, by the ending of the model's file."""
OLDEST_AGENT = "0.1"
"""The first agent; it reads every manifest of format version 1."""
MIB = 1024 * 1024
PEAK_MEMORY = "peakMemoryMiB"
LOOK_AGAIN_SECONDS = 15.0
"""For what other objects have to bring about."""


class ArtifactUnfitError(ValueError):
    """Devices could not run it; the message says why."""


@dataclass(frozen=True)
class Resolved:
    """What spec.artifact is and, as long as it can be had there, where it lies."""

    status: ArtifactStatus
    storage: Storage | None = None
    """How its folder is reached, with its URI; None when that is gone."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """What the user calls a field of that storage, by its name in spec.storage."""
    gone: str = ""
    """Why it cannot be fetched any more."""


def resolve(rollout: EdgeRollout, job: DistillationJob | None, installation: Installation) -> Resolved | ArtifactView:
    """What spec.artifact is. `job` is the DistillationJob that it names, where there is one.

    A view says why it is nothing that could be released. What was recorded once counts, whatever the job says now.
    """
    spec = rollout.spec.artifact
    known = rollout.status.artifact
    recorded = known if known and known.source == spec.source else None
    if spec.job_ref:
        return _of_job(spec.job_ref, recorded, rollout, job, installation)
    assert spec.uri is not None
    assert spec.sha256 is not None
    status = recorded or ArtifactStatus(source=spec.source, name=spec.sha256[:12], digest=spec.sha256)
    base = Storage(**spec.storage.model_dump(), uri=spec.uri) if spec.storage else installation.storage
    storage = (base or Storage(uri=spec.uri)).model_copy(update={"uri": spec.uri})
    return Resolved(status, storage, {"spec.storage.uri": "spec.artifact.uri", "spec.storage": "spec.artifact.storage"})


def _of_job(
    ref: JobRef,
    recorded: ArtifactStatus | None,
    rollout: EdgeRollout,
    job: DistillationJob | None,
    installation: Installation,
) -> Resolved | ArtifactView:
    if job is None:
        text = f"there is no DistillationJob {ref.name} in namespace {rollout.metadata.namespace}"
        if recorded:
            return Resolved(
                recorded, gone=f"{text} any more, and its artifact is not uploaded: apply it again, or set uri"
            )
        return _unresolved(RolloutReason.ARTIFACT_NOT_FOUND, f"name: {text}: apply it, or set uri and sha256")
    if recorded is None:
        found = _variant(ref, job)
        if isinstance(found, ArtifactView):
            return found
        name = f"{ref.name}/{ref.variant}"
        recorded = ArtifactStatus(source=rollout.spec.artifact.source, name=name, digest=found.sha256 or "")
    storage = configs.storage_of(job, installation)
    uri = f"{configs.artifacts_folder(job, installation)}/{ref.variant}/{recorded.digest}"
    return Resolved(
        recorded,
        storage.model_copy(update={"uri": uri}) if storage else None,
        {"spec.storage": f"DistillationJob {ref.name} spec.storage"},
        "" if storage else f"DistillationJob {ref.name} has no storage, and neither has the installation",
    )


def _variant(ref: JobRef, job: DistillationJob) -> VariantStatus | ArtifactView:
    """The variant, once it may be released and lies where it can be fetched."""
    exports = [export.name for export in job.spec.exports]
    if ref.variant not in exports:
        message = f"variant: {ref.name} has no variant {ref.variant}: choose one of {', '.join(exports)}"
        return _unresolved(RolloutReason.ARTIFACT_NOT_FOUND, message)
    found = next((variant for variant in job.status.variants if variant.name == ref.variant), None)
    if found and found.gate in RELEASABLE and found.sha256:
        return found
    if found and found.gate == "Fail":
        row = next((r for r in job.status.gates if r.variant == ref.variant and r.verdict not in RELEASABLE), None)
        why = f"{row.gate}: {row.message}" if row else "one of its stages failed"
        message = (
            f"variant: {ref.name}/{ref.variant} did not pass its gates ({why}): choose another one, or mend the job"
        )
        return _unresolved(RolloutReason.ARTIFACT_NOT_RELEASABLE, message)
    if job.status.finished_at:
        message = f"variant: {ref.name}/{ref.variant} was not published: see the publish stage of the job"
        return _unresolved(RolloutReason.ARTIFACT_NOT_RELEASABLE, message)
    waited = f"variant: {ref.name}/{ref.variant} has not passed its gates yet: the rollout begins when it has"
    return _unresolved(RolloutReason.PENDING, waited)


def _unresolved(reason: RolloutReason, message: str) -> ArtifactView:
    return ArtifactView(reason=reason, message=f"spec.artifact.jobRef.{message}", look_again_seconds=LOOK_AGAIN_SECONDS)


def release_of(artifact: ArtifactStatus, manifest: bytes, since: str) -> ReleaseStatus:
    """The release that devices are offered; ArtifactUnfitError when none could run it."""
    build = Artifact(path=f"artifacts/{artifact.digest}/manifest.json", requires=requirements(manifest))
    release = Release(digest=artifact.digest, artifacts=(build,))
    return ReleaseStatus(name=artifact.name, release=release, source=artifact.source, since=since)


def requirements(manifest: bytes) -> Requirements:
    """What a device needs: the measured peak of memory, or the model's size where nothing was measured."""
    try:
        read = ArtifactManifest.model_validate_json(manifest)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ArtifactUnfitError(f"its manifest cannot be read: {place}: {first['msg']}") from error
    model = _model(read)
    peak = next((measure.value for measure in read.measures if measure.name == PEAK_MEMORY), None)
    return Requirements(
        format=FORMATS[PurePosixPath(model.path).suffix],
        memory_bytes=model.size if peak is None else ceil(peak * MIB),
        agent_version=OLDEST_AGENT,
    )


def _model(manifest: ArtifactManifest) -> ArtifactFile:
    models = [file for file in manifest.files if file.role == "model"]
    if len(models) != 1 or PurePosixPath(models[0].path).suffix not in FORMATS:
        kinds = " or ".join(FORMATS)
        raise ArtifactUnfitError(f"its manifest has to name exactly one file with role model, ending in {kinds}")
    return models[0]
