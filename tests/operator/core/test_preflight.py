"""What an untrained student's figures mean for its job."""

from typing import Any

from dram_operator.api.status import StageState
from dram_operator.core.attempts import resources_key
from dram_workers.results import Measure
from dram_workers.stages import StageKind
from tests.builders import AJob, a_job
from tests.operator.core.world import GOOD_SCORES, TWO, World, a_world, crashed

FITS = (Measure(name="sizeMiB", value=80.0), Measure(name="tokensPerSecond", value=20, low=18, high=22))
TOO_LARGE = (Measure(name="sizeMiB", value=138.4), Measure(name="tokensPerSecond", value=20, low=18, high=22))
LIMITS: dict[str, Any] = {"maxSizeMiB": 110}


def a_preflight(
    figures: dict[str, tuple[Measure, ...]], job: AJob | None = None, *, required: tuple[bool, bool] = (True, True)
) -> World:
    """A job with two variants, whose preflights tell these figures by variant."""
    job = (job or a_job()).exporting(*TWO).with_gates(performance=LIMITS)
    for number, needed in enumerate(required):
        job = job.having(f"spec.exports[{number}].required", needed)
    world = a_world(job)
    told = {f"preflight-{variant}": measures for variant, measures in figures.items()}
    world.measures = lambda attempt: told.get(attempt.stage, GOOD_SCORES)
    return world


def started(world: World) -> set[str]:
    return {attempt.stage for attempt in world.attempts.values()}


def test_a_required_variant_that_cannot_fit_stops_the_job_before_training() -> None:
    world = a_preflight({"gguf-q8-0": TOO_LARGE, "gguf-q4-k-m": FITS}, a_job().with_synthetic())
    world.run()
    assert world.condition("Succeeded") == ("False", "PreflightFailed")
    message = world.status.conditions[0].message
    assert "preflight-gguf-q8-0" in message
    assert "performance.maxSizeMiB: sizeMiB must be at most 110 MiB and is 138.4 MiB" in message
    assert message.endswith("choose a coarser export type or a smaller student")
    assert {"train", "synthesize", "data"}.isdisjoint(started(world))
    assert world.condition("Stalled") == ("True", "PreflightFailed")
    assert world.condition("GatesPassed") == ("False", "PreflightFailed")
    assert world.condition("Distilled") == ("False", "NotReached")
    assert world.status.gate == "performance.maxSizeMiB"
    assert any(event.startswith("Warning PreflightFailed preflight-gguf-q8-0") for event in world.events)


def test_the_row_says_that_it_speaks_of_the_untrained_student() -> None:
    world = a_preflight({"gguf-q8-0": TOO_LARGE, "gguf-q4-k-m": FITS})
    world.run()
    (row,) = world.status.gates
    assert (row.variant, row.stage, row.gate, row.value, row.verdict) == (
        "gguf-q8-0",
        "Preflight",
        "performance.maxSizeMiB",
        138.4,
        "Fail",
    )


def test_an_optional_variant_that_cannot_fit_is_dropped_and_the_other_goes_on() -> None:
    world = a_preflight({"gguf-q8-0": TOO_LARGE, "gguf-q4-k-m": FITS}, required=(False, True))
    world.run()
    assert world.condition("Succeeded") == ("True", "Completed")
    assert world.stage("preflight-gguf-q8-0").reason == "PreflightFailed"
    assert world.stage("export-gguf-q8-0").state is StageState.SKIPPED
    assert "evaluate-gguf-q8-0" not in started(world)
    assert [variant.gate for variant in world.status.variants] == ["Fail", "Pass"]
    assert [row.stage for row in world.status.gates if row.variant == "gguf-q8-0"] == ["Preflight"]


def test_when_no_optional_variant_can_fit_nothing_is_trained() -> None:
    world = a_preflight({"gguf-q8-0": TOO_LARGE, "gguf-q4-k-m": TOO_LARGE}, required=(False, False))
    world.run()
    assert world.condition("Succeeded") == ("False", "PreflightFailed")
    assert "train" not in started(world)
    assert world.stage("data").state is not StageState.PENDING
    assert world.status.finished_at is not None


def test_a_limit_inside_the_interval_is_left_to_the_trained_student() -> None:
    unsure = (Measure(name="sizeMiB", value=80.0), Measure(name="tokensPerSecond", value=9, low=7, high=11))
    world = a_preflight({"gguf-q8-0": unsure, "gguf-q4-k-m": FITS})
    world.having(
        gates=a_job().with_gates(performance={**LIMITS, "minTokensPerSecond": 10}).build().spec.gates,
    )
    world.run_to("train")
    assert world.stage("preflight-gguf-q8-0").state is StageState.SUCCEEDED


def test_a_variant_that_cannot_be_converted_keeps_the_workers_own_reason() -> None:
    world = a_preflight({"gguf-q4-k-m": FITS})
    world.run_to("preflight-gguf-q8-0")
    world.fail("preflight-gguf-q8-0", crashed(64, reason="UnsupportedModel", message="x", field="spec.student"))
    world.run()
    assert world.condition("Succeeded") == ("False", "UnsupportedModel")
    assert "train" not in started(world)


def test_training_and_the_teachers_writing_wait_for_every_preflight() -> None:
    world = a_preflight({"gguf-q8-0": FITS, "gguf-q4-k-m": FITS}, a_job().with_synthetic())
    world.run_to("preflight-gguf-q8-0")
    world.finish("preflight-gguf-q8-0")
    world.reconcile()
    assert {"train", "synthesize"}.isdisjoint(started(world))
    world.finish("preflight-gguf-q4-k-m")
    world.reconcile()
    assert "synthesize" in started(world)
    world.run()
    assert world.condition("Succeeded")[0] == "True"


def test_no_key_of_training_depends_on_a_preflight() -> None:
    quick, slow = (a_preflight({"gguf-q8-0": FITS, "gguf-q4-k-m": FITS}) for _ in range(2))
    slow.having(exports=slow.job.spec.exports[:1])
    for world in (quick, slow):
        world.run()
    assert quick.stage("train").key == slow.stage("train").key


def test_limits_decide_anew_over_a_preflight_that_was_done_before() -> None:
    world = a_preflight({"gguf-q8-0": TOO_LARGE, "gguf-q4-k-m": FITS})
    world.run()
    key = world.stage("preflight-gguf-q8-0").key
    world.having(gates=a_job().with_gates(performance={"maxSizeMiB": 200}).build().spec.gates)
    world.run()
    assert world.stage("preflight-gguf-q8-0").key == key
    assert world.condition("Succeeded")[0] == "True"


def test_it_runs_on_pods_of_the_size_of_the_benchmarks() -> None:
    assert resources_key(StageKind.PREFLIGHT) == resources_key(StageKind.BENCH)
