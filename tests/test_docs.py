"""What the how-to tells people to type exists."""

import re
from pathlib import Path

import promql_parser as promql
import pytest

from dram_operator.core.rollout.commands import ANNOTATION, Verb

ROOT = Path(__file__).parents[1]
HOW_TO = (ROOT / "docs" / "operations" / "rollouts.md").read_text()
ALERTS = re.findall(r"^\| `([^`]+)`", HOW_TO.partition("## 5.")[2], re.MULTILINE)
EXPOSED = "".join(path.read_text() for path in (ROOT / "operator" / "dram_operator" / "runtime").rglob("metrics.py"))


@pytest.mark.parametrize("expression", ALERTS)
def test_an_alert_is_promql_over_metrics_that_the_operator_has(expression: str) -> None:
    promql.parse(expression)
    names = re.findall(r"dram_\w+", expression)
    assert names
    assert [name for name in names if f'"{name}"' not in EXPOSED] == []


def test_every_verb_and_every_file_that_is_named_exists() -> None:
    assert ANNOTATION in HOW_TO
    assert {verb for verb in Verb if f"| `{verb}` |" in HOW_TO} == set(Verb)
    named = set(re.findall(r"(?<![\w/.])((?:examples|charts)/[\w./-]+)", HOW_TO))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
