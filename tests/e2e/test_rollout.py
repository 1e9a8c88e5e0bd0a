"""A DistillationJob's variant on six real devices; then worse ones, each sent back by what it does to them."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bench.__main__ import RESULTS
from tests.bench.results import Row, write
from tests.cluster.api import Object, wait_until
from tests.cluster.prometheus import PrometheusServer
from tests.e2e import models
from tests.e2e.fleet import SIZE, Fleet, enrol
from tests.e2e.installation import Installation
from tests.e2e.models import Source, put
from tests.e2e.releases import Releases
from tests.e2e.rollout_story import INTERVAL_SECONDS, MIN_SAMPLES, RolloutStory
from tests.e2e.story import Story
from tests.e2e.tiny import NAME as JOB

CHANNEL = "support-bot"
REPEATS = 10
FAILURE_LIMIT = 2
WORSE = 5.0
"""How many times the latency of the good model a slow one has at least."""
LEAST_LIMIT_SECONDS = 0.25
"""Below this, a busy machine's own hiccups are as long."""
GOLDEN: Object = {"name": "golden", "preset": "GoldenPassRatio", "min": "0.9", "minSamples": MIN_SAMPLES}
ERRORS: Object = {"name": "errors", "preset": "ErrorRatio", "max": "0.1", "minSamples": MIN_SAMPLES}


@dataclass(frozen=True)
class Bench:
    """The fleet on its first release, what that one is like, and worse ones."""

    story: RolloutStory
    model: bytes
    stable: str
    """Digest of the first release."""
    latency_seconds: float
    """95th percentile of it, on all devices under the test's traffic."""
    folder: Path

    @property
    def latency(self) -> Object:
        """The gate on latency, as an absolute limit."""
        limit = max(LEAST_LIMIT_SECONDS, WORSE * self.latency_seconds)
        return {"name": "latency", "preset": "LatencyP95", "max": f"{limit:.3f}", "minSamples": MIN_SAMPLES}

    def artifact(self, name: str, model: bytes) -> Source:
        """Store a model."""
        return put(self.story.releases.s3, f"{self.story.namespace}/offered", name, model)


@pytest.fixture(scope="module")
def model(undisturbed: Story) -> bytes:
    """The file of the job's variant."""
    (variant,) = undisturbed.status()["variants"]
    keys = [key for key in undisturbed.stored("artifacts/") if key.endswith(".gguf")]
    (key,) = [key for key in keys if f"/{JOB}/{variant['name']}/" in key]
    return undisturbed.read(f"s3://dram/{undisturbed.namespace}/{key}")


@pytest.fixture(scope="module")
def story(
    installation: Installation,
    undisturbed: Story,
    releases: Releases,
    prometheus: PrometheusServer,
    model: bytes,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RolloutStory]:
    """Six devices that have no model yet, and a rollout to be."""
    namespace, channel = undisturbed.namespace, f"{undisturbed.namespace}/{CHANNEL}"
    ids = enrol(releases, channel, tmp_path_factory.mktemp("devices"))
    fleet = Fleet(installation.cluster, releases, namespace, channel, ids)
    fleet.start(models.golden_for(model, tmp_path_factory.mktemp("golden")))
    story = RolloutStory(installation.api, releases, prometheus, fleet, namespace, CHANNEL)
    wait_until(lambda: set(story.running()) == set(ids), "the devices in Prometheus", explain=fleet.explain)
    yield story
    story.api.delete("EdgeRollout", CHANNEL, namespace)
    wait_until(lambda: story.api.find("EdgeRollout", CHANNEL, namespace) is None, "the rollout to go", explain=str)


@pytest.fixture(scope="module")
def bench(story: RolloutStory, model: bytes, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The job's variant, brought to every device."""
    story.offer({"jobRef": {"name": JOB, "variant": "gguf-q8-0"}}, GOLDEN)
    stable = story.wait_completed(1)
    return Bench(story, model, stable, baseline(story), tmp_path_factory.mktemp("bench"))


def baseline(story: RolloutStory) -> float:
    """95th percentile of the latency of all devices, once they have served this release for a window."""
    time.sleep(60)  # the window of a rate, filled by this release alone
    buckets = f'rate(dram_device_request_seconds_bucket{{channel="{story.channel}",served_by="device"}}[60s])'
    ((_, seconds),) = story.query(f"histogram_quantile(0.95, sum by (le) ({buckets}))")
    return seconds


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
    wait_until(lambda: is_calm(bench), "what the last release left in the window", explain=story.explain)
    attempt = story.status()["attempt"] + 1
    story.offer(source.spec, *metrics)

    visible = visible_at(story, source, fault, metrics, attempt)
    signed = story.releases.wait_signed(story.channel, source.sha256)
    back = story.wait_back(bench.stable)
    record = story.wait_ended(attempt)

    assert (record["outcome"], record["reason"], record["digest"]) == ("RolledBack", fault.reason, source.sha256)
    assert [one["digest"] for one in story.status()["quarantined"]].count(source.sha256) == 1
    told = {"RollingBack", "RolledBack"}
    wait_until(lambda: told <= {reason for reason, _ in story.events()}, "the Events", explain=story.explain)
    assert story.shown()["Stable"] == f"{JOB}/gguf-q8-0"
    remember(fault.name, signed - visible, back - visible)


def is_calm(bench: Bench) -> bool:
    """Whether no device is slow or fails any more, in the window that the next step looks at."""
    channel = f'channel="{bench.story.channel}"'
    buckets = f"sum by (device, le) (rate(dram_device_request_seconds_bucket{{{channel}}}[60s]))"
    failed, asked = (
        f"sum by (device) (rate(dram_device_requests_total{{{channel}{which}}}[60s]))"
        for which in (',outcome="error"', "")
    )
    worst = (f"max(histogram_quantile(0.95, {buckets}))", f"max({failed} / {asked})")
    seconds, ratio = (next((value for _, value in bench.story.query(query)), 1e9) for query in worst)
    return seconds < float(bench.latency["max"]) / 2 and ratio < float(ERRORS["max"]) / 2


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
    wait_until(lambda: is_calm(bench), "what the last release left in the window", explain=story.explain)
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
