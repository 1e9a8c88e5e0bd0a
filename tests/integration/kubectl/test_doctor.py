"""`dram doctor`: every check, well and ill, at a real API server, a real S3 server and a real Prometheus."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from dram_operator.adapters.releases.bucket import Bucket, BucketSettings
from dram_operator.adapters.releases.keys import KeyFolder
from dram_operator.cli.doctor import rights
from dram_operator.cli.doctor.site_checks import expiries
from tests.cluster.api import Api, Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.prometheus import PrometheusServer
from tests.cluster.s3 import S3Server
from tests.integration.chart.rendering import CHART, of_kind, render
from tests.integration.kubectl.seat import NAMESPACE, Seat
from tests.operator.adapters.releases.installation import Clock, Installation

HOME = "doctors"
"""The operator's namespace."""


@pytest.fixture(scope="module")
def admin(control_plane: ControlPlane, api: Api) -> Seat:
    """Somebody who may see everything."""
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOME}})
    return Seat("admin", control_plane.kubeconfig)


Install = Callable[..., Object]


@pytest.fixture
def install(api: Api) -> Iterator[Install]:
    """Puts the chart's Deployment and what the doctor reads beside it into the cluster; no pods run."""
    placed: list[Object] = []

    def install(
        *values: str, change: Callable[[Object], None] = lambda _: None, ready: int = 1, release: str = "dram"
    ) -> Object:
        objects = render(*values, namespace=HOME, release=release)
        kinds = ("ConfigMap", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Deployment")
        for obj in [obj for kind in kinds for obj in of_kind(objects, kind)]:
            if obj["kind"] == "Deployment":
                change(obj)
            api.apply(obj)
            placed.append(obj)
        name = placed[-1]["metadata"]["name"]
        return api.patch(
            "Deployment", name, HOME, {"status": {"replicas": 1, "readyReplicas": ready}}, subresource="status"
        )

    yield install
    for obj in placed:
        api.delete(obj["kind"], obj["metadata"]["name"], obj["metadata"].get("namespace"))


def findings(seat: Seat, *arguments: str) -> tuple[int, dict[str, tuple[str, str, str]]]:
    """Exit code, and outcome, message and remedy by check."""
    result = seat.dram("doctor", "-o", "json", "-n", NAMESPACE, *arguments)
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return result.exit_code, {one["check"]: (one["outcome"], one["message"], one["remedy"]) for one in found}


def test_an_installation_that_is_well(admin: Seat, install: Install) -> None:
    install()
    code, found = findings(admin, "--operator-namespace", HOME)
    assert {check: outcome for check, (outcome, *_) in found.items()} == {
        "cluster": "good",
        "distillationjobs.dram.dev": "good",
        "edgerollouts.dram.dev": "good",
        "your rights": "good",
        "your commands": "good",
        "operator": "good",
        "operator's image": "good",
        "workers' image": "good",
        "operator's rights": "good",
        "storage": "unknown",
        "releases": "unknown",
        "prometheus": "unknown",
    }
    assert code == 0


def test_images_that_are_pinned_by_their_digests_are_not_compared(admin: Seat, install: Install) -> None:
    install(f"image.digest=sha256:{'a' * 64}", f"worker.image.digest=sha256:{'b' * 64}")
    code, found = findings(admin, "--operator-namespace", HOME)
    assert (code, found["workers' image"][:2]) == (0, ("good", f"dram/worker@sha256:{'b' * 64}"))


@pytest.mark.parametrize(
    ("mine", "theirs", "want"),
    [
        ((), (), "all namespaces"),
        (("namespaces={tv}",), (), "tv"),
        (("namespaces={tv,shop}",), ("namespaces={shop,bank}",), "shop"),
        (("namespaces={tv}",), ("namespaces={shop}",), None),
    ],
)
def test_two_operators_of_one_namespace_are_told(
    admin: Seat, api: Api, install: Install, mine: tuple[str, ...], theirs: tuple[str, ...], want: str | None
) -> None:
    namespaces = [name for name in ("tv", "shop", "bank") if any(name in value for value in mine + theirs)]
    for name in namespaces:
        api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    install(*mine)
    install(*theirs, release="other-dram")
    code, found = findings(admin, "--operator-namespace", HOME)
    told = found.get("operators")
    assert (told and told[:2]) == (want and ("bad", f"{HOME}/dram and {HOME}/other-dram both serve {want}"))
    assert code == (4 if want else 0)


def test_servers_for_trying_out_are_left_to_the_pod(admin: Seat, install: Install) -> None:
    install("tryout.enabled=true")
    _, found = findings(admin, "--operator-namespace", HOME)
    outcome, message, remedy = found["releases"]
    assert (outcome, message) == ("unknown", "the pinned root lies in the operator's pod only")
    assert "kubectl exec" in remedy


def test_people_get_a_line_each_with_the_remedy_below(admin: Seat, install: Install) -> None:
    install(ready=0)
    result = admin.dram("doctor", "-n", NAMESPACE, "--operator-namespace", HOME)
    assert result.exit_code == 4
    assert "✓ cluster: Kubernetes v" in result.output
    assert (
        f"✗ operator: {HOME}/dram: none of 2 replicas is ready\n    → see why: kubectl get pods -n {HOME}"
        in result.output
    )


def test_a_cluster_without_an_operator(admin: Seat, api: Api) -> None:
    code, found = findings(admin, "--operator-namespace", HOME)
    assert (code, found["operator"][:2]) == (4, ("bad", f"there is none in {HOME}"))
    assert "helm install" in found["operator"][2]


@pytest.mark.parametrize(
    ("field", "want"), [("teacher", "older than this command line: it lacks spec.teacher"), (None, "newer")]
)
def test_definitions_of_another_version(admin: Seat, api: Api, field: str | None, want: str) -> None:
    file = Path(__file__).parents[3] / "crds" / "dram.dev_distillationjobs.yaml"
    definition = yaml.safe_load(file.read_text())
    spec = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    if field:
        spec["properties"].pop(field)
        spec["required"].remove(field)
        rules = spec.pop("x-kubernetes-validations", [])
        assert rules
        definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].pop("x-kubernetes-validations", None)
    else:
        spec["properties"]["mood"] = {"type": "string"}
    name = "distillationjobs.dram.dev"
    try:
        api.apply(definition)
        code, found = findings(admin, "--operator-namespace", HOME)
    finally:
        api.apply(yaml.safe_load(file.read_text()))
    outcome, message, remedy = found[name]
    assert (outcome, code) == ("bad", 4)
    assert want in message
    assert ("kubectl apply" in remedy) is (field is not None)


