"""What the chart renders is what a real API server takes."""

from pathlib import Path
from typing import Any

import pytest

from dram_operator.settings import Settings
from tests.cluster.api import Api, manifests
from tests.cluster.controlplane import ControlPlane
from tests.cluster.folders import REPOSITORY
from tests.integration.chart.rendering import ChartRefused, of_kind, render

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
ROLLOUTS = (
    "releases.uri=s3://releases/tv",
    "releases.endpoint=https://s3.example.com",
    "releases.region=eu-1",
    "releases.ca.secret=s3-ca",
    "releases.credentialsSecret=releases-s3",
    "releases.root=the-root",
    "releases.operatorKey.secret=keys",
    "releases.releaseKey.secret=keys",
    "prometheus[0].name=default",
    "prometheus[0].url=http://prometheus:9090",
    "prometheus[1].name=guarded",
    "prometheus[1].url=https://metrics.example.com/tenant",
    "prometheus[1].timeoutSeconds=5",
    "prometheus[1].largestAnswerBytes=67108864",
    "prometheus[1].username=dram",
    "prometheus[1].headers.X-Scope-OrgID=edge",
    *(f"prometheus[1].{kind}.secret=metrics" for kind in ("ca", "clientCertificate", "token", "password")),
    *(f"prometheus[1].{kind}.key={kind}.txt" for kind in ("ca", "clientCertificate", "token", "password")),
    "prometheus[1].secretHeaders.X-Key.secret=metrics",
    "prometheus[1].secretHeaders.X-Key.key=key.txt",
    "delivery.pollSeconds=120",
)
"""Everything that rollouts may be given."""


@pytest.fixture(scope="module")
def api(control_plane: ControlPlane) -> Api:
    """The administrator, with the chart's namespace."""
    api = control_plane.api()
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "chart", "labels": RESTRICTED}})
    return api


def test_the_example_of_a_device_as_a_pod_passes_the_restricted_standard(api: Api) -> None:
    objects = manifests((REPOSITORY / "examples/edge-agent/kubernetes.yaml").read_text())
    api.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "chart"}})
    for obj in objects:
        api.apply({**obj, "metadata": {**obj["metadata"], "namespace": "chart"}})
    for deployment in of_kind(objects, "Deployment"):
        template = deployment["spec"]["template"]
        pod = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {"name": "example", "namespace": "chart"}}
        api.apply(pod)
        (container,) = template["spec"]["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert template["spec"]["automountServiceAccountToken"] is False
        api.delete("Pod", "example", "chart")


def test_served_namespaces_need_no_cluster_wide_right_to_objects() -> None:
    objects = render("namespaces={served,other}")
    (cluster_role,) = [
        role for role in of_kind(objects, "ClusterRole") if "aggregate-to" not in str(role["metadata"]["labels"])
    ]
    assert [rule["resources"] for rule in cluster_role["rules"]] == [["tokenreviews"]]
    served = {role["metadata"]["namespace"] for role in of_kind(objects, "Role")}
    assert served == {"served", "other", "chart"}


def test_no_rule_has_a_wildcard_or_reads_secrets() -> None:
    rules: list[dict[str, Any]] = [
        rule for kind in ("ClusterRole", "Role") for role in of_kind(render(), kind) for rule in role["rules"]
    ]
    assert rules
    for rule in rules:
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
        assert "secrets" not in rule["resources"]


def test_the_crds_are_the_generated_ones_and_stay_on_uninstall() -> None:
    rendered = of_kind(render(crds=True), "CustomResourceDefinition")
    generated = [
        obj for path in sorted((REPOSITORY / "crds").glob("*.yaml")) for obj in manifests(Path(path).read_text())
    ]
    for crd in rendered:
        assert crd["metadata"].pop("annotations")["helm.sh/resource-policy"] == "keep"
    for crd in generated:
        crd["metadata"].pop("annotations", None)
    assert rendered == generated


def test_rollouts_without_a_root_or_a_key_are_refused_with_the_remedy() -> None:
    with pytest.raises(ChartRefused, match=r"releases\.root is needed with releases\.uri"):
        render("releases.uri=s3://releases", "releases.operatorKey.secret=keys")
    with pytest.raises(ChartRefused, match=r"releases\.operatorKey\.secret is needed"):
        render("releases.uri=s3://releases", "releases.root=x")


def test_the_operator_reads_what_the_chart_sets_and_every_file_is_mounted(monkeypatch: pytest.MonkeyPatch) -> None:
    (deployment,) = of_kind(render(*ROLLOUTS), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    for one in pod["containers"][0]["env"]:
        monkeypatch.setenv(one["name"], one.get("value", "from-elsewhere"))
    mounted = {
        f"/etc/dram/rollouts/{item['path']}"
        for volume in pod["volumes"]
        for source in volume.get("projected", {}).get("sources", ())
        for item in source.get("secret", {}).get("items", ())
    }

    settings = Settings()

    assert (settings.releases_uri, settings.releases_region) == ("s3://releases/tv", "eu-1")
    assert settings.releases_aws_access_key_id == "from-elsewhere"
    assert settings.delivery_poll_seconds == 120
    assert settings.commands_vouched
    default, guarded = settings.prometheus
    assert (default.name, guarded.username, guarded.headers) == ("default", "dram", {"X-Scope-OrgID": "edge"})
    assert guarded.largest_answer_bytes == 64 << 20
    named = [
        *(settings.releases_ca, settings.releases_operator_key, settings.releases_release_key),
        *(guarded.ca_file, guarded.certificate_file, guarded.token_file, guarded.password_file),
        *guarded.header_files.values(),
    ]
    assert {str(path) for path in named} == mounted
    assert str(settings.releases_root) == "/etc/dram/rollouts/root.json"
    assert str(settings.frozen) == "/etc/dram/switch/frozen"


def test_the_example_of_an_installation_renders() -> None:
    example = REPOSITORY / "examples" / "installation" / "values.yaml"
    (deployment,) = of_kind(render("releases.root=the-root", files=(example,)), "Deployment")
    names = [one["name"] for one in deployment["spec"]["template"]["spec"]["containers"][0]["env"]]
    assert {"DRAM_RELEASES_URI", "DRAM_PROMETHEUS", "DRAM_RELEASES_RELEASE_KEY"} <= set(names)
