"""What goes wrong on a cluster ends in a condition that names the field and the remedy."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from tests.builders import AJob
from tests.cluster.api import Object, wait_until
from tests.cluster.s3 import S3Server
from tests.e2e.conftest import a_namespace, names_under_test
from tests.e2e.installation import Installation
from tests.e2e.story import Story
from tests.e2e.tiny import SMALL, job_for

AT_ONCE = 4
"""Jobs side by side: most of their time is waiting for a deadline."""


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


def a_worker_above_its_memory_limit(story: Story) -> None:
    tight = {"requests": {"cpu": "50m", "memory": "100Mi"}, "limits": {"memory": "150Mi"}}
    story.apply(one_attempt(story).having("spec.podTemplate.resources", {"default": SMALL, "train": tight}))

    condition = story.wait_failed()

    assert condition["reason"] == "OutOfMemory"
    assert says(condition, "spec.podTemplate.resources", "train")


def an_image_that_cannot_be_pulled(story: Story) -> None:
    absent = "dram.test/absent:1"
    job = one_attempt(story).having("spec.podTemplate.image", absent).having("spec.pendingDeadlineSeconds", 10)
    story.apply(job)

    says(story.wait_reason("ImagePullFailed", "DataReady"), absent)
    condition = story.wait_failed()

    assert says(condition, absent, "spec.podTemplate.image")


def no_node_fits(story: Story) -> None:
    nowhere = {"dram.dev/no-such-label": "here"}
    job = one_attempt(story).having("spec.podTemplate.nodeSelector", nowhere).having("spec.pendingDeadlineSeconds", 10)
    story.apply(job)

    says(story.wait_reason("Unschedulable", "DataReady"), "node")
    condition = story.wait_failed()

    assert condition["reason"] == "Unschedulable"
    assert says(condition, "node", "waited 10 s", "spec.pendingDeadlineSeconds")
    wait_until(lambda: not story.pods("resolve"), "the waiting pod to go", explain=story.explain)


def half_of_a_gang_is_placed(story: Story) -> None:
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


def a_quota_refuses_the_pods(story: Story) -> None:
    refused_by(story, "ResourceQuota", {"hard": {"pods": "0"}})


def a_limit_range_refuses_the_pods(story: Story) -> None:
    refused_by(story, "LimitRange", {"limits": [{"type": "Container", "max": {"memory": "64Mi"}}]})


def refused_by(story: Story, kind: str, spec: dict[str, Any]) -> None:
    metadata = {"name": "refusing", "namespace": story.namespace}
    story.api.apply({"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec})
    story.apply(one_attempt(story).having("spec.pendingDeadlineSeconds", 18))

    says(story.wait_reason("QuotaExceeded", "DataReady"), "refusing" if kind == "ResourceQuota" else "64Mi")
    condition = story.wait_failed()

    assert condition["reason"] == "QuotaExceeded"
    assert says(condition, "spec.podTemplate.resources", "waited 18 s")


def the_store_refuses_the_credentials(story: Story) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3", "namespace": story.namespace}}
    story.api.apply({**secret, "stringData": {"AWS_ACCESS_KEY_ID": "owner", "AWS_SECRET_ACCESS_KEY": "wrong"}})
    story.apply(one_attempt(story))

    condition = story.wait_failed()

    assert condition["reason"] == "StorageDenied"
    assert says(condition, "spec.storage")


def the_bucket_is_missing(story: Story) -> None:
    story.apply(one_attempt(story).having("spec.storage.uri", "s3://no-such-bucket/x"))

    condition = story.wait_failed()

    assert condition["reason"] == "StorageNotFound"
    assert says(condition, "spec.storage.uri", "no-such-bucket")


def the_store_does_not_answer(story: Story) -> None:
    story.apply(one_attempt(story).having("spec.storage.endpoint", "http://127.0.0.1:9"))

    condition = story.wait_failed()

    assert condition["reason"] in {"StorageUnavailable", "RetriesExhausted"}
    assert says(condition, "spec.storage.endpoint", "127.0.0.1:9")


def the_teacher_is_missing(story: Story) -> None:
    story.apply(one_attempt(story).having("spec.teacher.uri", "s3://models/absent"))

    condition = story.wait_failed()

    assert condition["reason"] == "ModelNotFound"
    assert says(condition, "spec.teacher.uri", "s3://models/absent")


def the_secret_is_missing(story: Story) -> None:
    story.apply(
        one_attempt(story).having("spec.storage.secretRef.name", "absent").having("spec.pendingDeadlineSeconds", 10)
    )

    condition = story.wait_failed()

    assert condition["reason"] == "ContainerConfigFailed"
    assert says(condition, '"absent" not found', "waited 10 s")


MISTAKES: Mapping[str, Callable[[Story], None]] = {
    mistake.__name__: mistake
    for mistake in (
        a_worker_above_its_memory_limit,
        an_image_that_cannot_be_pulled,
        no_node_fits,
        half_of_a_gang_is_placed,
        a_quota_refuses_the_pods,
        a_limit_range_refuses_the_pods,
        the_store_refuses_the_credentials,
        the_bucket_is_missing,
        the_store_does_not_answer,
        the_teacher_is_missing,
        the_secret_is_missing,
    )
}


@pytest.fixture(scope="module")
def made(
    request: pytest.FixtureRequest, installation: Installation, tiny_files: S3Server, begun: None
) -> Iterator[Mapping[str, Future[None]]]:
    """Each mistake under test in a namespace of its own, some at once."""
    with ExitStack() as stack, ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {}
        for name in names_under_test(request):
            story = stack.enter_context(a_namespace(installation, tiny_files, name.replace("_", "-")))
            futures[name] = pool.submit(MISTAKES[name], story)
        yield futures


@pytest.mark.parametrize("name", MISTAKES)
def test_the_condition_names_field_and_remedy_when(made: Mapping[str, Future[None]], name: str) -> None:
    made[name].result()
