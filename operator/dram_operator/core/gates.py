"""The gates: a tuple of small checks, each comparing one measured figure with one limit by its interval."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from dram_operator.api.spec import Gates
from dram_workers.results import GateRow, Measure
from dram_workers.stages import GgufType

ONE_BILLION = 1_000_000_000

DEFAULT_KL_LIMITS: dict[GgufType, float] = {
    GgufType.F16: 0.005,
    GgufType.Q8_0: 0.005,
    GgufType.Q6_K: 0.01,
    GgufType.Q5_K_M: 0.02,
    GgufType.Q4_K_M: 0.06,
    GgufType.Q4_0: 0.35,
}
"""Mean divergence from the float student that a type usually stays under, in nats a token."""


@dataclass(frozen=True)
class Evidence:
    """What is known about one variant when its gates are decided."""

    variant: str
    gguf: GgufType
    measures: dict[str, Measure]
    parameters: int | None = None
    """The student's parameters, where its training told them."""


@dataclass(frozen=True)
class Limit:
    """One limit in force: the measure must stay on the right side of it."""

    gate: str
    measure: str
    limit: float
    at_least: bool
    unit: str
    remedy: str
    warn_only: bool = False
    exact: bool = False
    """The figure is counted, not sampled: no interval is asked for."""


Verdict = Literal["Pass", "Fail", "Inconclusive", "Unverified"]

Check = Callable[[Gates, Evidence], Limit | None]


def golden_pass_rate(gates: Gates, evidence: Evidence) -> Limit | None:
    """Enough golden items must pass."""
    limit = gates.quality.min_golden_pass_rate
    remedy = "train longer, keep more layers, or choose a less coarse export type"
    return Limit("quality.minGoldenPassRate", "goldenPassRate", limit, True, "", remedy) if limit else None


def score_drop(gates: Gates, evidence: Evidence) -> Limit | None:
    """The quantized file must not lose much of the float student's score."""
    limit = gates.quality.max_score_drop
    if limit is None:
        return None
    return Limit("quality.maxScoreDrop", "scoreDrop", limit, False, "", "choose a less coarse export type")


def teacher_retention(gates: Gates, evidence: Evidence) -> Limit | None:
    """The variant must keep enough of the teacher's score."""
    limit = gates.quality.min_teacher_retention
    if limit is None:
        return None
    remedy = "train longer, keep more layers, or add training data like the golden prompts"
    return Limit("quality.minTeacherRetention", "teacherRetention", limit, True, "", remedy)


def kl_divergence(gates: Gates, evidence: Evidence) -> Limit | None:
    """The variant must stay near its float student; below a billion parameters the default limit only warns."""
    asked = gates.quality.max_kl_divergence
    limit = asked if asked is not None else DEFAULT_KL_LIMITS[evidence.gguf]
    small = evidence.parameters is None or evidence.parameters < ONE_BILLION
    remedy = "choose a less coarse export type, or set spec.gates.quality.maxKLDivergence to what you accept"
    return Limit("quality.maxKLDivergence", "klDivergence", limit, False, "nats/token", remedy, asked is None and small)


def p95_latency(gates: Gates, evidence: Evidence) -> Limit | None:
    """95 of 100 answers must come in time."""
    limit = gates.performance.p95_latency_ms
    remedy = "choose a smaller student or export type, or raise the limit"
    return Limit("performance.p95LatencyMs", "p95LatencyMs", limit, False, "ms", remedy) if limit else None


def p99_latency(gates: Gates, evidence: Evidence) -> Limit | None:
    """99 of 100 answers must come in time."""
    limit = gates.performance.p99_latency_ms
    remedy = "choose a smaller student or export type, or raise the limit"
    return Limit("performance.p99LatencyMs", "p99LatencyMs", limit, False, "ms", remedy) if limit else None


def peak_memory(gates: Gates, evidence: Evidence) -> Limit | None:
    """A fresh process must stay under the memory limit."""
    limit = gates.performance.peak_memory_mib
    remedy = "choose a smaller student or export type"
    if limit is None:
        return None
    return Limit("performance.peakMemoryMiB", "peakMemoryMiB", limit, False, "MiB", remedy, exact=True)


def tokens_per_second(gates: Gates, evidence: Evidence) -> Limit | None:
    """Generation must be fast enough."""
    limit = gates.performance.min_tokens_per_second
    remedy = "choose a smaller student or export type, or give bench pods more cores"
    if limit is None:
        return None
    return Limit("performance.minTokensPerSecond", "tokensPerSecond", limit, True, "tokens/s", remedy)


