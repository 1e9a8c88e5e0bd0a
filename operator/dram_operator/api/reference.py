"""The reference pages of the resources, made from the models, rules and reasons.

`python -m dram_operator.api.reference` writes them.
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

from dram_operator.api.crd import object_schema
from dram_operator.api.distillation_job import GROUP, VERSION
from dram_operator.api.remedies import JOB, NOTHING, ROLLOUT, WORKER
from dram_operator.api.resources import DISTILLATION_JOB, EDGE_ROLLOUT, Resource
from dram_operator.api.rollout_analysis import Preset
from dram_operator.api.rollout_reasons import RolloutCondition, RolloutReason
from dram_operator.api.rules import FREE, FROZEN, GUARDED
from dram_operator.api.schema import Schema
from dram_operator.api.status import ConditionType, Reason
from dram_workers.errors import WorkerReason

_JOB_NOTE = "Creating a DistillationJob lets its author run pods with any Secret or ServiceAccount that it names, in its namespace."
_ROLLOUT_NOTE = "An EdgeRollout's channel is `namespace/name`. It lives as long as the channel: every new artifact is an edit of it."


def pages() -> dict[str, str]:
    """Every page as Markdown, by the name of its file."""
    troubles = "\n".join(_troubleshooting())
    return {"distillation-job.md": _job_page(), "edge-rollout.md": _rollout_page(), "troubleshooting.md": troubles}


def _job_page() -> str:
    schema = object_schema(DISTILLATION_JOB)["properties"]
    return "\n".join(
        [
            *_introduction(DISTILLATION_JOB, _JOB_NOTE),
            *_objects("spec", schema["spec"]),
            *_changes(),
            *_rules(DISTILLATION_JOB),
            *_objects("status", schema["status"]),
            *_members("Conditions", ConditionType),
            *_members("Reasons set by the operator", Reason),
            *_members("Reasons of a failed stage", WorkerReason),
            *_columns(DISTILLATION_JOB),
        ]
    )


def _rollout_page() -> str:
    schema = object_schema(EDGE_ROLLOUT)["properties"]
    return "\n".join(
        [
            *_introduction(EDGE_ROLLOUT, _ROLLOUT_NOTE),
            *_objects("spec", schema["spec"]),
            *_members("Presets", Preset),
            *_rules(EDGE_ROLLOUT),
            *_objects("status", schema["status"]),
            *_members("Conditions", RolloutCondition),
            *_members("Reasons", RolloutReason),
            *_columns(EDGE_ROLLOUT),
        ]
    )


def _troubleshooting() -> Iterator[str]:
    yield from ("# Troubleshooting by reason", "", "This page is made from the code by `make docs`.", "")
    yield "Find the reason: `kubectl describe` the object, `kubectl dram status JOB`, or `kubectl dram rollout status NAME`. The condition's message is more exact than this page. `kubectl dram doctor` looks at the installation as a whole."
    yield ""
    yield from _remedies("Of a DistillationJob", Reason, JOB)
    yield from _remedies("Of a DistillationJob's stage", WorkerReason, WORKER)
    yield from _remedies("Of an EdgeRollout", RolloutReason, ROLLOUT)


def _remedies(title: str, kind: type[StrEnum], remedies: dict[StrEnum, str]) -> Iterator[str]:
    yield from (f"## {title}", "", "| Reason | Meaning | What to do |", "| --- | --- | --- |")
    for member, meaning in zip(kind, meanings(kind).values(), strict=True):
        remedy = "–" if remedies[member] == NOTHING else _cell(remedies[member])
        yield f"| `{member.value}` | {_cell(meaning)} | {remedy} |"
    yield ""


def _introduction(resource: Resource, note: str) -> Iterator[str]:
    about = f"`apiVersion: {GROUP}/{VERSION}`, `kind: {resource.kind}`, short name `{resource.short_name}`."
    yield from (f"# {resource.kind}", "", f"{about} This page is made from the code by `make docs`.", "", note, "")


def _objects(path: str, schema: Schema) -> Iterator[str]:
    """A table for an object, then one for every object in it."""
    yield from (f"## {path}", "", schema.get("description", ""), "")
    yield from ("| Field | Type | Default | Meaning |", "| --- | --- | --- | --- |")
    needed = schema.get("required", [])
    for name, field in schema["properties"].items():
        default = "required" if name in needed else _default(field)
        yield f"| `{name}` | {_type(field)} | {default} | {_cell(field.get('description', ''))} |"
    yield ""
    for name, field in schema["properties"].items():
        inner, below = _inside(field, f"{path}.{name}")
        if inner.get("properties") and "x-kubernetes-preserve-unknown-fields" not in inner:
            yield from _objects(below, inner)


def _inside(field: Schema, path: str) -> tuple[Schema, str]:
    if "items" in field:
        return field["items"], f"{path}[]"
    if "additionalProperties" in field:
        return field["additionalProperties"], f"{path}.*"
    return field, path


def _type(field: Schema) -> str:
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("x-kubernetes-int-or-string"):
        return "quantity"
    kind = field.get("type", "any value")
    if kind == "array":
        return f"list of {_type(field['items'])}, at most {field['maxItems']}"
    if "additionalProperties" in field:
        return f"map of {_type(field['additionalProperties'])}"
    if kind == "object" and "x-kubernetes-preserve-unknown-fields" in field:
        return "free-form object"
    return f"{kind}{_range(field)}"


def _range(field: Schema) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    if low is None or high is None:
        return f", at most {field['maxLength']:,} characters" if "maxLength" in field else ""
    opening = "above" if field.get("exclusiveMinimum") else "from"
    closing = "below" if field.get("exclusiveMaximum") else "to"
    return f" {opening} {low:,} {closing} {high:,}"


def _default(field: Schema) -> str:
    default = field.get("default")
    return "" if default is None or isinstance(default, dict) else f"`{_shown(default)}`"


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _changes() -> Iterator[str]:
    yield from ("## Changes", "")
    yield f"- Never: {_names(FROZEN)}."
    yield f"- While `suspend` is true or after the end, which starts a new run: {_names(GUARDED)}."
    yield (
        "- While `suspend` is true, after which the same run goes on from its checkpoint: `training.workers`, "
        "`training.processesPerWorker`, `training.deepspeed`, `training.checkpoint`, and `podTemplate` but for its image."
    )
    yield f"- At any time: {_names(FREE)}."
    yield ""


def _rules(resource: Resource) -> Iterator[str]:
    """Every rule by the field that it is about; many fields share a message."""
    fields: dict[str, list[str]] = {}
    for rule in resource.rules:
        message = re.sub(r"\{(?:self\.)?(.+?)\}", lambda found: f"<{found[1].replace('self', 'value')}>", rule.message)
        where = "clusters" if rule.cluster_only else ""
        fields.setdefault(f"{message}|{where}", []).append(f"{rule.path}{rule.field}".lstrip(".") or "metadata.name")
    yield from ("## Rules", "", "Checked at apply, and by `dram validate`.", "")
    yield from ("| Field | Refused with |", "| --- | --- |")
    for key, paths in fields.items():
        message, where = key.rsplit("|", 1)
        only = " (on a cluster only)" if where else ""
        yield f"| {_names(paths)} | {_cell(message)}{only} |"
    yield ""


def _members(title: str, kind: type[StrEnum]) -> Iterator[str]:
    yield from (f"## {title}", "", "| Name | Meaning |", "| --- | --- |")
    for name, meaning in meanings(kind).items():
        yield f"| `{name}` | {_cell(meaning)} |"
    yield ""


def meanings(kind: type[StrEnum]) -> dict[str, str]:
    """The docstring of every member, by its value; empty where there is none."""
    [definition] = ast.parse(inspect.getsource(kind)).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {member.value: "" for member in kind}
    last = ""
    for statement in definition.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)]):
                last = kind[name].value
            case ast.Expr(value=ast.Constant(value=str(text))) if last:
                found[last] = " ".join(text.split())
    return found


def _columns(resource: Resource) -> Iterator[str]:
    yield from ("## Columns of `kubectl get`", "", "| Column | Meaning |", "| --- | --- |")
    for column in resource.columns:
        yield f"| {column.name} | {column.description} |"
    for column in resource.wide_columns:
        yield f"| {column.name} (`-o wide`) | {column.description} |"
    yield ""


def _names(paths: list[str] | tuple[str, ...]) -> str:
    return ", ".join(f"`{path}`" for path in paths)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def main() -> None:
    """Write the pages into the folder given as the only argument, by default `docs/reference`."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/reference")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
