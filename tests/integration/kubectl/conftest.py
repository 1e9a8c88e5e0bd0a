"""A real API server with Dram's kinds, the chart's roles and its policy for commands; and `kubectl dram` as one of its users."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from tests.cluster.api import Api, ApiError, wait_until
from tests.cluster.controlplane import ControlPlane
from tests.integration.chart.rendering import of_kind, render
from tests.integration.kubectl.seat import NAMESPACE, USERS, Clerk, Seat
from tests.integration.kubectl.seat import rollout as a_manifest

CRDS = Path(__file__).parents[3] / "crds"
POLICY = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")


@pytest.fixture(scope="module")
def api(control_plane: ControlPlane) -> Iterator[Api]:
    """The administrator."""
    api = control_plane.api()
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    for file in sorted(CRDS.glob("*.yaml")):
        definition = yaml.safe_load(file.read_text())
        api.apply(definition)
        wait_until(partial(_is_served, api, definition["metadata"]["name"]), "the kinds to be served")
    objects = [
        obj for kind in POLICY for obj in of_kind(render(f"namespaces={{{NAMESPACE}}}", namespace="kubectl"), kind)
    ]
    for obj in objects:
        api.apply(obj)
    wait_until(lambda: _is_in_force(api), "the policy to be in force")
    yield api
    for obj in objects:
        api.delete(obj["kind"], obj["metadata"]["name"])


@pytest.fixture(scope="module")
def seats(control_plane: ControlPlane, api: Api) -> dict[str, Seat]:
    """Every user's place at the command line, by the name of what the user may."""
    roles = {role["metadata"]["name"].rpartition("-")[2]: role["rules"] for role in of_kind(render(), "ClusterRole")}
    return {
        user: Seat(
            user,
            control_plane.kubeconfig_for(user, [rule for role in given for rule in roles[role]], namespace=NAMESPACE),
        )
        for user, given in USERS.items()
    }


@pytest.fixture
def viewer(seats: dict[str, Seat]) -> Seat:
    """Bound to the role `view`."""
    return seats["vera"]


@pytest.fixture
def editor(seats: dict[str, Seat]) -> Seat:
    """Bound to the roles `view` and `edit`."""
    return seats["emil"]


@pytest.fixture
def officer(seats: dict[str, Seat]) -> Seat:
    """Bound to the roles `view`, `edit` and `commands`."""
    return seats["olga"]


@pytest.fixture
def name(api: Api, request: pytest.FixtureRequest) -> Iterator[str]:
    """A name of the test's own; what bears it goes when the test ends."""
    name = "x" + "".join(letter for letter in request.node.name.lower() if letter.isalnum())[-30:]
    yield name
    for kind in ("DistillationJob", "EdgeRollout"):
        api.delete(kind, name, NAMESPACE)


@pytest.fixture
def clerk(api: Api) -> Iterator[Clerk]:
    """Handles commands as the operator does, while the test runs."""
    with Clerk(api) as clerk:
        yield clerk


def _is_served(api: Api, name: str) -> bool:
    found = api.get("CustomResourceDefinition", name)["status"].get("conditions") or ()
    return any(one["type"] == "Established" and one["status"] == "True" for one in found)


def _is_in_force(api: Api) -> bool:
    try:
        # Another text each time: one that was let in before would never be looked at again.
        api.apply(a_manifest("probe", f"nonsense {uuid4()}"))
    except ApiError as error:
        return "ValidatingAdmissionPolicy" in error.message
    return False
