"""Every promise of the engine names its tests, and they exist."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
PROMISES = HERE.parents[3] / "docs" / "design" / "rollout-promises.md"
NAMED = re.compile(r"`(test_\w+\.py)::(\w+)`")


def test_the_tests_of_every_promise_exist() -> None:
    promises = [line for line in PROMISES.read_text().splitlines() if re.match(r"\| [0-9]+ \|", line)]
    assert len(promises) == 17
    for line in promises:
        named = NAMED.findall(line)
        assert named, line
        for module, name in named:
            tree = ast.parse((HERE / module).read_text())
            assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}, (
                name
            )
