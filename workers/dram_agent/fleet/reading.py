"""Reading `fleet.yaml`, and saying what is wrong with it: file, line, field and what to write instead."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dram_agent.fleet.scenario import Scenario

Place = tuple[str | int, ...]
"""Steps from the top of the file."""


class ScenarioInvalid(ValueError):
    """The file does not describe a fleet; `problems` has one line for each reason."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


def read_scenario(path: Path) -> Scenario:
    """Read the file; raises ScenarioInvalid."""
    try:
        text = path.read_text(encoding="utf-8")
        root, value = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
    except OSError as error:
        raise ScenarioInvalid([f"{path}: cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ScenarioInvalid([f"{path}: is not UTF-8 text"]) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ScenarioInvalid([f"{path}:{line}: {error.problem}"]) from error
    if twice := list(_twice(root)):
        raise ScenarioInvalid([f"{path}:{line}: {key} stands here twice: remove one" for key, line in twice])
    try:
        return Scenario.model_validate({} if value is None else value)
    except ValidationError as error:
        found = error.errors(include_url=False)
        problems = [_told(path, root, one) for one in found if not _follows(one, found)]
        raise ScenarioInvalid(problems) from error


def _follows(error: ErrorDetails, others: Sequence[ErrorDetails]) -> bool:
    """Whether it only says that something below it could not be read."""
    place = error["loc"]
    return any(len(one["loc"]) > len(place) and one["loc"][: len(place)] == place for one in others)


def _told(path: Path, root: yaml.Node | None, error: ErrorDetails) -> str:
    found, shown = _node(root, error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = f"unknown field{_meant(error['loc'])}"
    elif error["type"] == "missing":
        message = "is missing: it has no default"
    elif isinstance(error["input"], str | int | float):
        message = f"{message[0].lower()}{message[1:]}, not {error['input']!r}"
    return f"{path}:{found}: {shown}: {message}" if shown else f"{path}:{found}: {message}"


def _node(root: yaml.Node | None, place: Place) -> tuple[int, str]:
    """The line of a place, from 1, and its path as people write it. The name of a fault is no step of the file."""
    node, line, shown = root, (root.start_mark.line + 1 if root else 1), ""
    for depth, step in enumerate(place, start=1):
        if isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            node, shown = node.value[step], f"{shown}[{step}]"
            line = node.start_mark.line + 1
            continue
        if any(step == one.__name__ for one in _kinds(place[:depth])):
            continue
        shown = f"{shown}.{step}".lstrip(".")
        keys = node.value if isinstance(node, yaml.MappingNode) else ()
        pair = next((one for one in keys if one[0].value == step), None)
        if pair is not None:
            line = pair[0].start_mark.line + 1
        node = pair[1] if pair else None
    return line, shown


def _meant(place: Place) -> str:
    """The nearest field of the object at hand, or all of them."""
    known = [field.alias or name for kind in _kinds(place[:-1]) for name, field in kind.model_fields.items()]
    near = get_close_matches(str(place[-1]), known, n=1)
    return f": did you mean {near[0]}?" if near else f": use {', '.join(known)}"


def _kinds(place: Place) -> list[type[BaseModel]]:
    """The models that may stand at a place."""
    kinds: list[type[BaseModel]] = [Scenario]
    for step in place:
        if isinstance(step, str):
            named = [kind for kind in kinds if kind.__name__ == step]
            fields = [field for kind in kinds for field in kind.model_fields.values() if field.alias == step]
            kinds = named or [kind for field in fields for kind in _models(field.annotation)]
    return kinds


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _twice(node: yaml.Node | None) -> Iterator[tuple[str, int]]:
    """Keys that an object has twice, with their lines: YAML would take the last one in silence."""
    if isinstance(node, yaml.MappingNode):
        seen = set[str]()
        for key, value in node.value:
            if key.value in seen:
                yield key.value, key.start_mark.line + 1
            seen.add(key.value)
            yield from _twice(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _twice(value)
