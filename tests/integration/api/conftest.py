"""A real API server that serves Dram's kinds."""

from pathlib import Path

import pytest
import yaml

from tests.cluster.api import Api, Object, wait_until
from tests.cluster.controlplane import ControlPlane
from tests.integration.api.server import NAMESPACE

CRDS = Path(__file__).parents[3] / "crds"


@pytest.fixture(scope="session")
def api(control_plane: ControlPlane) -> Api:
    """The API server with the CRDs, and a namespace of its own."""
    api = control_plane.api()
    for file in sorted(CRDS.glob("*.yaml")):
        definition = yaml.safe_load(file.read_text())
        api.apply(definition)
        _wait_for(api, definition["metadata"]["name"])
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    return api


def _wait_for(api: Api, name: str) -> None:
    wait_until(lambda: _is_served(api.get("CustomResourceDefinition", name)), f"{name} is served")


def _is_served(definition: Object) -> bool:
    conditions = definition.get("status", {}).get("conditions") or []
    return any(condition["type"] == "Established" and condition["status"] == "True" for condition in conditions)
