"""Manifests at a real API server: accepted, filled in and refused by the CRD alone."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dram_operator.api.distillation_job import DistillationJob
from dram_operator.api.manifests import load_manifests
from dram_operator.api.offline import with_defaults
from tests.builders import AJob, a_job
from tests.cluster.api import Api, ApiError, Object, path_of
from tests.integration.api.server import NAMESPACE, STRICT, table
from tests.operator.api.cases import ACCEPTED, REFUSED, Accepted, Refused, everything
from tests.operator.api.statuses import A_FULL_STATUS

ROOT = Path(__file__).parents[3]
EXAMPLES = [
    pytest.param(manifest, id=f"{file.parent.name}/{file.name}")
    for file in sorted((ROOT / "examples").rglob("*.yaml"))
    for manifest in load_manifests(file)
    if manifest.get("kind") == "DistillationJob"
]

Apply = Callable[[AJob], Object]


@pytest.fixture
def create(api: Api) -> Iterator[Apply]:
    """Create a job, with its status where it has one; it is deleted after the test."""
    created: list[str] = []

    def create(job: AJob) -> Object:
        manifest = _manifest(job)
        answer: Object = json.loads(api.request("POST", path_of("DistillationJob", NAMESPACE), manifest, query=STRICT))
        name = answer["metadata"]["name"]
        created.append(name)
        if job.status:
            answer = api.patch("DistillationJob", name, NAMESPACE, {"status": job.status}, subresource="status")
        return answer

    yield create
    for name in created:
        api.delete("DistillationJob", name, NAMESPACE)


def _manifest(job: AJob) -> Object:
    manifest = job.having("metadata.namespace", NAMESPACE).manifest()
    manifest.pop("status", None)
    return manifest


def _apply(api: Api, create: Apply, case: Accepted | Refused) -> Object:
    if case.old is None:
        return create(case.job)
    before = create(case.old)
    manifest = _manifest(case.job)
    manifest["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"]
    path = path_of("DistillationJob", NAMESPACE, before["metadata"]["name"])
    answer: Object = json.loads(api.request("PUT", path, manifest, query=STRICT))
    return answer


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_the_server_accepts_and_fills_in_the_same_defaults(api: Api, create: Apply, case: Accepted) -> None:
    stored = _apply(api, create, case)

    assert stored["spec"] == with_defaults(case.job.manifest())["spec"]
    assert DistillationJob.from_object(stored).spec == case.job.build().spec


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_the_server_refuses_at_the_field_with_the_remedy(api: Api, create: Apply, case: Refused) -> None:
    with pytest.raises(ApiError) as refused:
        _apply(api, create, case)

    assert refused.value.status == 422
    assert f"{case.want_field or '<nil>'}: " in refused.value.message
    assert case.want_message in refused.value.message


@pytest.mark.parametrize("manifest", EXAMPLES)
def test_the_server_accepts_every_example(api: Api, manifest: Object) -> None:
    placed = manifest | {"metadata": manifest["metadata"] | {"namespace": NAMESPACE}}
    api.request("POST", path_of("DistillationJob", NAMESPACE), placed, query=STRICT | {"dryRun": "All"})


def test_unknown_fields_are_refused_by_their_path(api: Api, create: Apply) -> None:
    with pytest.raises(ApiError) as refused:
        create(a_job().having("spec.training.learnRate", 0.1))

    assert 'unknown field "spec.training.learnRate"' in refused.value.message


def test_free_form_fields_are_kept_as_they_are(create: Apply) -> None:
    wanted = everything().manifest()["spec"]

    stored = create(everything())["spec"]

    assert stored["training"]["deepspeed"]["config"] == wanted["training"]["deepspeed"]["config"]
    assert stored["podTemplate"]["affinity"] == wanted["podTemplate"]["affinity"]


def test_a_full_status_is_kept_whole(api: Api, create: Apply) -> None:
    name = create(a_job())["metadata"]["name"]
    status: dict[str, Any] = A_FULL_STATUS.model_dump(mode="json", by_alias=True, exclude_none=True)

    stored = api.patch("DistillationJob", name, NAMESPACE, {"status": status}, subresource="status")

    assert stored["status"] == status


def test_get_tells_the_story(api: Api, create: Apply) -> None:
    name = create(a_job())["metadata"]["name"]
    status: dict[str, Any] = A_FULL_STATUS.model_dump(mode="json", by_alias=True, exclude_none=True)
    api.patch("DistillationJob", name, NAMESPACE, {"status": status}, subresource="status")

    columns, cells = table(api, "DistillationJob", name)

    shown = dict(zip(columns, cells, strict=True))
    assert shown.pop("Age").endswith("s")
    assert shown == {
        "Name": "support-bot",
        "Status": "Running",
        "Stage": "train",
        "Percent": 40,
        "ETA": 90,
        "Score": "0.93",
        "Gate": "Pass",
    }


def test_get_wide_adds_run_step_best_report_and_message(api: Api, create: Apply) -> None:
    name = create(a_job())["metadata"]["name"]
    columns, _ = table(api, "DistillationJob", name, wide=True)
    assert columns[-5:] == ["Run", "Step", "Best", "Report", "Message"]
