"""Rollouts: where each stands, what it is judged by, and what became of its devices."""

from charts.monitoring.dashboards.frame import Board, Mark, Variable
from charts.monitoring.dashboards.panels import (
    BAD,
    BUSY,
    GOOD,
    IDLE,
    OBJECT,
    WAITING,
    Query,
    against_limits,
    coloured,
    figure,
    graph,
    linked,
    numbered,
    table,
    timeline,
)
from dram_operator.runtime.rollouts.metrics import IDLE as NOTHING
from dram_operator.runtime.rollouts.metrics import PENDING, ROLLING_BACK, STATES, VERDICTS

COLORS = {
    NOTHING: IDLE,
    PENDING: WAITING,
    "Updating": BUSY,
    "Baking": "purple",
    "AwaitingApproval": WAITING,
    "Passed": GOOD,
    ROLLING_BACK: BAD,
}
VERDICT_COLORS = {"Pass": GOOD, "Breach": BAD, "Inconclusive": WAITING, "Error": "orange", "Missing": IDLE}
NAME, BY = "{{namespace}}/{{name}}", "namespace, name"
FLEET = "/d/dram-fleet?${datasource:queryparam}&var-namespace=${__data.fields.namespace}&var-name=${__data.fields.name}&${__url_time_range}"


def _in_state(state: str) -> str:
    return f'sum(max by ({BY}) (dram_rollout_state{{{OBJECT}, state="{state}"}}))'


STANDING = (
    figure(
        "On their way",
        "Rollouts with a candidate.",
        f'count(dram_rollout_info{{{OBJECT}, candidate!=""}}) or vector(0)',
    ),
    figure("Wait for a person", "Steps that somebody has to approve.", _in_state("AwaitingApproval")),
    figure("Going back", "Rollouts whose devices are being sent back to stable.", _in_state(ROLLING_BACK), bad_from=1),
    linked(
        table(
            "Releases",
            "Digests of each channel's releases; a name leads to its devices.",
            {"": f"max by ({BY}, stable, candidate) (dram_rollout_info{{{OBJECT}}})"},
        ),
        "name",
        "Devices of this channel",
        FLEET,
    ),
    timeline(
        "State",
        "What each rollout is at.",
        Query(numbered("dram_rollout_state", "state", {state: COLORS[state] for state in STATES}, BY), NAME),
        {state: COLORS[state] for state in STATES},
    ),
)
STEPS = (
    graph(
        "Step",
        "The step at work, from 1; 0 without one.",
        Query(f"max by ({BY}) (dram_rollout_step{{{OBJECT}}})", NAME),
        width=8,
    ),
    graph(
        "Cohort",
        "Share of the known devices that is meant to run the candidate.",
        Query(f"max by ({BY}) (dram_rollout_cohort_ratio{{{OBJECT}}})", NAME),
        unit="percentunit",
        width=8,
    ),
    graph(
        "Time in the step, or in the rollback",
        "Since when the step or the rollback at work goes on.",
        Query(f"max by ({BY}, stage) (dram_rollout_seconds{{{OBJECT}}})", f"{NAME} {{{{stage}}}}"),
        unit="s",
        width=8,
    ),
)
DEVICES = (
    graph(
        "Devices by state",
        "Devices of the step at work; a device may be in several states.",
        Query(f"max by ({BY}, state) (dram_rollout_devices{{{OBJECT}}})", f"{NAME} {{{{state}}}}"),
        width=24,
    ),
)
VERDICT = (
    timeline(
        "Verdicts",
        "What the latest look at each metric said.",
        Query(
            numbered(
                "dram_rollout_metric_verdict",
                "verdict",
                {verdict: VERDICT_COLORS[verdict] for verdict in VERDICTS},
                f"{BY}, metric",
                f'{OBJECT}, metric=~"$metric"',
            ),
            f"{NAME} {{{{metric}}}}",
        ),
        {verdict: VERDICT_COLORS[verdict] for verdict in VERDICTS},
    ),
)
LIMITS = (
    against_limits(
        "$metric",
        "What the metric showed, and its limits; a margin bounds the difference to the control.",
        Query(f'max by ({BY}, metric) (dram_rollout_metric_value{{{OBJECT}, metric=~"$metric"}})', NAME),
        Query(
            f'max by ({BY}, metric, bound) (dram_rollout_metric_threshold{{{OBJECT}, metric=~"$metric"}})',
            f"{NAME} {{{{bound}}}}",
        ),
        repeat="metric",
    ),
)
HISTORY = (
    coloured(
        table(
            "Conditions",
            "Every condition as it stands.",
            {"": f"max by ({BY}, condition, status, reason) (dram_rollout_condition{{{OBJECT}}})"},
        ),
        "status",
        {"True": BUSY, "Unknown": WAITING},
    ),
    table(
        "Changes of state",
        "How often, since the replica that leads began to.",
        {"count": f"max by ({BY}, from, to, reason) (dram_rollout_transitions_total{{{OBJECT}}})"},
    ),
)
BOARD = Board(
    uid="dram-rollouts",
    title="Dram / Rollouts",
    meaning="EdgeRollouts: state, step, cohort, metrics against their limits, devices. Rollbacks are marked in red.",
    variables=(
        Variable("namespace", "label_values(dram_rollout_info, namespace)"),
        Variable("name", 'label_values(dram_rollout_info{namespace=~"$namespace"}, name)'),
        Variable("metric", f"label_values(dram_rollout_metric_threshold{{{OBJECT}}}, metric)"),
    ),
    marks=(
        Mark(
            "Rollbacks",
            f'max by ({BY}) (dram_rollout_state{{{OBJECT}, state="{ROLLING_BACK}"}}) == 1',
            title=f"{NAME} goes back",
            text="Devices are being sent back to stable.",
            color=BAD,
        ),
    ),
    rows=(
        ("Where they stand", STANDING),
        ("Steps", STEPS),
        ("Devices", DEVICES),
        ("Verdicts", VERDICT),
        ("Metrics against their limits", LIMITS),
        ("What happened", HISTORY),
    ),
)
