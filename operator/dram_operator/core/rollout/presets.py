"""From a metric of the spec to PromQL: presets, placeholders, and the channel in every selector, so that no query sees another channel."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import promql_parser as promql

from dram_operator.api.rollout_analysis import Preset

LARGEST_QUERY = 4096
"""Characters of a query in a spec."""
PLACEHOLDER = re.compile(r"\{\{\s*(\w*)\s*\}\}")
PLAIN_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
OPERATORS = (
    (promql.MatchOp.Equal, "="),
    (promql.MatchOp.NotEqual, "!="),
    (promql.MatchOp.Re, "=~"),
    (promql.MatchOp.NotRe, "!~"),
)
VALUES = (
    promql.VectorSelector,
    promql.BinaryExpr,
    promql.AggregateExpr,
    promql.Call,
    promql.ParenExpr,
    promql.UnaryExpr,
)
"""What a query may be as a whole: an expression whose value is one moment's."""


SERVED = 'served_by="device"'
OF_RELEASE = 'release="{{release}}"'
OF_EITHER = 'release=~"{{release}}|{{stable}}"'
NO_RELEASE = "none"
"""The label `release` of a device without a local model."""


class QueryInvalid(ValueError):
    """A query that cannot be asked; the message says what is wrong with it, for people."""


class Arm(StrEnum):
    """A device's side in the comparison, by assignment: one that fell back stays treated."""

    TREATED = "treated"
    CONTROL = "control"


@dataclass(frozen=True)
class Recipe:
    """How a preset is asked."""

    one: str
    """One figure for an arm."""
    each: str
    """One figure a device, for the comparison with control."""
    lower_is_worse: bool = False
    served: str = SERVED
    """Which requests are the samples."""


@dataclass(frozen=True)
class Context:
    """What the placeholders stand for."""

    channel: str
    attempt: int
    window_seconds: int
    release: str
    """Digest of the candidate."""
    stable: str = NO_RELEASE
    """Digest of the stable release."""
    arm: Arm = Arm.TREATED
    step_seconds: int = 0
    """Since when the step's devices serve; requests are counted over this, or over the window where that is longer."""


@dataclass(frozen=True)
class Queries:
    """What to ask for one look at one metric."""

    value: str
    newest: str
    """For every selector of `value` the time of its newest sample: one series each, labelled `selector`."""
    selectors: int
    """How many series `newest` has to return: one that is missing means that `value` rests on nothing."""
    samples: str
    """How many requests to the candidate the figure can rest on: those that the device served, but for the fallback ratio."""


def _of_arm(expression: str) -> str:
    return f'{expression} and on (device) dram_device_info{{attempt="{{{{attempt}}}}", arm="{{{{arm}}}}"}}'


def _requests(*matchers: str, function: str = "rate") -> str:
    return f"{function}(dram_device_requests_total{{{', '.join(filter(None, matchers))}}}[{{{{window}}}}])"


def _samples(served: str) -> str:
    return f"sum({_of_arm(_requests(served, OF_RELEASE, function='increase'))})"


def _latency(quantile: float) -> Recipe:
    def buckets(release: str) -> str:
        return f"rate(dram_device_request_seconds_bucket{{{SERVED}, {release}}}[{{{{window}}}}])"

    return Recipe(
        one=f"histogram_quantile({quantile}, sum by (le) ({_of_arm(buckets(OF_RELEASE))}))",
        each=f"histogram_quantile({quantile}, sum by (device, le) ({buckets(OF_EITHER)}))",
    )


def _ratio(part: str, whole: str) -> Recipe:
    of_part, of_whole = (_of_arm(_requests(each, OF_RELEASE)) for each in (part, whole))
    return Recipe(
        one=f"sum({of_part}) / sum({of_whole})",
        each=f"sum by (device) ({_requests(part, OF_EITHER)}) / sum by (device) ({_requests(whole, OF_EITHER)})",
    )


def _gauge(name: str, over_arm: str, *, lower_is_worse: bool = False) -> Recipe:
    of_arm = _of_arm(f"{name}{{{OF_RELEASE}}}")
    return Recipe(
        one=f"{over_arm}({of_arm})",
        each=f"avg by (device) (avg_over_time({name}{{{OF_EITHER}}}[{{{{window}}}}]))",
        lower_is_worse=lower_is_worse,
    )


RECIPES: Mapping[Preset, Recipe] = {
    Preset.LATENCY_P50: _latency(0.5),
    Preset.LATENCY_P95: _latency(0.95),
    Preset.LATENCY_P99: _latency(0.99),
    Preset.ERROR_RATIO: _ratio('served_by="device", outcome="error"', SERVED),
    Preset.FALLBACK_RATIO: replace(_ratio('served_by="cloud"', ""), served=""),
    Preset.GOLDEN_RATIO: _gauge("dram_device_golden_pass_ratio", "avg", lower_is_worse=True),
    Preset.MEMORY_BYTES: _gauge("dram_device_memory_bytes", "max"),
}


