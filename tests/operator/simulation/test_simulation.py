"""What a policy does with fleets in which something goes wrong: every story ends as the design demands."""

from typing import Any

import pytest

from dram_operator.simulation.timeline import Verdict
from tests.operator.simulation.imagined import a_group, a_policy, a_step, lines, simulated

INTERVAL = 60
FAILURE_LIMIT = 2


def fault(name: str, **fields: Any) -> dict[str, Any]:
    return a_group(faults=[{"fault": name, **fields}])


@pytest.mark.parametrize(
    "group",
    [
        a_group(),
        fault("SmokeTest", share=0.1),
        fault("Crash", share=0.1),
        fault("Offline", share=0.2),
        fault("Offline", share=0.3, untilSeconds=5400),
        fault("Offline", share=0.2, fromSeconds=-86_400),
        fault("ClockSkew", seconds=-31_536_000),
        fault("ClockSkew", share=0.1, seconds=172_800),
        fault("Silent", share=0.1, afterSeconds=60),
        a_group(candidate={"latencySeconds": 0.2, "errorRatio": 0.005}),
    ],
    ids=lambda group: str(group.get("faults", "none")),
)
def test_a_candidate_that_is_good_enough_becomes_stable(group: dict[str, Any]) -> None:
    simulation = simulated(a_policy(), group)
    assert simulation.timeline.verdict is Verdict.COMPLETED, simulation.timeline.message
    assert lines(simulation, "RollingBack") == []


@pytest.mark.parametrize(
    ("group", "why"),
    [
        (a_group(candidate={"latencySeconds": 4.0}), "MetricBreached: latency"),
        (fault("Slow", factor=12), "MetricBreached: latency"),
        (fault("Slow", factor=12, afterSeconds=900), "MetricBreached: latency"),
        (fault("Errors", ratio=0.3), "MetricBreached: errors"),
        (fault("Errors", ratio=0.3, afterSeconds=1500), "MetricBreached: errors"),
        (fault("Wrong", ratio=0.5), "MetricBreached: golden"),
        (fault("Hungry", factor=2), "MetricBreached: memory"),
        (fault("Hungry", factor=2, afterSeconds=900), "MetricBreached: memory"),
        (fault("Fallback", ratio=0.6), "MetricBreached: fallback-ratio"),
        (fault("Crash"), "DevicesFailed"),
        (fault("Crash", afterSeconds=600), "MetricBreached: fallback-ratio"),
        (fault("SmokeTest"), "DevicesFailed"),
        (fault("SmokeTest", share=0.5), "DevicesFailed"),
        (fault("Silent", afterSeconds=30), "DevicesFailed"),
    ],
    ids=str,
)
def test_a_bad_candidate_is_sent_back(group: dict[str, Any], why: str) -> None:
    simulation = simulated(a_policy(), group)
    assert simulation.timeline.verdict is Verdict.ROLLED_BACK
    assert simulation.timeline.message.startswith(why)
    assert simulation.timeline.samples[-1].devices["on the candidate"] == 0


@pytest.mark.parametrize("after", [0, 900, 1500])
def test_a_breach_is_acted_on_within_the_failure_limit(after: int) -> None:
    simulation = simulated(a_policy(), fault("Errors", ratio=0.4, afterSeconds=after))
    seen = [one for one in simulation.timeline.samples if "errors" in one.looks]
    first = next(one.seconds for one in seen if one.looks["errors"].verdict == "Breach")
    assert lines(simulation, "RollingBack")[0].seconds - first <= INTERVAL * FAILURE_LIMIT


def test_devices_that_turn_bad_in_the_watch_window_are_sent_back() -> None:
    policy = a_policy(a_step("10%"), a_step("100%", bake=7200))
    simulation = simulated(policy, fault("Slow", factor=12, afterSeconds=5400))
    assert simulation.timeline.verdict is Verdict.ROLLED_BACK
    assert lines(simulation, "RollingBack")[0].seconds > 5400


@pytest.mark.parametrize(
    ("more", "group"),
    [
        ({}, fault("Silent", afterSeconds=400)),
        ({}, fault("Offline")),
        ({}, fault("ClockSkew", seconds=172_800)),
        ({"events": [{"event": "PrometheusDown"}]}, a_group()),
        ({"events": [{"event": "PrometheusDown", "fromSeconds": 700}]}, a_group()),
        ({"events": [{"event": "RepositoryDown"}]}, a_group()),
        ({"events": [{"event": "Frozen"}]}, a_group()),
        ({}, a_group(load={"perHour": 0})),
    ],
    ids=[
        "silent",
        "offline",
        "clocks ahead",
        "no telemetry",
        "telemetry lost",
        "no repository",
        "frozen",
        "no requests",
    ],
)
def test_what_proves_nothing_is_never_promoted(more: dict[str, Any], group: dict[str, Any]) -> None:
    simulation = simulated(a_policy(), group, **more, longestSeconds=21_600)
    assert simulation.timeline.verdict in (Verdict.STALLED, Verdict.UNFINISHED)
    assert lines(simulation, "StepPassed") == []
    assert max((sample.percent for sample in simulation.timeline.samples), default=0) <= 10


