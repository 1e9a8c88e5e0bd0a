"""What of a push goes on: the agent's own series, in range, once each; never what they claim to be."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    AGGREGATION_TEMPORALITY_DELTA,
    Metric,
)

from dram_agent.buckets import LATENCY_BUCKETS
from dram_agent.gateway.refusal import Reason, Refused
from dram_agent.gateway.schema import DECADE_SECONDS, LABELS, SHAPES, Kind
from dram_agent.gateway.stamp import CLAIMS, Dropped, Stamped, stamp
from dram_agent.otlp import export
from tests.agent.gateway.standing_by import NOW, RELEASE, claims, telemetry

DEVICE = "e" * 32
BUCKETS = len(LATENCY_BUCKETS) + 1
OK = {"release": RELEASE, "outcome": "ok", "served_by": "device"}


def attributes(labels: dict[str, str]) -> list[KeyValue]:
    return [KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in labels.items()]


def level(name: str, value: float, **labels: str) -> Metric:
    metric = Metric(name=name)
    metric.gauge.data_points.add(attributes=attributes({"release": RELEASE, **labels}), as_double=value)
    return metric


def count(value: float = 1, **changes: Any) -> Metric:
    metric = Metric(name="dram_device_requests")
    metric.sum.is_monotonic = changes.get("monotonic", True)
    metric.sum.aggregation_temporality = changes.get("temporality", AGGREGATION_TEMPORALITY_CUMULATIVE)
    metric.sum.data_points.add(attributes=attributes(changes.get("labels", OK)), as_double=value)
    return metric


def spread(**changes: Any) -> Metric:
    metric = Metric(name="dram_device_request_seconds")
    metric.histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    fields: dict[str, Any] = {
        "count": 3,
        "sum": 2.0,
        "bucket_counts": [0, 0, 0, 3, *[0] * (BUCKETS - 4)],
        "explicit_bounds": LATENCY_BUCKETS,
        **changes,
    }
    labels = attributes({"release": RELEASE, "served_by": "device"})
    metric.histogram.data_points.add(attributes=labels, **fields)
    return metric


def stamped(*metrics: Metric, most_points: int = 1000) -> Stamped:
    request = ExportMetricsServiceRequest()
    request.resource_metrics.add().scope_metrics.add().metrics.extend(metrics)
    return stamp(request.SerializeToString(), claims(DEVICE), NOW, most_points)


def points(made: Stamped) -> list[Any]:
    return [
        point
        for metric in made.request.resource_metrics[0].scope_metrics[0].metrics
        for point in getattr(metric, str(metric.WhichOneof("data"))).data_points
    ]


def test_the_schema_is_what_an_agent_says() -> None:
    said = telemetry(DEVICE)
    said.show_golden(1.0)
    request = ExportMetricsServiceRequest.FromString(export(said, {}, NOW, NOW))
    shapes = {}
    for metric in request.resource_metrics[0].scope_metrics[0].metrics:
        kind = Kind(str(metric.WhichOneof("data")))
        first = getattr(metric, kind).data_points[0]
        shapes[metric.name] = (kind, {each.key for each in first.attributes} - set(CLAIMS))
    assert shapes == {name: (shape.kind, set(shape.labels)) for name, shape in SHAPES.items()}


@pytest.mark.parametrize(
    ("metric", "want"),
    [
        (level("dram_device_healthy", 7), 1.0),
        (level("dram_device_healthy", -7), 0.0),
        (level("dram_device_golden_pass_ratio", 1e300), 1.0),
        (level("dram_device_release_seconds", 1e300), DECADE_SECONDS),
        (level("dram_device_memory_bytes", -1), 0.0),
        (count(1e300), 2.0**53),
        (count(-5), 0.0),
    ],
)
def test_values_are_clipped_to_what_they_can_be(metric: Metric, want: float) -> None:
    assert [point.as_double for point in points(stamped(metric))] == [want]


def test_an_integer_is_a_number_too() -> None:
    metric = Metric(name="dram_device_healthy")
    metric.gauge.data_points.add(attributes=attributes({"release": RELEASE}), as_int=1)
    assert [point.as_double for point in points(stamped(metric))] == [1.0]


@pytest.mark.parametrize(
    ("metric", "want"),
    [
        (level("dram_device_anything", 1), Dropped.METRIC),
        (level("up", 1), Dropped.METRIC),
        (level("dram_device_requests", 1), Dropped.METRIC),
        (count(monotonic=False), Dropped.METRIC),
        (count(temporality=AGGREGATION_TEMPORALITY_DELTA), Dropped.METRIC),
        (Metric(name="dram_device_healthy"), Dropped.METRIC),
        (level("dram_device_healthy", 1, extra="x"), Dropped.LABELS),
        (level("dram_device_healthy", 1, release="no digest"), Dropped.LABELS),
        (level("dram_device_healthy", 1, label_ring="early"), Dropped.LABELS),
        (count(labels={**OK, "outcome": "great"}), Dropped.LABELS),
        (count(labels={"release": RELEASE}), Dropped.LABELS),
        (level("dram_device_healthy", math.nan), Dropped.VALUE),
        (level("dram_device_healthy", math.inf), Dropped.VALUE),
        (count(-math.inf), Dropped.VALUE),
        (spread(sum=math.nan), Dropped.VALUE),
        (spread(count=4), Dropped.VALUE),
        (spread(count=1 << 60, bucket_counts=[1 << 60, *[0] * (BUCKETS - 1)]), Dropped.VALUE),
        (spread(bucket_counts=[3]), Dropped.VALUE),
        (spread(explicit_bounds=[bound + 1 for bound in LATENCY_BUCKETS]), Dropped.VALUE),
    ],
)
def test_what_is_no_series_of_an_agent_is_left_out_and_counted(metric: Metric, want: Dropped) -> None:
    made = stamped(metric, level("dram_device_healthy", 1, release="b" * 64))
    assert made.dropped == {want: 1}
    assert [point.as_double for point in points(made)] == [1.0]


@pytest.mark.parametrize(
    ("name", "value", "goes_on"),
    [
        ("label_ring", "early", True),
        ("label_Room_12b", "ü / " + "x" * 59, True),
        ("label_ring", "x" * 64, False),
        ("label_a__b", "x", False),
        ("label_", "x", False),
        ("label_" + "a" * 64, "x", False),
        ("label_a\nb", "x", False),
    ],
)
def test_labels_of_the_owner_stand_on_info_in_their_bounds(name: str, value: str, goes_on: bool) -> None:
    assigned = {"attempt": "1", "arm": "treated", "agent_version": "1.0"}
    made = stamped(level("dram_device_info", 1, **assigned, **{name: value}))
    assert len(points(made)) == goes_on
    many = {f"label_a{number}": "x" for number in range(17)}
    assert points(stamped(level("dram_device_info", 1, **assigned, **many))) == []


def test_a_series_goes_on_once() -> None:
    twice = [level("dram_device_healthy", 1, device=device) for device in ("1" * 32, "2" * 32)]
    made = stamped(*twice)
    assert made.dropped == {Dropped.TWICE: 1}
    assert len(points(made)) == 1


def test_the_sum_of_durations_is_one_that_the_buckets_allow() -> None:
    for said, want in ((2.0, 2.0), (-5.0, 0.6), (1e300, 3 * 3600.0)):
        (point,) = points(stamped(spread(sum=said)))
        assert point.sum == pytest.approx(want)


def test_starts_keep_their_distance_to_the_end() -> None:
    for age, want in ((60, 60), (-60, 0), (10**10, int(DECADE_SECONDS))):
        metric = count()
        metric.sum.data_points[0].time_unix_nano = (10**11) * 10**9 // 10
        metric.sum.data_points[0].start_time_unix_nano = max(0, ((10**10) - age) * 10**9)
        (point,) = points(stamped(metric))
        assert point.time_unix_nano == NOW * 10**9
        assert point.time_unix_nano - point.start_time_unix_nano == want * 10**9


def test_requests_are_summed_and_points_are_counted_up_to_the_limit() -> None:
    made = stamped(count(5), count(7, labels={**OK, "outcome": "error"}), level("dram_device_healthy", 1))
    assert (made.requests, made.points) == (12, 3)
    with pytest.raises(Refused) as caught:
        stamped(count(), count(), count(), most_points=2)
    assert caught.value.reason is Reason.TOO_MANY_SERIES


def test_variants_are_combinations_of_what_nobody_can_list() -> None:
    made = stamped(count(), count(labels={**OK, "outcome": "error"}), count(labels={**OK, "release": "none"}))
    assert len(made.variants) == 2


@given(st.binary(max_size=400))
def test_bytes_are_refused_or_stamped(body: bytes) -> None:
    try:
        made = stamp(body, claims(DEVICE), NOW, 100)
    except Refused:
        return
    for metric in made.request.resource_metrics[0].scope_metrics[0].metrics:
        assert metric.name in SHAPES
    for point in points(made):
        labels = {each.key: each.value.string_value for each in point.attributes}
        assert (labels["device"], labels["namespace"]) == (DEVICE, "tv")
        assert all(LABELS[name].fullmatch(value) for name, value in labels.items() if name in LABELS)
