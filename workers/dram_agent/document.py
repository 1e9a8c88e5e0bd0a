"""The channel document: what a channel's devices should run, signed by the operator and obeyed by the agents.

Both sides import this module, so there is one meaning of it. Nothing in it is a device's name: devices stand in it as
salted hashes only.
"""

import json
from typing import Annotated, Literal

from pydantic import Field

from dram_workers.model import Model

Digest = Annotated[str, Field(max_length=64, pattern="^[0-9a-f]{64}$")]
HashHex = Annotated[str, Field(max_length=16, pattern="^[0-9a-f]{16}$")]
LabelName = Annotated[str, Field(max_length=63, pattern="^[A-Za-z_][A-Za-z0-9_]*$")]
LabelValue = Annotated[str, Field(max_length=63)]
Seconds = Annotated[int, Field(ge=1, le=31_536_000)]

CHANNEL = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
"""`namespace/name` of the EdgeRollout."""
TARGET = "^artifacts/[0-9a-f]{64}/[A-Za-z0-9][A-Za-z0-9._-]*$"
"""Path of an artifact's file in the release repository."""


class Requirements(Model):
    """What a device needs before it downloads an artifact."""

    format: Annotated[str, Field(min_length=1, max_length=32)]
    """Format of the model's file, e.g. `gguf`; the device's runtime has to read it."""
    memory_bytes: Annotated[int, Field(ge=0, le=1 << 50)]
    """Memory that serving it takes."""
    agent_version: Annotated[str, Field(max_length=32, pattern=r"^[0-9]+(\.[0-9]+){0,2}$")]
    """Oldest agent that can run it."""


class Artifact(Model):
    """One build of a release."""

    device_class: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """The class of devices that it is made for; null for all that no other artifact names."""
    path: Annotated[str, Field(max_length=128, pattern=TARGET)]
    """Target path of its manifest."""
    requires: Requirements
    """Its preconditions."""


class Release(Model):
    """An artifact as offered to devices."""

    digest: Digest
    """SHA-256 of the manifest that names the release."""
    artifacts: Annotated[tuple[Artifact, ...], Field(min_length=1, max_length=4)]
    """Its builds, one a class of devices."""

    def artifact_for(self, device_class: str | None) -> Artifact | None:
        """The build made for a class, else the one made for all, else none."""
        by_class = {artifact.device_class: artifact for artifact in reversed(self.artifacts)}
        return by_class.get(device_class) or by_class.get(None)


class Cohort(Model):
    """Devices of one step: those named by hash, and those at or below the cut-off that carry the labels."""

    cutoff: HashHex | None = None
    """Highest hash that belongs to it; null takes nobody but those named."""
    hashes: Annotated[tuple[HashHex, ...], Field(max_length=1000)] = ()
    """Devices named one by one, labels or not."""
    match_labels: Annotated[dict[LabelName, LabelValue], Field(max_length=4)] = {}
    """Labels that a device needs for the cut-off to count; empty takes every device."""


class Control(Model):
    """Devices held back on stable to compare with."""

    cutoff: HashHex
    """Lowest hash that belongs to it."""


class ChannelDocument(Model):
    """What every device of a channel should run, and how often it asks."""

    schema_version: Literal[1] = 1
    channel: Annotated[str, Field(max_length=127, pattern=CHANNEL)]
    """`namespace/name`."""
    attempt: Annotated[int, Field(ge=0)]
    """Number of the attempt; counts up with every new candidate and every retry."""
    salt: Annotated[str, Field(max_length=64, pattern="^([0-9a-f]{2})+$")]
    """Salt of the device hashes, in hex."""
    cohorts: Annotated[tuple[Cohort, ...], Field(max_length=32)] = ()
    """The cohorts reached so far; a device in any of them is meant."""
    control: Control | None = None
    """The hold-back; null when nobody is held back."""
    stable: Release | None = None
    """What runs outside of the cohorts; null means no local model: the cloud serves."""
    candidate: Release | None = None
    """What runs inside of them; null when nothing is being rolled out."""
    withdrawing: bool = False
    """Whether the candidate is being sent back, cohort by cohort: no device takes it up any more."""
    denied: Annotated[tuple[Digest, ...], Field(max_length=64)] = ()
    """Releases that no device may run, whatever else it knows."""
    poll_seconds: Seconds
    """Seconds between two polls."""
    active_poll_seconds: Seconds
    """The same for devices inside of the cohorts while there is a candidate."""
    backoff_seconds: Seconds
    """Longest wait between two polls that fail."""
    candidate_lease_seconds: Seconds
    """A device on the candidate that has seen no fresh metadata for so long goes back to stable."""
    frozen: bool = False
    """Whether the installation is frozen: no device takes up another release, but none stays on a denied one."""

    def encode(self) -> bytes:
        """The document's bytes: JSON with sorted keys and no spaces, equal for equal documents."""
        value = self.model_dump(mode="json")
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def decode(cls, body: bytes) -> "ChannelDocument":
        """Read a document; raises pydantic's ValidationError (a ValueError) for anything that is not one."""
        return cls.model_validate_json(body)
