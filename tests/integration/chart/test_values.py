"""Values are checked: what the chart takes is described, and nothing else is taken."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from charts import values
from tests.cluster.folders import REPOSITORY
from tests.integration.chart.rendering import ChartRefused, render

SCHEMA, DEFAULTS = values.schema(), values.defaults()
NOT_OURS = {"global", "enabled"}
"""What charts that have this one in them give it."""
FREE = {"global", "nodeAffinity", "podAffinity", "podAntiAffinity", "namespaceSelector", "podSelector", "labelSelector"}
"""In Kubernetes' own form, which the API server checks."""
WRONG: dict[str, Any] = {"string": ["x"], "integer": "x", "number": "x", "boolean": "x", "array": "x", "object": "x"}


def refusals(given: dict[str, Any]) -> list[tuple[str, str]]:
    found = Draft202012Validator(SCHEMA).iter_errors(given)
    return [(".".join(map(str, error.absolute_path)), error.message) for error in found]


def described() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every value by its path, those without a default too, but in lists and maps."""

    def below(node: dict[str, Any], prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, given in values.resolved(node, SCHEMA)["properties"].items():
            found = values.resolved(given, SCHEMA)
            yield f"{prefix}{name}", found
            if "properties" in found:
                yield from below(found, f"{prefix}{name}.")

    yield from below(SCHEMA, "")


def with_value(path: str, value: object) -> dict[str, Any]:
    given = deepcopy(DEFAULTS)
    *way, last = path.split(".")
    place = given
    for name in way:
        place = place.setdefault(name, {})
    place[last] = value
    return given


def nodes(node: object, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema within a schema, by the name that it goes under."""
    if isinstance(node, dict):
        if "type" in node or "enum" in node:
            yield name, node
        for key, child in node.items():
            if key not in ("if", "then"):
                yield from nodes(child, key)


def test_the_schema_is_one_and_takes_every_default() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert refusals(DEFAULTS) == []


def test_every_object_is_closed_and_every_value_is_described() -> None:
    for name, node in nodes(SCHEMA):
        if node.get("type") == "object" and name not in FREE:
            assert "additionalProperties" in node, name
            assert node["additionalProperties"] is not True, name
            assert ("properties" in node) == (node["additionalProperties"] is False), name
    assert [path for path, node in described() if not node["description"].strip()] == []


def test_every_value_has_an_entry_and_every_entry_a_value() -> None:
    def pairs(node: dict[str, Any], given: dict[str, Any], prefix: str) -> Iterator[tuple[str, set[str], set[str]]]:
        found = values.resolved(node, SCHEMA).get("properties")
        if found is not None and given:
            yield prefix, set(found), set(given)
            for name, inner in given.items():
                if isinstance(inner, dict) and name in found:
                    yield from pairs(found[name], inner, f"{prefix}{name}.")

    for prefix, entries, given in pairs(SCHEMA, DEFAULTS, ""):
        assert entries - (set() if prefix else NOT_OURS) == given, prefix or "the first level"


@pytest.mark.parametrize("path", [path for path, node in described() if "properties" in node] + [""])
def test_a_misspelt_key_is_refused_with_its_place(path: str) -> None:
    refused = refusals(with_value(f"{path}.misspelt".strip("."), "x"))
    assert (path, "misspelt") in [(place, message.split("'")[1]) for place, message in refused if "'" in message]


@pytest.mark.parametrize(("path", "node"), list(described()), ids=[path for path, _ in described()])
def test_a_wrong_type_is_refused_with_its_place(path: str, node: dict[str, Any]) -> None:
    kind = node.get("type", "string")
    wrong = WRONG[kind[0] if isinstance(kind, list) else kind]
    assert path in [place for place, _ in refusals(with_value(path, wrong))]


def test_helm_refuses_by_the_same_schema() -> None:
    with pytest.raises(ChartRefused) as refused:
        render("replica=2", "image.tags=x", "replicas=two", "prometheus[0].nam=x", "delivery.pollSeconds=0")
    for place in (
        "at '': additional properties 'replica'",
        "at '/image': additional properties 'tags'",
        "at '/replicas': got string",
        "at '/prometheus/0': additional properties 'nam'",
        "at '/delivery/pollSeconds': minimum",
    ):
        assert place in str(refused.value)


@pytest.mark.parametrize(
    ("values", "want"),
    [
        (("imageRegistry=https://r.example.com",), "at '/imageRegistry': "),
        (
            ("podLabels.app\\.kubernetes\\.io/component=mine",),
            "podLabels: app.kubernetes.io/component is the chart's own",
        ),
        (("prometheus[0].name=a", "prometheus[0].url=http://u:p@server"), "at '/prometheus/0/url': "),
        (
            tuple(f"prometheus[{n}].{value}" for n in (0, 1) for value in ("name=a", "url=http://server")),
            'prometheus names "a" twice',
        ),
        (
            ("monitoring.alerts.enabled=true", "monitoring.alerts.disabled={DramJobFail}"),
            "monitoring.alerts.disabled: there is no alert DramJobFail",
        ),
    ],
)
def test_what_could_only_fail_later_is_refused_at_once(values: tuple[str, ...], want: str) -> None:
    with pytest.raises(ChartRefused) as refused:
        render(*values, "releases.uri=s3://r", "releases.root=root", "releases.operatorKey.secret=keys")
    assert want in str(refused.value)


def test_storage_has_the_form_that_jobs_give_it() -> None:
    text = (REPOSITORY / "crds" / "dram.dev_distillationjobs.yaml").read_text()
    crd = yaml.safe_load(text)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert shape(SCHEMA["properties"]["storage"]) == shape(crd["properties"]["storage"])


def shape(node: dict[str, Any]) -> Any:
    """Names, types and bounds."""
    bounds = {key: node[key] for key in ("type", "minimum", "maximum", "minLength", "maxLength") if key in node}
    return bounds | {name: shape(child) for name, child in node.get("properties", {}).items()}


def test_the_readme_has_the_values_of_today() -> None:
    assert values.README.read_text() == values.page(), "run `make docs`"
