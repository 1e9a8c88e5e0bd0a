"""The CustomResourceDefinition and its schema."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dram_operator.api.crd import definition, main, manifest, node_at, object_schema
from dram_operator.api.distillation_job import DistillationJobSpec
from dram_operator.api.resources import DISTILLATION_JOB, EDGE_ROLLOUT, RESOURCES, Resource
from dram_operator.api.rules import FREE, FROZEN, GUARDED
from dram_operator.api.schema import Schema

CRDS = Path(__file__).parents[3] / "crds"

# Written by the operator or by Kubernetes, not by users.
UNBOUNDED = {"apiVersion", "kind"}


def _walk(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from _walk(inner, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from _walk(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from _walk(schema["additionalProperties"], f"{path}{{}}")


FIELDS = dict(_walk(object_schema(DISTILLATION_JOB)))
ROLLOUT_FIELDS = dict(_walk(object_schema(EDGE_ROLLOUT)))

every_resource = pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)


@every_resource
def test_the_file_is_what_the_models_say(resource: Resource) -> None:
    assert (CRDS / resource.file).read_text() == manifest(resource), "run `make crds`"


def test_they_are_written_into_the_folder_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["crd", str(tmp_path)])
    main()
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {
        resource.file: manifest(resource) for resource in RESOURCES
    }


@every_resource
def test_plain_apply_can_take_it(resource: Resource) -> None:
    """`kubectl apply` keeps the whole object in an annotation of at most 256 KiB."""
    assert len(manifest(resource)) < 200_000


@pytest.mark.parametrize("fields", [FIELDS, ROLLOUT_FIELDS])
def test_every_field_has_a_description(fields: dict[str, Schema]) -> None:
    silent = [path for path, schema in fields.items() if _is_field(path) and not schema.get("description", "").strip()]
    assert silent == []


def _is_field(path: str) -> bool:
    return bool(path) and path != "metadata" and not path.endswith(("[]", "{}"))


@pytest.mark.parametrize("fields", [FIELDS, ROLLOUT_FIELDS])
def test_everything_is_bounded(fields: dict[str, Schema]) -> None:
    bounds = {"string": ("maxLength", "enum"), "array": ("maxItems",), "object": ("maxProperties", "properties")}
    boundless = [
        path
        for path, schema in fields.items()
        if path not in UNBOUNDED | {"metadata"}
        and not any(bound in schema for bound in bounds.get(schema.get("type", ""), schema))
        and not _is_inside_free_form(path, fields)
    ]
    assert boundless == []


def _is_inside_free_form(path: str, fields: dict[str, Schema]) -> bool:
    """The API server bounds what is free-form by the size of a request only."""
    parents = path.split(".")
    return any(
        fields[".".join(parents[:depth])].get("x-kubernetes-preserve-unknown-fields")
        for depth in range(1, len(parents) + 1)
    )


@pytest.mark.parametrize("fields", [FIELDS, ROLLOUT_FIELDS])
def test_the_status_has_no_defaults(fields: dict[str, Schema]) -> None:
    assert [path for path, schema in fields.items() if path.startswith("status") and "default" in schema] == []


def test_what_is_needed_has_no_default_and_the_rest_of_the_manifest_may_be_left_out() -> None:
    assert FIELDS["spec"]["required"] == ["teacher", "student", "dataset", "exports", "golden"]
    assert ROLLOUT_FIELDS["spec"]["required"] == ["artifact", "strategy"]
    assert ROLLOUT_FIELDS["spec.strategy"]["required"] == ["steps"]


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("spec.dataset.sources", ["uri"]),
        ("spec.exports", ["name"]),
        ("spec.podTemplate.envFromSecrets", ["name"]),
        ("status.conditions", ["type"]),
        ("status.stages", ["id"]),
        ("status.plan.stages", ["id"]),
        ("status.variants", ["name"]),
        ("spec.analysis.metrics", ["name"]),
        ("status.analysis", ["name"]),
        ("status.commands", ["id"]),
        ("status.quarantined", ["digest"]),
    ],
)
def test_lists_of_named_things_are_told_apart_by_key(path: str, keys: list[str]) -> None:
    fields = FIELDS if path in FIELDS else ROLLOUT_FIELDS
    assert fields[path]["x-kubernetes-list-type"] == "map"
    assert fields[path]["x-kubernetes-list-map-keys"] == keys


def test_every_field_of_the_spec_is_frozen_guarded_or_free() -> None:
    fields = [field.alias or name for name, field in DistillationJobSpec.model_fields.items()]
    assert sorted(FROZEN + GUARDED + FREE) == sorted(fields)


@every_resource
def test_every_rule_stands_where_it_says(resource: Resource) -> None:
    schema = object_schema(resource)
    for rule in resource.rules:
        texts = [validation["rule"] for validation in node_at(schema, rule.path)["x-kubernetes-validations"]]
        assert rule.rule in texts


def test_messages_show_values_by_format() -> None:
    [validation] = [
        validation
        for validation in FIELDS["spec.training"]["x-kubernetes-validations"]
        if "warmupSteps" in validation["rule"]
    ]
    assert validation["messageExpression"].endswith(".format([self.warmupSteps, self.maxSteps])")
    assert "message" not in validation


@pytest.mark.parametrize(("resource", "short"), [(DISTILLATION_JOB, "dj"), (EDGE_ROLLOUT, "er")])
def test_kubectl_knows_it_by_short_name_and_category(resource: Resource, short: str) -> None:
    names: dict[str, Any] = definition(resource)["spec"]["names"]
    assert names["shortNames"] == [short]
    assert names["categories"] == ["dram"]
