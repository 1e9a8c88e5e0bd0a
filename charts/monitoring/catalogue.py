"""Every metric that the project exports, asked of the very code that exports it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from dram_agent.gateway import metrics as gateway
from dram_agent.telemetry import Identity, Telemetry
from dram_operator.adapters.releases.repository import Expiries
from dram_operator.runtime.board import ProgressBoard
from dram_operator.runtime.metrics import JobCollector, Metrics
from dram_operator.runtime.rollouts.metrics import RolloutCollector, Transitions

SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
"""What follows the name of a metric in the names of its series."""


@dataclass(frozen=True)
class Exported:
    """A metric."""

    name: str
    """As documented: a counter's ends in `_total`, a histogram's has no ending."""
    kind: str
    """counter, gauge or histogram."""
    labels: tuple[str, ...]
    meaning: str

    @property
    def series(self) -> dict[str, frozenset[str]]:
        """The labels of each name that a query may ask for."""
        stem = self.name.removesuffix("_total") if self.kind == "counter" else self.name
        return {
            stem + suffix: frozenset({*self.labels, *(("le",) if suffix == "_bucket" else ())})
            for suffix in SUFFIXES[self.kind]
        }


def operator_metrics() -> list[Exported]:
    """What a replica of the operator shows on `/metrics`."""
    metrics = Metrics(
        {},
        JobCollector(tuple, ProgressBoard(_never)),
        RolloutCollector(tuple, Transitions(), lambda: Expiries({}, {}), _never),
    )
    return sorted(_exported(metrics.registry), key=lambda each: each.name)


def device_metrics() -> list[Exported]:
    """What a device shows, or pushes by OTLP."""
    return sorted(_exported(Telemetry(Identity("tv/bot", "device")).registry), key=lambda each: each.name)


def gateway_metrics() -> list[Exported]:
    """What a gateway shows on `/metrics`."""
    return sorted(_exported(gateway.Metrics().registry), key=lambda each: each.name)


def everything() -> list[Exported]:
    """All of them."""
    return [*operator_metrics(), *device_metrics(), *gateway_metrics()]


def series() -> dict[str, frozenset[str]]:
    """Labels by the name of the series, of all that there is."""
    return {name: labels for each in everything() for name, labels in each.series.items()}


def _never() -> datetime:
    return datetime.min.replace(tzinfo=UTC)


def _exported(registry: CollectorRegistry) -> Iterator[Exported]:
    for collector in registry._collector_to_names:  # noqa: SLF001 -- the library tells the labels of a metric nowhere else
        families: Iterable[object] = (collector,) if isinstance(collector, MetricWrapperBase) else collector.collect()
        described = {family.name: family for family in collector.collect()}
        for (name, family), labelled in zip(described.items(), families, strict=True):
            labels: tuple[str, ...] = getattr(labelled, "_labelnames")  # noqa: B009
            ending = "_total" if family.type == "counter" else ""
            yield Exported(name + ending, family.type, tuple(labels), family.documentation)
