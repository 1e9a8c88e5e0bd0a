"""What spec.artifact is: the variant that may be released, the storage that it lies in, and what a device needs."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from dram_operator.api.distillation_job import DistillationJob
from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.api.rollout_reasons import RolloutReason
from dram_operator.api.rollout_status import ArtifactStatus, EdgeRolloutStatus
from dram_operator.api.spec import Storage
from dram_operator.core.installation import Installation
from dram_operator.core.rollout.artifacts import ArtifactUnfitError, Resolved, release_of, requirements, resolve
from dram_operator.core.rollout.observed import ArtifactView
from tests.builders import AJob, ARollout, a_job, a_rollout

DIGEST = "ab" * 32
NOWHERE = Installation()
VARIANT = {"name": "gguf-q4-k-m", "gate": "Pass", "sha256": DIGEST, "uri": f"s3://models/dram/x/{DIGEST}"}
BY_URI = a_rollout().having("spec.artifact", {"uri": "s3://models/bot/v7", "sha256": DIGEST})


def a_finished_job(**variant: Any) -> AJob:
    """A job whose one variant passed and was published, unless `variant` says otherwise."""
    job = a_job().named("support-bot-v7", "tv").exporting("Q4_K_M")
    known = {name: value for name, value in {**VARIANT, **variant}.items() if value is not None}
    return job.having("status", {"run": 1, "variants": [known], "finishedAt": "2030-01-01T00:00:00Z"})


def found(rollout: ARollout | EdgeRollout, job: AJob | None, installation: Installation = NOWHERE) -> Resolved:
    resolved = seen(rollout, job, installation)
    assert isinstance(resolved, Resolved), resolved
    return resolved


def seen(
    rollout: ARollout | EdgeRollout, job: AJob | None, installation: Installation = NOWHERE
) -> Resolved | ArtifactView:
    built = rollout.build() if isinstance(rollout, ARollout) else rollout
    return resolve(built, DistillationJob.from_object(job.manifest()) if job else None, installation)


def test_a_variant_that_passed_is_its_digest_in_the_storage_of_its_job() -> None:
    resolved = found(a_rollout(), a_finished_job())
    assert (resolved.status.name, resolved.status.digest) == ("support-bot-v7/gguf-q4-k-m", DIGEST)
    assert resolved.storage is not None
    assert resolved.storage.uri == f"s3://models/dram/artifacts/tv/support-bot-v7/gguf-q4-k-m/{DIGEST}"
    assert resolved.storage.secret_ref is not None
    assert resolved.storage.secret_ref.name == "s3-credentials"


@dataclass(frozen=True)
class Case:
    """A job that has nothing to release."""

    name: str
    job: AJob | None
    want_reason: RolloutReason
    want_message: str


GATE = {"variant": "gguf-q4-k-m", "gate": "quality.minGoldenPassRate", "limit": 0.9, "value": 0.5}
FAILED = a_finished_job(gate="Fail", sha256=None).having(
    "status.gates", [{**GATE, "verdict": "Fail", "message": "0.5 is below 0.9"}]
)
CASES = (
    Case("no job", None, RolloutReason.ARTIFACT_NOT_FOUND, "name: there is no DistillationJob support-bot-v7 in"),
    Case(
        "another variant",
        a_job().named("support-bot-v7", "tv").exporting("Q8_0", "F16"),
        RolloutReason.ARTIFACT_NOT_FOUND,
        "has no variant gguf-q4-k-m: choose one of gguf-q8-0, gguf-f16",
    ),
    Case("a failed gate", FAILED, RolloutReason.ARTIFACT_NOT_RELEASABLE, "quality.minGoldenPassRate: 0.5 is below 0.9"),
    Case(
        "a failed stage",
        a_finished_job(gate="Fail", sha256=None),
        RolloutReason.ARTIFACT_NOT_RELEASABLE,
        "one of its stages failed",
    ),
    Case(
        "no artifact in the end",
        a_finished_job(sha256=None),
        RolloutReason.ARTIFACT_NOT_RELEASABLE,
        "was not published: see the publish stage",
    ),
    Case(
        "nothing decided yet",
        a_job().named("support-bot-v7", "tv").exporting("Q4_K_M"),
        RolloutReason.PENDING,
        "has not passed its gates yet",
    ),
    Case(
        "passed, and about to be published",
        a_finished_job(sha256=None, uri=None).having("status.finishedAt", None),
        RolloutReason.PENDING,
        "has not passed its gates yet",
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_not_releasable_says_why(case: Case) -> None:
    view = seen(a_rollout(), case.job)
    assert isinstance(view, ArtifactView)
    assert (view.release, view.reason, view.resolved) == (None, case.want_reason, None)
    assert view.message.startswith("spec.artifact.jobRef.")
    assert case.want_message in view.message
    assert view.look_again_seconds


def test_a_variant_with_a_warning_may_be_released() -> None:
    assert found(a_rollout(), a_finished_job(gate="Warn")).status.digest == DIGEST


def recorded(rollout: ARollout, digest: str = "cd" * 32) -> EdgeRollout:
    built = rollout.build()
    artifact = ArtifactStatus(source=built.spec.artifact.source, name="support-bot-v7/gguf-q4-k-m", digest=digest)
    return built.model_copy(update={"status": EdgeRolloutStatus(artifact=artifact)})


def test_what_was_recorded_counts_whatever_the_job_says_now() -> None:
    for job in (a_finished_job(), FAILED, a_job().named("support-bot-v7", "tv").exporting("Q4_K_M")):
        resolved = found(recorded(a_rollout()), job)
        assert resolved.status.digest == "cd" * 32
        assert resolved.storage is not None
        assert resolved.storage.uri.endswith("/gguf-q4-k-m/" + "cd" * 32)


def test_the_job_may_go_once_its_artifact_was_recorded() -> None:
    resolved = found(recorded(a_rollout()), None)
    assert (resolved.status.digest, resolved.storage) == ("cd" * 32, None)
    assert "any more" in resolved.gone


def test_a_record_of_another_artifact_counts_for_nothing() -> None:
    other = recorded(a_rollout()).model_copy(
        update={"spec": a_rollout().having("spec.artifact.jobRef.variant", "gguf-q8-0").build().spec}
    )
    view = seen(other, None)
    assert isinstance(view, ArtifactView)
    assert view.reason is RolloutReason.ARTIFACT_NOT_FOUND


def test_a_uri_is_its_digest_and_brings_its_own_way() -> None:
    resolved = found(BY_URI.having("spec.artifact.storage", {"endpoint": "http://s3", "pathStyle": True}), None)
    assert (resolved.status.name, resolved.status.digest) == (DIGEST[:12], DIGEST)
    assert resolved.storage == Storage(uri="s3://models/bot/v7", endpoint="http://s3", path_style=True)
    assert resolved.fields["spec.storage.uri"] == "spec.artifact.uri"


def test_a_storage_that_nobody_named_is_the_installations() -> None:
    ours = Installation(storage=Storage(uri="s3://ours/all", endpoint="http://s3"))
    by_uri, by_job = found(BY_URI, None, ours), found(a_rollout(), a_finished_job().having("spec.storage", None), ours)
    assert by_uri.storage == Storage(uri="s3://models/bot/v7", endpoint="http://s3")
    assert by_job.storage is not None
    assert by_job.storage.uri.startswith("s3://ours/all/artifacts/tv/support-bot-v7/")
    plain = found(BY_URI, None)
    assert plain.storage == Storage(uri="s3://models/bot/v7")
    homeless = found(a_rollout(), a_finished_job().having("spec.storage", None))
    assert homeless.storage is None
    assert "no storage" in homeless.gone


def a_manifest(*files: tuple[str, str | None, int], **more: Any) -> bytes:
    entries = [{"path": path, "sha256": DIGEST, "size": size, "role": role} for path, role, size in files]
    return json.dumps({"files": entries, **more}).encode()


def test_a_device_needs_the_measured_memory_and_the_models_format() -> None:
    manifest = a_manifest(
        ("model.gguf", "model", 100),
        ("card.md", "card", 5),
        measures=[{"name": "sizeMiB", "value": 1}, {"name": "peakMemoryMiB", "value": 1.5, "unit": "MiB"}],
    )
    needs = requirements(manifest)
    assert (needs.format, needs.memory_bytes, needs.agent_version) == ("gguf", 3 << 19, "0.1")


def test_without_a_measurement_the_models_size_is_what_it_needs() -> None:
    assert requirements(a_manifest(("a/model.gguf", "model", 100))).memory_bytes == 100


@pytest.mark.parametrize(
    ("manifest", "want"),
    [
        (b"{", "cannot be read"),
        (b'{"files": []}', "cannot be read: files"),
        (a_manifest(("model.gguf", None, 1)), "exactly one file with role model"),
        (a_manifest(("a.gguf", "model", 1), ("b.gguf", "model", 1)), "exactly one file with role model"),
        (a_manifest(("model.onnx", "model", 1)), "ending in .gguf"),
    ],
)
def test_what_devices_cannot_run_is_unfit(manifest: bytes, want: str) -> None:
    with pytest.raises(ArtifactUnfitError, match=want):
        requirements(manifest)


def test_a_release_is_one_build_for_all_devices() -> None:
    status = found(a_rollout(), a_finished_job()).status
    release = release_of(status, a_manifest(("model.gguf", "model", 1)), "2030-01-01T00:00:00Z")
    assert (release.name, release.release.digest, release.source) == (status.name, DIGEST, status.source)
    assert [(one.path, one.device_class) for one in release.release.artifacts] == [
        (f"artifacts/{DIGEST}/manifest.json", None)
    ]
