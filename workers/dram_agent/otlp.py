"""The series of `/metrics` as OTLP, for devices that nobody can scrape (OpenTelemetry protocol 1.x, over HTTP)."""

import itertools
from collections.abc import Iterable

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    Gauge,
    Histogram,
    HistogramDataPoint,
    NumberDataPoint,
    ScopeMetrics,
    Sum,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric as OtlpMetric
from prometheus_client import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

CONTENT_TYPE = "application/x-protobuf"
NANOSECONDS = 1_000_000_000


def export(series: Collector, resource: dict[str, str], now: float, started_at: float) -> bytes:
    """All series as one export request. Times are seconds since the epoch; counters are cumulative since the start."""
    request = ExportMetricsServiceRequest()
    resources = request.resource_metrics.add()
    resources.resource.attributes.extend(_attributes(resource))
    scope: ScopeMetrics = resources.scope_metrics.add()
    for family in series.collect():
        scope.metrics.append(_metric(family, int(now * NANOSECONDS), int(started_at * NANOSECONDS)))
    return bytes(request.SerializeToString())


def _metric(family: Metric, now: int, started: int) -> OtlpMetric:
    if family.type == "histogram":
        points = [_histogram(group, now, started) for group in _by_labels(family.samples).values()]
        shape = Histogram(data_points=points, aggregation_temporality=AGGREGATION_TEMPORALITY_CUMULATIVE)
        return OtlpMetric(name=family.name, description=family.documentation, histogram=shape)
    samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
    if family.type == "counter":
        numbers = [_number(sample, now, started) for sample in samples]
        total = Sum(data_points=numbers, aggregation_temporality=AGGREGATION_TEMPORALITY_CUMULATIVE, is_monotonic=True)
        return OtlpMetric(name=family.name, description=family.documentation, sum=total)
    level = Gauge(data_points=[_number(sample, now, 0) for sample in samples])
    return OtlpMetric(name=family.name, description=family.documentation, gauge=level)


def _number(sample: Sample, now: int, started: int) -> NumberDataPoint:
    return NumberDataPoint(
        attributes=_attributes(sample.labels),
        time_unix_nano=now,
        start_time_unix_nano=started,
        as_double=sample.value,
    )


def _by_labels(samples: Iterable[Sample]) -> dict[tuple[tuple[str, str], ...], list[Sample]]:
    """Samples of one histogram each: everything but the bucket's bound is the same."""
    groups: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for sample in samples:
        key = tuple(sorted((name, value) for name, value in sample.labels.items() if name != "le"))
        groups.setdefault(key, []).append(sample)
    return groups


def _histogram(samples: list[Sample], now: int, started: int) -> HistogramDataPoint:
    """Prometheus counts up to each bound, OTLP between two."""
    buckets = sorted((float(each.labels["le"]), each.value) for each in samples if each.name.endswith("_bucket"))
    total = next(each.value for each in samples if each.name.endswith("_sum"))
    upto = [0, *(int(count) for _, count in buckets)]
    return HistogramDataPoint(
        attributes=_attributes({name: value for name, value in samples[0].labels.items() if name != "le"}),
        time_unix_nano=now,
        start_time_unix_nano=started,
        count=upto[-1],
        sum=total,
        bucket_counts=[after - before for before, after in itertools.pairwise(upto)],
        explicit_bounds=[bound for bound, _ in buckets[:-1]],
    )


def _attributes(labels: dict[str, str]) -> list[KeyValue]:
    return [KeyValue(key=name, value=AnyValue(string_value=value)) for name, value in sorted(labels.items())]
