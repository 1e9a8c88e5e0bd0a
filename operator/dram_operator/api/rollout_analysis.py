"""`EdgeRollout.spec.analysis`: which telemetry decides, and how."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from dram_operator.api.pods import Quantity
from dram_operator.api.schema import by
from dram_workers.model import Model

MetricName = Annotated[str, Field(min_length=1, max_length=63)]
Count = Annotated[int, Field(ge=1, le=1_000)]


class Preset(StrEnum):
    """Measures that need no query. They count only what the device itself served."""

    LATENCY_P50 = "LatencyP50"
    """Median seconds of a request."""
    LATENCY_P95 = "LatencyP95"
    """95th percentile of the seconds of a request."""
    LATENCY_P99 = "LatencyP99"
    """99th percentile of the seconds of a request."""
    ERROR_RATIO = "ErrorRatio"
    """Share of requests that failed."""
    FALLBACK_RATIO = "FallbackRatio"
    """Share of requests that the cloud had to serve; a gate also where no metric names it."""
    GOLDEN_RATIO = "GoldenPassRatio"
    """Share of the golden items that the device answers well."""
    MEMORY_BYTES = "MemoryBytes"
    """Resident memory of the serving process."""


class PrometheusRef(Model):
    """A Prometheus-compatible server, as the installation names it."""

    name: Annotated[str, Field(min_length=1, max_length=63)] = "default"
    """Name of one of the installation's endpoints."""


class Metric(Model):
    """One measure of the candidate, and its limits. Set exactly one of preset and query."""

    name: MetricName
    """Unique in the rollout; shown in status and in the operator's own metrics."""
    preset: Preset | None = None
    """A measure that Dram knows the query of."""
    query: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """PromQL of your own, with {{channel}}, {{attempt}}, {{arm}}, {{window}}, {{release}} (the candidate's digest) and
    {{stable}} filled in. It must give one series, or one a device where compareTo is set. The channel is matched in every
    selector, whatever the query says; match release="{{release}}" where what devices ran before must not count."""
    compare_to: Literal["Control"] | None = None
    """Control: compare the devices of the cohort with those that stay on stable, device by device."""
    min: Quantity | None = None
    """Smallest good value, e.g. "0.95"."""
    max: Quantity | None = None
    """Largest good value, e.g. "300m" (0.3)."""
    margin: Quantity | None = None
    """How much worse than the control the candidate may be, in the unit of the measure, e.g. "0.005" of ErrorRatio. It is a
    breach when the candidate is certainly worse by more, a pass when it is certainly not."""
    failure_limit: Count = 2
    """Breaches of min or max among the last `looks` that roll back."""
    looks: Annotated[int, Field(ge=1, le=100)] = 5
    """How many of the latest looks failureLimit counts in."""
    inconclusive_limit: Count = 5
    """Looks in a row without a verdict after which the rollout pauses."""
    error_limit: Count = 10
    """Failed queries in a row after which the rollout pauses, or rolls back where missingData is Fail. Fewer are waited out."""
    missing_data: Literal["Wait", "Pause", "Fail"] = "Wait"
    """What a look without usable data does: wait for the next, pause the rollout, or count as a breach. It never passes.
    Failed queries count apart, by errorLimit."""
    min_samples: Annotated[int, Field(ge=0, le=1_000_000_000)] = 100
    """Requests that the cohort must have served before the measure may pass."""
    dry_run: bool = False
    """Measure and show it, but let it decide nothing."""


class Analysis(Model):
    """How telemetry decides about a step."""

    prometheus_ref: PrometheusRef = PrometheusRef()
    """The server that is asked."""
    interval_seconds: Annotated[int, Field(ge=5, le=3600)] = 60
    """Seconds between two looks; a device is fresh for three of them."""
    alpha: Annotated[str, Field(min_length=2, max_length=8)] = "0.05"
    """Chance that one whole attempt is rolled back although the candidate is as good as the control: all metrics, steps
    and looks together."""
    metrics: Annotated[tuple[Metric, ...], Field(max_length=10, json_schema_extra=by("name"))] = ()
    """The measures; FallbackRatio is added where none of them has it."""
