"""The functions that Kubernetes adds to CEL, as far as the rules use them.

Semantics: the API server's CEL libraries for strings, lists and quantities (k8s.io/apiserver/pkg/cel/library).
"""

import re
from collections.abc import Callable
from typing import Any

from dram_operator.api.faults import number
from dram_operator.api.quantity import quantity


def _format(template: str, values: list[Any]) -> str:
    """`%s` and `%%` only."""
    shown = iter(values)
    return re.sub("%[s%]", lambda verb: "%" if verb[0] == "%%" else number(next(shown)), template)


def _is_quantity(text: str) -> bool:
    try:
        quantity(text)
    except ValueError:
        return False
    return True


def _compare(one: float, other: float) -> int:
    return (one > other) - (one < other)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "format": _format,
    "sum": sum,
    "quantity": quantity,
    "isQuantity": _is_quantity,
    "compareTo": _compare,
}
"""By their names in CEL; a method's first argument is what it is called on."""
