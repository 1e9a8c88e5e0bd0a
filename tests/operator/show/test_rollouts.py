from datetime import UTC, datetime

import pytest

from dram_operator.show.rollouts import heading, rollout_story
from tests.builders import ARollout, a_rollout
from tests.operator.api.rollout_statuses import A_FULL_STATUS
from tests.operator.show.printed import printed

NOW = datetime(2026, 1, 1, 0, 5, tzinfo=UTC)


def full() -> ARollout:
    status = A_FULL_STATUS.model_dump(mode="json", by_alias=True, exclude_none=True)
    steps = (
        "1%",
        {"cohort": {"percent": "10%", "selector": {"matchLabels": {"ring": "early"}}}},
        "50%",
        "pause",
        "100%",
    )
    return ARollout(**{**vars(a_rollout().stepping(*steps)), "status": status})


def test_the_story_of_a_rollout_that_bakes() -> None:
    told = printed(rollout_story(full().build(), NOW)).split("\n")
    assert told[:13] == [
        "… EdgeRollout tv/support-bot: Baking: Step 2 is watched.",
        "├── releases",
        "│   ├── candidate support-bot-v7/gguf-q4-k-m  070707070707  for 5 min",
        "│   ├── stable    support-bot-v6/gguf-q4-k-m  060606060606  for 5 min",
        "│   └── previous  support-bot-v5/gguf-q4-k-m  050505050505  for 5 min",
        "├── attempt 7, step 2/5, about 10 % of 100 devices",
        "│   ├── ✓ 1  1%",
        "│   ├── … 2  10% of ring=early: baking ━━━━━━━━━━╌╌╌╌╌╌╌╌╌╌ 5 min of 10 min",
        "│   ├──     healthy   ━━━━━━━━━━━━━━━━╌╌╌╌ 8 of 10 expected",
        "│   ├──     reporting ━━━━━━━━━━━━━━━━━━╌╌ 9 of 10 expected",
        "│   ├──     ✗ 1 failed",
        "│   ├──     ! 1 offline",
        "│   ├── · 3  50%",
    ]
    assert told[13:15] == ["│   ├── · 4  pause", "│   └── · 5  100%"]
    assert (
        "│   │ error-rate (dry run) │ ✓ Pass  │ 0.001 │ 0.02  │ -0.01 to 0.002 │ 1000    │ PPIEM │ 0.1 % of the"
        in "\n".join(told)
    )
    assert told[-9:] == [
        "├── rollback",
        "│   ├── ↩ bdbdbdbdbdbd  MetricBreached: Too slow.",
        "│   └── ✓ devices were back 5 min ago",
        "├── quarantine",
        "│   └── ✗ bdbdbdbdbdbd  MetricBreached, 5 min ago",
        "├── commands",
        "│   └── ✗ approve by ada, 5 min ago “Looks good.”: Refused: Too late.",
        "└── history",
        "    └── ↩ attempt 6  support-bot-bad  RolledBack: MetricBreached, 5 min ago",
    ]


@pytest.mark.parametrize(
    ("state", "more", "want"),
    [
        ("Updating", {}, "… 2  10% of ring=early: updating for 5 min"),
        ("AwaitingApproval", {"asked": "TooFewDevices"}, "? 2  10% of ring=early: waits for approval: TooFewDevices"),
        ("Passed", {"approvedBy": "ada"}, "✓ 2  10% of ring=early: passed, approved by ada"),
        (
            "Baking",
            {"bakeStartedAt": "2025-12-31T23:00:00Z"},
            "… 2  10% of ring=early: baking for 65 min: the bake of 10 min is over, evidence is not",
        ),
    ],
)
def test_every_state_of_the_step_at_work_has_its_words(state: str, more: dict[str, str], want: str) -> None:
    step = {**full().status["step"], "state": state, **more}
    if state != "Passed":
        step.pop("approvedBy")
    assert want in printed(rollout_story(full().having("status.step", step).build(), NOW))


def test_a_rollback_on_its_way_shows_how_far_it_is() -> None:
    rollback = {**full().status["rollback"], "percent": 40, "remaining": 60}
    rollback.pop("completedAt")
    told = printed(rollout_story(full().having("status.rollback", rollback).build(), NOW))
    assert "… ━━━━━━━━╌╌╌╌╌╌╌╌╌╌╌╌ 40 % told to go back, 60 still on it" in told


@pytest.mark.parametrize(
    ("condition", "status", "shown"),
    [
        ("ArtifactReady", "False", True),
        ("ArtifactReady", "True", False),
        ("RollbackBlocked", "True", True),
        ("RollbackBlocked", "False", False),
        ("StepTooSmallToJudge", "True", True),
        ("Published", "False", True),
        ("Reconciling", "False", False),
    ],
)
def test_what_stands_in_the_way_is_told(condition: str, status: str, shown: bool) -> None:
    rollout = full()
    (place,) = (n for n, one in enumerate(rollout.status["conditions"]) if one["type"] == condition)
    told = printed(rollout_story(rollout.having(f"status.conditions[{place}].status", status).build(), NOW))
    assert (f"! {condition}: Baking: Step 2 is watched." in told) is shown


@pytest.mark.parametrize(
    ("ready", "stalled", "want"),
    [("True", "False", "✓"), ("False", "False", "…"), ("False", "True", "✗"), ("Unknown", "False", "…")],
)
def test_the_heading_says_whether_anybody_has_to_come(ready: str, stalled: str, want: str) -> None:
    conditions = full().status["conditions"]
    for one in conditions:
        one["status"] = {"Ready": ready, "Stalled": stalled}.get(one["type"], "Unknown")
    assert heading(full().having("status.conditions", conditions).build()).startswith(f"{want} EdgeRollout")


def test_a_rollout_that_nobody_has_looked_at_says_so() -> None:
    told = printed(rollout_story(a_rollout().build(), NOW))
    assert "no operator has looked at it yet" in told
    assert "· none: devices run no local model" in told