def test_who_may_only_look_is_told_what_cannot_be_seen(viewer: Seat, install: Install) -> None:
    install()
    code, found = findings(viewer)
    assert code == 0
    assert found["your rights"][0] == "good"
    assert found["your commands"][:1] == ("unknown",)
    assert "patch edgerollouts.dram.dev, approve edgerollouts.dram.dev" in found["your commands"][1]
    assert found["distillationjobs.dram.dev"][0] == "unknown"
    assert found["operator"][0] == "unknown"


def test_a_right_that_the_operator_lacks(admin: Seat, api: Api, install: Install) -> None:
    install()
    name = f"{HOME}:dram"
    role = api.get("ClusterRole", name)
    kept = [rule for rule in role["rules"] if rule["resources"] != ["pods"]]
    api.patch("ClusterRole", name, None, {"rules": kept})
    outcome, message, _ = findings(admin, "--operator-namespace", HOME)[1]["operator's rights"]
    assert (outcome, message) == ("bad", "it may not list pods, watch pods in all namespaces")


def test_images_that_do_not_belong_together(admin: Seat, install: Install) -> None:
    install("worker.image.tag=0.0.1")
    outcome, message, _ = findings(admin, "--operator-namespace", HOME)[1]["workers' image"]
    assert (outcome, "dram/worker:0.0.1 has another version" in message) == ("bad", True)


def test_workers_without_an_image(admin: Seat, install: Install) -> None:
    def without(deployment: Object) -> None:
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        container["env"] = [one for one in container["env"] if one["name"] != "DRAM_IMAGE"]

    install(change=without)
    outcome, message, remedy = findings(admin, "--operator-namespace", HOME)[1]["workers' image"]
    assert (outcome, message) == ("bad", "none is set")
    assert "worker.image.repository" in remedy


