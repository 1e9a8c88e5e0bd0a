"""What is compared: ways to spend the same training tokens, each a few changes of the example's manifest."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """One row of the comparison."""

    title: str
    changes: Mapping[str, Any]
    """Values by their path in the manifest."""

    def settings(self) -> list[str]:
        """The changes as `--set` takes them."""
        return [f"{path}={json.dumps(value)}" for path, value in self.changes.items()]


def _constant(value: float) -> dict[str, float]:
    return {"start": value, "end": value}


def _soft(temperature: float = 1.0, **objective: Any) -> dict[str, Any]:
    """Forward KL at a temperature, seven parts of ten, and more of the objective."""
    base = {"temperature": _constant(temperature), "alpha": _constant(0.7)} | objective
    return {f"spec.objective.{name}": value for name, value in base.items()}


RECIPES: Mapping[str, Recipe] = {
    "ce": Recipe("CE only", _soft(alpha=_constant(0.0))),
    "kl-t1": Recipe("forward KL, T=1", _soft()),
    "kl-t2": Recipe("forward KL, T=2", _soft(2.0)),
    "hidden": Recipe("forward KL, T=1, hidden states", _soft(hiddenStates={"weight": _constant(0.1)})),
    "attention": Recipe("forward KL, T=1, attention", _soft(attention={"weight": _constant(0.1)})),
    "cached": Recipe("forward KL, T=1, cached k=64", _soft(teacherLogits={"mode": "Cached", "topK": 64})),
    "reverse": Recipe("reverse KL, T=1", _soft(divergence={"type": "ReverseKL"})),
    "on-policy": Recipe("forward KL, T=1, half on-policy", _soft(onPolicyFraction=0.5)),
    "sequence": Recipe("Sequence", {"spec.objective": {"mode": "Sequence"}}),
}
"""By name, in the order of the table. A new field of the objective is one more line."""
