from datetime import UTC, datetime, timedelta

import pytest

from dram_operator.api.status import StageState, StageStatus
from dram_operator.show.jobs import heading, job_story, jobs_table, stage_line
from tests.builders import AJob, a_job
from tests.operator.api.statuses import A_FULL_STATUS
from tests.operator.show.printed import printed

NOW = datetime(2026, 1, 1, 0, 14, tzinfo=UTC)
BEGAN = "2026-01-01T00:00:00Z"


def full() -> AJob:
    return AJob(**{**vars(a_job()), "status": A_FULL_STATUS.model_dump(mode="json", by_alias=True, exclude_none=True)})


def under_way() -> AJob:
    stages = [
        {"id": "resolve", "state": "Succeeded", "startedAt": BEGAN, "finishedAt": "2026-01-01T00:00:03Z"},
        {"id": "teach", "state": "Succeeded", "reason": "Cached"},
        {"id": "train", "state": "Running", "attempt": 1},
        {"id": "export-q8", "state": "Pending"},
    ]
    job = full().having("status.stages", stages)
    for absent in ("finishedAt", "reportUri"):
        job.status.pop(absent)
    return job


def test_the_story_of_a_job_that_trains() -> None:
    assert printed(job_story(under_way().build(), NOW)).split("\n") == [
        "… DistillationJob default/support-bot: Running: At work.",
        "├── run 2, started 14 min ago",
        "├── all of it  ━━━━━━━━╌╌╌╌╌╌╌╌╌╌╌╌ 40 %",
        "├── stages",
        "│   ├── ✓ resolve (3 s)",
        "│   ├── ✓ teach (cached)",
        "│   ├── … train  ━━━━━━━━╌╌╌╌╌╌╌╌╌╌╌╌ 40 of 100, loss 1.250, about 0:01:30 left",
        "│   └── · export-q8",
        "├── gates",
        "│   └── ✓ 1 passed",
        "├── ┏━━━━━━━━━┳━━━━━━━┳━━━━━━━━━━━━━━┳━━━━━━━━━━━┳━━━━━━━━━━┳━━━━━━━┓",
        "│   ┃ variant ┃ size  ┃ golden score ┃ pass rate ┃ tokens/s ┃ gates ┃",
        "│   ┡━━━━━━━━━╇━━━━━━━╇━━━━━━━━━━━━━━╇━━━━━━━━━━━╇━━━━━━━━━━╇━━━━━━━┩",
        "│   │ q8      │ 0 MiB │              │           │          │ Pass  │",
        "│   └─────────┴───────┴──────────────┴───────────┴──────────┴───────┘",
        "└── results",
        "    ├── best        q8 (0.93)",
        "    ├── q8  s3://models/q8",
        "    └── checkpoint  step 40, s3://models/checkpoints/40",
    ]


def test_a_finished_job_tells_how_long_it_took_and_where_the_report_is() -> None:
    job = full().having("status.finishedAt", "2026-01-01T00:10:00Z")
    told = printed(job_story(job.build(), NOW))
    assert "run 2, started 14 min ago, finished 4 min ago after 10 min" in told
    assert "report      s3://models/report.html" in told
    assert "all of it" not in told


def test_gates_that_did_not_pass_are_told_with_their_remedy() -> None:
    row = full().status["gates"][0]
    failed = row | {"verdict": "Fail", "message": "0.8 is below 0.9: train longer."}
    warned = row | {"verdict": "Warn", "gate": "runtime.maxRamBytes"}
    told = printed(job_story(full().having("status.gates", [row, failed, warned]).build(), NOW))
    assert "✓ 1 passed" in told
    assert "✗ q8: quality.minGoldenPassRate: Fail: 0.8 is below 0.9: train longer." in told
    assert "! q8: runtime.maxRamBytes: Warn" in told


@pytest.mark.parametrize(("truth", "want"), [("True", "✓"), ("False", "✗"), ("Unknown", "…")])
def test_the_heading_bears_the_mark_of_its_end(truth: str, want: str) -> None:
    assert heading(full().having("status.conditions[0].status", truth).build()).startswith(f"{want} Dist")


def test_a_job_that_nobody_has_looked_at_says_so() -> None:
    told = printed(job_story(a_job().build(), NOW))
    assert told == "… DistillationJob default/support-bot: no operator has looked at it yet"


@pytest.mark.parametrize(
    ("stage", "want"),
    [
        ({"state": StageState.PENDING}, "· train"),
        ({"state": StageState.PENDING, "reason": "Queued", "message": "in line"}, "· train: Queued: in line"),
        ({"state": StageState.RUNNING}, "… train"),
        (
            {"state": StageState.RUNNING, "reason": "Unschedulable", "message": "no node"},
            "… train: Unschedulable: no node",
        ),
    ],
)
def test_a_stage_that_waits_says_for_what(stage: dict[str, object], want: str) -> None:
    assert stage_line(StageStatus.model_validate({"id": "train", **stage})) == want


def test_the_list_has_a_line_a_job() -> None:
    done = full().named("done", "tv").having("status.conditions[0].status", "True").build()
    table = printed(jobs_table([under_way().build(), done, a_job().named("new").build()], NOW, namespaces=True))
    cells = [line.split() for line in table.split("\n")]
    assert cells[1] == [
        "default", "support-bot", "Running", "train", "━━━━━━━━╌╌╌╌╌╌╌╌╌╌╌╌", "40", "%", "0:01:30", "0.93", "Pass", "14", "min",
        "ago",
    ]  # fmt: skip
    assert cells[2][:4] == ["tv", "done", "Running", "train"]
    assert cells[2][5:8] == ["100", "%", "0.93"]
    assert cells[3] == ["default", "new"]
    assert "namespace" not in printed(jobs_table([], NOW + timedelta(), namespaces=False))
