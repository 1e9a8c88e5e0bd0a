"""`EdgeRollout.spec` as pydantic models. Field docstrings become the CRD's descriptions."""

from typing import Annotated, Literal

from pydantic import Field

from dram_operator.api.rollout_analysis import Analysis
from dram_operator.api.teacher import SecretRef, Uri
from dram_workers.model import Model

LabelText = Annotated[str, Field(max_length=63)]
Percent = Annotated[str, Field(min_length=2, max_length=9)]
DeviceName = Annotated[str, Field(max_length=32, pattern="^([0-9a-f]{16}|[0-9a-f]{32})$")]
Sha256 = Annotated[str, Field(max_length=64, pattern="^[0-9a-f]{64}$")]
ArtifactUri = Annotated[str, Field(min_length=1, max_length=256, pattern="^[-A-Za-z0-9_.!~*()@=:+,$;%/ ]+$")]
"""Characters that take one byte each wherever they are written down."""
Seconds = Annotated[int, Field(ge=0, le=31_536_000)]

DEFAULT_BAKE_SECONDS = 600
"""How long a step is watched when it does not say."""


class JobRef(Model):
    """A variant of a DistillationJob in the same namespace."""

    name: Annotated[str, Field(min_length=1, max_length=40)]
    """Name of the DistillationJob."""
    variant: Annotated[str, Field(min_length=1, max_length=32)]
    """Name of one of its exports that passed its gates."""


class ArtifactStorage(Model):
    """How the bucket of spec.artifact.uri is reached, as spec.storage of a DistillationJob says it."""

    secret_ref: SecretRef | None = None
    """Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN); absent where the service account
    has the rights."""
    service_account_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """Service account of the release pod, for storage rights bound to it."""
    endpoint: Uri | None = None
    """URL of an S3-compatible server; absent means AWS."""
    region: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """Region of the bucket."""
    path_style: bool = False
    """Address the bucket in the path, as most self-hosted servers need."""
    ca_bundle: Annotated[str, Field(max_length=65_536)] | None = None
    """PEM certificates to trust for the endpoint."""


class ArtifactSource(Model):
    """Which artifact: what is remembered of spec.artifact. How its bucket is reached says nothing of what it is."""

    job_ref: JobRef | None = None
    """The variant of a DistillationJob."""
    uri: ArtifactUri | None = None
    """Folder of the artifact."""
    sha256: Sha256 | None = None
    """SHA-256 of its manifest."""


class ArtifactSpec(Model):
    """What the channel should run. Set jobRef, or uri with sha256."""

    job_ref: JobRef | None = None
    """Take it from a DistillationJob. Its digest is resolved once and recorded; after the upload the job may go."""
    uri: ArtifactUri | None = None
    """Folder of the artifact, s3://bucket/prefix, with its manifest.json."""
    sha256: Sha256 | None = None
    """SHA-256 of that manifest."""
    storage: ArtifactStorage | None = None
    """How the bucket of uri is reached; absent takes the installation's storage. A jobRef takes its job's storage."""

    @property
    def source(self) -> ArtifactSource:
        """The artifact itself, without the way to it: what status records, and what it is compared with."""
        return ArtifactSource(job_ref=self.job_ref, uri=self.uri, sha256=self.sha256)


class DeviceSelector(Model):
    """Devices by the labels that their owner gave them."""

    match_labels: Annotated[dict[LabelText, LabelText], Field(min_length=1, max_length=4)]
    """Labels and the values that a device needs, all of them."""


class StepCohort(Model):
    """Devices that a step adds. Set deviceIds, percent, or both."""

    device_ids: Annotated[tuple[DeviceName, ...], Field(max_length=300)] = ()
    """Devices by id (32 hex digits) or by hash (16 hex digits). They are never held back."""
    percent: Percent | None = None
    """Share of the known devices, or of the selector's, e.g. "2.5%"; at least one that no earlier step has."""
    selector: DeviceSelector | None = None
    """Takes the percentage of these devices only."""


class Pause(Model):
    """Wait for a person to approve."""


class Step(Model):
    """One step. Set exactly one of cohort and pause."""

    cohort: StepCohort | None = None
    """Devices to add to those of the steps before."""
    pause: Pause | None = None
    """Wait for approval (`kubectl dram rollout approve`)."""
    bake_seconds: Seconds | None = None
    """How long the devices are watched after they took up the candidate, 600 where absent; after the last step, how long
    until it becomes stable."""


class Offline(Model):
    """What becomes of devices that do not report."""

    after_seconds: Annotated[int, Field(ge=60, le=31_536_000)] = 3600
    """Silence after which a device counts as offline."""
    policy: Literal["Exclude", "Wait", "CountAsFailed"] = "Exclude"
    """Exclude: a step does not expect them. Wait: a step waits for them until its deadline. CountAsFailed: they failed."""


class Window(Model):
    """A time in which the rollout may move forward."""

    schedule: Annotated[str, Field(min_length=9, max_length=64)]
    """When it opens, in cron's five fields: minute, hour, day of the month, month, day of the week."""
    duration_seconds: Annotated[int, Field(ge=60, le=604_800)]
    """How long it stays open."""
    time_zone: Annotated[str, Field(min_length=1, max_length=64)] = "Etc/UTC"
    """Name of the IANA time zone that the schedule is in."""


class Strategy(Model):
    """How a candidate reaches the devices."""

    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=16)]
    """The steps in order. Their devices add up; the last step takes every device."""
    holdback_percent: Percent = "0%"
    """Share of the devices that is kept on stable to compare with, until the candidate becomes stable."""
    min_devices: Annotated[int, Field(ge=1, le=1_000_000)] = 5
    """Healthy devices that a step needs as evidence, or 80 % of those that it expects where that is fewer; a step that
    expects fewer than this needs approval as well."""
    step_deadline_seconds: Annotated[int, Field(ge=60, le=31_536_000)] = 86_400
    """Longest time that a step may take; bakes, pauses, closed windows and times without telemetry do not count."""
    on_step_deadline: Literal["Pause", "Rollback"] = "Pause"
    """What happens then."""
    offline: Offline = Offline()
    """Devices that do not report."""
    windows: Annotated[tuple[Window, ...], Field(max_length=16)] = ()
    """When the rollout may move forward; absent is always. Rolling back never waits."""


class InventorySource(Model):
    """Where the list of devices comes from."""

    lookback_seconds: Annotated[int, Field(ge=3600, le=31_536_000)] = 2_592_000
    """A device is known when it reported within so many seconds."""
    uri: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """s3://bucket/key of a JSON Lines file with `id`, and optionally `labels`, `class` and `retired`, a device a line;
    absent takes the devices that report."""


class Rollback(Model):
    """How a bad candidate is withdrawn."""

    automatic: bool = True
    """Roll back by itself on a breach; false pauses instead."""
    max_percent_per_minute: Annotated[int, Field(ge=1, le=100)] = 100
    """Share of all devices that goes back per minute at most; 100 sends all at once."""


class EdgeRolloutSpec(Model):
    """What a channel of devices should run, and how it gets there."""

    artifact: ArtifactSpec
    """What to run. Changing it starts an attempt to roll it out."""
    strategy: Strategy
    """How it reaches the devices."""
    inventory: InventorySource = InventorySource()
    """Which devices there are."""
    analysis: Analysis = Analysis()
    """Which telemetry decides."""
    rollback: Rollback = Rollback()
    """What happens when it is bad."""
    paused: bool = False
    """Stop moving forward; metrics are still judged, and a breach still rolls back."""
