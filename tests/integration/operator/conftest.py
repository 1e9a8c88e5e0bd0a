"""A control plane with our resource in it, and a namespace for every test."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.cluster.api import Api, wait_until
from tests.cluster.controlplane import ControlPlane

CRD = Path(__file__).parents[3] / "crds" / "dram.dev_distillationjobs.yaml"

NewNamespace = Callable[[], str]


@pytest.fixture(scope="session")
def plane(controlled_plane: ControlPlane) -> ControlPlane:
    """The control plane with the DistillationJob resource installed."""
    api = controlled_plane.api()
    api.apply(yaml.safe_load(CRD.read_text()))
    wait_until(lambda: _is_served(api), "the resource to be served")
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


def _is_served(api: Api) -> bool:
    found = api.get("CustomResourceDefinition", "distillationjobs.dram.dev")["status"].get("conditions") or ()
    return any(c["type"] == "Established" and c["status"] == "True" for c in found)
