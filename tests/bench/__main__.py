"""`python -m tests.bench [--only loss,operator]`: run the parts, write build/bench/results.json, print a table.

A part is a module of this package with a function `rows() -> list[Row]`.
"""

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path

import tests.bench
from tests.bench.results import Row, table, write

RESULTS = Path(__file__).parents[2] / "build" / "bench" / "results.json"


def parts() -> dict[str, Callable[[], list[Row]]]:
    """The parts by name, imported only when they run."""
    names = [found.name for found in pkgutil.iter_modules(tests.bench.__path__) if not found.name.startswith("_")]
    modules = {name: importlib.import_module(f"tests.bench.{name}") for name in names}
    return {name: module.rows for name, module in modules.items() if hasattr(module, "rows")}


def main() -> int:
    """Run what is asked for; 2 when a part has no such name."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=tests.bench.__doc__)
    parser.add_argument("--only", default="", help="parts to run, separated by commas")
    known = parts()
    asked = [name for name in parser.parse_args().only.split(",") if name]
    if unknown := sorted(set(asked) - set(known)):
        print(f"no such part: {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)  # noqa: T201
        return 2
    rows: list[Row] = []
    for name in asked or known:
        print(f"{name} …", file=sys.stderr)  # noqa: T201
        rows += known[name]()
    write(rows, RESULTS)
    print(table(rows))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
