import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from dram_operator.api.status import DistillationJobStatus, StageState, StageStatus, VariantStatus
from dram_operator.core.observed import ProgressView
from dram_operator.local.show import LiveBar, PlainLines, describe, files_of
from dram_operator.show.jobs import variants_table
from dram_workers.results import GateRow, Progress

START = datetime(2030, 1, 1, tzinfo=UTC)


def stage(state: StageState, **more: object) -> StageStatus:
    times = {"started_at": "2030-01-01T00:00:00Z", "finished_at": "2030-01-01T00:01:05Z"}
    return StageStatus.model_validate({"id": "train", "state": state, "attempt": 1, **times, **more})


def status(*stages: StageStatus) -> DistillationJobStatus:
    return DistillationJobStatus(run=1, stages=stages)


def view(step: int, total: int, loss: float | None = None) -> ProgressView:
    report = Progress(
        stage="train", attempt=1, step=step, total_steps=total, metrics={} if loss is None else {"loss": loss}
    )
    return ProgressView(report, START + timedelta(seconds=40), 0, START)


def printed(
    display: type[PlainLines | LiveBar], *steps: DistillationJobStatus, report: ProgressView | None = None
) -> str:
    out = io.StringIO()
    with display(Console(file=out, force_terminal=display is LiveBar, width=120)) as shown:
        before = DistillationJobStatus()
        for step in steps:
            shown.stages(before, step)
            before = step
        if report:
            shown.progress(report)
    return out.getvalue()


@pytest.mark.parametrize(
    ("ended", "want"),
    [
        (stage(StageState.SUCCEEDED, reason="Completed"), "✓ train (65 s)"),
        (stage(StageState.SUCCEEDED, reason="Cached"), "✓ train (cached)"),
        (stage(StageState.FAILED, reason="LossNotFinite", message="step 3"), "✗ train: LossNotFinite: step 3"),
        (stage(StageState.SKIPPED, message="data gave no result"), "- train: data gave no result"),
        (
            stage(StageState.PENDING, reason="DiskFull", message="no space", retry_at="2030-01-01T00:02:00Z"),
            "↻ train: DiskFull: no space; tried again at 2030-01-01T00:02:00Z",
        ),
    ],
)
@pytest.mark.parametrize("display", [PlainLines, LiveBar])
def test_every_end_of_a_stage_is_a_line(display: type[PlainLines | LiveBar], ended: StageStatus, want: str) -> None:
    assert want in printed(display, status(stage(StageState.RUNNING)), status(ended))


@pytest.mark.parametrize("display", [PlainLines, LiveBar])
def test_what_has_not_changed_is_not_told_again(display: type[PlainLines | LiveBar]) -> None:
    done = status(stage(StageState.SUCCEEDED, reason="Completed"))
    assert printed(display, done, done, done).count("✓ train") == 1


def test_a_terminal_shows_a_bar_with_loss_and_remaining_time() -> None:
    shown = printed(LiveBar, status(stage(StageState.RUNNING)), report=view(30, 120, loss=1.25))
    assert "loss 1.250, about 0:02:00 left" in shown


def test_a_report_in_words() -> None:
    assert describe(view(30, 120, loss=1.25)) == "train: step 30 of 120, loss 1.250, about 0:02:00 left"
    assert describe(view(7, 0)) == "train: step 7"


def test_the_table_shows_what_failed() -> None:
    variant = VariantStatus(name="q8", size_bytes=50 * 1024 * 1024, scores={"goldenScore": 0.91234}, gate="Fail")
    row = GateRow(
        variant="q8", gate="quality.minGoldenPassRate", limit=0.9, verdict="Inconclusive", message="0.88 to 0.95"
    )
    out = io.StringIO()
    Console(file=out, width=200).print(variants_table(DistillationJobStatus(variants=(variant,), gates=(row,))))
    for words in ("q8", "50 MiB", "0.912", "Inconclusive: quality.minGoldenPassRate"):
        assert words in out.getvalue()


def test_released_files_are_found_here_or_named_where_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts" / "q8"
    folder.mkdir(parents=True)
    (folder / "model.gguf").touch()
    variants = (
        VariantStatus(name="q8", uri=folder.as_uri()),
        VariantStatus(name="q4", uri="s3://bucket/artifacts/q4"),
        VariantStatus(name="f16"),
    )
    found = files_of(DistillationJobStatus(variants=variants), tmp_path)
    assert found == [str(folder / "model.gguf"), "s3://bucket/artifacts/q4"]
