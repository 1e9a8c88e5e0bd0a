"""Artifacts while the repository is away: a view says so, and nothing is raised that would hold up the reconcile."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from kubernetes.aio import client

from dram_operator.adapters.kubernetes import Kubernetes
from dram_operator.adapters.releases.bucket import Bucket
from dram_operator.adapters.releases.desk import ReleaseDesk
from dram_operator.api.rollout_reasons import RolloutReason
from dram_operator.core.installation import Installation as Place
from dram_operator.runtime.artifacts import Artifacts
from tests.builders import a_rollout
from tests.operator.adapters.releases.installation import Installation

BY_URI = a_rollout().having("spec.artifact", {"uri": "s3://models/bot", "sha256": "ab" * 32}).build()


@pytest.mark.parametrize(
    ("change", "want"),
    [
        ({"endpoint": "http://127.0.0.1:9"}, "the release repository: s3://"),
        ({"uri": "s3://no-such-bucket"}, "NoSuchBucket"),
    ],
)
async def test_a_repository_that_is_away_is_a_view(
    installation: Installation, change: dict[str, Any], want: str
) -> None:
    desk = ReleaseDesk(Bucket(replace(installation.settings, **change)), installation.first_root, installation.clock)
    # Nobody listens there: whatever would be asked of the API server would raise.
    api = Kubernetes(client.Configuration(host="http://127.0.0.1:9"))
    try:
        artifacts = Artifacts(api, lambda *_: None, desk, Place(), lambda: datetime.now(UTC))
        view = await artifacts.view({}, BY_URI)
    finally:
        await api.close()
    assert (view.release, view.reason) == (None, RolloutReason.REPOSITORY_UNAVAILABLE)
    assert want in view.message
    assert view.look_again_seconds
    assert view.resolved is not None, "what it is, is known all the same"