def test_an_image_that_cannot_be_pulled(admin: Seat, api: Api, install: Install) -> None:
    labels = install(ready=0)["spec"]["selector"]["matchLabels"]
    api.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": HOME}})
    container = {"name": "operator", "image": "dram/operator:9"}
    metadata = {"name": "dram-1", "namespace": HOME, "labels": labels}
    api.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}})
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}}
    told = container | {"state": waiting, "ready": False, "restartCount": 0, "imageID": ""}
    api.patch("Pod", "dram-1", HOME, {"status": {"containerStatuses": [told]}}, subresource="status")
    try:
        outcome, message, _ = findings(admin, "--operator-namespace", HOME)[1]["operator's image"]
    finally:
        api.kill_pod("dram-1", HOME)
    assert (outcome, message) == ("bad", "dram/operator:9: ImagePullBackOff: no such tag")


@pytest.fixture(scope="module")
def repository(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """A release repository that was begun just now."""
    settings = BucketSettings(
        f"{s3_server.bucket('doctor')}/repository",
        s3_server.endpoint,
        access_key_id=s3_server.owner.access_key,
        secret_access_key=s3_server.owner.secret_key,
    )
    clock = Clock()
    clock.now = datetime.now(UTC)
    made = Installation(settings, KeyFolder(tmp_path_factory.mktemp("doctor") / "keys"), clock, bucket=Bucket(settings))
    made.ceremony().init(root_keys=1, threshold=1)
    return made


@pytest.fixture
def inside(
    monkeypatch: pytest.MonkeyPatch,
    s3_server: S3Server,
    repository: Installation,
    prometheus: dict[str, PrometheusServer],
) -> pytest.MonkeyPatch:
    """This process sees what the operator's pod sees."""
    keys = repository.folder.path
    variables = {
        "LEASE_NAMESPACE": HOME,
        "RELEASES_URI": repository.settings.uri,
        "RELEASES_ENDPOINT": s3_server.endpoint,
        "RELEASES_AWS_ACCESS_KEY_ID": s3_server.owner.access_key,
        "RELEASES_AWS_SECRET_ACCESS_KEY": s3_server.owner.secret_key,
        "RELEASES_ROOT": str(keys / "root.json"),
        "RELEASES_OPERATOR_KEY": str(keys / "operator.pem"),
        "RELEASES_RELEASE_KEY": str(keys / "release.pem"),
        "PROMETHEUS": json.dumps([{"name": name, "url": prometheus[name].url} for name in prometheus]),
        "STORAGE": json.dumps({"uri": "s3://models/dram", "endpoint": s3_server.endpoint}),
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"DRAM_{name}", value)
    return monkeypatch


@pytest.fixture(scope="module")
def prometheus() -> Iterator[dict[str, PrometheusServer]]:
    """One to which two devices reported just now, and one that twelve were counted for."""
    now = datetime.now(UTC).timestamp()
    lines = ["# TYPE dram_device_info gauge"]
    lines += [f'dram_device_info{{channel="tv/bot",device="{n}"}} 1 {now - 1:.3f}' for n in range(2)]
    counts = ["# TYPE label:dram_devices:count gauge"]
    counts += [f'label:dram_devices:count{{within="300",label_ring="{n}"}} 6 {now - 1:.3f}' for n in range(2)]
    with (
        PrometheusServer("\n".join([*lines, "# EOF", ""])) as listed,
        PrometheusServer("\n".join([*counts, "# EOF", ""])) as counted,
    ):
        yield {"default": listed, "counts": counted}


def test_from_inside_everything_can_be_told(admin: Seat, inside: pytest.MonkeyPatch) -> None:
    code, found = findings(admin)
    wrong = {check: told for check, told in found.items() if told[0] != "good"}
    assert (code, wrong) == (0, {})
    assert "commit 1 is signed by the keys that the pinned root leads to" in found["releases"][1]
    assert "2 devices report to it" in found["prometheus default"][1]
    assert "12 devices report to it" in found["prometheus counts"][1]
    assert {
        "operator key",
        "release key",
        "release timestamp",
        "release root",
        "release targets",
        "release artifacts",
    } <= set(found)


@pytest.mark.parametrize(
    ("variable", "value", "check", "want"),
    [
        ("RELEASES_ENDPOINT", "http://127.0.0.1:1", "releases", "Could not connect"),
        ("RELEASES_AWS_SECRET_ACCESS_KEY", "wrong", "releases", "SignatureDoesNotMatch"),
        ("RELEASES_URI", "s3://doctor/elsewhere", "releases", "holds no repository"),
        ("RELEASES_OPERATOR_KEY", "/none", "operator key", "no readable private key"),
        ("PROMETHEUS", '[{"url": "http://127.0.0.1:1"}]', "prometheus default", "http://127.0.0.1:1: "),
        (
            "STORAGE",
            '{"uri": "s3://m/d", "endpoint": "http://127.0.0.1:1"}',
            "storage",
            "127.0.0.1:1 cannot be reached",
        ),
        ("PROMETHEUS", "nonsense", "settings", "it is not JSON"),
    ],
)
def test_from_inside_each_fault_has_its_line_and_remedy(
    admin: Seat, inside: pytest.MonkeyPatch, variable: str, value: str, check: str, want: str
) -> None:
    inside.setenv(f"DRAM_{variable}", value)
    code, found = findings(admin)
    outcome, message, remedy = found[check]
    assert (code, outcome, bool(remedy)) == (4, "bad", True)
    assert want in message


def test_a_server_that_keeps_no_metrics(admin: Seat, inside: pytest.MonkeyPatch, s3_server: S3Server) -> None:
    inside.setenv("DRAM_PROMETHEUS", json.dumps([{"name": "default", "url": s3_server.endpoint}]))
    outcome, message, remedy = findings(admin)[1]["prometheus default"]
    assert (outcome, message.partition(": ")[0]) == ("bad", s3_server.endpoint)
    assert remedy.startswith("check its url")


def test_a_key_that_was_rotated_out(admin: Seat, inside: pytest.MonkeyPatch, repository: Installation) -> None:
    old = repository.folder.path / "release.pem"
    body = old.read_bytes()
    repository.ceremony().rotate("release")
    kept = repository.folder.path.parent / "old.pem"
    kept.write_bytes(body)
    inside.setenv("DRAM_RELEASES_RELEASE_KEY", str(kept))
    outcome, message, _ = findings(admin)[1]["release key"]
    assert (outcome, message.endswith("was rotated out")) == ("bad", True)


def test_from_outside_the_repository_is_read_with_ones_own_credentials(
    admin: Seat,
    api: Api,
    install: Install,
    repository: Installation,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(
        f"releases.uri={repository.settings.uri}",
        f"releases.endpoint={s3_server.endpoint}",
        "releases.root=here",
        "releases.operatorKey.secret=keys",
        "prometheus[0].name=default",
        "prometheus[0].url=http://127.0.0.1:1",
    )
    root = (repository.folder.path / "root.json").read_text()
    api.patch("ConfigMap", "dram-releases", HOME, {"data": {"root.json": root}})
    for variable, value in s3_server.owner.environment().items():
        monkeypatch.setenv(variable, value)
    code, found = findings(admin, "--operator-namespace", HOME)
    assert (code, found["releases"][0], found["release root"][0]) == (0, "good", "good")
    exec_remedy = f"look from inside: kubectl exec -n {HOME} deploy/dram -- dram doctor"
    assert found["release keys"] == ("unknown", "keys are never read from the cluster", exec_remedy)
    # An address of the cluster's own network is no fault when it cannot be reached from here.
    assert (found["prometheus default"][0], found["prometheus default"][2]) == ("unknown", exec_remedy)


@pytest.mark.parametrize(
    ("later", "role", "want"),
    [
        (timedelta(hours=1), "release timestamp", "good until"),
        (timedelta(hours=13), "release timestamp", "not renewed for"),
        (timedelta(hours=25), "release timestamp", "expired"),
        (timedelta(days=300), "release root", "good until"),
        (timedelta(days=340), "release root", "expires soon"),
        (timedelta(days=366), "release artifacts", "expired"),
    ],
)
def test_expiry_is_told_before_it_hurts(repository: Installation, later: timedelta, role: str, want: str) -> None:
    committed = repository.repository().read()
    found = {one.check: one for one in expiries(committed, repository.clock.now + later)}
    assert found[role].message.startswith(want)
    assert (found[role].outcome == "good") is (want == "good until")


def test_the_rights_that_are_asked_for_are_the_charts() -> None:
    for file, rules in (("objects", rights.OBJECTS), ("lease", rights.LEASE), ("reviews", rights.REVIEWS)):
        given = yaml.safe_load((CHART / "files" / "rbac" / f"{file}.yaml").read_text())
        granted = {(one["apiGroups"][0], one["resources"][0], verb) for one in given for verb in one["verbs"]}
        asked = {(right.group, right.resource, right.verb) for right in rights.rights(rules, None)}
        assert asked == granted
