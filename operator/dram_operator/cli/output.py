"""What the command line hands to programs: objects as JSON or YAML, and objects read as models whatever their age."""

import json
from typing import Any, Literal, Protocol, TypeVar

import click
import yaml
from pydantic import ValidationError

from dram_operator.cli.cluster import Failure

Form = Literal["json", "yaml"]
UNKNOWN_FIELD = "extra_forbidden"
"""Pydantic's word for it."""
output_option = click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["json", "yaml"]),
    help="For programs: the object as the cluster has it.",
)


class _Kind(Protocol):
    @classmethod
    def from_object(cls, obj: dict[str, Any]) -> Any: ...


K = TypeVar("K", bound=_Kind)


def show_machine(found: Any, form: Form) -> None:
    """Print data; of API objects not who manages which field."""
    plain = _without_managers(found)
    click.echo(
        json.dumps(plain, indent=2, ensure_ascii=False)
        if form == "json"
        else yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).rstrip()
    )


def show_line(found: Any) -> None:
    """Print data as one line of JSON."""
    click.echo(json.dumps(_without_managers(found), ensure_ascii=False))


def read_as(kind: type[K], obj: dict[str, Any]) -> K:
    """An API object as a model. Fields that a newer operator writes are left out; Failure where that is not enough."""
    try:
        return _read(kind, obj)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        first = next((one for one in problems if one["type"] != UNKNOWN_FIELD), problems[0])
        place = ".".join(map(str, first["loc"]))
        raise Failure(
            f"{place}: {first['msg']}: this version of `kubectl dram` does not understand the object: install the one "
            "that belongs to the operator, or use -o json"
        ) from error


def _read(kind: type[K], obj: dict[str, Any]) -> K:
    try:
        return kind.from_object(obj)  # type: ignore[no-any-return]
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        unknown = [problem["loc"] for problem in problems if problem["type"] == UNKNOWN_FIELD]
        if len(unknown) < len(problems):
            raise
        known = json.loads(json.dumps(obj))
        try:
            for path in unknown:
                _remove(known, path)
        except (KeyError, IndexError, TypeError):
            raise error from None
        return kind.from_object(known)  # type: ignore[no-any-return]


def _remove(node: Any, path: tuple[int | str, ...]) -> None:
    *parents, last = path
    for step in parents:
        node = node[step]
    del node[last]


def _without_managers(found: Any) -> Any:
    if isinstance(found, dict):
        if isinstance(found.get("items"), list):
            return {**found, "items": [_without_managers(item) for item in found["items"]]}
        if isinstance(metadata := found.get("metadata"), dict):
            kept = {name: value for name, value in metadata.items() if name != "managedFields"}
            return {**found, "metadata": kept}
    return found
