"""Artifacts on their way to devices: resolved, uploaded by a release pod, signed.

What is known lies in the API server (the release Jobs) and in the repository's bucket, so that any replica goes on where
another one stopped. Requests to S3 run in threads; checking and signing, which may take minutes, run beside the reconcile.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from pydantic import ValidationError

from dram_operator.adapters.kubernetes import Kubernetes
from dram_operator.adapters.releases.desk import ReleaseDesk, Standing
from dram_operator.adapters.releases.keys import load_key
from dram_operator.adapters.resources import DISTILLATION_JOBS, JOBS, PODS, Object
from dram_operator.adapters.views import owner_uid
from dram_operator.api.distillation_job import DistillationJob
from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.api.rollout_reasons import RolloutReason
from dram_operator.core.installation import Installation
from dram_operator.core.observed import AttemptView
from dram_operator.core.rollout.artifacts import ArtifactUnfitError, Resolved, release_of, requirements, resolve
from dram_operator.core.rollout.observed import ArtifactView
from dram_operator.core.rollout.release import (
    ARTIFACT_LABEL,
    BATCH,
    IDLE_SECONDS,
    ROLLOUT_LABEL,
    UPLOADING,
    WATCH_SECONDS,
    Errand,
    next_move,
    release_job,
    short,
)
from dram_operator.core.times import stamp
from dram_operator.core.worker_pod import CONFIG_ANNOTATION
from dram_operator.errors import Conflict, NameTaken, NotFound, OperatorError, Refused, SettingsInvalid, Transient
from dram_operator.runtime.rollouts.releases import Repository
from dram_operator.runtime.sight import ASK_AGAIN_SECONDS, Sight
from dram_operator.runtime.surroundings import Surroundings
from dram_operator.settings import variable
from dram_workers.release.contract import MANIFEST, ReleaseConfig

log = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_SECONDS = 15.0
"""How soon the repository is asked again after it did not answer."""
SIGNING_SECONDS = 1.0
"""How soon to look whether an artifact is signed."""


class _Unreachable(Exception):
    """The repository cannot be asked; devices keep what they have, and telemetry is still judged."""


@dataclass(frozen=True)
class _Errands:
    """The release Jobs of a rollout for one artifact, oldest first."""

    jobs: tuple[Object, ...]
    views: tuple[AttemptView, ...]


class Artifacts:
    """What spec.artifact of each rollout has come to. One leader's; call `view` in the reconcile of its rollout."""

    def __init__(
        self,
        api: Kubernetes,
        find_job: Callable[[str, str], Object | None],
        desk: ReleaseDesk,
        installation: Installation,
        clock: Callable[[], datetime],
        releases_ca: str | None = None,
    ) -> None:
        self._api = api
        self._find_job = find_job
        self.desk = desk
        self._installation = installation
        self._clock = clock
        self._releases_ca = releases_ca
        self._sight = Sight(api, clock)
        self._signing: dict[str, asyncio.Task[None]] = {}
        self._one_signer = asyncio.Lock()
        self._shown: set[str] = set()

    async def view(self, obj: Object, rollout: EdgeRollout) -> ArtifactView:
        """How far the artifact is; starts the next step towards devices. Raises what the API server makes of its Jobs."""
        resolved = resolve(rollout, self._job_of(rollout), self._installation)
        if isinstance(resolved, ArtifactView):
            return resolved
        try:
            view = await self._release(rollout, resolved)
        except _Unreachable as error:
            view = ArtifactView(
                reason=RolloutReason.REPOSITORY_UNAVAILABLE, message=str(error), look_again_seconds=RETRY_SECONDS
            )
        return replace(view, resolved=resolved.status)

    @property
    def shown(self) -> frozenset[str]:
        """Digests that were offered to a rollout since this process started: they may be on their way into its status."""
        return frozenset(self._shown)

    async def _release(self, rollout: EdgeRollout, resolved: Resolved) -> ArtifactView:
        digest = resolved.status.digest
        if digest in self._signing:
            return await self._signed_by_now(digest)
        if digest in await self._ask(self.desk.signed):
            manifest = await self._ask(lambda: self.desk.manifest(digest))
            if manifest is not None:
                return self._offer(resolved, manifest)
        errands = await self._errands(rollout, digest)
        move = next_move(errands.views, self._clock(), lacking=False)
        if errands.views and not errands.views[-1].finished and isinstance(move, ArtifactView):
            return move
        standing = await self._ask(lambda: self.desk.standing(digest))
        if standing.manifest is not None and (unfit := _unfit(standing.manifest)):
            message = f"{resolved.status.name} is nothing that devices could run: {unfit}"
            return ArtifactView(reason=RolloutReason.ARTIFACT_NOT_RELEASABLE, message=message)
        if standing.is_whole:
            return self._sign(digest)
        return await self._upload(rollout, resolved, errands, standing)

    def _offer(self, resolved: Resolved, manifest: bytes) -> ArtifactView:
        try:
            release = release_of(resolved.status, manifest, stamp(self._clock()))
        except ArtifactUnfitError as error:
            return ArtifactView(reason=RolloutReason.ARTIFACT_NOT_RELEASABLE, message=str(error))
        self._shown.add(resolved.status.digest)
        return ArtifactView(release, RolloutReason.SIGNED)

    # uploading

    async def _upload(
        self, rollout: EdgeRollout, resolved: Resolved, errands: _Errands, standing: Standing
    ) -> ArtifactView:
        if resolved.storage is None:
            return ArtifactView(
                reason=RolloutReason.ARTIFACT_NOT_FOUND,
                message=f"spec.artifact.jobRef: {resolved.gone}",
                look_again_seconds=IDLE_SECONDS,
            )
        missing = {file.path for file in standing.missing} if standing.manifest is not None else {MANIFEST}
        lacking = bool(errands.jobs) and bool(_carried(errands.jobs[-1]) & missing)
        move = next_move(errands.views, self._clock(), lacking=lacking)
        if isinstance(move, ArtifactView):
            return move
        files = standing.missing[:BATCH]
        uploads = await self._ask(lambda: self.desk.grant(resolved.status.digest, files))
        errand = Errand(resolved, move, files, tuple(uploads), self._releases_ca)
        return await self._start(rollout, errand)

    async def _start(self, rollout: EdgeRollout, errand: Errand) -> ArtifactView:
        namespace = rollout.metadata.namespace
        try:
            await self._api.create(JOBS, namespace, release_job(rollout, errand, self._installation))
        except NameTaken as taken:
            return ArtifactView(reason=RolloutReason.UPLOADING, message=str(taken), look_again_seconds=WATCH_SECONDS)
        except Refused as refusal:
            message = f"the namespace refuses the release Job: {refusal}"
            return ArtifactView(reason=RolloutReason.UPLOADING, message=message, look_again_seconds=ASK_AGAIN_SECONDS)
        log.info(
            "release pod started",
            extra={"namespace": namespace, "rollout": rollout.metadata.name, "attempt": errand.attempt},
        )
        return ArtifactView(reason=RolloutReason.UPLOADING, message=UPLOADING, look_again_seconds=WATCH_SECONDS)

    async def _errands(self, rollout: EdgeRollout, digest: str) -> _Errands:
        """The rollout's release Jobs for this artifact; those for another one are stopped."""
        metadata = rollout.metadata
        labels = f"{ROLLOUT_LABEL}={metadata.name}"
        listed, _ = await self._api.list(JOBS, metadata.namespace, labels=labels)
        ours = [job for job in listed if owner_uid(job) == metadata.uid and "deletionTimestamp" not in job["metadata"]]
        if not ours:
            return _Errands((), ())
        pods, _ = await self._api.list(PODS, metadata.namespace, labels=labels)
        found = []
        for job in ours:
            view, _ = await self._sight.attempt(
                job, tuple(pod for pod in pods if owner_uid(pod) == job["metadata"]["uid"])
            )
            if job["metadata"]["labels"][ARTIFACT_LABEL] == short(digest):
                found.append((view, job))
            elif not view.finished:
                await self._stop(job)
        found.sort(key=lambda pair: pair[0].attempt)
        return _Errands(tuple(job for _, job in found), tuple(view for view, _ in found))

    async def _stop(self, job: Object) -> None:
        metadata = job["metadata"]
        try:
            await self._api.delete(
                JOBS, metadata["namespace"], metadata["name"], uid=metadata["uid"], propagation="Background"
            )
        except (NotFound, Conflict):
            return

    def _job_of(self, rollout: EdgeRollout) -> DistillationJob | None:
        """The DistillationJob that the rollout names, as it was last seen."""
        ref = rollout.spec.artifact.job_ref
        found = self._find_job(rollout.metadata.namespace, ref.name) if ref else None
        try:
            return DistillationJob.from_object(found) if found else None
        except ValidationError:
            # the job's own reconcile tells that operator and CRD do not fit together
            return None

    # signing

    def _sign(self, digest: str) -> ArtifactView:
        if not self.desk.can_sign:
            bucket = self.desk.bucket
            where = f"--repository {bucket.uri}" + (f" --endpoint {bucket.endpoint}" if bucket.endpoint else "")
            command = f"dram release sign {where} --key release.pem --root root.json {digest}"
            message = f"the artifact is uploaded; run `{command}` where the release key is"
            return ArtifactView(None, RolloutReason.AWAITING_SIGNATURE, message, look_again_seconds=IDLE_SECONDS)
        self._signing[digest] = asyncio.create_task(self._check_and_sign(digest))
        return _being_signed()

    async def _check_and_sign(self, digest: str) -> None:
        """One after the other: they would only meet each other's versions."""
        async with self._one_signer:
            await asyncio.to_thread(self.desk.sign, digest)

    async def _signed_by_now(self, digest: str) -> ArtifactView:
        task = self._signing[digest]
        if not task.done():
            return _being_signed()
        del self._signing[digest]
        try:
            task.result()
        except Transient as error:
            raise _Unreachable(str(error)) from error
        except OperatorError as error:
            message = f"the artifact could not be signed: {error}"
            return ArtifactView(None, RolloutReason.UPLOAD_FAILED, message, look_again_seconds=IDLE_SECONDS)
        return replace(_being_signed(), look_again_seconds=0.0)

    async def _ask(self, what: Callable[[], T]) -> T:
        """Ask the repository, in a thread."""
        try:
            return await asyncio.to_thread(what)
        except OperatorError as error:
            raise _Unreachable(f"the release repository: {error}") from error


