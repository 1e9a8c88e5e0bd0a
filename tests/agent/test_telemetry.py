"""Series that exist before the first failure, go with their release, and arrive by OTLP as they are scraped."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client.registry import Collector

from dram_agent.errors import Cause
from dram_agent.otlp import export
from dram_agent.standing import Arm, Phase, Standing
from dram_agent.telemetry import FallbackCause, Identity, Outcome, ServedBy, Telemetry

A, B, C = "a" * 64, "b" * 64, "c" * 64
DEVICE = "d" * 32


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry(Identity("tv/bot", DEVICE, "tv", "1.2.3", {"ring": "early"}))


def samples(registry: Collector) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (each.name, tuple(sorted(each.labels.items()))): each.value
        for family in registry.collect()
        for each in family.samples
        if not each.name.endswith("_created")
    }


def named(telemetry: Telemetry, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    own = {"channel", "device"}
    return {
        tuple((label, value) for label, value in labels if label not in own): value
        for (sample, labels), value in samples(telemetry).items()
        if sample == name
    }


def test_every_label_set_starts_at_zero(telemetry: Telemetry) -> None:
    telemetry.use(A)
    zero: dict[str, set[tuple[tuple[str, str], ...]]] = {
        "dram_device_requests_total": {
            (("outcome", outcome), ("release", release), ("served_by", by))
            for outcome in Outcome
            for by in ServedBy
            for release in (A, "none")
        },
        "dram_device_fallbacks_total": {
            (("cause", cause), ("release", release)) for cause in FallbackCause for release in (A, "none")
        },
        "dram_device_refused_metadata_total": {(("cause", cause),) for cause in Cause},
        "dram_device_request_seconds_count": {
            (("release", release), ("served_by", by)) for by in ServedBy for release in (A, "none")
        },
        "dram_device_healthy": {(("release", A),)},
        "dram_device_release_seconds": {(("release", A),)},
        "dram_device_healthy_seconds": {(("release", A),)},
        "dram_device_gave_up": {(("release", A),), (("release", B),)},
    }
    telemetry.show_standing(Standing(gave_up={A: False, B: False}))
    for name, want in zero.items():
        assert named(telemetry, name) == dict.fromkeys(want, 0.0)


def test_the_golden_ratio_and_memory_are_absent_until_they_are_known(telemetry: Telemetry) -> None:
    telemetry.use(A)
    assert named(telemetry, "dram_device_golden_pass_ratio") == named(telemetry, "dram_device_memory_bytes") == {}
    telemetry.show_golden(0.75)
    telemetry.show_health(1.0, 5)
    assert named(telemetry, "dram_device_golden_pass_ratio") == {(("release", A),): 0.75}
    assert named(telemetry, "dram_device_memory_bytes") == {(("release", A),): 5}
    telemetry.use(B)
    assert named(telemetry, "dram_device_golden_pass_ratio") == {}


def test_series_of_the_release_before_the_last_go(telemetry: Telemetry) -> None:
    for release in (A, B, C):
        telemetry.use(release)
        telemetry.count_request(Outcome.OK, ServedBy.DEVICE, 0.1)
    for name in ("dram_device_requests_total", "dram_device_fallbacks_total", "dram_device_request_seconds_count"):
        assert {dict(labels)["release"] for labels in named(telemetry, name)} == {B, C}
    telemetry.use(B)
    telemetry.count_request(Outcome.OK, ServedBy.DEVICE, 0.1)
    key = (("outcome", "ok"), ("release", B), ("served_by", "device"))
    assert named(telemetry, "dram_device_requests_total")[key] == 2


def test_an_answer_is_the_releases_that_was_asked_as_long_as_that_is_told_of(telemetry: Telemetry) -> None:
    for release in (A, B, C):
        telemetry.use(release)
    for release in (A, B):
        telemetry.count_request(Outcome.OK, ServedBy.DEVICE, 0.1, release)
        telemetry.count_fallback(FallbackCause.CRASH, release)
    for name in ("dram_device_requests_total", "dram_device_fallbacks_total"):
        counted = [dict(labels)["release"] for labels, value in named(telemetry, name).items() if value]
        assert counted == [B]
        assert {dict(labels)["release"] for labels in named(telemetry, name)} == {B, C}


def test_only_answers_have_a_duration(telemetry: Telemetry) -> None:
    for outcome in Outcome:
        telemetry.count_request(outcome, ServedBy.DEVICE, 0.2)
    assert sum(named(telemetry, "dram_device_request_seconds_count").values()) == 1


def test_one_phase_is_on(telemetry: Telemetry) -> None:
    for phase in Phase:
        telemetry.show_phase(phase)
        on = {dict(labels)["state"]: value for labels, value in named(telemetry, "dram_device_update_state").items()}
        assert on == {each: float(each is phase) for each in Phase}


def test_info_says_what_the_device_is_assigned_to(telemetry: Telemetry) -> None:
    telemetry.use(A)
    telemetry.show_standing(Standing(7, Arm.TREATED))
    telemetry.use(B)
    info = named(telemetry, "dram_device_info")
    want = {"release": B, "attempt": "7", "arm": "treated", "device_class": "tv", "agent_version": "1.2.3"}
    want["label_ring"] = "early"
    assert [dict(labels) for labels in info] == [want]


def test_ages_are_of_the_release_that_is_served(telemetry: Telemetry) -> None:
    telemetry.use(A)
    telemetry.show_health(12.5, None)
    telemetry.show_standing(Standing(release=A, release_seconds=90.0))
    assert named(telemetry, "dram_device_release_seconds") == {(("release", A),): 90.0}
    assert named(telemetry, "dram_device_healthy_seconds") == {(("release", A),): 12.5}
    telemetry.show_health(None, None)
    assert named(telemetry, "dram_device_healthy_seconds") == {(("release", A),): 0.0}
    telemetry.use(B)
    telemetry.show_standing(Standing(release=A, release_seconds=91.0))
    assert named(telemetry, "dram_device_release_seconds") == {(("release", B),): 0.0}


def test_gave_up_is_about_the_releases_on_offer(telemetry: Telemetry) -> None:
    telemetry.show_standing(Standing(gave_up={A: False, B: True}))
    assert named(telemetry, "dram_device_gave_up") == {(("release", A),): 0.0, (("release", B),): 1.0}
    telemetry.show_standing(Standing(gave_up={C: False}))
    assert named(telemetry, "dram_device_gave_up") == {(("release", C),): 0.0}


def test_a_collection_in_the_middle_of_a_change_waits_for_its_end(telemetry: Telemetry) -> None:
    telemetry.use(A)
    seen: list[bool] = []

    def collect_many() -> None:
        for _ in range(300):
            named = {each.name: each.samples for each in telemetry.collect()}
            seen.append(len(named["dram_device_info"]) == 1)

    with ThreadPoolExecutor() as pool:
        reading = pool.submit(collect_many)
        number = 0
        while not reading.done():
            number += 1
            telemetry.show_standing(Standing(attempt=number))
        reading.result()
    assert all(seen)


def test_without_the_owners_leave_the_id_stands_nowhere() -> None:
    quiet = Telemetry(Identity("tv/bot"))
    quiet.use(A)
    assert all("device" not in dict(labels) for _, labels in samples(quiet.registry))


def test_otlp_carries_the_same_numbers(telemetry: Telemetry) -> None:
    telemetry.use(A)
    for seconds in (0.01, 0.3, 0.3, 4, 100):
        telemetry.count_request(Outcome.OK, ServedBy.DEVICE, seconds)
    telemetry.count_fallback(FallbackCause.TIMEOUT)
    telemetry.show_health(3.0, 123)
    request = ExportMetricsServiceRequest.FromString(export(telemetry, {"service.name": "x"}, 2000.0, 1000.0))
    assert request.resource_metrics[0].resource.attributes[0].value.string_value == "x"
    got: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for metric in request.resource_metrics[0].scope_metrics[0].metrics:
        for point in metric.histogram.data_points:
            labels = {each.key: each.value.string_value for each in point.attributes}
            assert point.start_time_unix_nano == 1000 * 10**9
            total = 0
            bounds = [*(f"{bound:g}" for bound in point.explicit_bounds), "+Inf"]
            for bound, count in zip(bounds, point.bucket_counts, strict=True):
                total += count
                le = bound if "." in bound or bound == "+Inf" else f"{bound}.0"
                got[f"{metric.name}_bucket", tuple(sorted({**labels, "le": le}.items()))] = total
            got[f"{metric.name}_count", tuple(sorted(labels.items()))] = point.count
            got[f"{metric.name}_sum", tuple(sorted(labels.items()))] = point.sum
        for number in [*metric.sum.data_points, *metric.gauge.data_points]:
            name = f"{metric.name}_total" if metric.HasField("sum") else metric.name
            labels = {each.key: each.value.string_value for each in number.attributes}
            got[name, tuple(sorted(labels.items()))] = number.as_double
            assert number.time_unix_nano == 2000 * 10**9
    assert got == samples(telemetry)
