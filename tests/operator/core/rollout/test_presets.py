"""Metrics of the spec as PromQL: what is asked, that no query leaves its channel, and what it finds in a real Prometheus."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta

import promql_parser
import pytest

from dram_operator.adapters.prometheus import Endpoint, Prometheus
from dram_operator.api.rollout_analysis import Preset
from dram_operator.api.rollout_status import MetricStatus
from dram_operator.core.rollout.presets import (
    LARGEST_QUERY,
    RECIPES,
    Arm,
    Context,
    QueryInvalid,
    lint,
    own_queries,
    preset_queries,
)
from tests.cluster.prometheus import PrometheusServer
from tests.operator.core.rollout.fleet_history import CANDIDATE, CHANNEL, STABLE, START, Teller, history

NOW = START + timedelta(minutes=10)
TREATED = Context(CHANNEL, 7, 120, CANDIDATE, STABLE)
CONTROL = Context(CHANNEL, 7, 120, STABLE, arm=Arm.CONTROL)
FLEET = (
    Teller("a", "treated", seconds=0.4, errors=0.2, cloud=0.5, golden=0.5),
    Teller("b", "treated", seconds=0.4, errors=0.2, cloud=0.5, golden=0.7),
    Teller("c", "control", seconds=0.08),
    Teller("d", "control", seconds=0.08, errors=0.1),
    Teller("x", "treated", seconds=1.9, errors=1.0, cloud=0.9, golden=0.0, channel="tv/other"),
)
QUERIES = (
    "sum(rate(foo[5m]))",
    'foo{a="1", b!="2", c=~"x|y", d!~"z"}',
    'foo{channel="tv/other"}',
    'foo{channel=~".*"} or bar',
    'foo{a="tab\\t quote\\" back\\\\ line\\n two  spaces"}',
    "foo offset 1h / foo offset -5m",
    "max_over_time(sum(rate(foo[1m]))[10m:30s])",
    '{__name__=~"foo|bar"}',
    '{"dotted.name", a="b"}',
    "sum by (a) (foo) / on (a) group_left (b) bar",
    "foo > bool 1 and on () bar unless ignoring (x) baz",
    'label_replace(foo, "a", "$1", "b", "(.*)")',
    "-foo ^ 2 * (bar - 1) % 3",
    "topk(3, foo) + quantile without (x) (0.9, bar)",
    'count_values("version", foo)',
    "histogram_quantile(0.9, sum by (le) (rate(foo_bucket[1m30s])))",
    "clamp_max(foo, Inf) + scalar(bar) * NaN + 0x1f + 1e-3",
    "absent(foo)",
    "foo atan2 bar",
    "# a comment\nsum(\n  foo # another\n)",
)


BAD, ELSEWHERE = "b" * 64, "tv/moved"
SWITCHED = (
    Teller("a", "treated", 1.9, 0.9, 0.9, 0.0, ELSEWHERE, release=BAD, attempt=6, silent_after=525),
    Teller("c", "control", 1.9, 0.9, 0.9, 0.0, ELSEWHERE, release=BAD, attempt=6, silent_after=525),
    Teller("a", "treated", 0.08, channel=ELSEWHERE, begins=540),
    Teller("c", "control", 0.08, channel=ELSEWHERE, begins=540),
)
"""Devices that left a bad release for the candidate and for stable a minute ago."""


@pytest.fixture(scope="module")
def server() -> Iterator[PrometheusServer]:
    with PrometheusServer(history(*FLEET, *SWITCHED)) as running:
        yield running


@pytest.fixture
async def client(server: PrometheusServer) -> AsyncIterator[Prometheus]:
    prometheus = Prometheus(Endpoint("default", server.url))
    yield prometheus
    await prometheus.close()


@pytest.mark.parametrize(
    ("preset", "context", "want"),
    [
        (Preset.LATENCY_P50, TREATED, 0.35),
        (Preset.LATENCY_P95, TREATED, 0.485),
        (Preset.LATENCY_P99, TREATED, 0.497),
        (Preset.LATENCY_P50, CONTROL, 0.075),
        (Preset.ERROR_RATIO, TREATED, 0.2),
        (Preset.ERROR_RATIO, CONTROL, 0.05),
        (Preset.FALLBACK_RATIO, TREATED, 0.5),
        (Preset.FALLBACK_RATIO, CONTROL, 0.0),
        (Preset.GOLDEN_RATIO, TREATED, 0.6),
        (Preset.MEMORY_BYTES, TREATED, 1e9),
    ],
)
async def test_a_preset_finds_its_arm(client: Prometheus, preset: Preset, context: Context, want: float) -> None:
    look = await client.look(preset_queries(preset, context), NOW)
    assert look.trouble is None
    assert [sample.value for sample in look.samples] == [pytest.approx(want)]
    assert look.newest == NOW


@pytest.mark.parametrize("preset", Preset)
async def test_a_preset_finds_each_device_of_the_channel(client: Prometheus, preset: Preset) -> None:
    look = await client.look(preset_queries(preset, TREATED, each_device=True), NOW)
    assert {sample.labels["device"] for sample in look.samples} == {"a", "b", "c", "d"}


WELL = {
    Preset.LATENCY_P50: 0.075,
    Preset.LATENCY_P95: 0.0975,
    Preset.LATENCY_P99: 0.0995,
    Preset.ERROR_RATIO: 0.0,
    Preset.FALLBACK_RATIO: 0.0,
    Preset.GOLDEN_RATIO: 1.0,
    Preset.MEMORY_BYTES: 1e9,
}


@pytest.mark.parametrize(("preset", "want"), WELL.items())
async def test_a_preset_sees_nothing_of_the_release_before(client: Prometheus, preset: Preset, want: float) -> None:
    moved = replace(TREATED, channel=ELSEWHERE)
    for each_device, devices in ((False, 1), (True, 2)):
        look = await client.look(preset_queries(preset, moved, each_device=each_device), NOW)
        assert [sample.value for sample in look.samples] == [pytest.approx(want)] * devices
        assert look.newest == NOW


async def test_requests_to_the_release_before_are_no_samples(client: Prometheus) -> None:
    moved = replace(TREATED, channel=ELSEWHERE, step_seconds=480)
    look = await client.look(preset_queries(Preset.ERROR_RATIO, moved), NOW)
    assert look.support == pytest.approx(120, rel=0.3)


@pytest.mark.parametrize("preset", Preset)
@pytest.mark.parametrize("each_device", [True, False])
def test_status_shows_every_preset_whole_whatever_the_names(preset: Preset, *, each_device: bool) -> None:
    longest = Context("n" * 63 + "/" + "r" * 40, 10**9, 7199, CANDIDATE, STABLE)
    query = preset_queries(preset, longest, each_device=each_device).value
    assert MetricStatus(name="m", verdict="Pass", query=query, looked_at="2030-05-01T12:00:00Z").query == query


@pytest.mark.parametrize("preset", Preset)
async def test_a_preset_finds_nothing_in_another_attempt(client: Prometheus, preset: Preset) -> None:
    look = await client.look(preset_queries(preset, Context(CHANNEL, 8, 120, CANDIDATE)), NOW)
    assert (look.samples, look.newest) == ((), None)


async def test_requests_that_the_cloud_answered_are_not_samples(client: Prometheus) -> None:
    counted = [
        (await client.look(preset_queries(Preset.ERROR_RATIO, context), NOW)).support
        for context in (TREATED, CONTROL, replace(TREATED, step_seconds=480))
    ]
    assert counted == [pytest.approx(240), pytest.approx(480), pytest.approx(960)]


async def test_the_fallback_ratio_rests_on_all_requests(client: Prometheus) -> None:
    look = await client.look(preset_queries(Preset.FALLBACK_RATIO, TREATED), NOW)
    assert look.support == pytest.approx(480)


@pytest.mark.parametrize("query", QUERIES)
async def test_a_users_query_means_the_same_within_its_channel(client: Prometheus, query: str) -> None:
    found = own_queries(query, TREATED)
    assert (await client.query(found.value, NOW)).trouble is None
    assert (await client.query(found.newest, NOW)).trouble is None
    assert selectors_outside(found.value) == []
    assert own_queries(found.value, TREATED).selectors == found.selectors


def selectors_outside(query: str) -> list[str]:
    """Selectors that might match another channel."""
    found: list[str] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            pairs = [(m.name, m.op == promql_parser.MatchOp.Equal, m.value) for m in node.matchers.matchers]
            if ("channel", True, CHANNEL) not in pairs:
                found.append(str(node))

    promql_parser.walk(promql_parser.parse(query), pre_visit=visit)
    return found


async def test_a_query_for_another_channel_finds_nothing(client: Prometheus) -> None:
    for query in (
        'dram_device_info{channel="tv/other"}',
        'dram_device_info{channel=~"tv/o.*"}',
        'dram_device_info{device="x"}',
    ):
        assert (await client.query(own_queries(query, TREATED).value, NOW)).samples == ()
    assert len((await client.query('dram_device_info{device="x"}', NOW)).samples) == 1


def test_placeholders_are_filled_in() -> None:
    query = 'sum(rate(foo{a="{{ attempt }}",b="{{arm}}",c="{{channel}}",d="{{release}}",e="{{stable}}"}[{{window}}]))'
    found = own_queries(query, replace(TREATED, arm=Arm.CONTROL)).value
    assert 'a="7"' in found
    assert 'b="control"' in found
    assert f'c="{CHANNEL}"' in found
    assert f'd="{CANDIDATE}"' in found
    assert f'e="{STABLE}"' in found
    assert "[2m]" in found


def test_a_channel_cannot_break_out_of_its_matcher() -> None:
    found = own_queries("foo", Context('tv"} or bar{a="', 1, 60, CANDIDATE))
    assert found.selectors == 1
    selector = promql_parser.parse(found.value)
    assert isinstance(selector, promql_parser.VectorSelector)
    assert selector.matchers.matchers[0].value == 'tv"} or bar{a="'


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("sum by (", "not PromQL"),
        ("", "not PromQL"),
        ("foo bar", "not PromQL"),
        ("foo[5m]", "no single value"),
        ("foo[5m:1m]", "no single value"),
        ('"text"', "no single value"),
        ("1", "no single value"),
        ("1 + 1", "reads no metric"),
        ("vector(1)", "reads no metric"),
        ('foo{a="{{pod}}"}', "stands for nothing"),
        ("foo{{}}", "stands for nothing"),
        ("foo @ 1700000000", "time of its own"),
        ("sum(rate(foo[5m] @ end()))", "time of its own"),
        ("max_over_time(foo[5m:1m] @ start())", "time of its own"),
        ('foo{a="1" or b="2"}', "is not PromQL"),
        ("info(foo)", "info()"),
        ('foo{"a b"="1"}', "not a plain name"),
        ("foo" + " + foo" * LARGEST_QUERY, "characters"),
    ],
)
def test_a_query_that_cannot_be_asked_says_why(query: str, why: str) -> None:
    with pytest.raises(QueryInvalid) as refused:
        lint(query)
    assert why in str(refused.value)


def test_every_preset_has_a_recipe() -> None:
    assert set(RECIPES) == set(Preset)
    assert {preset for preset, recipe in RECIPES.items() if recipe.lower_is_worse} == {Preset.GOLDEN_RATIO}
