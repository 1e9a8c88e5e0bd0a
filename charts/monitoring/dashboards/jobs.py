"""Distillation jobs: how far, how well, and what came out."""

from charts.monitoring.dashboards.frame import Board, Variable
from charts.monitoring.dashboards.panels import BAD, BUSY, GOOD, OBJECT, Query, bars, coloured, figure, graph, table

RATE = "[$__rate_interval]"
OUTCOMES = {"True": GOOD, "False": BAD, "Unknown": BUSY}
VARIANT = "namespace, name, variant"


def _count(status: str) -> str:
    return f'count(dram_job_condition{{{OBJECT}, condition="Succeeded", status="{status}"}}) or vector(0)'


def _size_beside_scores() -> str:
    scores = f"max by ({VARIANT}, metric) (dram_variant_score{{{OBJECT}}})"
    return f"{scores} * 0 + on ({VARIANT}) group_left () max by ({VARIANT}) (dram_variant_size_bytes{{{OBJECT}}})"


OVERVIEW = (
    figure("Going on", "Jobs without an outcome yet, suspended ones included.", _count("Unknown")),
    figure("Succeeded", "Jobs whose required variants passed their gates and are published.", _count("True")),
    figure("Failed", "Jobs that ended otherwise; the table has the reason.", _count("False"), bad_from=1),
    coloured(
        table(
            "Jobs",
            "`status` of the condition Succeeded with its reason, and the progress of the whole job.",
            {
                "": f'max by (namespace, name, status, reason) (dram_job_condition{{{OBJECT}, condition="Succeeded"}})',
                "progress": f"max by (namespace, name) (dram_job_progress_ratio{{{OBJECT}}})",
            },
            units={"progress": "percentunit"},
        ),
        "status",
        OUTCOMES,
    ),
)
PROGRESS = (
    graph(
        "Progress",
        "Share of each job that is done.",
        Query(f"max by (namespace, name) (dram_job_progress_ratio{{{OBJECT}}})", "{{namespace}}/{{name}}"),
        unit="percentunit",
    ),
    bars(
        "Time of each stage",
        "Seconds of the latest attempt of each finished stage.",
        Query(
            f"max by (namespace, name, stage) (dram_job_stage_seconds{{{OBJECT}}})",
            "{{namespace}}/{{name}} {{stage}}",
        ),
        unit="s",
    ),
)
TRAINING = (
    graph(
        "Loss by term",
        "What training reported last: the total, and each term before its weight.",
        Query(f"max by (namespace, name, term) (dram_job_loss{{{OBJECT}}})", "{{namespace}}/{{name}} {{term}}"),
    ),
    graph(
        "Training tokens a second",
        "Rate of the running attempt, all ranks together.",
        Query(
            f"sum by (namespace, name) (rate(dram_job_tokens_total{{{OBJECT}}}{RATE}))",
            "{{namespace}}/{{name}}",
        ),
    ),
)
RESULTS = (
    coloured(
        table(
            "Gates",
            "Passed is 1, also with a warning; 0 is failed or not decidable.",
            {"passed": f"min by ({VARIANT}, gate) (dram_job_gate{{{OBJECT}}})"},
        ),
        "passed",
        {"0": BAD, "1": GOOD},
    ),
    table(
        "Size against score",
        "Each variant's size beside each figure that was measured of it; sort by a column.",
        {
            "size": _size_beside_scores(),
            "score": f"max by ({VARIANT}, metric) (dram_variant_score{{{OBJECT}}})",
        },
        units={"size": "bytes"},
    ),
)
BOARD = Board(
    uid="dram-jobs",
    title="Dram / Jobs",
    meaning="DistillationJobs: progress, loss terms, gates, size against score.",
    variables=(
        Variable("namespace", "label_values(dram_job_condition, namespace)"),
        Variable("name", 'label_values(dram_job_condition{namespace=~"$namespace"}, name)'),
    ),
    rows=(("Overview", OVERVIEW), ("Progress", PROGRESS), ("Training", TRAINING), ("Results", RESULTS)),
)