@pytest.mark.parametrize("event", ["PrometheusDown", "RepositoryDown", "Frozen"])
def test_an_outage_delays_and_then_the_rollout_goes_on(event: str) -> None:
    outage = {"event": event, "fromSeconds": 700, "untilSeconds": 1180}
    simulation = simulated(a_policy(), events=[outage])
    assert simulation.timeline.verdict is Verdict.COMPLETED
    assert lines(simulation, "RollingBack") == []
    assert "Fleet" in [line.type for line in lines(simulation, event)]
    reached = {one.seconds: one.devices["on the candidate"] for one in simulation.timeline.samples}
    assert {count for seconds, count in reached.items() if 700 <= seconds < 1180} == {6}
    assert reached[max(reached)] == 60


def test_a_prometheus_that_does_not_answer_is_an_error_and_not_missing_data() -> None:
    outage = {"event": "PrometheusDown", "fromSeconds": 700, "untilSeconds": 1180}
    samples = simulated(a_policy(), events=[outage], longestSeconds=1500).timeline.samples
    looks = [(one.seconds, look.verdict) for one in samples for look in one.looks.values()]
    assert {verdict for seconds, verdict in looks if 700 <= seconds < 1180} == {"Error"}
    assert {verdict for seconds, verdict in looks if seconds >= 1360} == {"Pass"}


def test_a_person_is_waited_for_and_approves() -> None:
    policy = a_policy(a_step("10%"), "pause", a_step("100%"))
    simulation = simulated(policy, approvals={"afterSeconds": 1800})
    asked, approved = lines(simulation, "AwaitingApproval")[0], lines(simulation, "Approved")[0]
    assert approved.seconds - asked.seconds == 1800
    assert simulation.timeline.verdict is Verdict.COMPLETED


def test_without_that_person_it_stalls() -> None:
    simulation = simulated(a_policy(a_step("10%"), "pause", a_step("100%")))
    assert simulation.timeline.verdict is Verdict.STALLED
    assert simulation.timeline.message.startswith("AwaitingApproval")


def test_windows_are_waited_for() -> None:
    window = {"schedule": "0 2 * * *", "durationSeconds": 3600, "timeZone": "Europe/Berlin"}
    simulation = simulated(a_policy(a_step("100%"), windows=[window]), startsAt="2030-01-07T12:00:00Z")
    assert lines(simulation, "StepStarted")[0].at == "2030-01-08T01:00:00Z"
    assert lines(simulation, "AwaitingWindow")[0].type == "Waits"


def test_the_same_seed_gives_the_same_run_and_another_one_another() -> None:
    runs = [simulated(a_policy(), fault("Errors", share=0.3), seed=seed).timeline.to_json() for seed in (3, 3, 4)]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("seed", range(4))
def test_equal_releases_on_devices_that_differ_are_not_sent_back(seed: int) -> None:
    compared = [
        {"name": "latency", "preset": "LatencyP95", "compareTo": "Control", "margin": "500m"},
        {"name": "errors", "preset": "ErrorRatio", "compareTo": "Control", "margin": "10m"},
    ]
    policy = a_policy(a_step("20%", 3600), a_step("100%", 3600), metrics=tuple(compared), holdbackPercent="20%")
    group = a_group(count=120, spread=1.0, load={"perHour": 300, "diurnal": 0.8})
    simulation = simulated(policy, group, seed=seed, approvals={"afterSeconds": 60}, longestSeconds=21_600)
    assert lines(simulation, "RollingBack") == []
    looks = [one.looks["errors"] for one in simulation.timeline.samples if "errors" in one.looks]
    assert any(look.upper is not None for look in looks)


def test_a_harm_that_only_the_control_shows_is_found() -> None:
    compared = ({"name": "errors", "preset": "ErrorRatio", "compareTo": "Control", "margin": "10m"},)
    policy = a_policy(a_step("40%", 7200), a_step("100%"), metrics=compared)
    group = a_group(count=150, spread=0.5, candidate={"errorRatio": 0.3})
    simulation = simulated(policy, group)
    assert simulation.timeline.verdict is Verdict.ROLLED_BACK
    assert "worse than control" in simulation.timeline.message


def test_own_measures_are_judged() -> None:
    metric = {"name": "battery", "query": "avg(battery_drain)", "max": "2"}
    worse = a_group(stable={"measures": {"battery": 1.0}}, candidate={"measures": {"battery": 3.0}})
    assert simulated(a_policy(metrics=(metric,)), worse).timeline.message.startswith("MetricBreached: battery")
    alike = a_group(stable={"measures": {"battery": 1.0}})
    assert simulated(a_policy(metrics=(metric,)), alike).timeline.verdict is Verdict.COMPLETED
