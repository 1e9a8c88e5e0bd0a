"""A control plane with our resource in it, and a namespace for every test."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests.cluster.api import Api, wait_until
from tests.cluster.controlplane import ControlPlane
from tests.cluster.s3 import S3Server
from tests.integration.operator.rollouts import Site, a_site

CRDS = Path(__file__).parents[3] / "crds"

NewNamespace = Callable[[], str]


@pytest.fixture(scope="session")
def plane(controlled_plane: ControlPlane) -> ControlPlane:
    """The control plane with our resources installed."""
    api = controlled_plane.api()
    for file in sorted(CRDS.glob("*.yaml")):
        definition = yaml.safe_load(file.read_text())
        api.apply(definition)
        name = definition["metadata"]["name"]
        wait_until(partial(_is_served, api, name), f"{name} to be served")
    return controlled_plane


@pytest.fixture(scope="session")
def api(plane: ControlPlane) -> Api:
    """Requests as the administrator."""
    return plane.api()


@pytest.fixture(scope="session")
def new_namespace(api: Api) -> NewNamespace:
    """Makes namespaces that are ready for pods."""
    numbers = itertools.count(1)

    def make() -> str:
        name = f"operator-{next(numbers)}"
        api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        wait_until(lambda: api.find("ServiceAccount", "default", name), f"the service account of {name}")
        return name

    return make


@pytest.fixture
def namespace(new_namespace: NewNamespace) -> str:
    """A namespace of the test's own."""
    return new_namespace()


@pytest.fixture(scope="module")
def site(plane: ControlPlane, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An installation with devices and a metrics server, for the rollouts of a module."""
    with a_site(plane, s3_server, tmp_path_factory.mktemp("site")) as site:
        yield site


def _is_served(api: Api, name: str) -> bool:
    found = api.get("CustomResourceDefinition", name)["status"].get("conditions") or ()
    return any(c["type"] == "Established" and c["status"] == "True" for c in found)
