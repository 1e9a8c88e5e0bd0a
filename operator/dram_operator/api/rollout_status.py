"""`EdgeRollout.status`: what the operator tells. Nothing in it grows with the fleet, and every text is cut to its length."""

import json
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from dram_agent.document import Control, Digest, HashHex, Release
from dram_operator.api.rollout_reasons import RolloutCondition
from dram_operator.api.rollout_spec import ArtifactSource, LabelText
from dram_operator.api.schema import by
from dram_workers.model import Model

Fingerprint = Annotated[str, Field(max_length=16, pattern="^[0-9a-f]{16}$")]
Timestamp = Annotated[str, Field(max_length=32, json_schema_extra={"format": "date-time"})]
Total = Annotated[int, Field(ge=0, le=1_000_000_000)]


def json_bytes(text: str) -> int:
    """Bytes of a text in JSON as the API server stores it: Go writes `<`, `>` and `&` in six."""
    return len(json.dumps(text, ensure_ascii=False).encode()) - 2 + 5 * sum(map(text.count, "<>&"))


def clipped(text: str, size_bytes: int) -> str:
    """The text, cut so that it takes at most so many bytes in JSON."""
    while (over := json_bytes(text) - size_bytes) > 0:
        text = text[: len(text) - max(1, over // 6)]
    return text


def _told(size_bytes: int) -> BeforeValidator:
    return BeforeValidator(lambda value: clipped(value, size_bytes) if isinstance(value, str) else value)


Word = Annotated[str, _told(64), Field(max_length=64)]
Name = Annotated[str, _told(96), Field(max_length=96)]
Sentence = Annotated[str, _told(256), Field(max_length=256)]
LARGEST_QUERY_SHOWN = 960
"""Bytes of a query in JSON. Every preset fits, whatever the names."""


def _whole(text: object) -> object:
    """A query that is too long is not shown: a part of it would be another query."""
    return "" if isinstance(text, str) and json_bytes(text) > LARGEST_QUERY_SHOWN else text


Query = Annotated[str, BeforeValidator(_whole), Field(max_length=LARGEST_QUERY_SHOWN)]


class RolloutConditionStatus(Model):
    """One condition, by the Kubernetes API conventions."""

    type: RolloutCondition
    """Which condition."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    observed_generation: Total
    """The spec's generation that this speaks of."""
    last_transition_time: Timestamp
    """When status last changed."""
    reason: Word
    """One documented CamelCase word."""
    message: Annotated[str, _told(512), Field(max_length=512)] = ""
    """A sentence for people: what is so, and the remedy where something is wrong."""


class ReleaseStatus(Model):
    """A release and where it came from."""

    name: Name
    """For people: job/variant, or the start of the digest."""
    release: Release
    """What devices are told."""
    source: ArtifactSource | None = None
    """spec.artifact as it was when the digest was resolved; absent after it was taken over from a signed document."""
    since: Timestamp
    """When it became what it is here."""


class ArtifactStatus(Model):
    """What spec.artifact is: resolved once, so that it stays the same whatever becomes of where it came from."""

    source: ArtifactSource
    """spec.artifact as it was then."""
    name: Name
    """For people: job/variant, or the start of the digest."""
    digest: Digest
    """SHA-256 of the artifact's manifest."""


class StepState(StrEnum):
    """Where a step stands."""

    UPDATING = "Updating"
    """Its devices are taking up the candidate."""
    BAKING = "Baking"
    """They run it and are watched."""
    AWAITING_APPROVAL = "AwaitingApproval"
    """A person has to approve."""
    PASSED = "Passed"
    """It is good; the next one waits for a window, or for the pause or freeze to end."""


class DeviceCounts(Model):
    """Devices of the step by state; a device may be in several."""

    known: Total = 0
    """In the inventory and not retired, the whole channel's."""
    expected: Total = 0
    """Meant to run the candidate, less those offline that the policy excludes."""
    reporting: Total = 0
    """Of these: fresh within three intervals."""
    healthy: Total = 0
    """Of these: on the candidate, and well for the soak."""
    failed: Total = 0
    """Fell back, refused, crashed on and on, or went silent right after activation."""
    offline: Total = 0
    """Silent for longer than strategy.offline.afterSeconds."""


class Cutoff(Model):
    """Devices that are meant: at or below the cut-off, with the labels."""

    cutoff: HashHex
    """Highest hash that belongs to it."""
    match_labels: Annotated[dict[LabelText, LabelText], Field(max_length=4)] = {}
    """Labels that a device needs; empty takes every device."""


NAMED = 300
"""Devices that a rollout can name one by one."""
CUTOFFS = 16
"""Selectors that a rollout can use."""


class Reach(Model):
    """Which devices are meant to run the candidate: as signed, and only ever wider within an attempt."""

    named: Annotated[tuple[HashHex, ...], Field(max_length=NAMED)] = ()
    """Devices named one by one, as hashes."""
    cutoffs: Annotated[tuple[Cutoff, ...], Field(max_length=CUTOFFS)] = ()
    """Cut-offs, one a selector."""
    control: Control | None = None
    """The hold-back."""


class StepStatus(Model):
    """The step at work."""

    index: Annotated[int, Field(ge=0, le=16)]
    """Its place in strategy.steps, from 0."""
    shown: Word
    """For people: its place from 1, and how many there are, as 2/5."""
    percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Share of the known devices that is meant to run the candidate."""
    state: StepState
    """Where it stands."""
    started_at: Timestamp
    """When it started."""
    bake_started_at: Timestamp | None = None
    """When its bake started."""
    active_seconds: Total = 0
    """Seconds that counted towards its deadline before the present stretch."""
    active_since: Timestamp | None = None
    """Start of the present stretch that counts."""
    asked: Word | None = None
    """Why it waits, or waited, for a person."""
    approved_by: Name | None = None
    """Who approved it."""
    plan: Fingerprint | None = None
    """Fingerprint of the steps up to it, as the spec had them when it started."""
    incomplete: bool = False
    """Whether the spec was edited so that devices of the first step are missing: that step starts when this one has passed."""
    cutoff: HashHex | None = None
    """Highest hash of its own cohort."""
    approximate: bool = False
    """Whether the cut-off is a share of all hashes, because there are too many devices to list them or to count them exactly."""
    treated: Total = 0
    """Devices of its stratum that were meant to run the candidate when it started; a comparison keeps to these numbers."""
    control: Total = 0
    """Devices of its stratum that stayed on stable then."""
    devices: DeviceCounts = DeviceCounts()
    """Its devices."""


class MetricStatus(Model):
    """The latest verdict on a metric, and its counters."""

    name: Word
    """As in spec.analysis.metrics."""
    verdict: Literal["Pass", "Breach", "Inconclusive", "Error", "Missing"]
    """What the latest look said."""
    message: Sentence = ""
    """The same, in a sentence."""
    query: Query = ""
    """The query as it was sent, whole. Absent where it is longer than 960 bytes: it is spec's then, with the channel in
    every selector."""
    value: float | None = None
    """What was measured."""
    limit: float | None = None
    """What it was compared with."""
    lower: float | None = None
    """Lower bound of the difference to the control, at the attempt's alpha."""
    upper: float | None = None
    """Upper bound of it."""
    samples: Total = 0
    """Requests behind the value."""
    devices: Total = 0
    """Devices behind the value."""
    evidence: float | None = None
    """Logarithm of the e-value against "no worse than the control by more than the margin"."""
    looks: Annotated[str, Field(max_length=100, pattern="^[PBIEM]*$")] = ""
    """The latest looks, oldest first: Pass, Breach, Inconclusive, Error, Missing."""
    failed: Total = 0
    """Breaches among the latest looks."""
    inconclusive: Total = 0
    """Inconclusive looks in a row."""
    errors: Total = 0
    """Failed queries in a row."""
    missing: Total = 0
    """Looks in a row without usable data."""
    dry_run: bool = False
    """Whether it is shown only."""
    looked_at: Timestamp
    """When it was looked at."""


class RollbackStatus(Model):
    """A rollback on its way, or done."""

    digest: Digest
    """The release that is withdrawn."""
    reason: Word
    """Why."""
    message: Sentence = ""
    """The same, in a sentence."""
    started_at: Timestamp
    """When it was decided."""
    completed_at: Timestamp | None = None
    """When the devices were back."""
    percent: Annotated[int, Field(ge=0, le=100)] = 100
    """Share of all devices that was told to go back so far, as rollback.maxPercentPerMinute allows."""
    remaining: Total = 0
    """Online devices that still run it."""


class Quarantine(Model):
    """A release that is not offered to this channel again by itself."""

    digest: Digest
    """The release."""
    reason: Word
    """Why."""
    since: Timestamp
    """Since when."""
    judged_by: Fingerprint | None = None
    """Fingerprint of spec.analysis and spec.strategy (without windows) as they were: with others it may be tried again."""


class CommandStatus(Model):
    """A command that was handled."""

    id: Word
    """Its id."""
    verb: Literal["approve", "promote", "abort", "retry", "undo"] | None = None
    """What was asked for; absent of an annotation that is no command."""
    who: Name
    """Who asked; `unverified:` stands before a name that the API server did not vouch for."""
    reason: Sentence = ""
    """Why, in that person's words."""
    outcome: Literal["Applied", "Refused"]
    """What became of it."""
    message: Sentence = ""
    """Why it was refused."""
    handled_at: Timestamp
    """When it was handled."""


class AttemptRecord(Model):
    """An attempt that ended."""

    attempt: Total
    """Its number."""
    name: Name
    """The release, for people."""
    digest: Digest
    """The release."""
    outcome: Literal["Completed", "RolledBack", "Superseded"]
    """How it ended."""
    reason: Word
    """Why."""
    started_at: Timestamp
    """When it started."""
    finished_at: Timestamp
    """When it ended."""


class EdgeRolloutStatus(Model):
    """The observed state."""

    observed_generation: Total = 0
    """Generation of the spec that this status speaks of."""
    conditions: Annotated[tuple[RolloutConditionStatus, ...], Field(max_length=8, json_schema_extra=by("type"))] = ()
    """Conditions by type."""
    attempt: Total = 0
    """Number of the attempt; a new candidate and every retry count it up."""
    artifact: ArtifactStatus | None = None
    """What spec.artifact was resolved to."""
    stable: ReleaseStatus | None = None
    """What devices run outside of an attempt; absent means no local model."""
    previous: ReleaseStatus | None = None
    """The stable release before it, for undo."""
    candidate: ReleaseStatus | None = None
    """What is being rolled out; absent when nothing is."""
    reach: Reach = Reach()
    """Which devices are meant to run the candidate."""
    step: StepStatus | None = None
    """The step at work."""
    gate: Word | None = None
    """The metrics in a word, for people: Pass, Waiting, or the first that is in breach."""
    analysis: Annotated[tuple[MetricStatus, ...], Field(max_length=11, json_schema_extra=by("name"))] = ()
    """The metrics."""
    rollback: RollbackStatus | None = None
    """The rollback of this attempt; absent again when the next one starts."""
    quarantined: Annotated[tuple[Quarantine, ...], Field(max_length=16, json_schema_extra=by("digest"))] = ()
    """Releases that were rolled back here; the oldest give way."""
    commands: Annotated[tuple[CommandStatus, ...], Field(max_length=10, json_schema_extra=by("id"))] = ()
    """The latest commands, newest last."""
    history: Annotated[tuple[AttemptRecord, ...], Field(max_length=10)] = ()
    """The latest attempts that ended, newest last."""
