"""The page of the chart's values, made from values.yaml and its comments."""

import re
from collections.abc import Iterator
from typing import Any

import yaml

_KEY = re.compile(r"^(?P<indent> *)(?P<name>[A-Za-z]\w*):(?P<rest>.*)$")


def values_page(text: str) -> str:
    """A table of every value that values.yaml names: path, default, the comment above it or of what it belongs to."""
    values = yaml.safe_load(text)
    lines = ["# Helm values", "", "This page is made from the chart's `values.yaml` by `make docs`.", ""]
    lines += ["| Value | Default | Meaning |", "| --- | --- | --- |"]
    keys = list(_commented(text))
    parents = {path[:-1] for path, _ in keys}
    for path, comment in keys:
        found = _at(values, path)
        if comment or not isinstance(found, dict) or not found:
            lines.append(_row(path, found, comment))
        if path not in parents:
            lines += [_row(leaf, _at(values, leaf), "") for leaf in _leaves(found, path)]
    return "\n".join([*lines, ""])


def _row(path: tuple[str, ...], value: Any, comment: str) -> str:
    return f"| `{'.'.join(path)}` | {_default(value)} | {_cell(comment)} |"


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """What a line like `requests: {cpu: 100m, memory: 192Mi}` sets, by path."""
    for name, inner in value.items() if isinstance(value, dict) else ():
        yield from _leaves(inner, (*path, name)) if isinstance(inner, dict) and inner else [(*path, name)]


def _commented(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every key of the file in its order, with the comment that stands above it."""
    stack: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in text.splitlines():
        key = _KEY.match(line)
        if line.lstrip().startswith("#"):
            comment.append(line.lstrip()[1:].strip())
        elif key:
            indent = len(key["indent"])
            stack = [*(entry for entry in stack if entry[0] < indent), (indent, key["name"])]
            yield tuple(name for _, name in stack), " ".join(comment)
            comment = []
        else:
            comment = []


def _at(values: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        values = values.get(name) if isinstance(values, dict) else None
    return values


def _default(value: Any) -> str:
    if value in ("", None) or (isinstance(value, dict) and value):
        return ""
    shown = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
    return f"`{shown}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
