"""Which labels the result of a query has, worked out from what the code exports: a name or label that nobody exports is an error."""

from collections.abc import Mapping
from dataclasses import dataclass

import promql_parser as promql

Labels = frozenset[str]
TARGET: Labels = frozenset({"job", "instance"})
"""What Prometheus itself adds to every series."""
NONE: Labels = frozenset()
RANKING = {"topk", "bottomk"}
SETS = {"and", "unless"}


class NotExported(AssertionError):
    """A query asks for what nobody exports."""


@dataclass(frozen=True)
class Checker:
    """Reads queries against a catalogue."""

    series: Mapping[str, Labels]

    def labels(self, query: str) -> Labels:
        """The labels of the result; raises NotExported, or ValueError where it is no PromQL."""
        return self._of(promql.parse(query))

    def _of(self, node: promql.Expr) -> Labels:
        match node:
            case promql.VectorSelector() | promql.MatrixSelector():
                return self._selected(node if isinstance(node, promql.VectorSelector) else node.vector_selector)
            case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
                return self._of(node.expr)
            case promql.Call():
                return self._called(node)
            case promql.AggregateExpr():
                return self._aggregated(node)
            case promql.BinaryExpr():
                return self._combined(node)
        assert isinstance(node, promql.NumberLiteral)
        return NONE

    def _selected(self, node: promql.VectorSelector) -> Labels:
        name = node.name or ""
        if name not in self.series:
            raise NotExported(f"no code exports {name!r}")
        labels = self.series[name] | TARGET
        _need({matcher.name for matcher in node.matchers.matchers}, labels, name)
        return labels

    def _called(self, node: promql.Call) -> Labels:
        name, args = node.func.name, list(node.args)
        if name in ("time", "vector"):
            return NONE
        if name == "absent":
            [inner] = args
            assert isinstance(inner, promql.VectorSelector)
            self._of(inner)
            return frozenset(one.name for one in inner.matchers.matchers if one.op == promql.MatchOp.Equal)
        if name == "label_replace":
            texts = [each.val for each in args[1:] if isinstance(each, promql.StringLiteral)]
            inner_labels = self._of(args[0])
            _need({texts[2]}, inner_labels, str(node))
            return inner_labels | {texts[0]}
        labels = self._of(args[-1])
        if name == "histogram_quantile":
            _need({"le"}, labels, str(node))
            return labels - {"le"}
        return labels

    def _aggregated(self, node: promql.AggregateExpr) -> Labels:
        labels = self._of(node.expr)
        if str(node.op) in RANKING:
            return labels
        if node.modifier is None:
            return NONE
        named = frozenset(node.modifier.labels)
        _need(named, labels, str(node.op))
        return named if node.modifier.type == promql.AggModifierType.By else labels - named

    def _combined(self, node: promql.BinaryExpr) -> Labels:
        left, right = self._of(node.lhs), self._of(node.rhs)
        if node.modifier is not None and (matching := node.modifier.matching) is not None:
            on = frozenset(matching.labels)
            _need(on, left, "on, left")
            _need(on, right, "on, right")
            grouped = node.modifier.card in (
                promql.VectorMatchCardinality.ManyToOne,
                promql.VectorMatchCardinality.OneToMany,
            )
            return left if grouped or str(node.op) in SETS else on
        if str(node.op) == "or":
            return left | right
        if left and right and left != right:
            raise NotExported(f"{sorted(left)} and {sorted(right)} never match")
        return left or right


def _need(wanted: set[str] | Labels, there: Labels, where: str) -> None:
    if missing := set(wanted) - there:
        raise NotExported(f"{where} has no {sorted(missing)}, only {sorted(there)}")
