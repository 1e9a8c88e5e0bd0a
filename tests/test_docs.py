"""What the documentation tells people to type exists: fields, values, files and verbs."""

import json
import re
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml
from jsonschema import Draft202012Validator

from dram_operator.api.offline import check
from dram_operator.core.rollout.commands import ANNOTATION, Verb
from tests.integration.chart.rendering import of_kind, render

ROOT = Path(__file__).parents[1]
HOW_TO = (ROOT / "docs" / "operations" / "rollouts.md").read_text()
ALERTS = re.findall(r"^\| `([^`]+)`", HOW_TO.partition("## 5.")[2], re.MULTILINE)
PAGES = sorted([ROOT / "README.md", ROOT / "charts" / "dram" / "README.md", *(ROOT / "docs").rglob("*.md")])
VALUES = json.loads((ROOT / "charts" / "dram" / "values.schema.json").read_text())
NEVER_RUN = ("gpus", "kueue", "argo-cd", "metrics-servers")
"""Pages about what cannot be installed where the tests run."""
EXPOSED = "".join(path.read_text() for path in (ROOT / "operator" / "dram_operator" / "runtime").rglob("metrics.py"))


@pytest.mark.parametrize("expression", ALERTS)
def test_an_alert_is_promql_over_metrics_that_the_operator_has(expression: str) -> None:
    promql.parse(expression)
    names = re.findall(r"dram_\w+", expression)
    assert names
    assert [name for name in names if f'"{name}"' not in EXPOSED] == []


def test_every_verb_and_every_file_that_is_named_exists() -> None:
    assert ANNOTATION in HOW_TO
    assert {verb for verb in Verb if f"| `{verb}` |" in HOW_TO} == set(Verb)
    named = set(re.findall(r"(?<![\w/.])((?:examples|charts)/[\w./-]+)", HOW_TO))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_secret_and_namespace_of_the_examples_is_made_before_they_are_used() -> None:
    values = yaml.safe_load((ROOT / "examples" / "installation" / "values.yaml").read_text())
    before, installs, after = HOW_TO.partition("helm upgrade --install")
    assert installs
    assert set(secrets_of(values)) == set(re.findall(r"create secret generic (\S+)", before))
    applied = re.findall(r"^kubectl apply -f (examples/\S+)", after, re.MULTILINE)
    assert applied
    for name in applied:
        namespace = yaml.safe_load((ROOT / name).read_text())["metadata"]["namespace"]
        assert f"kubectl create namespace {namespace} " in after.partition(name)[0]


def secrets_of(values: Any, key: str = "") -> list[str]:
    """Every Secret that values name."""
    if isinstance(values, dict):
        return [name for below, inner in values.items() for name in secrets_of(inner, below)]
    if isinstance(values, list):
        return [name for inner in values for name in secrets_of(inner)]
    return [values] if key in ("secret", "credentialsSecret") else []


def test_the_images_that_are_built_and_named_are_those_that_the_chart_pulls() -> None:
    chart = yaml.safe_load((ROOT / "charts" / "dram" / "Chart.yaml").read_text())
    page = (ROOT / "charts" / "dram" / "README.md").read_text()
    (loop,) = re.findall(
        r"for image in ([\w ]+); do\n  docker build --file images/\$image/Dockerfile --tag (\S+) ", page
    )
    built = {loop[1].replace("$image", name) for name in loop[0].split()}
    values = next(yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL))
    given = (values["image"], values["worker"]["image"], values["agent"]["image"])
    assert built == {f"{one['repository']}:{chart['appVersion']}" for one in given}
    assert all((ROOT / "images" / name / "Dockerfile").exists() for name in loop[0].split())
    pods = (ROOT / "examples" / "edge-agent" / "kubernetes.yaml").read_text()
    assert set(re.findall(r"image: (\S+)", pods)) == {f"{given[2]['repository']}:{chart['appVersion']}"}


