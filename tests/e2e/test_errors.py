"""What goes wrong on a cluster ends in a condition that names the field and the remedy."""

from typing import Any

import pytest

from tests.builders import AJob
from tests.cluster.api import Object, wait_until
from tests.e2e.story import Story
from tests.e2e.tiny import SMALL, job_for

pytestmark = pytest.mark.usefixtures("begun")


def one_attempt(story: Story) -> AJob:
    """The tiny job without second chances."""
    return job_for(story).having("spec.retries", 0)


def says(condition: Object, *words: str) -> bool:
    """Whether every word stands in a condition's message."""
    missing = [word for word in words if word not in condition["message"]]
    assert not missing, f"{condition['reason']}: {condition['message']!r} lacks {missing}"
    return True


def cores(quantity: str) -> float:
    """CPU cores of a Kubernetes quantity."""
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def test_a_worker_above_its_memory_limit(story: Story) -> None:
    tight = {"requests": {"cpu": "50m", "memory": "100Mi"}, "limits": {"memory": "150Mi"}}
    story.apply(one_attempt(story).having("spec.podTemplate.resources", {"default": SMALL, "train": tight}))

    condition = story.wait_failed()

    assert condition["reason"] == "OutOfMemory"
    assert says(condition, "spec.podTemplate.resources", "train")


def test_an_image_that_cannot_be_pulled(story: Story) -> None:
    absent = "dram.test/absent:1"
    job = one_attempt(story).having("spec.podTemplate.image", absent).having("spec.pendingDeadlineSeconds", 10)
    story.apply(job)

    says(story.wait_reason("ImagePullFailed", "DataReady"), absent)
    condition = story.wait_failed()

    assert says(condition, absent, "spec.podTemplate.image")


def test_no_node_fits(story: Story) -> None:
    nowhere = {"dram.dev/no-such-label": "here"}
    job = one_attempt(story).having("spec.podTemplate.nodeSelector", nowhere).having("spec.pendingDeadlineSeconds", 10)
    story.apply(job)

    says(story.wait_reason("Unschedulable", "DataReady"), "node")
    condition = story.wait_failed()

    assert condition["reason"] == "Unschedulable"
    assert says(condition, "node", "waited 10 s", "spec.pendingDeadlineSeconds")
    wait_until(lambda: not story.pods("resolve"), "the waiting pod to go", explain=story.explain)


def test_half_of_a_gang_is_placed(story: Story) -> None:
    node = story.api.list("Node")[0]
    most_of_a_node = f"{int(cores(node['status']['allocatable']['cpu']) * 550)}m"
    large = {"requests": {"cpu": most_of_a_node, "memory": "256Mi"}, "limits": {"memory": "3Gi"}}
    here = {"kubernetes.io/hostname": node["metadata"]["name"]}
    job = one_attempt(story).having("spec.podTemplate.resources", {"default": SMALL, "train": large})
    story.apply(job.having("spec.podTemplate.nodeSelector", here).having("spec.pendingDeadlineSeconds", 10))

    condition = story.wait_failed()

    assert condition["reason"] == "GangIncomplete", story.explain()
    assert says(condition, "1 of 2", "waited 10 s", "spec.pendingDeadlineSeconds")
    wait_until(lambda: not story.pods("train"), "the placed half to end", explain=story.explain)


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("ResourceQuota", {"hard": {"pods": "0"}}),
        ("LimitRange", {"limits": [{"type": "Container", "max": {"memory": "64Mi"}}]}),
    ],
)
def test_the_namespace_refuses_the_pods(story: Story, kind: str, spec: dict[str, Any]) -> None:
    metadata = {"name": "refusing", "namespace": story.namespace}
    story.api.apply({"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec})
    story.apply(one_attempt(story).having("spec.pendingDeadlineSeconds", 18))

    says(story.wait_reason("QuotaExceeded", "DataReady"), "refusing" if kind == "ResourceQuota" else "64Mi")
    condition = story.wait_failed()

    assert condition["reason"] == "QuotaExceeded"
    assert says(condition, "spec.podTemplate.resources", "waited 18 s")


def test_the_store_refuses_the_credentials(story: Story) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3", "namespace": story.namespace}}
    story.api.apply({**secret, "stringData": {"AWS_ACCESS_KEY_ID": "owner", "AWS_SECRET_ACCESS_KEY": "wrong"}})
    story.apply(one_attempt(story))

    condition = story.wait_failed()

    assert condition["reason"] == "StorageDenied"
    assert says(condition, "spec.storage")


def test_the_bucket_is_missing(story: Story) -> None:
    story.apply(one_attempt(story).having("spec.storage.uri", "s3://no-such-bucket/x"))

    condition = story.wait_failed()

    assert condition["reason"] == "StorageNotFound"
    assert says(condition, "spec.storage.uri", "no-such-bucket")


def test_the_store_does_not_answer(story: Story) -> None:
    story.apply(one_attempt(story).having("spec.storage.endpoint", "http://127.0.0.1:9"))

    condition = story.wait_failed()

    assert condition["reason"] in {"StorageUnavailable", "RetriesExhausted"}
    assert says(condition, "spec.storage.endpoint", "127.0.0.1:9")


def test_the_teacher_is_missing(story: Story) -> None:
    story.apply(one_attempt(story).having("spec.teacher.uri", "s3://models/absent"))

    condition = story.wait_failed()

    assert condition["reason"] == "ModelNotFound"
    assert says(condition, "spec.teacher.uri", "s3://models/absent")


def test_the_secret_is_missing(story: Story) -> None:
    story.apply(
        one_attempt(story).having("spec.storage.secretRef.name", "absent").having("spec.pendingDeadlineSeconds", 10)
    )

    condition = story.wait_failed()

    assert condition["reason"] == "ContainerConfigFailed"
    assert says(condition, '"absent" not found', "waited 10 s")
