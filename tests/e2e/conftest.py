"""Fixtures of the tests on a whole cluster. `pytest -m e2e tests/e2e` runs them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.api import wait_until
from tests.cluster.prometheus import PrometheusServer
from tests.cluster.s3 import S3Server
from tests.e2e import cluster as clusters
from tests.e2e import installation as installations
from tests.e2e import smollm2
from tests.e2e.bench import CHANNEL, Bench, baseline
from tests.e2e.cluster import Cluster
from tests.e2e.fleet import Fleet, enrol
from tests.e2e.installation import RESTRICTED, Installation
from tests.e2e.models import golden_for
from tests.e2e.releases import BUCKET, Releases, begin, scraping
from tests.e2e.rollout_story import GOLDEN, RolloutStory
from tests.e2e.story import Story
from tests.e2e.tiny import NAME, job_for, upload

FIRST = ("test_demo.py", "test_tutorial.py")
"""They install Dram themselves, and uninstall it, so nothing may be there yet."""
LAST = ("test_rollout.py", "test_upgrade.py", "test_dashboards.py", "test_rights.py", "test_uninstall.py")
"""From the first of them on, six devices are asked all the time. The third and the fourth look at what was measured, and at what the operator asked for,
in all other stories; whoever is uninstalled loses its rights before its pod has ended."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is for a cluster; and a stage's pods start slower than unit tests."""
    here = Path(__file__).parent
    rank = {here / name: number for number, name in enumerate((*FIRST, "", *LAST))}
    items.sort(key=lambda item: rank.get(item.path, len(FIRST)))
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(1200))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster under test."""
    with clusters.cluster() as found:
        yield found


@pytest.fixture(scope="session")
def prometheus(cluster: Cluster) -> Iterator[PrometheusServer]:
    """A Prometheus that scrapes the devices, and that the operator reaches."""
    with scraping(cluster.kubeconfig, cluster.host) as server:
        yield server


@pytest.fixture(scope="session")
def releases(store: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Releases:
    """An empty release repository and its keys."""
    return begin(store, tmp_path_factory.mktemp("releases"))


@pytest.fixture(scope="session")
def installation(cluster: Cluster, releases: Releases, prometheus: PrometheusServer) -> Iterator[Installation]:
    """Dram, installed by its chart."""
    with installations.installation(cluster, releases, prometheus) as installed:
        yield installed


@pytest.fixture(scope="session")
def store(cluster: Cluster) -> Iterator[S3Server]:
    """An S3 server that pods reach, with a tiny teacher and its data in the bucket `models`."""
    with S3Server(cluster.host, public=BUCKET) as server:
        for bucket in ("models", "dram"):
            server.bucket(bucket)
        yield server


@pytest.fixture(scope="session")
def tiny_files(store: S3Server, tmp_path_factory: pytest.TempPathFactory) -> S3Server:
    """A random teacher with a real tokenizer, 64 training samples and 8 golden items in the store."""
    upload(store, tmp_path_factory.mktemp("tiny"))
    return store


@pytest.fixture
def story(installation: Installation, tiny_files: S3Server, request: pytest.FixtureRequest) -> Iterator[Story]:
    """A DistillationJob to be, in a fresh namespace with the store's credentials."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:50].strip("-")
    with a_namespace(installation, tiny_files, name) as story:
        yield story


@contextmanager
def a_namespace(installation: Installation, store: S3Server, name: str) -> Iterator[Story]:
    """A namespace that enforces restricted pods, for as long as a block lasts; one that a killed run left goes first."""
    api = installation.api
    api.delete("Namespace", name)
    wait_until(lambda: api.find("Namespace", name) is None, f"the old namespace {name} to go")
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3", "namespace": name}}
    api.apply({**secret, "stringData": store.owner.environment()})
    try:
        yield Story(api, store, name, NAME)
    finally:
        api.delete("Namespace", name)


def names_under_test(request: pytest.FixtureRequest) -> list[str]:
    """The parameters `name` of the module's tests in this session."""
    here = [
        item for item in request.session.items if isinstance(item, pytest.Function) and item.module is request.module
    ]
    return [str(item.callspec.params["name"]) for item in here]


@pytest.fixture(scope="session")
def undisturbed_begun(installation: Installation, tiny_files: S3Server) -> Iterator[Story]:
    """The tiny job, applied and left alone."""
    with a_namespace(installation, tiny_files, "undisturbed") as story:
        story.apply(job_for(story))
        yield story


@pytest.fixture(scope="session")
def undisturbed(undisturbed_begun: Story) -> Story:
    """The tiny job, run without any disturbance: what every disturbed run must end in."""
    undisturbed_begun.wait_succeeded()
    return undisturbed_begun


@pytest.fixture(scope="session")
def model(undisturbed: Story) -> bytes:
    """The file of the job's variant."""
    (variant,) = undisturbed.status()["variants"]
    keys = [key for key in undisturbed.stored("artifacts/") if key.endswith(".gguf")]
    (key,) = [key for key in keys if f"/{NAME}/{variant['name']}/" in key]
    return undisturbed.read(f"s3://dram/{undisturbed.namespace}/{key}")


@pytest.fixture(scope="session")
def fleet(
    installation: Installation,
    undisturbed: Story,
    releases: Releases,
    model: bytes,
    tmp_path_factory: pytest.TempPathFactory,
) -> Fleet:
    """Six devices that have no model yet, and somebody who asks them."""
    channel = f"{undisturbed.namespace}/{CHANNEL}"
    ids = enrol(channel, tmp_path_factory.mktemp("devices"))
    fleet = Fleet(installation.cluster, releases.url, releases.root, undisturbed.namespace, channel, ids)
    fleet.start(golden_for(model, tmp_path_factory.mktemp("golden")))
    return fleet


@pytest.fixture(scope="session")
def bench(
    installation: Installation,
    fleet: Fleet,
    releases: Releases,
    prometheus: PrometheusServer,
    model: bytes,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Bench]:
    """The job's variant, brought to every device."""
    story = RolloutStory(installation.api, prometheus.url, fleet, fleet.namespace, CHANNEL)
    wait_until(lambda: set(story.running()) == set(fleet.ids), "the devices in Prometheus", explain=fleet.explain)
    story.offer({"jobRef": {"name": NAME, "variant": "gguf-q8-0"}}, GOLDEN)
    try:
        stable = story.wait_completed(1)
        yield Bench(story, releases, model, stable, baseline(story), tmp_path_factory.mktemp("bench"))
    finally:
        story.delete()


@pytest.fixture(scope="session")
def smollm2_begun(
    installation: Installation, tiny_files: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    """The job with a real model, applied and left alone."""
    with a_namespace(installation, tiny_files, "smollm2") as story:
        story.apply(smollm2.job_for(story, tmp_path_factory.mktemp("smollm2")))
        yield story


@pytest.fixture(scope="session")
def begun(request: pytest.FixtureRequest) -> None:
    """Jobs that later tests look at work already, while those of the tests with errors wait for their deadlines."""
    needed = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    for name in ("undisturbed_begun", "smollm2_begun"):
        if name in needed:
            request.getfixturevalue(name)