def test_what_is_installed_comes_from_a_checkout_or_from_somewhere_that_is_named() -> None:
    """No public index has Dram: whoever took its name there would be installed."""
    for page in PAGES:
        text = page.read_text()
        if re.search(r"pip install [^`\n]*'?dram\[", text):
            assert "pip wheel --wheel-dir wheels" in text, page.name


def test_runbooks_look_at_what_the_chart_has_and_at_every_replica() -> None:
    objects = render("gateway.enabled=true", "gateway.issuers.configMap=c", "gateway.backend.url=http://p")
    deployments = {one["metadata"]["name"]: one for one in of_kind(objects, "Deployment")}
    text = "".join(page.read_text() for page in (ROOT / "docs" / "operations" / "alerts").glob("*.md"))
    assert set(re.findall(r"deployment[ /]([a-z][\w-]*)", text)) <= deployments.keys()
    read = re.findall(r"^kubectl .*logs deployment/(\S+)", text, re.MULTILINE)
    assert read
    assert {deployments[name]["spec"]["replicas"] for name in read} == {1}, "of several, kubectl reads any one"
    labels = deployments["dram"]["spec"]["template"]["metadata"]["labels"]
    chosen = re.findall(r"--namespace dram-system .*--selector (\S+)", text)
    assert chosen
    assert all(dict(part.split("=") for part in one.split(",")).items() <= labels.items() for one in chosen)


def test_an_upgrade_takes_the_newer_charts_defaults() -> None:
    """Helm's --reuse-values leaves out the defaults of values that came with the newer chart: its templates find nothing."""
    assert [page.name for page in PAGES if " --reuse-values" in page.read_text()] == []


def written() -> list[Any]:
    """Every YAML document that a page shows, with the page's name."""
    return [
        pytest.param(document, id=f"{page.parent.name}/{page.stem}-{number}")
        for page in PAGES
        for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL))
        for document in yaml.safe_load_all(block)
    ]


@pytest.mark.parametrize("document", written())
def test_a_manifest_is_one_that_a_cluster_takes_and_values_are_the_charts(document: Any) -> None:
    if str(document.get("apiVersion", "")).startswith("dram.dev/"):
        assert check(document, local=False) == []
    elif "apiVersion" not in document:
        assert [error.message for error in Draft202012Validator(VALUES).iter_errors(document)] == []


def test_every_value_that_is_set_on_a_command_line_is_the_charts() -> None:
    text = "".join(page.read_text() for page in PAGES)
    paths = re.findall(r"--set(?:-file|-string|-json)? [\"']?([a-z][\w.\[\]]*)=", text)
    assert {"releases.root", "prometheus[0].url", "imageRegistry"} <= set(paths)
    paths = [path for path in paths if not path.startswith("spec.")]
    assert [path for path in paths if not is_value(VALUES, re.findall(r"\w+", path))] == []


def is_value(schema: dict[str, Any], steps: list[str]) -> bool:
    """Whether a path, with numbers for places in lists, leads to something in the chart's schema."""
    if "$ref" in schema:
        schema = VALUES["$defs"][schema["$ref"].rpartition("/")[2]]
    if not steps:
        return True
    if steps[0].isdigit():
        return "items" in schema and is_value(schema["items"], steps[1:])
    return steps[0] in schema.get("properties", {}) and is_value(schema["properties"][steps[0]], steps[1:])


def test_the_role_for_approvals_is_named_as_the_chart_names_it() -> None:
    roles = {role["metadata"]["name"] for role in of_kind(render(namespace="dram-system"), "ClusterRole")}
    bound = re.findall(r"--clusterrole=(\S+:\S+)", "".join(page.read_text() for page in PAGES))
    assert bound
    assert set(bound) <= roles


@pytest.mark.parametrize("page", NEVER_RUN)
def test_what_was_not_run_says_so(page: str) -> None:
    assert re.search(
        r"^> (?:Not run by|Our) .*tests", (ROOT / "docs" / "how-to" / f"{page}.md").read_text(), re.MULTILINE
    )
