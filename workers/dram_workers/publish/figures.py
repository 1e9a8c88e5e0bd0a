"""Numbers as people read them."""

from dram_workers.results import Measure

SHARES = frozenset({"goldenPassRate", "teacherRetention", "topOneAgreement"})
"""Measures that read best as percentages."""

SCORES = frozenset({"goldenScore", "scoreDrop"})
"""Measures that are compared in the third decimal."""

NAMES = {
    "goldenPassRate": "golden pass rate",
    "goldenScore": "golden score",
    "scoreDrop": "score drop against the float student",
    "teacherRetention": "share of the teacher's score",
    "klDivergence": "KL divergence from the float student",
    "topOneAgreement": "same likeliest token as the float student",
    "sizeMiB": "size",
    "bitsPerWeight": "bits per weight",
    "loadMs": "time to load",
    "peakMemoryMiB": "peak memory",
    "timeToFirstTokenMs": "time to first token",
    "p50LatencyMs": "latency p50",
    "p95LatencyMs": "latency p95",
    "p99LatencyMs": "latency p99",
    "tokensPerSecond": "generated tokens per second",
    "promptTokensPerSecond": "prompt tokens per second",
    "energyPerAnswerJ": "energy of an answer",
}


def label(name: str) -> str:
    """A measure's name in words."""
    return NAMES.get(name, name)


def number(value: float) -> str:
    """Four significant digits, with thousands separated."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 1 else f"{value:.3g}"


def quantity(value: float, unit: str = "", name: str = "") -> str:
    """A value with its unit; shares as percentages."""
    if name in SHARES:
        return f"{value * 100:.1f} %"
    if name in SCORES:
        return f"{value:.3f}"
    return f"{number(value)} {unit}".strip()


def figure(measure: Measure) -> str:
    """A measure's value with its unit."""
    return quantity(measure.value, measure.unit, measure.name)


def interval(measure: Measure) -> str:
    """The bounds of a measure, or nothing where it has none."""
    return bounds(measure.low, measure.high, measure.name)


def bounds(low: float | None, high: float | None, name: str = "") -> str:
    """`[low, high]`; an open side stays open, and nothing where both are."""
    if low is None and high is None:
        return ""
    left, right = ("…" if side is None else quantity(side, name=name) for side in (low, high))
    return f"[{left}, {right}]"


def duration(seconds: float) -> str:
    """`45 s`, `3 min 12 s` or `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def file_size(size_bytes: int) -> str:
    """MiB, or GiB above a thousand of them."""
    mib = size_bytes / 2**20
    return f"{mib:.1f} MiB" if mib < 1000 else f"{mib / 1024:.2f} GiB"
