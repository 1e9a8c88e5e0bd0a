"""Whatever values are given, a real API server takes every object, and Pod Security's level restricted every pod."""

import json
from pathlib import Path

import pytest

from tests.cluster.api import Api, manifests, wait_until
from tests.cluster.controlplane import ControlPlane
from tests.cluster.folders import REPOSITORY
from tests.integration.chart.rendering import of_kind, operator_pod, pods, render
from tests.integration.chart.test_chart import ROLLOUTS

NAMESPACES = ("matrix", "served", "elsewhere")
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
CRDS = {"DistillationJob", "EdgeRollout"}
SPREAD = [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]
TERM = {"matchExpressions": [{"key": "arch", "operator": "In", "values": ["arm64"]}]}
AFFINITY = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [TERM]}}}
RELEASES = ("releases.uri=s3://r", "releases.root=root", "releases.operatorKey.secret=keys")
DEVICES = (
    "agent.enabled=true",
    "agent.channel=tv/bot",
    "agent.repository=https://r.example.com",
    "agent.devicesSecret=ids",
)
GATEWAY = (
    "gateway.enabled=true",
    "gateway.issuers.configMap=issuers",
    "gateway.backend.url=http://p:9090/api/v1/otlp/v1/metrics",
)
MATRIX: dict[str, tuple[str, ...]] = {
    "no values": (),
    "one replica": ("replicas=1",),
    "many replicas": ("replicas=3", "podDisruptionBudget.enabled=false"),
    "rollouts": ROLLOUTS,
    "some namespaces": ("namespaces={served,elsewhere}", "networkPolicy.enabled=true"),
    "guarded": ("networkPolicy.enabled=true", *RELEASES, "prometheus[0].name=a", "prometheus[0].url=http://p:9090"),
    "air-gapped": ("imageRegistry=r.example.com:5000/m", "imagePullSecrets[0].name=pull"),
    "own account": ("serviceAccount.create=false", "serviceAccount.name=own", "progress.tlsSecret=own"),
    "role of the cloud": ("serviceAccount.annotations.eks\\.amazonaws\\.com/role-arn=arn:aws:iam::1:role/dram",),
    "placed": (
        *("priorityClassName=", "nodeSelector.disk=ssd", "tolerations[0].operator=Exists", "podLabels.a=b"),
        *("worker.resources.limits.memory=16Gi", "storage.uri=s3://a/b", "storage.secretRef.name=s3"),
        *("env[0].name=A", "env[0].valueFrom.fieldRef.fieldPath=status.podIP", "podAnnotations.a=b"),
    ),
    "tried out": ("tryout.enabled=true", "tryout.namespaces={served}", "networkPolicy.enabled=true"),
    "tried out in some namespaces": (
        *("tryout.enabled=true", "tryout.namespaces={served}", "namespaces={served}", "tryout.s3.size=5Gi"),
        *("storage.uri=s3://a/b", "imageRegistry=r.example.com"),
    ),
    "tried out beside a repository": ("tryout.enabled=true", "tryout.namespaces={served}", *RELEASES),
    "devices": (*RELEASES, *DEVICES, *GATEWAY, "agent.nodeSelector.ring=early", "agent.tolerations[0].operator=Exists"),
    "devices for trying out": ("tryout.enabled=true", "tryout.namespaces={served}", *DEVICES, *GATEWAY[:2]),
    "guarded devices": (*RELEASES, *DEVICES, *GATEWAY, "networkPolicy.enabled=true", "networkPolicy.workerPorts={443}"),
    "dashboards": ("monitoring.dashboards.enabled=true",),
}


@pytest.fixture(scope="module")
def api(control_plane: ControlPlane) -> Api:
    """The administrator, with namespaces that take only restricted pods, and the CRDs."""
    api = control_plane.api()
    for name in NAMESPACES:
        api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
        for account in ("own", "default"):
            metadata = {"name": account, "namespace": name}
            api.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    for crd in of_kind(render(crds=True), "CustomResourceDefinition"):
        api.apply(crd)
    wait_until(lambda: all(is_served(api, kind) for kind in CRDS), "the CRDs to be served")
    return api


def is_served(api: Api, kind: str) -> bool:
    found = api.get("CustomResourceDefinition", f"{kind.lower()}s.dram.dev").get("status", {}).get("conditions") or ()
    return any(one["type"] == "Established" and one["status"] == "True" for one in found)


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_a_server_takes_every_object_and_every_pod(api: Api, values: tuple[str, ...]) -> None:
    objects = render(*values, namespace="matrix")
    for account in of_kind(objects, "ServiceAccount"):
        api.apply(account)
    for obj in objects:
        api.apply(obj, dry_run=True)
    started = pods(objects)
    assert started
    for pod in started:
        api.apply(pod, dry_run=True)
        spec = pod["spec"]
        assert spec["enableServiceLinks"] is False, "variables of other Services look like settings"
        for container in (*spec["containers"], *spec.get("initContainers", ())):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, container["name"]
            assert container["resources"]["limits"]["memory"], container["name"]


