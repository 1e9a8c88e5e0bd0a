"""Install, upgrade and uninstall with the real helm, on a real API server: CRDs follow, users' objects stay."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.builders import a_job
from tests.cluster.api import Api, ApiError, Object, wait_until
from tests.cluster.binaries import binary
from tests.cluster.controlplane import ControlPlane
from tests.integration.chart.rendering import CHART

NAMESPACE = "dram-system"
CRDS = ("distillationjobs.dram.dev", "edgerollouts.dram.dev")


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """An API server of its own: CRDs are one set a cluster."""
    with ControlPlane() as plane:
        yield plane


@pytest.fixture(scope="module")
def api(plane: ControlPlane) -> Api:
    return plane.api()


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart of an older version: its storage has no retention yet."""
    chart = tmp_path_factory.mktemp("older") / "dram"
    shutil.copytree(CHART, chart)
    path = chart / "files" / "crds" / "dram.dev_distillationjobs.yaml"
    crd = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
    del storage_of(crd)["retention"]
    path.write_text(yaml.safe_dump(crd))
    return chart


class Helm:
    """helm against one API server."""

    def __init__(self, plane: ControlPlane) -> None:
        self._kubeconfig = plane.kubeconfig

    def run(self, *arguments: str, namespace: str = NAMESPACE) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self._command(namespace, arguments), check=False, capture_output=True, text=True)

    def start(self, *arguments: str, namespace: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            self._command(namespace, arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def _command(self, namespace: str, arguments: tuple[str, ...]) -> list[str]:
        return [str(binary("helm")), "--kubeconfig", str(self._kubeconfig), "--namespace", namespace, *arguments]

    def __call__(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def helm(plane: ControlPlane) -> Helm:
    return Helm(plane)


def storage_of(crd: Object) -> Object:
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    fields: Object = spec["properties"]["storage"]["properties"]
    return fields


def has_retention(api: Api) -> bool:
    return "retention" in storage_of(api.get("CustomResourceDefinition", CRDS[0]))


def is_created(api: Api, job: Object) -> bool:
    """Whether the API server takes it by now."""
    try:
        api.apply(job)
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return True


def test_crds_follow_an_upgrade_and_users_objects_outlive_the_release(api: Api, helm: Helm, older: Path) -> None:
    helm("install", "dram", str(older), "--create-namespace")
    assert not has_retention(api)
    secret = api.get("Secret", "dram-progress-tls", NAMESPACE)["data"]
    job = a_job().named("mine", "default").manifest()
    wait_until(lambda: is_created(api, job), "jobs to be served")

    helm("upgrade", "dram", str(CHART), "--set", "replicas=3")
    assert has_retention(api)
    assert api.get("Deployment", "dram", NAMESPACE)["spec"]["replicas"] == 3
    assert api.get("Secret", "dram-progress-tls", NAMESPACE)["data"] == secret

    helm("uninstall", "dram")
    assert api.find("Deployment", "dram", NAMESPACE) is None
    assert api.list("ClusterRole", labels="app.kubernetes.io/instance=dram") == []
    kept = api.get("DistillationJob", "mine", "default")
    assert kept["spec"]["teacher"]["uri"] == job["spec"]["teacher"]["uri"]

    refused = helm.run("install", "other", str(CHART), namespace="default")
    assert "invalid ownership metadata" in refused.stderr
    helm("install", "dram", str(CHART))
    helm("uninstall", "dram")
    assert helm.run("install", "other", str(CHART), "--take-ownership", namespace="default").returncode == 0
    assert helm.run("uninstall", "other", namespace="default").returncode == 0
    assert api.get("DistillationJob", "mine", "default")["metadata"]["uid"] == kept["metadata"]["uid"]
    for name in CRDS:
        assert api.find("CustomResourceDefinition", name)


@pytest.mark.parametrize(("phase", "code"), [("Succeeded", 0), ("Failed", 1)])
def test_helms_test_ends_as_its_pod_does_and_leaves_no_rights(api: Api, helm: Helm, phase: str, code: int) -> None:
    """Without a node: the pod ends as the test says. What it does is tested where its command is, and on a whole cluster."""
    namespace = f"tested-{code}"
    installed = helm.run("install", "dram", str(CHART), "--create-namespace", "--take-ownership", namespace=namespace)
    assert installed.returncode == 0, installed.stderr
    with helm.start("test", "dram", namespace=namespace) as running:
        wait_until(lambda: api.find("Pod", "dram-selftest", namespace), "the pod", explain=lambda: str(running.poll()))
        api.patch("Pod", "dram-selftest", namespace, {"status": {"phase": phase}}, subresource="status")
        assert running.wait() == code
    for kind in ("Role", "RoleBinding", "ServiceAccount"):
        assert api.find(kind, "dram-selftest", namespace) is None
    assert helm.run("uninstall", "dram", namespace=namespace).returncode == 0


def test_what_was_made_for_trying_out_outlives_an_upgrade(api: Api, helm: Helm) -> None:
    namespace, values = "tried", ("--set", "tryout.enabled=true", "--set", "tryout.namespaces={default}")
    done = helm.run(
        "install", "dram", str(CHART), "--create-namespace", "--take-ownership", *values, namespace=namespace
    )
    assert done.returncode == 0, done.stderr
    names = ("dram-tryout", "dram-tryout-s3", "dram-tryout-keys", "dram-progress-tls")
    made = [api.get("Secret", name, namespace)["data"] for name in names]
    assert api.get("Secret", "dram-tryout", "default")["data"] == made[0]

    done = helm.run("upgrade", "dram", str(CHART), *values, "--set", "replicas=1", namespace=namespace)
    assert done.returncode == 0, done.stderr
    assert [api.get("Secret", name, namespace)["data"] for name in names] == made
    assert api.get("Secret", "dram-tryout", "default")["data"] == made[0]
    assert helm.run("uninstall", "dram", namespace=namespace).returncode == 0


def test_helm_has_nothing_to_say_about_the_chart(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm("lint", str(CHART), "--strict")


def test_a_packaged_chart_is_complete(tmp_path: Path, helm: Helm) -> None:
    helm("package", str(CHART), "--destination", str(tmp_path))
    (package,) = tmp_path.iterdir()
    assert helm("template", "dram", str(package), "--set", "progress.tlsSecret=own") == helm(
        "template", "dram", str(CHART), "--set", "progress.tlsSecret=own"
    )


def notes(helm: Helm, *values: str) -> str:
    settings = [part for value in values for part in ("--set", value)]
    return helm("install", "dram", str(CHART), "--dry-run=client", *settings).partition("NOTES:")[2]


def test_the_notes_say_the_next_three_commands(helm: Helm) -> None:
    plain = notes(helm)
    assert "serves all namespaces" in plain
    assert "(2 replicas, one leads)" in plain
    for command in (
        "kubectl --namespace dram-system rollout status deployment/dram\n",
        "kubectl --namespace dram-system exec deployment/dram -- dram doctor\n",
        "kubectl apply --filename job.yaml && kubectl get distillationjobs --watch\n",
    ):
        assert command in plain
        assert f"{command}\n" in plain, "an empty line between the steps"
    assert "with a spec.storage of its own" in plain
    assert "EdgeRollouts are not served" in plain
    assert "switch" not in plain


def test_the_notes_for_trying_out_name_its_example(helm: Helm) -> None:
    told = notes(helm, "tryout.enabled=true")
    assert "kubectl apply --filename examples/tryout && kubectl get distillationjobs --watch\n" in told
    assert "helm test dram" in told
    assert "create configmap dram-switch" in told


def test_the_notes_fit_the_values(helm: Helm) -> None:
    releases = ("releases.uri=s3://r", "releases.root=x", "releases.operatorKey.secret=k")
    told = notes(helm, "storage.uri=s3://a/b", "replicas=1", "namespaces={served,other}", *releases)
    assert "serves the namespaces served, other" in told
    assert "replicas" not in told
    assert "spec.storage" not in told
    assert "helm test dram --namespace dram-system --timeout 30m --logs\n" in told
    assert "doctor" not in told
    assert "create configmap dram-switch --from-literal=frozen=true" in told
