"""What a device pushes, as a real Prometheus has it: the very series that it would have scraped."""

import asyncio
from collections.abc import Iterator
from functools import partial

import pytest
import urllib3
from aiohttp.test_utils import TestServer
from pydantic import TypeAdapter, ValidationError

from dram_agent.errors import Cause
from dram_agent.otlp import CONTENT_TYPE, export
from dram_agent.serve import metrics_app
from dram_agent.settings import OwnerLabel
from dram_agent.standing import Arm, Standing
from dram_agent.telemetry import FallbackCause, Identity, Outcome, ServedBy, Telemetry
from tests.agent.prometheus import Series, ask, receiver
from tests.agent.serving import in_thread

NOW = 1_700_000_000.0
RELEASE = "a" * 64
DEVICE = "d" * 32
LABELS = {"ring": "early", "Room_12b": 'kitchen / 3rd "floor" ü', "a_B_c9": ""}


@pytest.fixture(scope="module")
def prometheus() -> Iterator[str]:
    with receiver() as url:
        yield url


@pytest.fixture
def telemetry() -> Telemetry:
    """One that has something of everything to say."""
    made = Telemetry(Identity("tv/bot", DEVICE, "tv", "1.2.3", LABELS))
    made.use(RELEASE)
    made.show_standing(Standing(3, Arm.TREATED, {RELEASE: False, "b" * 64: True}, RELEASE, 1234.5))
    return made


def use(telemetry: Telemetry) -> None:
    for _ in range(30):
        telemetry.count_request(Outcome.OK, ServedBy.DEVICE, 0.3)
    telemetry.count_request(Outcome.ERROR, ServedBy.DEVICE, 1)
    telemetry.count_fallback(FallbackCause.TIMEOUT)
    telemetry.count_refusal(Cause.TAMPERED)
    telemetry.show_health(60.0, 1234)
    telemetry.show_golden(0.9)


def push(prometheus: str, telemetry: Telemetry, at: float) -> None:
    body = export(telemetry, {"service.name": "dram-agent"}, at, NOW - 60)
    headers = {"Content-Type": CONTENT_TYPE}
    answer = urllib3.request("POST", f"{prometheus}/api/v1/otlp/v1/metrics", body=body, headers=headers)
    assert answer.status == 200, answer.data


def test_series_arrive_under_the_names_that_queries_use(prometheus: str, telemetry: Telemetry) -> None:
    push(prometheus, telemetry, NOW)
    use(telemetry)
    push(prometheus, telemetry, NOW + 60)

    at, own = NOW + 60, f'channel="tv/bot",device="{DEVICE}"'
    wanted: dict[str, float] = {
        f'increase(dram_device_requests_total{{{own},release="{RELEASE}",served_by="device",outcome="ok"}}[2m])': 30,
        f"sum(increase(dram_device_requests_total{{{own}}}[2m]))": 31,
        f'increase(dram_device_fallbacks_total{{{own},cause="timeout",release="{RELEASE}"}}[2m])': 1,
        f'dram_device_refused_metadata_total{{{own},cause="tampered"}}': 1,
        f'dram_device_info{{{own},attempt="3",arm="treated",release="{RELEASE}",label_ring="early"}}': 1,
        f"dram_device_memory_bytes{{{own}}}": 1234,
        f"dram_device_golden_pass_ratio{{{own}}}": 0.9,
        f'dram_device_healthy{{{own},release="{RELEASE}"}}': 1,
        f'dram_device_healthy_seconds{{{own},release="{RELEASE}"}}': 60,
        f'dram_device_release_seconds{{{own},release="{RELEASE}"}}': 1234.5,
        f"dram_device_gave_up{{{own}}} == 1": 1,
        f'dram_device_request_seconds_count{{{own},served_by="device",release="{RELEASE}"}}': 30,
        f'dram_device_request_seconds_bucket{{{own},served_by="device",release="{RELEASE}",le="0.35"}}': 30,
        f'dram_device_request_seconds_bucket{{{own},served_by="device",release="{RELEASE}",le="0.2"}}': 0,
    }
    got = {query: [value for _, value in ask(prometheus, query, at)] for query in wanted}
    assert got == {query: [pytest.approx(value)] for query, value in wanted.items()}


async def test_a_scrape_and_a_push_give_the_same_series(telemetry: Telemetry) -> None:
    use(telemetry)
    async with TestServer(metrics_app(telemetry)) as device:
        with receiver(f"127.0.0.1:{device.port}") as prometheus:
            query = '{__name__=~"dram_device_.*"}'
            await in_thread(partial(ask, prometheus, query))
            scraped = ask(prometheus, query)
    with receiver() as prometheus:
        await asyncio.to_thread(push, prometheus, telemetry, NOW)
        pushed = ask(prometheus, query, NOW)
    assert without_path(scraped) == without_path(pushed)
    assert len(pushed) > 60


def without_path(series: Series) -> dict[frozenset[tuple[str, str]], float]:
    """The series without what says how they came."""
    return {frozenset((k, v) for k, v in labels.items() if k not in ("job", "instance")): n for labels, n in series}


@pytest.mark.parametrize("name", ["", "9a", "_a", "a__b", "a_", "a-b", "a.b", "é", "a" * 64])
def test_a_label_that_would_change_on_the_way_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(OwnerLabel).validate_python(name)
