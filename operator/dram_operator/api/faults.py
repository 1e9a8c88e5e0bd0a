"""What the schema finds wrong with a manifest, in the words of the API server."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from jsonschema.exceptions import ValidationError

from dram_operator.api.schema import Schema


@dataclass(frozen=True)
class Problem:
    """Why a manifest is refused."""

    field: str
    """Path of the field, e.g. `spec.exports[0].gguf.type`; empty for the manifest as a whole."""
    message: str
    """What is wrong and, where a rule says so, the remedy."""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def problem_of(fault: ValidationError) -> Problem:
    """A fault of the schema as the API server reports it."""
    field = path_of(fault.absolute_path)
    value: Any = fault.instance
    limit: Any = fault.validator_value
    match fault.validator:
        case "required":
            missing = next(name for name in limit if f"'{name}' is a required" in fault.message)
            field, message = f"{field}.{missing}".lstrip("."), "Required value"
        case "type":
            message = f'Invalid value: {shown(value)}: must be of type {limit}: "{_kind(value)}"'
        case "anyOf":
            kinds = ",".join(one["type"] for one in limit)
            message = f'Invalid value: "{_kind(value)}": {field} in body must be of type {kinds}: "{_kind(value)}"'
        case "enum":
            supported = ", ".join(f'"{one}"' for one in limit)
            message = f"Unsupported value: {shown(value)}: supported values: {supported}"
        case "maxLength":
            message = f"Too long: may not be more than {limit} bytes"
        case "maxItems" | "maxProperties":
            message = f"Too many: {len(value)}: must have at most {limit} items"
        case _:
            message = f"Invalid value: {shown(value)}: {field} in body should {_should(fault)}"
    return Problem(field, message)


def _should(fault: ValidationError) -> str:
    """What a value out of its bounds should do."""
    limit: Any = fault.validator_value
    match fault.validator:
        case "minimum":
            return f"be greater than {_or_equal(fault, 'exclusiveMinimum')}{number(limit)}"
        case "maximum":
            return f"be less than {_or_equal(fault, 'exclusiveMaximum')}{number(limit)}"
        case "pattern":
            return f"match '{limit}'"
        case "minLength":
            return f"be at least {limit} chars long"
        case "minItems":
            return f"have at least {limit} items"
        case _:
            return f"have at least {limit} properties"


def duplicates(value: Any, schema: Schema, path: str = "") -> Iterator[Problem]:
    """Items of a keyed list that have the key of an earlier one."""
    if isinstance(value, dict):
        for name, inner in schema.get("properties", {}).items():
            if name in value:
                yield from duplicates(value[name], inner, f"{path}.{name}" if path else name)
    keys = schema.get("x-kubernetes-list-map-keys")
    if isinstance(value, list) and keys:
        seen: list[dict[str, Any]] = []
        for index, item in enumerate(value):
            key = {name: item.get(name) for name in keys} if isinstance(item, dict) else {"": index}
            if key in seen:
                yield Problem(f"{path}[{index}]", f"Duplicate value: {json.dumps(key, separators=(',', ':'))}")
            seen.append(key)


def path_of(steps: Iterable[str | int]) -> str:
    """Steps into an object as a path, e.g. `spec.exports[0].name`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")


def number(value: Any) -> str:
    """A value as CEL's `format` shows it."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def shown(value: Any) -> str:
    """A value as the API server quotes it; objects and lists by their type only."""
    match value:
        case str():
            return f'"{value}"'
        case bool() | None:
            return str(value).lower().replace("none", "null")
        case int() | float():
            return number(value)
        case _:
            return f'"{_kind(value)}"'


def _or_equal(fault: ValidationError, exclusive: str) -> str:
    schema = fault.schema
    return "" if isinstance(schema, dict) and schema.get(exclusive) else "or equal to "


def _kind(value: Any) -> str:
    kinds = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    return kinds.get(type(value), "null")
