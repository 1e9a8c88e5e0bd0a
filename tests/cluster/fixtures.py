"""pytest fixtures over the real parts. Loaded by tests/conftest.py."""

from collections.abc import Iterator

import pytest

from tests.cluster.controlplane import ControlPlane
from tests.cluster.s3 import S3Server


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


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One real S3 server for the whole session; make a bucket of your own in it. Start your own for an outage."""
    with S3Server() as server:
        yield server
