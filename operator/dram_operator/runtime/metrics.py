"""What Prometheus can scrape. Series of jobs are read from the cache at scrape time, so they go when their object goes."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dram_operator.adapters.resources import Object, Resource
from dram_operator.core.times import parse_time
from dram_operator.runtime.board import ProgressBoard
from dram_operator.runtime.cache import Key

OBJECT = ["namespace", "name"]
SHOWN = ("Succeeded", "Stalled")
"""The conditions of jobs that have a series: thousands of finished jobs would make too many of all."""
RECONCILE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
"""Seconds: a reconcile without a write takes about 1 ms, one with three writes about 20 ms."""

LOSS_TERMS = {"loss": "total", "soft": "soft", "hard": "hard", "hidden": "hidden", "attention": "attention"}
"""The figures that training reports, as values of the label `term`."""


class Metrics:
    """The operator's own counters, and the series of what it serves."""

    def __init__(self, depths: Mapping[str, Callable[[], float]], *collectors: Collector) -> None:
        self.registry = CollectorRegistry()
        self.reconcile_seconds = Histogram(
            "dram_operator_reconcile_seconds",
            "Seconds of one reconcile, API calls included.",
            ["kind"],
            buckets=RECONCILE_BUCKETS,
            registry=self.registry,
        )
        self.reconcile_errors = Counter(
            "dram_operator_reconcile_errors",
            "Reconciles that failed and are tried again.",
            ["kind"],
            registry=self.registry,
        )
        self.writes = Counter(
            "dram_operator_api_writes", "Accepted writes to the API server.", ["kind", "verb"], registry=self.registry
        )
        self.leader = Gauge("dram_operator_leader", "1 while this replica leads.", registry=self.registry)
        queue = Gauge(
            "dram_operator_queue_depth", "Objects that wait for a reconcile.", ["kind"], registry=self.registry
        )
        for kind, depth in depths.items():
            queue.labels(kind).set_function(depth)
            # From 0, or no query could see the first one.
            self.reconcile_errors.labels(kind)
        for collector in collectors:
            self.registry.register(collector)

    def count_write(self, verb: str, resource: Resource) -> None:
        """Count one accepted write."""
        self.writes.labels(resource.kind, verb).inc()


class JobCollector(Collector):
    """The `dram_job_*` and `dram_variant_*` series."""

    def __init__(self, jobs: Callable[[], Iterable[Object]], board: ProgressBoard) -> None:
        self._jobs = jobs
        self._board = board

    def describe(self) -> Iterator[Metric]:
        """Nothing in advance: the registry must not scrape an empty cache to learn the names."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """Read every job once."""
        conditions = condition_family("dram_job_condition", f"1; {' and '.join(SHOWN)} as they stand.")
        progress = GaugeMetricFamily("dram_job_progress_ratio", "Share of the job that is done, 0 to 1.", labels=OBJECT)
        loss = GaugeMetricFamily("dram_job_loss", "Latest training loss by term.", labels=[*OBJECT, "term"])
        tokens = CounterMetricFamily("dram_job_tokens", "Training tokens of the running attempt.", labels=OBJECT)
        seconds = GaugeMetricFamily(
            "dram_job_stage_seconds", "Seconds of the latest attempt of a finished stage.", labels=[*OBJECT, "stage"]
        )
        gates = GaugeMetricFamily(
            "dram_job_gate", "1 when the gate passed or only warned, else 0.", labels=[*OBJECT, "variant", "gate"]
        )
        sizes = GaugeMetricFamily("dram_variant_size_bytes", "Size of a variant's files.", labels=[*OBJECT, "variant"])
        scores = GaugeMetricFamily(
            "dram_variant_score", "A variant's measured figure.", labels=[*OBJECT, "variant", "metric"]
        )
        for job in self._jobs():
            name, status = [job["metadata"]["namespace"], job["metadata"]["name"]], job.get("status", {})
            add_conditions(conditions, name, (one for one in status.get("conditions", ()) if one["type"] in SHOWN))
            percent = status.get("progress", {}).get("percent")
            if percent is not None:
                progress.add_metric(name, percent / 100)
            self._add_report(name, loss, tokens)
            for stage in status.get("stages", ()):
                if stage.get("startedAt") and stage.get("finishedAt"):
                    seconds.add_metric([*name, stage["id"]], _seconds(stage))
            for row in status.get("gates", ()):
                gates.add_metric([*name, row["variant"], row["gate"]], float(row["verdict"] in ("Pass", "Warn")))
            for variant in status.get("variants", ()):
                if variant.get("sizeBytes") is not None:
                    sizes.add_metric([*name, variant["name"]], variant["sizeBytes"])
                for metric, value in variant.get("scores", {}).items():
                    scores.add_metric([*name, variant["name"], metric], value)
        yield from (conditions, progress, loss, tokens, seconds, gates, sizes, scores)

    def _add_report(self, name: list[str], loss: GaugeMetricFamily, tokens: CounterMetricFamily) -> None:
        report = self._board.latest(Key(*name))
        if report is None:
            return
        for figure, term in LOSS_TERMS.items():
            if figure in report.metrics:
                loss.add_metric([*name, term], report.metrics[figure])
        if "tokens" in report.metrics:
            tokens.add_metric(name, report.metrics["tokens"])


def condition_family(name: str, documentation: str) -> GaugeMetricFamily:
    """An empty family of conditions."""
    return GaugeMetricFamily(name, documentation, labels=[*OBJECT, "condition", "status", "reason"])


def add_conditions(family: GaugeMetricFamily, name: list[str], conditions: Iterable[Object]) -> None:
    """One series a condition, with what it says as labels."""
    for one in conditions:
        family.add_metric([*name, one["type"], one["status"], one["reason"]], 1)


def _seconds(stage: Object) -> float:
    return (parse_time(stage["finishedAt"]) - parse_time(stage["startedAt"])).total_seconds()