def size(gates: Gates, evidence: Evidence) -> Limit | None:
    """The files must be small enough."""
    limit = gates.performance.max_size_mib
    remedy = "choose a coarser export type or a smaller student"
    return Limit("performance.maxSizeMiB", "sizeMiB", limit, False, "MiB", remedy, exact=True) if limit else None


def device_memory(gates: Gates, evidence: Evidence) -> Limit | None:
    """The variant must fit into the device."""
    if gates.device is None:
        return None
    remedy = "choose a smaller student or export type, or name a larger device"
    return Limit("device.memoryMiB", "peakMemoryMiB", gates.device.memory_mib, False, "MiB", remedy, exact=True)


CHECKS: tuple[Check, ...] = (
    golden_pass_rate,
    score_drop,
    teacher_retention,
    kl_divergence,
    p95_latency,
    p99_latency,
    peak_memory,
    tokens_per_second,
    size,
    device_memory,
)


def decide_gates(gates: Gates, evidence: Evidence) -> tuple[GateRow, ...]:
    """Every gate in force for one variant, decided, in reading order."""
    limits = (check(gates, evidence) for check in CHECKS)
    return tuple(_row(limit, evidence, gates.quality.on_inconclusive == "Warn") for limit in limits if limit)


def _row(limit: Limit, evidence: Evidence, warn_on_inconclusive: bool) -> GateRow:
    measure = evidence.measures.get(limit.measure)
    verdict = _verdict(limit, measure)
    softened = verdict == "Fail" and limit.warn_only
    softened |= verdict == "Inconclusive" and (limit.warn_only or warn_on_inconclusive)
    return GateRow(
        variant=evidence.variant,
        gate=limit.gate,
        target="worker" if limit.gate.startswith("performance.") else None,
        baseline=measure.baseline if measure else None,
        value=measure.value if measure else None,
        low=measure.low if measure else None,
        high=measure.high if measure else None,
        limit=limit.limit,
        unit=limit.unit,
        verdict="Warn" if softened else verdict,
        message=_message(limit, measure, verdict),
    )


def _verdict(limit: Limit, measure: Measure | None) -> Verdict:
    """Pass when the whole interval is on the right side, Fail when it is on the wrong one."""
    if measure is None:
        return "Unverified"
    low, high = (measure.value, measure.value) if limit.exact else (measure.low, measure.high)
    safe, best = (low, high) if limit.at_least else (high, low)
    if safe is not None and (safe >= limit.limit if limit.at_least else safe <= limit.limit):
        return "Pass"
    if best is not None and (best < limit.limit if limit.at_least else best > limit.limit):
        return "Fail"
    return "Inconclusive"


def _message(limit: Limit, measure: Measure | None, verdict: str) -> str:
    need = f"{limit.measure} must be {'at least' if limit.at_least else 'at most'} {_figure(limit.limit, limit.unit)}"
    if measure is None:
        return f"{need}, but it was not measured: {limit.remedy}"
    found = f"{need} and is {_figure(measure.value, limit.unit)}{_interval(limit, measure)}"
    if limit.gate == "device.memoryMiB":
        found += f", headroom {_figure(limit.limit - measure.value, limit.unit)}"
    if verdict == "Pass":
        return found
    if verdict == "Inconclusive":
        return f"{found}: the limit lies inside the interval; measure more (a larger golden suite), or {limit.remedy}"
    return f"{found}: {limit.remedy}"


def _interval(limit: Limit, measure: Measure) -> str:
    if limit.exact or (measure.low is None and measure.high is None):
        return ""
    low = "?" if measure.low is None else f"{measure.low:.4g}"
    high = "?" if measure.high is None else f"{measure.high:.4g}"
    return f" [{low}, {high}]"


def _figure(value: float, unit: str) -> str:
    return f"{value:.4g} {unit}".strip()


def worst_verdict(rows: tuple[GateRow, ...]) -> Literal["Fail", "Warn", "Pass"]:
    """`Fail`, `Warn` or `Pass`: what the rows of one variant mean for its release."""
    verdicts = {row.verdict for row in rows}
    if verdicts & {"Fail", "Inconclusive", "Unverified"}:
        return "Fail"
    return "Warn" if "Warn" in verdicts else "Pass"