def preset_queries(preset: Preset, context: Context, *, each_device: bool = False) -> Queries:
    """The queries of a preset: one figure for the arm, or one a device."""
    recipe = RECIPES[preset]
    return own_queries(recipe.each if each_device else recipe.one, context, samples=_samples(recipe.served))


def own_queries(query: str, context: Context, *, samples: str = "") -> Queries:
    """The queries of a user's metric; raises QueryInvalid. `samples` counts the requests instead of what counts each device's."""
    value = _text(_parse(query, context), context)
    selectors = list(dict.fromkeys(_selectors(promql.parse(value))))
    if not selectors:
        raise QueryInvalid("it reads no metric: a figure that is always there cannot be judged")
    newest = " or ".join(
        f'label_replace(max(timestamp({selector})), "selector", "{number}", "", "")'
        for number, selector in enumerate(selectors)
    )
    so_far = replace(context, window_seconds=max(context.window_seconds, context.step_seconds))
    requests = _text(_parse(samples or _samples(SERVED), so_far), so_far)
    return Queries(value, newest, len(selectors), requests)


def lint(query: str) -> None:
    """Check a user's query as it will be asked; raises QueryInvalid."""
    own_queries(query, Context("namespace/name", 1, 60, NO_RELEASE))


def _seconds(seconds: int) -> str:
    return f"{seconds}s"


def _parse(query: str, context: Context) -> promql.Expr:
    if len(query) > LARGEST_QUERY:
        raise QueryInvalid(f"it has {len(query)} characters: {LARGEST_QUERY} at most")
    try:
        expression = promql.parse(_filled(query, context))
    except ValueError as error:
        raise QueryInvalid(f"it is not PromQL: {error}") from error
    if not isinstance(expression, VALUES):
        raise QueryInvalid("it has no single value at a moment: use rate(…) or an …_over_time(…) on a range")
    _check(expression)
    return expression


def _filled(query: str, context: Context) -> str:
    words = {
        "channel": _escaped(context.channel),
        "attempt": str(context.attempt),
        "arm": context.arm.value,
        "window": _seconds(context.window_seconds),
        "release": _escaped(context.release),
        "stable": _escaped(context.stable),
    }

    def word(found: re.Match[str]) -> str:
        if found[1] not in words:
            known = ", ".join(f"{{{{{name}}}}}" for name in words)
            raise QueryInvalid(f"{found[0]} stands for nothing: use {known}")
        return words[found[1]]

    return PLACEHOLDER.sub(word, query)


def _check(expression: promql.Expr) -> None:
    def visit(node: promql.Expr) -> None:
        if isinstance(node, promql.Call) and node.func.name == "info":
            raise QueryInvalid("info() reads metrics that it does not name: join them with `* on (…) group_left (…)`")
        if isinstance(node, promql.SubqueryExpr | promql.VectorSelector) and node.at is not None:
            raise QueryInvalid("@ names a time of its own: the time of a look is the operator's")
        if isinstance(node, promql.VectorSelector):
            if node.matchers.or_matchers:
                raise QueryInvalid("`or` between matchers is not PromQL: use =~")
            unusual = [m.name for m in node.matchers.matchers if not PLAIN_NAME.fullmatch(m.name)]
            if unusual:
                raise QueryInvalid(f"label {unusual[0]!r} is not a plain name")

    _walk(expression, visit)


def _text(expression: promql.Expr, context: Context) -> str:
    """The expression with the channel in every selector."""
    matcher = f'channel="{_escaped(context.channel)}"'

    def bound(node: promql.Expr) -> promql.Expr | None:
        if not isinstance(node, promql.VectorSelector):
            return None
        selector: promql.Expr = promql.parse(_selector(node, matcher) + _offset(node))
        return selector

    lines = promql.transform(expression, post_visit=bound).prettify().split("\n")
    text = " ".join(line.strip() for line in lines)
    left_out = [selector for selector in _selectors(promql.parse(text)) if matcher not in selector]
    if left_out:
        raise QueryInvalid(f"{left_out[0]} cannot be bound to the channel")
    return text


def _selectors(expression: promql.Expr) -> list[str]:
    found: list[str] = []

    def visit(node: promql.Expr) -> None:
        if isinstance(node, promql.VectorSelector):
            found.append(_selector(node))

    _walk(expression, visit)
    return found


def _walk(expression: promql.Expr, visit: Callable[[promql.Expr], None]) -> None:
    def step(node: promql.Expr) -> bool:
        visit(node)
        return True

    promql.walk(expression, pre_visit=step)


def _selector(node: promql.VectorSelector, *more: str) -> str:
    """The selector without its offset: how old its newest sample is does not depend on what it is compared with."""
    matchers = [f'{m.name}{_operator(m)}"{_escaped(m.value)}"' for m in node.matchers.matchers]
    return f"{node.name or ''}{{{', '.join([*matchers, *more])}}}"


def _operator(matcher: promql.Matcher) -> str:
    return next(sign for operator, sign in OPERATORS if matcher.op == operator)


def _offset(node: promql.VectorSelector) -> str:
    if not node.offset:
        return ""
    sign = "-" if node.offset.total_seconds() < 0 else ""
    return f" offset {sign}{promql.display_duration(abs(node.offset))}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
