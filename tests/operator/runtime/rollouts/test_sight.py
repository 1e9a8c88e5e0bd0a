"""Looks at devices: in the background, as often as asked for, and never shown when they are old or of another step."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from dram_operator.adapters.prometheus import Endpoint, Prometheus
from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.api.rollout_reasons import RolloutReason
from dram_operator.core.rollout.answers import Trouble
from dram_operator.core.times import stamp
from dram_operator.errors import NotFound
from dram_operator.runtime.cache import Key
from dram_operator.runtime.rollouts.sight import ReadList, Sight, View
from tests.builders import ARollout, a_rollout
from tests.operator.adapters.misbehaving import Behaviour, Misbehaving, answering, misbehaving
from tests.operator.core.rollout.world import NEW, START, a_release

KEY = Key("tv", "support-bot", "EdgeRollout")
DEVICE = "0" * 31 + "1"
INFO = {"channel": "tv/support-bot", "device": DEVICE, "release": NEW, "attempt": "2"}


@dataclass
class Time:
    """Both clocks, moved by hand."""

    now: datetime = START
    ticks: float = 0.0

    def go(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.ticks += seconds


@dataclass
class Post:
    """A sight over one server."""

    sight: Sight
    server: Misbehaving
    time: Time
    woken: "asyncio.Queue[Key]" = field(default_factory=asyncio.Queue)

    async def look(self, rollout: EdgeRollout) -> View:
        """Wait for the look that is due; what it showed."""
        self.sight.view(KEY, rollout)
        await self.woken.get()
        return self.sight.view(KEY, rollout)

    def asked(self, word: str) -> list[str]:
        """Queries with a word in them."""
        texts = [form.get("query", [""])[0] for _, _, form in self.server.requests]
        return [text for text in texts if word in text]


@asynccontextmanager
async def a_post(
    behave: Behaviour, read_list: ReadList | None = None, *, largest_answer_bytes: int = 1 << 20
) -> AsyncIterator[Post]:
    time, woken = Time(), asyncio.Queue[Key]()
    async with misbehaving(behave) as server:
        endpoints = {"default": Prometheus(Endpoint("default", server.url, largest_answer_bytes=largest_answer_bytes))}
        sight = Sight(endpoints, woken.put_nowait, lambda: time.now, lambda: time.ticks, read_list)
        try:
            yield Post(sight, server, time, woken)
        finally:
            await sight.close()


def at_work(**step: Any) -> ARollout:
    """A rollout whose first step is at work."""
    taken = a_release(NEW).model_dump(mode="json", by_alias=True, exclude_none=True)
    state = {
        "index": 0,
        "shown": "1/2",
        "state": "Updating",
        "startedAt": stamp(START),
        "treated": 1,
        "control": 1,
    } | step
    status = {"attempt": 2, "candidate": taken | {"since": stamp(START)}, "step": state}
    return ARollout(a_rollout().with_metric().spec, a_rollout().metadata, status)


@pytest.mark.parametrize(
    ("reason", "want"),
    [
        ("FleetTooLarge", True),
        ("Completed", False),
        ("Quarantined", False),
        ("AwaitingSignature", False),
        ("NoDevices", True),
    ],
)
async def test_a_rollout_without_candidate_is_looked_at_when_it_asks_who_there_is(reason: str, want: bool) -> None:
    ready = {"type": "Ready", "status": "False", "reason": reason, "observedGeneration": 1}
    status = {"attempt": 1, "conditions": [ready | {"lastTransitionTime": stamp(START)}]}
    async with a_post(answering("", "500 Oops")) as post:
        view = post.sight.view(KEY, ARollout(a_rollout().spec, a_rollout().metadata, status).build())
    assert (view == View()) is not want


async def test_nobody_waits_for_a_server_that_does_not_answer() -> None:
    async def never(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with a_post(never) as post:
        view = post.sight.view(KEY, at_work().build())
    assert (view.inventory, view.reports, view.measured) == (None, None, ())
    assert view.due_in == 60


async def test_an_outage_is_the_trouble_of_every_metric_after_the_first_questions() -> None:
    async with a_post(answering("", "503 Unavailable")) as post:
        view = await post.look(at_work().build())
        assert (view.inventory, view.reports) == (None, None)
        assert {one.name: one.answer.trouble for one in view.measured} == {
            "latency": Trouble.HTTP_STATUS,
            "fallback-ratio": Trouble.HTTP_STATUS,
        }
        assert "HttpStatus" in view.problem
        assert post.asked("histogram_quantile") == []


async def test_a_comparison_hears_of_an_outage_too() -> None:
    rollout = at_work().with_metric(name="errors", preset="ErrorRatio", compareTo="Control", margin="0.01")
    async with a_post(answering("", "503 Unavailable")) as post:
        view = await post.look(rollout.build())
    compared = next(one for one in view.measured if one.name == "errors")
    assert [answer.trouble for _, answer in compared.windows] == [Trouble.HTTP_STATUS]


async def test_a_query_that_cannot_be_asked_says_why() -> None:
    rollout = at_work().with_metric(name="own", query="rate(", max="1")
    async with a_post(answering("", "503 Unavailable")) as post:
        view = await post.look(rollout.build())
    own = next(one for one in view.measured if one.name == "own")
    assert own.answer.trouble is Trouble.NOT_ASKED
    assert own.query.startswith("not asked: it is not PromQL")


async def test_looks_come_once_an_interval_and_on_the_clock_that_nobody_sets() -> None:
    async with a_post(answering("", "503 Unavailable")) as post:
        rollout = at_work().build()
        await post.look(rollout)
        before = len(post.server.requests)
        post.time.now -= timedelta(hours=1)
        post.time.ticks += 59
        assert post.sight.view(KEY, rollout).due_in == 1
        assert len(post.server.requests) == before
        post.time.ticks += 1
        await post.look(rollout)
        assert len(post.server.requests) > before


async def test_an_old_look_shows_nothing() -> None:
    async with a_post(answering("", "503 Unavailable")) as post:
        rollout = at_work().build()
        assert (await post.look(rollout)).measured
        post.server.behave = _hang
        post.time.go(181)
        view = post.sight.view(KEY, rollout)
    assert (view.inventory, view.reports, view.measured) == (None, None, ())


async def test_figures_of_another_step_are_not_shown() -> None:
    async with a_post(answering("", "503 Unavailable")) as post:
        assert (await post.look(at_work().build())).measured
        later = at_work(index=1, startedAt=stamp(START + timedelta(seconds=30))).build()
        assert post.sight.view(KEY, later).measured == ()


async def test_a_list_that_is_too_long_says_what_to_do() -> None:
    body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": []}, "more": "x" * 5000})
    async with a_post(answering(body), largest_answer_bytes=4096) as post:
        view = await post.look(at_work().build())
    assert (view.inventory, view.reason) == (None, RolloutReason.FLEET_TOO_LARGE)
    assert "load Dram's recording rules where devices are scraped, or raise its largestAnswerBytes" in view.problem


async def test_devices_without_a_name_are_nobody_and_that_is_said() -> None:
    async with a_post(_hang) as post:
        post.server.behave = one_device(post.server, {**INFO, "device": ""})
        view = await post.look(at_work().build())
    assert view.inventory is not None
    assert view.inventory.known == 0
    assert "without the label `device`" in view.problem


async def test_a_window_is_asked_for_once() -> None:
    """Windows of 5 × 60 s, the first of which closed a minute before 12:06."""
    rollout = at_work().with_metric(name="errors", preset="ErrorRatio", compareTo="Control", margin="0.01").build()
    async with a_post(_hang) as post:
        post.server.behave = one_device(post.server)
        post.time.go(360)
        first = await post.look(rollout)
        asked = len(post.asked("sum by (device)")) + len(post.asked("sum by(device)"))
        post.time.go(60)
        second = await post.look(rollout)
        assert len(post.asked("sum by (device)")) + len(post.asked("sum by(device)")) == asked > 0
    windows = [next(one for one in view.measured if one.name == "errors").windows for view in (first, second)]
    assert [number for number, _ in windows[0]] == [0]
    assert windows[0] == windows[1]


async def test_a_list_says_which_devices_there_are() -> None:
    listed, asked = "f" * 32, list[tuple[str, str]]()

    async def read(uri: str, namespace: str) -> str:
        asked.append((uri, namespace))
        return json.dumps({"id": listed, "labels": {"ring": "early"}})

    rollout = at_work().having("spec.inventory", {"uri": "s3://releases/inventory/tv/devices.jsonl"}).build()
    async with a_post(_hang, read) as post:
        post.server.behave = one_device(post.server)
        view = await post.look(rollout)
    assert view.inventory is not None
    assert [device.id for device in view.inventory.devices] == [listed]
    assert asked == [("s3://releases/inventory/tv/devices.jsonl", "tv")]


@pytest.mark.parametrize("fault", ["absent", "broken", "no reader"])
async def test_a_list_that_cannot_be_had_is_no_empty_list(fault: str) -> None:
    async def read(uri: str, namespace: str) -> str:
        if fault == "absent":
            raise NotFound(f"there is no {uri}")
        return "{"

    rollout = at_work().having("spec.inventory", {"uri": "s3://releases/inventory/tv/devices.jsonl"}).build()
    async with a_post(_hang, None if fault == "no reader" else read) as post:
        post.server.behave = one_device(post.server)
        view = await post.look(rollout)
    assert view.inventory is None
    assert view.problem
    assert view.reports is not None, "devices that are going back are still counted"


async def test_an_unknown_server_is_named_with_those_that_there_are() -> None:
    rollout = at_work().having("spec.analysis.prometheusRef", {"name": "fleet"})
    async with a_post(_hang) as post:
        assert "'fleet', it has: default" in post.sight.view(KEY, rollout.build()).problem


async def _hang(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


def one_device(server: Misbehaving, info: dict[str, str] = INFO) -> Behaviour:
    """A Prometheus that knows one device, whatever it is asked."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        listing = "/series" in server.requests[-1][0]
        found = {"resultType": "vector", "result": [{"metric": info, "value": [START.timestamp(), "1"]}]}
        await answering(json.dumps({"status": "success", "data": [info] if listing else found}))(writer)

    return behave
