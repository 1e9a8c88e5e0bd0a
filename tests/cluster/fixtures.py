"""pytest fixtures over the real parts. Loaded by tests/conftest.py."""

from collections.abc import Iterator

import pytest

from tests.cluster.controlplane import ControlPlane


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """One real API server (and etcd) for the whole session; make a namespace of your own in it."""
    with ControlPlane() as plane:
        yield plane


@pytest.fixture(scope="session")
def controlled_plane() -> Iterator[ControlPlane]:
    """A real API server with kube-controller-manager: Jobs make pods, owners are garbage-collected."""
    with ControlPlane(controllers=True) as plane:
        yield plane