@pytest.mark.parametrize("release", ["my.dram", "1st", "a" * 53, "a" * 38 + "--dram-bot"], ids=len)
def test_a_server_takes_every_object_whatever_the_releases_name(api: Api, release: str) -> None:
    values = ("tryout.enabled=true", "tryout.namespaces={served}", "networkPolicy.enabled=true", *DEVICES, *GATEWAY[:2])
    objects = render(*values, namespace="matrix", release=release)
    for obj in objects:
        if obj["kind"] != "Pod":
            api.apply(obj, dry_run=True)


@pytest.mark.parametrize("file", sorted((REPOSITORY / "examples" / "tryout").iterdir()), ids=lambda file: file.name)
def test_a_server_takes_the_example_for_trying_out(api: Api, file: Path) -> None:
    for obj in manifests(file.read_text()):
        assert api.apply(obj, dry_run=True)["spec"]


def test_lists_and_trees_reach_the_pods() -> None:
    given = (f"affinity={json.dumps(AFFINITY)}", f"topologySpreadConstraints={json.dumps(SPREAD)}")
    pod = operator_pod(render(json_values=given))
    assert pod["spec"]["affinity"] == AFFINITY
    assert pod["spec"]["topologySpreadConstraints"] == SPREAD


def test_replicas_spread_and_are_drained_one_at_a_time() -> None:
    objects = render()
    (deployment,) = of_kind(objects, "Deployment")
    (budget,) = of_kind(objects, "PodDisruptionBudget")
    account, _ = of_kind(objects, "ServiceAccount")
    template = deployment["spec"]["template"]
    assert deployment["spec"]["replicas"] == 2
    assert budget["spec"]["maxUnavailable"] == 1
    assert budget["spec"]["selector"] == deployment["spec"]["selector"]
    spread = template["spec"]["topologySpreadConstraints"]
    assert [one["topologyKey"] for one in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    assert {one["whenUnsatisfiable"] for one in spread} == {"ScheduleAnyway"}
    assert template["spec"]["serviceAccountName"] == account["metadata"]["name"]
    (container,) = template["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert of_kind(render("replicas=1"), "PodDisruptionBudget") == []


def test_a_role_of_the_cloud_reaches_the_operators_account() -> None:
    objects = render(*MATRIX["role of the cloud"], *RELEASES)
    account, _ = of_kind(objects, "ServiceAccount")
    assert account["metadata"]["annotations"] == {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/dram"}
    pod = operator_pod(objects)
    assert pod["spec"]["serviceAccountName"] == account["metadata"]["name"]
    named = {one["name"] for one in pod["spec"]["containers"][0]["env"]}
    assert not {name for name in named if "AWS" in name}, "credentials would hide the role"


@pytest.mark.parametrize(
    ("repository", "registry", "want"),
    [
        ("dram/operator", "", "dram/operator:0.1.0"),
        ("dram/operator", "r.example.com:5000/m", "r.example.com:5000/m/dram/operator:0.1.0"),
        ("quay.io/dram/operator", "r.example.com", "r.example.com/dram/operator:0.1.0"),
        ("localhost/operator", "r.example.com/", "r.example.com/operator:0.1.0"),
        ("operator", "r.example.com", "r.example.com/operator:0.1.0"),
    ],
)
def test_one_value_sends_every_image_to_another_registry(repository: str, registry: str, want: str) -> None:
    values = (f"image.repository={repository}", f"worker.image.repository={repository}", f"imageRegistry={registry}")
    pod = operator_pod(render(*values))
    (container,) = pod["spec"]["containers"]
    assert container["image"] == want
    assert {"name": "DRAM_IMAGE", "value": want} in container["env"]


def test_jobs_on_gpus_have_an_image_of_their_own() -> None:
    (container,) = operator_pod(render("worker.cudaImage.tag=v13", "imageRegistry=r.example.com"))["spec"]["containers"]
    assert {"name": "DRAM_CUDA_IMAGE", "value": "r.example.com/dram/worker-cuda:v13"} in container["env"]


def test_a_digest_pins_an_image() -> None:
    digest = "sha256:" + "ab" * 32
    pod = operator_pod(render(f"image.digest={digest}", "image.tag=latest"))
    assert pod["spec"]["containers"][0]["image"] == f"dram/operator@{digest}"


def test_the_certificate_may_be_somebody_elses() -> None:
    objects = render("progress.tlsSecret=own")
    assert of_kind(objects, "Secret") == []
    pod = operator_pod(objects)
    assert {"name": "tls", "secret": {"secretName": "own"}} in pod["spec"]["volumes"]
