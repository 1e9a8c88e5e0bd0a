"""A DistillationJob's variant on six real devices; then worse ones, each sent back by what it does to them."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.bench.__main__ import RESULTS
from tests.bench.results import Row, write
from tests.cluster.api import Object, wait_until
from tests.e2e import models
from tests.e2e.bench import WORSE, Bench
from tests.e2e.fleet import SIZE
from tests.e2e.installation import Installation
from tests.e2e.models import Source
from tests.e2e.rollout_story import ERRORS, GOLDEN, INTERVAL_SECONDS, RolloutStory
from tests.e2e.tiny import NAME as JOB

REPEATS = 10
FAILURE_LIMIT = 2


def test_a_jobs_variant_goes_to_one_three_and_six_devices(bench: Bench) -> None:
    story = bench.story
    told = [message for reason, message in story.events() if reason == "StepStarted"]
    steps = ["step 1/3: 1", "step 2/3: 3", f"step 3/3: {SIZE}"]
    assert sorted(message.split(" devices")[0] for message in told) == steps
    reasons = [reason for reason, _ in story.events()]
    assert reasons.count("StepPassed") == 3
    assert reasons.count("Completed") == 1
    shown = story.shown()
    assert (shown["Status"], shown["Stable"]) == ("Completed", f"{JOB}/gguf-q8-0"), shown
    assert story.condition("Ready")["status"] == "True"


Make = Callable[[Bench], bytes]


@dataclass(frozen=True)
class Fault:
    """A worse release, and what finds it."""

    name: str
    make: Make
    metrics: Callable[[Bench], tuple[Object, ...]]
    reason: str = "MetricBreached"
    above: bool = True


def a_slow_model(bench: Bench) -> bytes:
    """Built once for both tests that need it."""
    path = bench.folder / "slow.gguf"
    if not path.exists():
        path.write_bytes(models.slow(bench.folder))
    return path.read_bytes()


FAULTS = (
    Fault("smoke", lambda bench: models.truncated(bench.model), lambda _: (), reason="DevicesFailed"),
    Fault("golden", lambda bench: models.noisy(bench.model, bench.folder), lambda _: (GOLDEN,), above=False),
    Fault("latency", a_slow_model, lambda bench: (bench.latency,)),
    Fault("errors", a_slow_model, lambda _: (ERRORS,)),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_worse_release_is_sent_back_by(bench: Bench, fault: Fault) -> None:
    story = bench.story
    source = bench.artifact(fault.name, fault.make(bench))
    metrics = fault.metrics(bench)
    wait_until(bench.is_calm, "what the last release left in the window", explain=story.explain)
    attempt = story.status()["attempt"] + 1
    story.offer(source.spec, *metrics)

    visible = visible_at(story, source, fault, metrics, attempt)
    signed = bench.releases.wait_signed(story.channel, source.sha256)
    back = story.wait_back(bench.stable)
    record = story.wait_ended(attempt)

    assert (record["outcome"], record["reason"], record["digest"]) == ("RolledBack", fault.reason, source.sha256)
    assert [one["digest"] for one in story.status()["quarantined"]].count(source.sha256) == 1
    told = {"RollingBack", "RolledBack"}
    wait_until(lambda: told <= {reason for reason, _ in story.events()}, "the Events", explain=story.explain)
    assert story.shown()["Stable"] == f"{JOB}/gguf-q8-0"
    remember(fault.name, signed - visible, back - visible)


def visible_at(story: RolloutStory, source: Source, fault: Fault, metrics: tuple[Object, ...], attempt: int) -> float:
    """When anybody who asks Prometheus could know."""
    if not metrics:
        gave_up = f'dram_device_gave_up{{channel="{story.channel}",release="{source.sha256}"}} == 1'
        return wait_until(
            lambda: time.time() if story.query(gave_up) else None,
            "a device that gave up",
            patience_seconds=420,
            explain=story.explain,
        )
    (metric,) = metrics
    return story.wait_breach(metric, attempt, source.sha256, above=fault.above)


def remember(fault: str, signed_seconds: float, back_seconds: float) -> None:
    """Keep the times beside the benchmarks' figures."""
    bound = INTERVAL_SECONDS * (FAILURE_LIMIT + 1) + 5.0
    note = "lower is better; from the breach in Prometheus, on six pods"
    write(
        [
            Row(
                f"rollout.breach_to_rollback_seconds.{fault}",
                signed_seconds,
                "s",
                "promised",
                bound,
                f"{note}, to the signed rollback",
            ),
            Row(
                f"rollout.breach_to_devices_back_seconds.{fault}",
                back_seconds,
                "s",
                note=f"{note}, to 95 % of the devices",
            ),
        ],
        RESULTS,
    )


def test_a_slow_model_was_slow_enough(bench: Bench) -> None:
    """The latency that was found is at least five times that of the good release."""
    found = [message for reason, message in bench.story.events() if reason == "RollingBack" and "latency" in message]
    (seconds,) = {float(message.split(" is above ")[0].rsplit(" ", 1)[1]) for message in found}
    assert seconds >= WORSE * bench.latency_seconds


@pytest.mark.long
@pytest.mark.parametrize("number", range(REPEATS))
def test_a_release_that_is_as_good_is_not_sent_back(bench: Bench, number: int) -> None:
    story = bench.story
    gates = (GOLDEN, ERRORS, bench.latency)
    wait_until(bench.is_calm, "what the last release left in the window", explain=story.explain)
    attempt = story.status()["attempt"] + 1
    source = bench.artifact(f"as-good-{number}", bench.model)
    story.offer(source.spec, *gates)

    assert story.wait_completed(attempt) == source.sha256


def test_neither_a_killed_operator_nor_a_killed_agent_changes_the_course(
    bench: Bench, installation: Installation
) -> None:
    story = bench.story
    attempt = story.status()["attempt"] + 1
    source = bench.artifact("killed", bench.model)
    story.offer(source.spec, bench.latency)

    story.wait_step("2/3")
    installation.kill()
    story.wait_step("3/3")
    story.fleet.kill_agent(story.fleet.pods()[0])

    assert story.wait_completed(attempt) == source.sha256
    started = [
        message for reason, message in story.events() if reason == "StepStarted" and source.sha256[:12] in message
    ]
    assert len(started) == len(set(started)) == 3


def test_a_frozen_installation_moves_nothing_forward(bench: Bench, installation: Installation) -> None:
    story = bench.story
    attempt = story.status()["attempt"] + 1
    source = bench.artifact("frozen", bench.model)
    installation.freeze()
    story.offer(source.spec, bench.latency)

    wait_until(
        lambda: story.condition("Ready").get("reason") == "Frozen",
        "the rollout to be frozen",
        patience_seconds=240,
        explain=story.explain,
    )
    assert source.sha256 not in story.running().values()

    installation.thaw()
    assert story.wait_completed(attempt) == source.sha256
