"""What a stage tells when it ends, and on the way. Import-light, as `stages` is."""

from typing import Annotated, Literal

from pydantic import Field

from dram_workers.model import Model

Word = Annotated[str, Field(max_length=256)]
"""A short text in a result."""


class Output(Model):
    """One output of a stage. `uri` is absent when it is the stage's own folder (or a path in it, see `path`)."""

    digest: Word
    """`sha256:…` over the content."""
    uri: Annotated[str, Field(max_length=1024)] | None = None
    """Where it lies, when that is not the stage's own folder."""
    path: Annotated[str, Field(max_length=1024)] | None = None
    """Path in the stage's folder; absent means all of it."""


class Measure(Model):
    """A figure that a gate may decide on, with its one-sided 95 % bounds where it has any."""

    name: Word
    """What was measured."""
    value: float
    """The figure."""
    low: float | None = None
    """One-sided 95 % lower bound."""
    high: float | None = None
    """One-sided 95 % upper bound."""
    n: int | None = None
    """How many observations it rests on."""
    unit: Word = ""
    """Its unit; empty for shares and scores."""
    baseline: float | None = None
    """The same figure of what it is compared with."""
    note: Annotated[str, Field(max_length=1024)] | None = None
    """What a reader must know about it."""


class StageResult(Model):
    """What a finished stage tells: at most 2 KiB as JSON, so it fits the termination message."""

    key: Word
    """Key of the stage's folder."""
    cached: bool = False
    """Whether an earlier result was taken."""
    outputs: Annotated[dict[str, Output], Field(max_length=64)] = {}
    """What the stage made, by name."""
    measures: Annotated[tuple[Measure, ...], Field(max_length=64)] = ()
    """Figures for the gates and the report."""
    facts: Annotated[dict[str, str | int | float | bool], Field(max_length=64)] = {}
    """What else is worth telling, by name."""


class StageMessage(Model):
    """The termination message: JSON, at most 4 KiB."""

    reason: str
    message: str = ""
    field: str | None = None
    remedy: str | None = None
    result: StageResult | None = None


class Progress(Model):
    """What rank 0 posts. `total_steps` 0 means unknown."""

    stage: str
    attempt: int
    step: int
    total_steps: int
    metrics: dict[str, float] = {}


class ProgressSettings(Model):
    """Where rank 0 reports to. Absent in a local run: it then writes lines to standard output."""

    url: str
    token_file: str
    ca_file: str | None = None
    interval_seconds: float = 5.0


class GateRow(Model):
    """One decided gate, as in the status."""

    variant: Word
    """The variant that was judged."""
    gate: Word
    """The field of spec.gates, e.g. `quality.minGoldenPassRate`."""
    stage: Literal["Preflight"] | None = None
    """Preflight where the untrained student was measured; absent for the trained one."""
    target: Word | None = None
    """Where the figure was measured; absent for quality."""
    baseline: float | None = None
    """The figure of what the variant is compared with."""
    value: float | None = None
    """The variant's figure; absent when nothing could be measured."""
    low: float | None = None
    """One-sided 95 % lower bound of the value; absent for exact figures."""
    high: float | None = None
    """One-sided 95 % upper bound of the value; absent for exact figures."""
    limit: float
    """What the value, or its bound, must hold."""
    unit: Word = ""
    """Unit of value and limit; empty for shares and scores."""
    verdict: Literal["Pass", "Warn", "Fail", "Inconclusive", "Unverified"]
    """What was decided."""
    message: Annotated[str, Field(max_length=1024)]
    """What was compared, in one sentence; on anything but Pass it ends with the remedy."""
