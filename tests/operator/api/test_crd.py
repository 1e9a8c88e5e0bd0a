"""The CustomResourceDefinition and its schema."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dram_operator.api.crd import FILE, definition, main, manifest, node_at, object_schema
from dram_operator.api.distillation_job import DistillationJobSpec
from dram_operator.api.rules import FREE, FROZEN, GUARDED, RULES
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


FIELDS = dict(_walk(object_schema()))


def test_the_file_is_what_the_models_say() -> None:
    assert (CRDS / FILE).read_text() == manifest(), "run `make crds`"


def test_it_is_written_into_the_folder_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["crd", str(tmp_path)])
    main()
    assert (tmp_path / FILE).read_text() == manifest()


def test_every_field_has_a_description() -> None:
    silent = [path for path, schema in FIELDS.items() if _is_field(path) and not schema.get("description", "").strip()]
    assert silent == []


def _is_field(path: str) -> bool:
    return bool(path) and path != "metadata" and not path.endswith(("[]", "{}"))


def test_everything_is_bounded() -> None:
    bounds = {"string": ("maxLength", "enum"), "array": ("maxItems",), "object": ("maxProperties", "properties")}
    boundless = [
        path
        for path, schema in FIELDS.items()
        if path not in UNBOUNDED | {"metadata"}
        and not any(bound in schema for bound in bounds.get(schema.get("type", ""), schema))
        and not _is_inside_free_form(path)
    ]
    assert boundless == []


def _is_inside_free_form(path: str) -> bool:
    """The API server bounds what is free-form by the size of a request only."""
    parents = path.split(".")
    return any(
        FIELDS[".".join(parents[:depth])].get("x-kubernetes-preserve-unknown-fields")
        for depth in range(1, len(parents) + 1)
    )


def test_the_status_has_no_defaults() -> None:
    assert [path for path, schema in FIELDS.items() if path.startswith("status") and "default" in schema] == []


def test_what_is_needed_has_no_default_and_the_rest_of_the_manifest_may_be_left_out() -> None:
    assert FIELDS["spec"]["required"] == ["teacher", "student", "dataset", "exports", "golden"]


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
    ],
)
def test_lists_of_named_things_are_told_apart_by_key(path: str, keys: list[str]) -> None:
    assert FIELDS[path]["x-kubernetes-list-type"] == "map"
    assert FIELDS[path]["x-kubernetes-list-map-keys"] == keys


def test_every_field_of_the_spec_is_frozen_guarded_or_free() -> None:
    fields = [field.alias or name for name, field in DistillationJobSpec.model_fields.items()]
    assert sorted(FROZEN + GUARDED + FREE) == sorted(fields)


def test_every_rule_stands_where_it_says() -> None:
    schema = object_schema()
    for rule in RULES:
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


def test_kubectl_knows_it_by_short_name_and_category() -> None:
    names: dict[str, Any] = definition()["spec"]["names"]
    assert names["shortNames"] == ["dj"]
    assert names["categories"] == ["dram"]
