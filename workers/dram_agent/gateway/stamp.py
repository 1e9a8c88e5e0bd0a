"""From what a device pushed to what goes on: rebuilt from nothing, with the identity of its token and the gateway's time.

Whatever the payload claims to be (resource, scope, channel, device, namespace, class) is not looked at. A device's clock
may be wrong, so every point is as of now; starts of counters keep their distance to it.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    Sum,
)

from dram_agent.buckets import LATENCY_BUCKETS
from dram_agent.gateway.refusal import Reason, Refused
from dram_agent.gateway.schema import (
    DECADE_SECONDS,
    INFO,
    LABELS,
    LARGEST_COUNT,
    LONGEST_NAME,
    LONGEST_VALUE,
    MOST_OWNER_LABELS,
    OPEN,
    OWNER_LABEL,
    REQUESTS,
    SHAPES,
    Kind,
    Shape,
)
from dram_agent.identity import Claims
from dram_agent.otlp import NANOSECONDS
from dram_agent.telemetry import LABEL_PREFIX

CLAIMS = ("channel", "device", "namespace", "device_class")
"""Labels that the gateway stamps."""
LONGEST_ANSWER_SECONDS = 3600.0
Labels = Mapping[str, str]


class Dropped(StrEnum):
    """Why a point does not go on; the values of the label `cause` of `dram_gateway_dropped_points_total`."""

    METRIC = "metric"
    """No metric of an agent, or not in its form."""
    LABELS = "labels"
    """Not the labels of this metric, or values that they do not have."""
    VALUE = "value"
    """No number."""
    TWICE = "twice"
    """A second point of the same series."""


@dataclass
class Stamped:
    """What goes on, and what the gateway has to know of it."""

    request: ExportMetricsServiceRequest = field(default_factory=ExportMetricsServiceRequest)
    points: int = 0
    requests: float = 0.0
    """Sum of the request counters."""
    variants: set[int] = field(default_factory=set)
    """Hashes of the combinations of open labels."""
    dropped: Counter[Dropped] = field(default_factory=Counter)


def stamp(body: bytes, claims: Claims, now: float, most_points: int) -> Stamped:
    """Rebuild a push. `now` in seconds since the epoch. Refused when it cannot be read, or has too many points."""
    try:
        pushed = ExportMetricsServiceRequest.FromString(body)
    except DecodeError as error:
        raise Refused(Reason.MALFORMED) from error
    made = Stamped()
    resource = made.request.resource_metrics.add()
    whose = {
        "service.name": "dram-agent",
        "service.namespace": claims.namespace,
        "service.instance.id": claims.device,
    }
    resource.resource.attributes.extend(_attributes(whose))
    out = resource.scope_metrics.add()
    seen: set[tuple[str, frozenset[tuple[str, str]]]] = set()
    for metric in _metrics(pushed):
        shape = SHAPES.get(metric.name)
        points = _points(metric, shape)
        if shape is None or points is None:
            made.dropped[Dropped.METRIC] += 1
            continue
        target = Metric(name=metric.name)
        for point in points:
            made.points += 1
            if made.points > most_points:
                raise Refused(Reason.TOO_MANY_SERIES)
            _take(target, point, shape, claims, int(now * NANOSECONDS), made, seen)
        if target.WhichOneof("data") is not None:
            out.metrics.append(target)
    return made


def _metrics(pushed: ExportMetricsServiceRequest) -> Iterator[Metric]:
    for resource in pushed.resource_metrics:
        for scope in resource.scope_metrics:
            yield from scope.metrics


def _points(metric: Metric, shape: Shape | None) -> Iterable[NumberDataPoint | HistogramDataPoint] | None:
    """The points of a metric in the form that it has; None when it has another one."""
    if shape is None or metric.WhichOneof("data") != shape.kind:
        return None
    points: Iterable[NumberDataPoint | HistogramDataPoint]
    match shape.kind:
        case Kind.LEVEL:
            points, is_ours = metric.gauge.data_points, True
        case Kind.COUNT:
            points, is_ours = metric.sum.data_points, metric.sum.is_monotonic and _is_cumulative(metric.sum)
        case Kind.DISTRIBUTION:  # pragma: no branch -- mypy proves that no member is left
            points, is_ours = metric.histogram.data_points, _is_cumulative(metric.histogram)
    return points if is_ours else None


def _is_cumulative(data: Sum | Histogram) -> bool:
    return bool(data.aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE)


def _take(
    target: Metric,
    point: NumberDataPoint | HistogramDataPoint,
    shape: Shape,
    claims: Claims,
    now: int,
    made: Stamped,
    seen: set[tuple[str, frozenset[tuple[str, str]]]],
) -> None:
    """Add one point to its metric, or count why not."""
    labels = _labels(target.name, point.attributes, shape)
    if labels is None:
        made.dropped[Dropped.LABELS] += 1
        return
    series = (target.name, frozenset(labels.items()))
    if series in seen:
        made.dropped[Dropped.TWICE] += 1
        return
    own = {"namespace": claims.namespace, "channel": claims.channel, "device": claims.device}
    own |= {"device_class": claims.device_class or ""} if target.name == INFO else {}
    start = 0 if shape.kind is Kind.LEVEL else now - _age(point)
    attributes = _attributes({**labels, **own})
    if isinstance(point, HistogramDataPoint):
        taken = _add_histogram(target, point, attributes, now, start)
    else:
        taken = _add_number(target, point, shape, attributes, now, start)
        made.requests += taken or 0.0 if target.name == REQUESTS else 0.0
    if taken is None:
        made.dropped[Dropped.VALUE] += 1
        return
    seen.add(series)
    variant = sorted((name, value) for name, value in labels.items() if name in OPEN or name.startswith(LABEL_PREFIX))
    made.variants.add(hash(tuple(variant)))


def _add_number(
    target: Metric, point: NumberDataPoint, shape: Shape, attributes: list[KeyValue], now: int, start: int
) -> float | None:
    value = float(point.as_int) if point.WhichOneof("value") == "as_int" else point.as_double
    if not math.isfinite(value):
        return None
    value = min(max(value, 0.0), shape.largest)
    if shape.kind is Kind.COUNT:
        target.sum.is_monotonic = True
        target.sum.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
        points = target.sum.data_points
    else:
        points = target.gauge.data_points
    points.add(attributes=attributes, time_unix_nano=now, start_time_unix_nano=start, as_double=value)
    return value


def _add_histogram(
    target: Metric, point: HistogramDataPoint, attributes: list[KeyValue], now: int, start: int
) -> float | None:
    """A histogram whose bounds are the agent's, whose counts add up; its sum is clipped to what they allow."""
    counts = list(point.bucket_counts)
    if tuple(point.explicit_bounds) != LATENCY_BUCKETS or len(counts) != len(LATENCY_BUCKETS) + 1:
        return None
    if sum(counts) != point.count or point.count > LARGEST_COUNT or not math.isfinite(point.sum):
        return None
    least = sum(count * bound for count, bound in zip(counts, (0.0, *LATENCY_BUCKETS), strict=True))
    target.histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    target.histogram.data_points.add(
        attributes=attributes,
        time_unix_nano=now,
        start_time_unix_nano=start,
        count=point.count,
        sum=min(max(point.sum, least), point.count * LONGEST_ANSWER_SECONDS),
        bucket_counts=counts,
        explicit_bounds=LATENCY_BUCKETS,
    )
    return float(point.count)


def _labels(metric: str, attributes: Iterable[KeyValue], shape: Shape) -> dict[str, str] | None:
    """What a point says of itself beside whose it is; None when that is not what this metric says."""
    labels = {each.key: each.value.string_value for each in attributes if each.key not in CLAIMS}
    owners = {name for name in labels if name.startswith(LABEL_PREFIX)} if metric == INFO else set()
    if set(labels) - owners != set(shape.labels) or len(owners) > MOST_OWNER_LABELS:
        return None
    if not all(LABELS[name].fullmatch(labels[name]) for name in shape.labels):
        return None
    if not all(OWNER_LABEL.fullmatch(name) and len(name) <= LONGEST_NAME for name in owners):
        return None
    return labels if all(len(labels[name]) <= LONGEST_VALUE for name in owners) else None


def _age(point: NumberDataPoint | HistogramDataPoint) -> int:
    """For how long a counter has counted, in nanoseconds."""
    age = point.time_unix_nano - point.start_time_unix_nano
    return min(max(age, 0), int(DECADE_SECONDS) * NANOSECONDS)


def _attributes(labels: Labels) -> list[KeyValue]:
    return [KeyValue(key=name, value=AnyValue(string_value=value)) for name, value in sorted(labels.items()) if value]
