"""The series of jobs: read from the cache at scrape time, gone with their object."""

from datetime import UTC, datetime
from typing import Any

from prometheus_client import generate_latest

from dram_operator.adapters.resources import DISTILLATION_JOBS
from dram_operator.runtime.board import ProgressBoard
from dram_operator.runtime.cache import Cache, Key
from dram_operator.runtime.metrics import JobCollector, Metrics
from dram_workers.results import Progress
from tests.operator.runtime.objects import a_job

KEY = Key("ns", "bot")
STATUS: dict[str, Any] = {
    "conditions": [
        {"type": "Succeeded", "status": "Unknown", "reason": "Running"},
        {"type": "Stalled", "status": "False", "reason": "Running"},
        {"type": "Distilled", "status": "Unknown", "reason": "Running"},
    ],
    "progress": {"percent": 40},
    "stages": [
        {"id": "resolve", "startedAt": "2030-01-01T00:00:00Z", "finishedAt": "2030-01-01T00:00:07Z"},
        {"id": "train", "startedAt": "2030-01-01T00:00:07Z"},
    ],
    "gates": [
        {"variant": "q8", "gate": "quality.maxKLDivergence", "verdict": "Warn"},
        {"variant": "q4", "gate": "quality.maxKLDivergence", "verdict": "Fail"},
    ],
    "variants": [{"name": "q8", "sizeBytes": 1000, "scores": {"goldenScore": 0.9}}, {"name": "q4"}],
}


def scrape(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()


def a_site() -> tuple[Cache, ProgressBoard, Metrics]:
    cache, board = Cache(), ProgressBoard(lambda: datetime(2030, 1, 1, tzinfo=UTC))
    return cache, board, Metrics({"DistillationJob": lambda: 3}, JobCollector(cache.distillation_jobs, board))


def test_a_jobs_series_follow_its_status_and_its_reports() -> None:
    cache, board, metrics = a_site()
    cache.apply(DISTILLATION_JOBS, a_job(**STATUS))
    told = {"loss": 2.0, "soft": 1.5, "tokens": 512.0, "other": 1.0}
    board.post(KEY, Progress(stage="train", attempt=1, step=1, total_steps=2, metrics=told))
    text = scrape(metrics)
    for line in (
        'dram_job_condition{condition="Succeeded",name="bot",namespace="ns",reason="Running",status="Unknown"} 1.0',
        'dram_job_condition{condition="Stalled",name="bot",namespace="ns",reason="Running",status="False"} 1.0',
        'dram_job_progress_ratio{name="bot",namespace="ns"} 0.4',
        'dram_job_stage_seconds{name="bot",namespace="ns",stage="resolve"} 7.0',
        'dram_job_gate{gate="quality.maxKLDivergence",name="bot",namespace="ns",variant="q8"} 1.0',
        'dram_job_gate{gate="quality.maxKLDivergence",name="bot",namespace="ns",variant="q4"} 0.0',
        'dram_variant_size_bytes{name="bot",namespace="ns",variant="q8"} 1000.0',
        'dram_variant_score{metric="goldenScore",name="bot",namespace="ns",variant="q8"} 0.9',
        'dram_job_loss{name="bot",namespace="ns",term="total"} 2.0',
        'dram_job_loss{name="bot",namespace="ns",term="soft"} 1.5',
        'dram_job_tokens_total{name="bot",namespace="ns"} 512.0',
        'dram_operator_queue_depth{kind="DistillationJob"} 3.0',
    ):
        assert line in text
    assert 'stage="train"' not in text, "it has not ended"
    assert 'condition="Distilled"' not in text, "thousands of jobs would have too many"


def test_a_deleted_jobs_series_are_gone() -> None:
    cache, _, metrics = a_site()
    cache.apply(DISTILLATION_JOBS, a_job(**STATUS))
    cache.apply(DISTILLATION_JOBS, a_job(), deleted=True)
    assert 'name="bot"' not in scrape(metrics)


def test_errors_are_counted_from_zero_on() -> None:
    _, _, metrics = a_site()
    assert 'dram_operator_reconcile_errors_total{kind="DistillationJob"} 0.0' in scrape(metrics)


def test_writes_are_counted_by_kind_and_verb() -> None:
    _, _, metrics = a_site()
    metrics.count_write("patch", DISTILLATION_JOBS)
    assert 'dram_operator_api_writes_total{kind="DistillationJob",verb="patch"} 1.0' in scrape(metrics)


def test_a_report_of_another_attempt_starts_the_rate_anew() -> None:
    _, board, _ = a_site()
    for attempt, step in ((1, 10), (1, 20), (2, 15)):
        board.post(KEY, Progress(stage="train", attempt=attempt, step=step, total_steps=100))
        view = board.view(KEY)
        assert view is not None
        assert view.first_step == (10 if attempt == 1 else 15)
    board.forget(KEY)
    assert board.latest(KEY) is None
