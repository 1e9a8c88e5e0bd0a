"""The table of the chart's values in its README. `python -m charts.values` writes it anew."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "dram"
README = CHART / "README.md"
BEGIN, END = "<!-- values: made by `make docs` -->", "<!-- end of values -->"


def page() -> str:
    """The README with the table that values.yaml and values.schema.json make."""
    before, _, rest = README.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    return "\n".join((f"{before}{BEGIN}", "", *_table(), "", f"{END}{after}"))


def schema() -> dict[str, Any]:
    """values.schema.json."""
    found: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return found


def defaults() -> dict[str, Any]:
    """values.yaml."""
    found: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return found


def resolved(node: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """A schema with what it refers to; its own words come first."""
    target = root["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else {}
    return {**target, **node}


def entries(
    node: dict[str, Any], values: dict[str, Any], root: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, object, str]]:
    """Path, default and description of every value that has a default; a shared form's with what it is the form of."""
    of = f"{node['description']} " if "$ref" in node else ""
    for name, given in resolved(node, root)["properties"].items():
        if name not in values:
            continue
        path, found, default = f"{prefix}{name}", resolved(given, root), values[name]
        if isinstance(default, dict) and default and "properties" in found:
            yield from entries(found, default, root, f"{path}.")
        else:
            yield path, default, f"{of}{found['description']}"


def _table() -> Iterator[str]:
    yield from ("| Value | Default | Meaning |", "| --- | --- | --- |")
    everything = schema()
    for path, default, meaning in entries(everything, defaults(), everything):
        shown = json.dumps(default, ensure_ascii=False).replace("|", "\\|")
        yield f"| `{path}` | `{shown}` | {meaning} |"


def main() -> None:
    """Write the README."""
    README.write_text(page())


if __name__ == "__main__":
    main()
