"""Faults of a manifest as a whole, and remedies that need no rule."""

from typing import Any

import pytest

from dram_operator.api.offline import check
from tests.builders import ABSENT, a_job


def _problems(manifest: Any) -> list[str]:
    return [str(problem) for problem in check(manifest, local=False)]


def test_a_misspelt_field_is_named_with_what_was_meant() -> None:
    manifest = a_job().having("spec.training.learningrate", 0.1).manifest()
    assert _problems(manifest) == ["spec.training.learningrate: unknown field, did you mean learningRate?"]


def test_an_unknown_field_without_likeness_is_only_named() -> None:
    assert _problems(a_job().having("spec.zzz", 1).manifest()) == ["spec.zzz: unknown field"]


def test_a_field_is_unknown_inside_of_list_items_too() -> None:
    manifest = a_job().having("spec.exports[0].onnx", {"type": "Int8"}).manifest()
    assert _problems(manifest) == ["spec.exports[0].onnx: unknown field"]


@pytest.mark.parametrize(
    ("field", "value", "want"),
    [
        ("apiVersion", "dram.dev/v1", "apiVersion: 'dram.dev/v1' is not known here: write dram.dev/v1alpha1"),
        ("kind", "DistilationJob", "kind: 'DistilationJob' is not known here: write DistillationJob or EdgeRollout"),
        ("metadata", None, "metadata.name: Required value: name is required"),
        ("metadata", {}, "metadata.name: Required value: name is required"),
    ],
)
def test_says_what_kind_of_object_is_wanted(field: str, value: object, want: str) -> None:
    assert _problems({**a_job().manifest(), field: value}) == [want]


def test_a_list_is_no_manifest() -> None:
    assert _problems([]) == ["a manifest is a mapping of fields"]


def test_null_takes_the_default() -> None:
    assert _problems(a_job().having("spec.training", None).having("spec.retries", None).manifest()) == []


def test_null_is_no_value_where_there_is_no_default() -> None:
    [problem] = _problems(a_job().having("spec.teacher.uri", None).manifest())
    assert problem == 'spec.teacher.uri: Invalid value: null: must be of type string: "null"'


def test_rules_wait_until_the_schema_holds() -> None:
    manifest = a_job().having("spec.teacher", ABSENT).having("spec.training", {"epochs": 1, "maxSteps": 1}).manifest()
    assert _problems(manifest) == ["spec.teacher: Required value"]


def test_rules_speak_beside_a_bound_that_is_crossed() -> None:
    manifest = a_job().having("spec.retries", -1).having("spec.training", {"epochs": 1, "maxSteps": 1}).manifest()
    assert [problem.split(":")[0] for problem in _problems(manifest)] == ["spec.retries", "spec.training.maxSteps"]


def test_too_long_an_annotation_value_is_named_by_its_key() -> None:
    manifest = a_job().having("spec.podTemplate.annotations", {"note": "x" * 1025}).manifest()
    assert _problems(manifest) == ["spec.podTemplate.annotations.note: Too long: may not be more than 1024 bytes"]
