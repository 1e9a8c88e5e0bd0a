"""What the API server does with a manifest at apply, without one: defaults, schema and CEL rules, in its own words."""

from collections.abc import Iterator
from copy import deepcopy
from difflib import get_close_matches
from functools import cache
from typing import Any

import cel
from jsonschema import Draft4Validator

from dram_operator.api.crd import object_schema
from dram_operator.api.distillation_job import GROUP, VERSION
from dram_operator.api.faults import Problem, duplicates, path_of, problem_of
from dram_operator.api.functions import FUNCTIONS
from dram_operator.api.resources import RESOURCES, Resource
from dram_operator.api.rule import Rule
from dram_operator.api.schema import Schema

Manifest = dict[str, Any]

_BLOCKING = frozenset({"type", "anyOf", "required", "enum", "maxLength", "maxItems", "maxProperties"})
"""Schema faults after which the API server runs no rule."""


def check(manifest: Manifest, *, local: bool, old: Manifest | None = None) -> list[Problem]:
    """Everything for which the API server would refuse a manifest; with `old`, as an update of that object.

    A local run is free of the rules that only a cluster needs, such as the one against file:// URIs.
    """
    problems = _identity(manifest)
    if problems:
        return problems
    resource = _resource(manifest)
    schema = _schema(resource)
    unknown: list[Problem] = []
    value = _prepared(manifest, schema, "", unknown)
    faults = sorted(_validator(resource).iter_errors(value), key=lambda fault: path_of(fault.absolute_path))
    problems = unknown + [problem_of(fault) for fault in faults] + list(duplicates(value, schema))
    if any(fault.validator in _BLOCKING for fault in faults):
        return problems
    before = None if old is None else _prepared(old, schema, "", [])
    return problems + [
        problem
        for rule in resource.rules
        if not (local and rule.cluster_only)
        for problem in breaches(rule, value, before)
    ]


def with_defaults(manifest: Manifest) -> Manifest:
    """The manifest with the schema's defaults filled in, as the API server stores it."""
    filled: Manifest = _prepared(manifest, _schema(_resource(manifest)), "", [])
    return filled


def _identity(manifest: object) -> list[Problem]:
    if not isinstance(manifest, dict):
        return [Problem("", "a manifest is a mapping of fields")]
    problems = [
        Problem(field, f"{manifest.get(field)!r} is not known here: write {' or '.join(expected)}")
        for field, expected in (("apiVersion", [f"{GROUP}/{VERSION}"]), ("kind", [one.kind for one in RESOURCES]))
        if manifest.get(field) not in expected
    ]
    metadata = manifest.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not name:
        problems.append(Problem("metadata.name", "Required value: name is required"))
    return problems


def _prepared(value: Any, schema: Schema, path: str, unknown: list[Problem]) -> Any:
    """Fill in defaults, make numbers what the schema says they are, and note unknown fields."""
    if isinstance(value, dict):
        return _prepared_object(value, schema, path, unknown)
    if isinstance(value, list) and "items" in schema:
        return [_prepared(item, schema["items"], f"{path}[{index}]", unknown) for index, item in enumerate(value)]
    if schema.get("type") == "number" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _prepared_object(value: Manifest, schema: Schema, path: str, unknown: list[Problem]) -> Manifest:
    named: dict[str, Schema] = schema.get("properties", {})
    every: Schema | None = schema.get("additionalProperties")
    prepared: Manifest = {}
    for name, inner in value.items():
        place = f"{path}.{name}" if path else str(name)
        if name not in named and every is None and _closed(schema, path):
            near = get_close_matches(str(name), named, n=1)
            unknown.append(Problem(place, f"unknown field{f', did you mean {near[0]}?' if near else ''}"))
        elif inner is None and "default" in named.get(name, {}):
            continue
        else:
            prepared[name] = _prepared(inner, named.get(name, every or {}), place, unknown)
    for name, inner_schema in named.items():
        if name not in prepared and "default" in inner_schema:
            prepared[name] = _prepared(deepcopy(inner_schema["default"]), inner_schema, "", [])
    return prepared


def _closed(schema: Schema, path: str) -> bool:
    free = schema.get("x-kubernetes-preserve-unknown-fields", False) or not schema
    return not free and not path.startswith("metadata")


def breaches(rule: Rule, value: Manifest, before: Manifest | None) -> Iterator[Problem]:
    """Where a defaulted manifest breaks a rule."""
    for field, found, old in subjects(rule, value, before):
        context = cel.Context({"self": found, "oldSelf": old}, functions=FUNCTIONS)
        if _program(rule.rule).execute(context) is True:
            continue
        shown = rule.message_expression
        message = _program(shown).execute(context) if shown else rule.message
        yield Problem(f"{field}{rule.field}".lstrip("."), message)


def subjects(rule: Rule, value: Manifest, before: Manifest | None) -> Iterator[tuple[str, Any, Any]]:
    """What a rule is about in a defaulted manifest: path, value and earlier value."""
    for field, found, old in _values(value, before, rule.path, ""):
        if not rule.transition or old is not None:
            yield field, found, old


def _values(value: Any, old: Any, path: str, field: str) -> Iterator[tuple[str, Any, Any]]:
    """Every value at a rule's path, with its own path and, outside of lists, the value that it had before."""
    if not path:
        yield field, value, old
        return
    step, _, rest = path.partition(".")
    name = step.removesuffix("[]")
    if not isinstance(value, dict) or value.get(name) is None:
        return
    place = f"{field}.{name}" if field else name
    if step.endswith("[]"):
        for index, item in enumerate(value[name]):
            yield from _values(item, None, rest, f"{place}[{index}]")
    else:
        yield from _values(value[name], old.get(name) if isinstance(old, dict) else None, rest, place)


def _resource(manifest: Manifest) -> Resource:
    return next(resource for resource in RESOURCES if resource.kind == manifest["kind"])


@cache
def _schema(resource: Resource) -> Schema:
    return object_schema(resource)


@cache
def _validator(resource: Resource) -> Draft4Validator:
    return Draft4Validator(_schema(resource))


@cache
def _program(text: str) -> cel.Program:
    return cel.compile(text)
