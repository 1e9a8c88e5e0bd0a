"""A teacher that several pods run before training, and a training that goes on with fewer workers."""

import json

import pytest

from tests.e2e.story import Story
from tests.e2e.tiny import EVERY, STEPS, job_for

PODS = 2

pytestmark = pytest.mark.long


def test_pods_write_the_cache_and_a_suspended_training_goes_on_with_fewer_workers(story: Story) -> None:
    job = job_for(story).having("spec.teacher.workers", PODS)
    story.apply(job.having("spec.objective.teacherLogits", {"mode": "Cached", "topK": 16}))
    story.wait_checkpoint(EVERY)
    assert pods(story, "train-1") == 2
    story.suspend()
    story.wait_reason("Suspended")
    saved = story.checkpoints()[-1]
    change = {"spec": {"suspend": False, "training": {"workers": 1}}}
    story.api.patch("DistillationJob", story.name, story.namespace, change)

    status = story.wait_succeeded()

    assert pods(story, "teach-1") == PODS
    assert pods(story, "train-2") == 1
    shards = story.stored("cache/teacher/")
    facts = next(stage["result"]["facts"] for stage in status["stages"] if stage["id"] == "teach")
    assert len(shards) == facts["shards"]

    student = next(stage for stage in status["stages"] if stage["id"] == "train")
    (log,) = [key for key in story.stored(f"stages/train/{student['key']}/") if key.endswith("train-log.jsonl")]
    rows = [json.loads(line) for line in story.read(f"s3://dram/{story.namespace}/{log}").splitlines()]
    assert saved < STEPS
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1)), "no step is lost or done twice"


def pods(story: Story, attempt: str) -> int:
    """Pods of an attempt."""
    spec = story.api.get("Job", f"{story.name}-{attempt}", story.namespace)["spec"]
    return int(spec["completions"])