def make_artifacts(around: Surroundings, repository: Repository) -> Artifacts:
    """Artifacts of an installation. SettingsInvalid when its release key cannot be used."""
    settings = around.settings
    try:
        key = load_key(settings.releases_release_key) if settings.releases_release_key else None
    except Refused as error:
        raise SettingsInvalid(f"{variable('releases_release_key')}: {error}") from error
    return Artifacts(
        around.api,
        lambda namespace, name: around.cache.find(DISTILLATION_JOBS, namespace, name),
        ReleaseDesk(repository.bucket, repository.root, around.clock, key),
        settings.installation(),
        around.clock,
        settings.releases_ca.read_text() if settings.releases_ca else None,
    )


def _being_signed() -> ArtifactView:
    message = "the artifact is uploaded, and is being checked and signed"
    return ArtifactView(None, RolloutReason.UPLOADING, message, look_again_seconds=SIGNING_SECONDS)


def _carried(job: Object) -> set[str]:
    """Paths that an attempt was to upload."""
    body = job["spec"]["template"]["metadata"]["annotations"][CONFIG_ANNOTATION]
    return {upload.path for upload in ReleaseConfig.model_validate_json(body).uploads}


def _unfit(manifest: bytes) -> str:
    try:
        requirements(manifest)
    except ArtifactUnfitError as error:
        return str(error)
    return ""
