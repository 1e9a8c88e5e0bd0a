"""What people see while a job runs."""

from datetime import timedelta

from dram_operator.core.observed import ProgressView
from dram_workers.results import Progress
from tests.builders import a_job
from tests.operator.core.world import START, World


def a_report(
    world: World, step: int, *, total: int = 100, first: int = 0, seconds: float = 20, attempt: int = 1
) -> None:
    """The training stage reports this step, `seconds` after its first report."""
    latest = Progress(
        stage="train", attempt=attempt, step=step, total_steps=total, metrics={"loss": 1.5, "checkpointStep": 8}
    )
    world.progress = ProgressView(latest, world.now, first, world.now - timedelta(seconds=seconds))


def training() -> World:
    world = World(a_job().build())
    world.run_to("train")
    world.wait(60)
    return world


def test_a_report_becomes_step_percent_eta_and_loss() -> None:
    world = training()
    a_report(world, 20, first=10)
    world.reconcile()
    progress = world.status.progress
    assert progress
    assert (progress.stage, progress.step, progress.total_steps, progress.loss) == ("train", 20, 100, 1.5)
    assert progress.eta_seconds == 160, "ten steps took 20 s and 80 are left"
    assert 10 < (progress.percent or 0) < 50
    assert world.status.checkpoint
    assert world.status.checkpoint.uri.endswith("/8")


def test_progress_alone_is_written_at_most_every_15_seconds() -> None:
    world = training()
    a_report(world, 20)
    world.reconcile()
    before = world.writes
    world.wait(14)
    a_report(world, 30)
    world.reconcile()
    assert world.writes == before
    world.wait(1)
    world.reconcile()
    assert world.writes == before + 1


def test_a_report_that_waited_for_its_turn_makes_the_next_one_wait_too() -> None:
    world = training()
    a_report(world, 20)
    world.reconcile()
    world.wait(1)
    a_report(world, 30)
    world.wait(14)
    world.reconcile()
    before = world.writes
    world.wait(2)
    a_report(world, 31)
    world.reconcile()
    assert world.writes == before


def test_a_report_that_is_repeated_writes_nothing() -> None:
    world = training()
    a_report(world, 20)
    world.reconcile()
    before = world.writes
    world.wait(600)
    world.reconcile()
    assert world.writes == before


def test_a_report_of_an_earlier_attempt_is_ignored() -> None:
    world = training()
    a_report(world, 20, attempt=7)
    world.reconcile()
    assert world.status.progress
    assert world.status.progress.step == 0


def test_unknown_length_and_unknown_rate_have_no_eta() -> None:
    world = training()
    a_report(world, 0, total=0, seconds=0)
    world.reconcile()
    assert world.status.progress
    assert world.status.progress.eta_seconds is None


def test_a_report_without_a_checkpoint_keeps_the_known_one() -> None:
    world = training()
    a_report(world, 20)
    world.reconcile()
    known = world.status.checkpoint
    world.wait(20)
    latest = Progress(stage="train", attempt=1, step=30, total_steps=100)
    world.progress = ProgressView(latest, world.now, 0, START)
    world.reconcile()
    assert world.status.checkpoint == known


def test_the_stage_column_says_waiting_between_stages_and_done_at_the_end() -> None:
    world = World(a_job().suspended().build())
    world.reconcile()
    assert world.status.stage == "Waiting"
    world.having(suspend=False)
    world.run()
    assert world.status.stage == "Done"


def test_the_rate_starts_anew_with_another_attempt() -> None:
    first = Progress(stage="train", attempt=1, step=10, total_steps=100)
    view = ProgressView.following(None, first, START)
    later = first.model_copy(update={"step": 20})
    assert ProgressView.following(view, later, START + timedelta(seconds=9)).first_step == 10
    retried = first.model_copy(update={"attempt": 2, "step": 15})
    assert ProgressView.following(view, retried, START).first_step == 15
