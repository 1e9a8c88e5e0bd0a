"""What is asked of recorded counts, and what the answers mean: numbers that cannot be are none, and spans are rounded up."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import inf, nan
from typing import Any

import promql_parser
import pytest

from dram_operator.api.rollout_analysis import Preset
from dram_operator.api.rollout_status import MetricStatus
from dram_operator.core.rollout.answers import Answer, Sample, Trouble
from dram_operator.core.rollout.counted import (
    Counts,
    count_questions,
    grouped,
    is_current,
    selected_labels,
    soak_seconds,
    told_at,
)
from dram_operator.core.rollout.inventory import Device, Group, Inventory
from dram_operator.core.rollout.looks import counted_looks
from dram_operator.core.rollout.observed import Totals
from dram_operator.core.rollout.presets import Context
from dram_operator.core.rollout.recorded import recorded_queries
from dram_operator.core.rollout.recording import AGES, SOAKS, bucket
from dram_operator.core.rollout.telemetry import Subject
from tests.builders import a_rollout
from tests.operator.core.rollout.fleet_history import CANDIDATE, STABLE
from tests.operator.core.rollout.world import NEW, OLD
from tests.operator.runtime.rollouts.test_sight import at_work

NOW = datetime(2030, 5, 1, 12, tzinfo=UTC)
SUBJECT = Subject("tv/bot", NEW, attempt=7, attempt_since=NOW - timedelta(hours=1))


def answer(*pairs: tuple[float, dict[str, str]]) -> Answer:
    return Answer(tuple(Sample(labels, value) for value, labels in pairs))


TOLD = Counts(
    NOW,
    known=answer((700.0, {"label_ring": "early"}), (300.0, {})),
    heard=answer((650.0, {"label_ring": "early"})),
    newest=answer((NOW.timestamp() - 20, {})),
    running=answer((90.0, {"release": NEW}), (500.0, {"release": OLD}), (5.0, {"release": "none"})),
    states=answer(
        (95.0, {"state": "reporting", "release": NEW}),
        (4.0, {"state": "reporting", "release": OLD}),
        (80.0, {"state": "healthy", "release": NEW}),
        (3.0, {"state": "healthy", "release": OLD}),
        (2.0, {"state": "gave-up", "release": NEW}),
        (9.0, {"state": "gave-up", "release": OLD}),
        (1.0, {"state": "silent", "release": NEW}),
    ),
)


def test_counts_become_groups_and_totals() -> None:
    assert TOLD.trouble is None
    assert TOLD.inventory() == Inventory(groups=(Group(300, {}, 300), Group(700, {"ring": "early"}, 50)))
    assert TOLD.totals(NEW) == Totals(99, 80, gave_up=2, silent=1, running={NEW: 90, OLD: 500})
    assert TOLD.totals(None) == Totals(99, running={NEW: 90, OLD: 500})


@pytest.mark.parametrize("value", [nan, inf, -inf, -1.0])
@pytest.mark.parametrize("name", ["known", "heard", "newest", "running", "states"])
def test_a_count_that_is_none_spoils_the_look(name: str, value: float) -> None:
    spoilt: dict[str, Any] = {name: answer((value, {"release": NEW}))}
    assert replace(TOLD, **spoilt).trouble is Trouble.NOT_A_NUMBER


@pytest.mark.parametrize("name", ["known", "heard", "newest", "running", "states"])
def test_what_cannot_be_asked_spoils_the_look(name: str) -> None:
    spoilt: dict[str, Any] = {name: Answer(trouble=Trouble.TIMED_OUT)}
    assert replace(TOLD, **spoilt).trouble is Trouble.TIMED_OUT


def test_counts_are_of_now_for_as_long_as_a_device_is_fresh() -> None:
    assert is_current(TOLD, SUBJECT)
    last = NOW - timedelta(seconds=181)
    old = replace(TOLD, newest=answer((last.timestamp(), {})))
    assert not is_current(old, SUBJECT)
    assert is_current(old, replace(SUBJECT, interval_seconds=120))
    assert told_at(old) == f"the newest count is of {last:%Y-%m-%d %H:%M:%S} UTC"
    none = replace(TOLD, newest=Answer())
    assert (is_current(none, SUBJECT), "nothing was counted" in told_at(none)) == (False, True)


@pytest.mark.parametrize(("interval", "want"), [(5, 180), (60, 180), (61, 360), (3600, 10_800)])
def test_the_soak_is_rounded_up_to_one_that_is_recorded(interval: int, want: int) -> None:
    assert soak_seconds(interval) == want


def test_beyond_the_longest_span_the_longest_counts() -> None:
    assert bucket(31_536_000, AGES) == AGES[-1]
    assert bucket(0, SOAKS) == SOAKS[0]


def test_one_look_asks_for_the_labels_that_steps_select_by() -> None:
    early = {"cohort": {"percent": "10%", "selector": {"matchLabels": {"ring": "early"}}}}
    reach = {"cutoffs": [{"cutoff": "f" * 16, "matchLabels": {"site": "north"}}]}
    rollout = at_work().stepping(early, {"cohort": {"percent": "100%"}}).having("status.reach", reach).build()
    labels = selected_labels(rollout)
    assert labels == ("ring", "site")
    asked = count_questions(SUBJECT, labels)
    assert asked.known.startswith("sum by (label_ring, label_site) (last_over_time(label:dram_devices:count{")
    assert 'within="2592000"}[86400s]' in asked.known
    assert 'within="3600"}[3600s]' in asked.heard
    for query in (asked.known, asked.heard, asked.newest, asked.running, asked.states or ""):
        promql_parser.parse(query)
        assert 'channel="tv/bot"' in query
    assert count_questions(replace(SUBJECT, digest=None), ()).states is None


def test_a_file_says_which_devices_there_are_and_the_counts_how_many_of_them_are_silent() -> None:
    listed = Inventory(tuple(Device(f"{n:032x}", {"ring": "early" if n < 10 else "late", "x": "y"}) for n in range(40)))
    found = grouped(listed, ("ring",), Inventory(groups=(Group(36, {}, 4),)))
    assert found == Inventory(groups=(Group(10, {"ring": "early"}, 2), Group(30, {"ring": "late"}, 6)))
    assert grouped(Inventory(), (), Inventory(groups=(Group(36, {}, 4),))) == Inventory()


@pytest.mark.parametrize("preset", Preset)
def test_status_shows_every_recorded_preset_whole_whatever_the_names(preset: Preset) -> None:
    longest = Context("n" * 63 + "/" + "r" * 40, 10**9, 7199, CANDIDATE, STABLE)
    query = recorded_queries(preset, longest).value
    assert MetricStatus(name="m", verdict="Pass", query=query, looked_at="2030-05-01T12:00:00Z").query == query


def test_a_recorded_rate_does_not_reach_back_before_the_attempt() -> None:
    rollout = at_work().build()
    for seconds, want in ((60, "[1s]"), (180, "[1m]"), (900, "[2m]")):
        assert rollout.status.candidate is not None
        at = datetime.fromisoformat(rollout.status.candidate.since) + timedelta(seconds=seconds)
        assert want in next(one.query for one in counted_looks(rollout, at))


def test_a_users_query_is_asked_as_it_is_written_and_a_comparison_is_not_asked() -> None:
    compared = {"name": "errors", "preset": "ErrorRatio", "compareTo": "Control", "margin": "0.01"}
    rollout = at_work().with_metric(name="own", query="max(foo)", max="1").with_metric(**compared)
    broken = rollout.with_metric(name="broken", query="rate(", max="1").build()
    looks = {one.name: one for one in counted_looks(broken, NOW)}
    assert looks["own"].query == 'max(foo{channel="tv/support-bot"})'
    assert looks["own"].figure is not None
    assert "arm:dram_device_requests:rate2m" in looks["own"].figure.samples
    assert (looks["errors"].figure, looks["errors"].windows, looks["errors"].is_askable) == (None, (), True)
    assert not looks["broken"].is_askable
    assert counted_looks(a_rollout().build(), NOW) == ()
