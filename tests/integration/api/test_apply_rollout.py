"""EdgeRollouts at a real API server: accepted, filled in and refused by the CRD alone."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.api.manifests import load_manifests
from dram_operator.api.offline import with_defaults
from tests.builders import ARollout, a_rollout
from tests.cluster.api import Api, ApiError, Object, path_of
from tests.integration.api.server import NAMESPACE, STRICT, table
from tests.operator.api.rollout_statuses import A_FULL_STATUS
from tests.operator.api.rollouts import ACCEPTED_ROLLOUTS, REFUSED_ROLLOUTS, AcceptedRollout, RefusedRollout

KIND = "EdgeRollout"
EXAMPLES = [
    pytest.param(manifest, id=f"{file.parent.name}/{file.name}")
    for file in sorted((Path(__file__).parents[3] / "examples").rglob("*.yaml"))
    for manifest in load_manifests(file)
    if manifest.get("kind") == KIND
]
STATUS: dict[str, Any] = A_FULL_STATUS.model_dump(mode="json", by_alias=True, exclude_none=True)

Apply = Callable[[ARollout], Object]


@pytest.fixture
def create(api: Api) -> Iterator[Apply]:
    """Create a rollout; it is deleted after the test."""
    created: list[str] = []

    def create(rollout: ARollout) -> Object:
        manifest = rollout.having("metadata.namespace", NAMESPACE).manifest()
        answer: Object = json.loads(api.request("POST", path_of(KIND, NAMESPACE), manifest, query=STRICT))
        created.append(answer["metadata"]["name"])
        return answer

    yield create
    for name in created:
        api.delete(KIND, name, NAMESPACE)


@pytest.mark.parametrize("case", ACCEPTED_ROLLOUTS, ids=lambda case: case.name)
def test_the_server_accepts_and_fills_in_the_same_defaults(create: Apply, case: AcceptedRollout) -> None:
    stored = create(case.rollout)

    assert stored["spec"] == with_defaults(case.rollout.manifest())["spec"]
    assert EdgeRollout.from_object(stored).spec == case.rollout.build().spec


@pytest.mark.parametrize("case", REFUSED_ROLLOUTS, ids=lambda case: case.name)
def test_the_server_refuses_at_the_field_with_the_remedy(create: Apply, case: RefusedRollout) -> None:
    with pytest.raises(ApiError) as refused:
        create(case.rollout)

    assert refused.value.status == 422
    assert f"{case.want_field or '<nil>'}: " in refused.value.message
    assert case.want_message in refused.value.message


@pytest.mark.parametrize("manifest", EXAMPLES)
def test_the_server_accepts_every_example(api: Api, manifest: Object) -> None:
    placed = manifest | {"metadata": manifest["metadata"] | {"namespace": NAMESPACE}}
    api.request("POST", path_of(KIND, NAMESPACE), placed, query=STRICT | {"dryRun": "All"})


def test_unknown_fields_are_refused_by_their_path(create: Apply) -> None:
    with pytest.raises(ApiError) as refused:
        create(a_rollout().having("spec.strategy.stepz", []))

    assert 'unknown field "spec.strategy.stepz"' in refused.value.message


def test_a_full_status_is_kept_whole(api: Api, create: Apply) -> None:
    name = create(a_rollout())["metadata"]["name"]

    stored = api.patch(KIND, name, NAMESPACE, {"status": STATUS}, subresource="status")

    assert stored["status"] == STATUS
    assert EdgeRollout.from_object(stored).status == A_FULL_STATUS


def test_get_tells_the_story(api: Api, create: Apply) -> None:
    name = create(a_rollout())["metadata"]["name"]
    api.patch(KIND, name, NAMESPACE, {"status": STATUS}, subresource="status")

    columns, cells = table(api, KIND, name)

    shown = dict(zip(columns, cells, strict=True))
    assert shown.pop("Age").endswith("s")
    assert shown == {
        "Name": "support-bot",
        "Status": "Baking",
        "Stable": "support-bot-v6/gguf-q4-k-m",
        "Candidate": "support-bot-v7/gguf-q4-k-m",
        "Step": "2/5",
        "Percent": 10,
        "Gate": "Pass",
    }


def test_get_wide_adds_the_attempt_its_devices_and_the_message(api: Api, create: Apply) -> None:
    name = create(a_rollout())["metadata"]["name"]
    columns, _ = table(api, KIND, name, wide=True)
    assert columns[-5:] == ["Attempt", "Expected", "Healthy", "Failed", "Message"]
