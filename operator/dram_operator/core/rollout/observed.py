"""What `decide` is shown of a rollout, and what it answers with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from dram_agent.document import ChannelDocument
from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.api.rollout_reasons import RolloutReason
from dram_operator.api.rollout_status import ArtifactStatus, EdgeRolloutStatus, ReleaseStatus
from dram_operator.core.rollout.answers import Answer
from dram_operator.core.rollout.inventory import Inventory


@dataclass(frozen=True)
class ArtifactView:
    """How far spec.artifact has come on its way to the devices."""

    release: ReleaseStatus | None = None
    """The release, once it is resolved, uploaded and signed."""
    reason: RolloutReason = RolloutReason.PENDING
    """Why it is not there yet."""
    message: str = ""
    resolved: ArtifactStatus | None = None
    """What spec.artifact is, to be recorded; None when that is not known."""
    look_again_seconds: float | None = None
    """When to look again although nothing changes here: what is awaited happens elsewhere."""


NOT_LOOKED_FOR = ArtifactView()


@dataclass(frozen=True)
class DeviceReport:
    """What one device told of itself last."""

    last_seen: datetime
    release: str | None = None
    """Digest of the release that it runs."""
    healthy_since: datetime | None = None
    """Since when it has said, without a break, that this release is healthy."""
    activated_at: datetime | None = None
    """When it switched to the candidate of the present attempt."""
    gave_up_on: str | None = None
    """Digest of the release that it fell back from, refused, or crashes with."""
    excused: bool = False
    """Its silence may be the telemetry's own: that was interrupted, and has not been whole again for three intervals."""


@dataclass(frozen=True)
class Totals:
    """What the devices of a fleet that is only counted told last, of the present attempt."""

    reporting: int = 0
    """Treated devices that were heard of within three intervals."""
    healthy: int = 0
    """Of these: on the candidate, and well for the soak."""
    gave_up: int = 0
    """Treated devices that fell back, refused the candidate, or crash with it."""
    silent: int = 0
    """Treated devices that went silent during its soak."""
    running: Mapping[str, int] = field(default_factory=dict)
    """Devices of the channel that were heard of within three intervals, by the digest of the release that they run."""


NOTHING = Answer()


@dataclass(frozen=True)
class Measured:
    """What one look at one metric brought."""

    name: str
    at: datetime
    """Time of the queries."""
    query: str = ""
    """As it was sent."""
    answer: Answer = NOTHING
    """The figure of the treated arm, for a metric with limits."""
    windows: tuple[tuple[int, Answer], ...] = ()
    """Each device's figure in every window that has closed since the step started, for a metric compared with control."""


@dataclass(frozen=True)
class Observed:
    """One rollout, its channel and its devices."""

    rollout: EdgeRollout
    artifact: ArtifactView = NOT_LOOKED_FOR
    document: ChannelDocument | None = None
    """What is signed at the moment; None when nothing is."""
    repository_problem: str = ""
    """Why the repository cannot be read or written; empty when it can."""
    inventory: Inventory | None = None
    """The known devices; None when the list cannot be had."""
    reports: Mapping[str, DeviceReport] | None = None
    """By device id; None when telemetry cannot be had."""
    totals: Totals | None = None
    """Instead of reports where the inventory has groups; None when telemetry cannot be had."""
    measured: tuple[Measured, ...] = ()
    vouched: bool = False
    """Whether the API server proved who wrote the command."""
    sight_problem: str = ""
    """Why there is no inventory, or nobody in it; empty when there is one."""
    sight_reason: RolloutReason = RolloutReason.INVENTORY_UNAVAILABLE
    """The same in a word, where there is no inventory."""


@dataclass(frozen=True)
class RolloutEvent:
    """A Kubernetes Event to record."""

    type: str
    """Normal or Warning."""
    reason: RolloutReason
    message: str


@dataclass(frozen=True)
class Decision:
    """What to do, in this order: write status, publish the document where it differs from the signed one, record events."""

    status: EdgeRolloutStatus
    document: ChannelDocument | None = None
    """What is to be signed; None leaves the signed one alone."""
    finished: bool = False
    """A deleted rollout may go: devices were told, or could not be told in time."""
    events: tuple[RolloutEvent, ...] = ()
    requeue_after: float | None = None
    """Seconds until something is due although nothing changes."""
