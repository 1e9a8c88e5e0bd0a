"""Every gate: the side it looks from, its interval, and its words."""

import pytest

from dram_operator.api.spec import DeviceGate, Gates, PerformanceGate, QualityGate
from dram_operator.core.gates import DEFAULT_KL_LIMITS, Evidence, decide_gates, worst_verdict
from dram_workers.results import GateRow, Measure
from dram_workers.stages import GgufType


def evidence(*measures: Measure, parameters: int | None = None) -> Evidence:
    return Evidence("q4", GgufType.Q4_K_M, {measure.name: measure for measure in measures}, parameters)


def row(gates: Gates, gate: str, *measures: Measure, parameters: int | None = None) -> GateRow:
    rows = decide_gates(gates, evidence(*measures, parameters=parameters))
    return next(found for found in rows if found.gate == gate)


CASES = [
    ("quality.minGoldenPassRate", Gates(quality=QualityGate(min_golden_pass_rate=0.8)), "goldenPassRate", True),
    ("quality.maxScoreDrop", Gates(quality=QualityGate(max_score_drop=0.8)), "scoreDrop", False),
    ("quality.minTeacherRetention", Gates(quality=QualityGate(min_teacher_retention=0.8)), "teacherRetention", True),
    ("quality.maxKLDivergence", Gates(quality=QualityGate(max_kl_divergence=0.8)), "klDivergence", False),
    ("performance.p95LatencyMs", Gates(performance=PerformanceGate(p95_latency_ms=0.8)), "p95LatencyMs", False),
    ("performance.p99LatencyMs", Gates(performance=PerformanceGate(p99_latency_ms=0.8)), "p99LatencyMs", False),
    (
        "performance.minTokensPerSecond",
        Gates(performance=PerformanceGate(min_tokens_per_second=0.8)),
        "tokensPerSecond",
        True,
    ),
]
EXACT = [
    ("performance.peakMemoryMiB", Gates(performance=PerformanceGate(peak_memory_mib=100)), "peakMemoryMiB"),
    ("performance.maxSizeMiB", Gates(performance=PerformanceGate(max_size_mib=100)), "sizeMiB"),
    ("device.memoryMiB", Gates(device=DeviceGate(memory_mib=100)), "peakMemoryMiB"),
]


@pytest.mark.parametrize(("gate", "gates", "measure", "at_least"), CASES)
class TestSampledFigures:
    def test_the_whole_interval_on_the_right_side_passes(
        self, gate: str, gates: Gates, measure: str, at_least: bool
    ) -> None:
        value = (
            Measure(name=measure, value=0.9, low=0.8, high=1)
            if at_least
            else Measure(name=measure, value=0.7, high=0.8)
        )
        assert row(gates, gate, value).verdict == "Pass"

    def test_the_whole_interval_on_the_wrong_side_fails_with_a_remedy(
        self, gate: str, gates: Gates, measure: str, at_least: bool
    ) -> None:
        value = Measure(name=measure, value=0.7, high=0.79) if at_least else Measure(name=measure, value=0.9, low=0.81)
        found = row(gates, gate, value)
        assert found.verdict == "Fail"
        assert ": " in found.message
        assert str(value.value) in found.message

    def test_a_limit_inside_the_interval_decides_nothing(
        self, gate: str, gates: Gates, measure: str, at_least: bool
    ) -> None:
        found = row(gates, gate, Measure(name=measure, value=0.8, low=0.7, high=0.9))
        assert found.verdict == "Inconclusive"
        assert "inside the interval" in found.message

    def test_a_figure_without_bounds_proves_nothing(
        self, gate: str, gates: Gates, measure: str, at_least: bool
    ) -> None:
        assert row(gates, gate, Measure(name=measure, value=0.8)).verdict == "Inconclusive"

    def test_a_figure_that_is_not_there_is_unverified(
        self, gate: str, gates: Gates, measure: str, at_least: bool
    ) -> None:
        assert row(gates, gate).verdict == "Unverified"


@pytest.mark.parametrize(("gate", "gates", "measure"), EXACT)
@pytest.mark.parametrize(("value", "want"), [(100.0, "Pass"), (100.1, "Fail")])
def test_counted_figures_need_no_interval(gate: str, gates: Gates, measure: str, value: float, want: str) -> None:
    assert row(gates, gate, Measure(name=measure, value=value)).verdict == want


def test_the_device_row_tells_the_headroom() -> None:
    found = row(EXACT[2][1], "device.memoryMiB", Measure(name="peakMemoryMiB", value=60))
    assert "headroom 40 MiB" in found.message


@pytest.mark.parametrize(
    ("parameters", "asked", "want"),
    [(135_000_000, None, "Warn"), (None, None, "Warn"), (2_000_000_000, None, "Fail"), (135_000_000, 0.06, "Fail")],
)
def test_the_default_divergence_limit_only_warns_for_small_students(
    parameters: int | None, asked: float | None, want: str
) -> None:
    gates = Gates(quality=QualityGate(max_kl_divergence=asked))
    measure = Measure(name="klDivergence", value=0.2, low=0.1, high=0.3)
    assert row(gates, "quality.maxKLDivergence", measure, parameters=parameters).verdict == want


def test_every_export_type_has_a_default_divergence_limit() -> None:
    assert set(DEFAULT_KL_LIMITS) == set(GgufType)


def test_an_inconclusive_gate_warns_where_the_user_says_so() -> None:
    gates = Gates(quality=QualityGate(min_golden_pass_rate=0.8, on_inconclusive="Warn"))
    found = row(gates, "quality.minGoldenPassRate", Measure(name="goldenPassRate", value=0.85, low=0.7, high=0.9))
    assert found.verdict == "Warn"


def test_no_limits_leave_only_the_default_divergence() -> None:
    assert [found.gate for found in decide_gates(Gates(), evidence())] == ["quality.maxKLDivergence"]


@pytest.mark.parametrize(
    ("verdicts", "want"),
    [((), "Pass"), (("Pass", "Warn"), "Warn"), (("Warn", "Unverified"), "Fail"), (("Pass", "Inconclusive"), "Fail")],
)
def test_the_worst_row_decides_about_a_variant(verdicts: tuple[str, ...], want: str) -> None:
    base = row(Gates(), "quality.maxKLDivergence")
    rows = tuple(base.model_copy(update={"verdict": verdict}) for verdict in verdicts)
    assert worst_verdict(rows) == want
