"""`kubectl dram rollout devices`: counts from status, and each device by a real Prometheus."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.cluster.api import Api
from tests.cluster.prometheus import PrometheusServer
from tests.integration.kubectl.seat import NAMESPACE, RESTING, WAITING, Seat, place_rollout

NAME = "fleet"
OLD, NEW = "06" * 32, "07" * 32
WELL, ILL, BACK, GONE = (f"{number:032x}" for number in (1, 2, 3, 4))


@pytest.fixture(scope="module")
def prometheus() -> Iterator[PrometheusServer]:
    """What four devices told: one well on the candidate, one ill, one that fell back, one silent for two hours."""
    now = datetime.now(UTC)
    told: dict[str, list[str]] = {}

    def tell(name: str, value: float, ago: timedelta, **labels: str) -> None:
        given = ",".join(f'{key}="{text}"' for key, text in {"channel": f"{NAMESPACE}/{NAME}", **labels}.items())
        told.setdefault(name, []).append(f"{name}{{{given}}} {value} {(now - ago).timestamp():.3f}")

    for device, release, ago, healthy in (
        (WELL, NEW, timedelta(seconds=20), 600.0),
        (ILL, NEW, timedelta(seconds=20), 0.0),
        (BACK, OLD, timedelta(seconds=20), 600.0),
        (GONE, OLD, timedelta(hours=2), 600.0),
    ):
        about = {"device": device, "release": release}
        more = {"attempt": "7", "arm": "treated", "device_class": "tv", "label_ring": "early"}
        tell("dram_device_info", 1, ago, **about, **more)
        tell("dram_device_healthy_seconds", healthy, ago, **about)
    tell("dram_device_gave_up", 1, timedelta(seconds=20), device=BACK, release=NEW)
    blocks = [line for name, lines in told.items() for line in (f"# TYPE {name} gauge", *lines)]
    with PrometheusServer("\n".join([*blocks, "# EOF", ""])) as server:
        yield server


@pytest.fixture
def fleet(api: Api) -> Iterator[Api]:
    since = (datetime.now(UTC) - timedelta(minutes=30)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert WAITING.candidate is not None
    candidate = WAITING.candidate.model_copy(update={"since": since})
    place_rollout(api, NAME, WAITING.model_copy(update={"candidate": candidate}))
    yield api
    api.delete("EdgeRollout", NAME, NAMESPACE)


def test_status_counts_the_devices_of_the_step(fleet: Api, viewer: Seat) -> None:
    shown = viewer.dram("rollout", "devices", NAME).output.splitlines()
    assert shown == [
        "step 2/5, 100 devices known",
        "healthy   ━━━━━━━━━━━━━━━━╌╌╌╌ 8 of 10 expected",
        "reporting ━━━━━━━━━━━━━━━━━━╌╌ 9 of 10 expected",
        "✗ 1 failed",
        "! 1 offline",
    ]
    counts = json.loads(viewer.dram("rollout", "devices", NAME, "-o", "json").output)
    assert counts == {"known": 100, "expected": 10, "reporting": 9, "healthy": 8, "failed": 1, "offline": 1}


def test_without_a_step_no_devices_are_counted(api: Api, viewer: Seat, name: str) -> None:
    place_rollout(api, name, RESTING)
    result = viewer.dram("rollout", "devices", name)
    assert (result.exit_code, "nothing is on its way" in result.output) == (0, True)


def test_prometheus_tells_each_device_the_worst_first(fleet: Api, viewer: Seat, prometheus: PrometheusServer) -> None:
    result = viewer.dram("rollout", "devices", NAME, "--prometheus", prometheus.url, "-o", "json")
    rows = json.loads(result.output)
    told = [(row["device"], row["state"], row["role"], row["device_class"], row["labels"]) for row in rows]
    tv = ("tv", {"ring": "early"})
    assert told == [
        (BACK, "gave up", "stable", *tv),
        (GONE, "offline", "none", *tv),
        (ILL, "unhealthy", "candidate", *tv),
        (WELL, "healthy", "candidate", *tv),
    ]
    table = viewer.dram("rollout", "devices", NAME, "--prometheus", prometheus.url).output
    (line,) = (line.split() for line in table.splitlines() if WELL in line)
    assert line[:6] == [WELL, "tv", "✓", "healthy", "candidate", NEW[:12]]
    assert line[-1] == "ring=early"


def test_a_metrics_server_that_does_not_answer_is_named(fleet: Api, viewer: Seat) -> None:
    for url, want in (("http://127.0.0.1:1", "gives no list of devices"), ("ftp://x", "has to start with http")):
        result = viewer.dram("rollout", "devices", NAME, "--prometheus", url)
        assert (result.exit_code, want in result.output) == (4, True), result.output
