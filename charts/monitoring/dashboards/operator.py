"""The operator itself: how fast it reconciles, what waits, what it writes, and until when its signatures hold."""

from charts.monitoring.dashboards.frame import Board
from charts.monitoring.dashboards.panels import Query, figure, graph

RATE = "[$__rate_interval]"
SECONDS = f"rate(dram_operator_reconcile_seconds_bucket{RATE})"
COUNT = f"rate(dram_operator_reconcile_seconds_count{RATE})"
ERRORS = f"rate(dram_operator_reconcile_errors_total{RATE})"

OVERVIEW = (
    figure("Replicas", "Replicas that report.", "count(dram_operator_leader)", width=6),
    figure("Leaders", "One is right.", "sum(dram_operator_leader)", width=6, bad_from=2),
    figure("Waiting", "Objects that are due and not taken up yet.", "sum(dram_operator_queue_depth)", width=6),
    figure(
        "Metadata hold",
        "Until the first role of the release repository expires.",
        "min(dram_releases_expiry_timestamp_seconds) - time()",
        unit="s",
        width=6,
    ),
)
RECONCILES = (
    graph(
        "Reconcile times",
        "Percentiles of the seconds of one reconcile, API calls included.",
        *(
            Query(f"histogram_quantile({quantile}, sum by (le, kind) ({SECONDS}))", f"{{{{kind}}}} p{quantile * 100:g}")
            for quantile in (0.5, 0.95, 0.99)
        ),
        unit="s",
    ),
    graph("Reconciles", "A second, by kind.", Query(f"sum by (kind) ({COUNT})", "{{kind}}"), unit="ops"),
    graph(
        "Queue",
        "Objects that are due and not taken up yet.",
        Query("max by (kind) (dram_operator_queue_depth)", "{{kind}}"),
    ),
    graph(
        "Errors",
        "Share of reconciles that failed and are tried again.",
        Query(f"sum by (kind) ({ERRORS}) / sum by (kind) ({COUNT})", "{{kind}}"),
        unit="percentunit",
    ),
)
WRITES = (
    graph(
        "Writes",
        "Accepted writes to the API server a second, by kind and verb.",
        Query(f"sum by (kind, verb) (rate(dram_operator_api_writes_total{RATE}))", "{{kind}} {{verb}}"),
        unit="ops",
        stacked=True,
    ),
    graph(
        "Writes for one reconcile",
        "What a change costs the API server.",
        Query(
            f"sum(rate(dram_operator_api_writes_total{RATE})) / sum({COUNT})",
            "writes",
        ),
    ),
)
SIGNATURES = (
    graph(
        "Until roles expire",
        "Devices take nothing more once a role has expired.",
        Query("min by (role) (dram_releases_expiry_timestamp_seconds) - time()", "{{role}}"),
        unit="s",
    ),
    graph(
        "Until roles should have been signed again",
        "Below 0, half of a role's life is over and nobody signed it.",
        Query("min by (role) (dram_releases_half_life_timestamp_seconds) - time()", "{{role}}"),
        unit="s",
    ),
)
BOARD = Board(
    uid="dram-operator",
    title="Dram / Operator",
    meaning="The operator: reconcile times, queue, writes, errors, and the release repository's signatures.",
    rows=(("Overview", OVERVIEW), ("Reconciles", RECONCILES), ("Writes", WRITES), ("Release repository", SIGNATURES)),
)
