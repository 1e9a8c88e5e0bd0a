"""Whatever befalls a job, it ends in the very files of the undisturbed run."""

import random
import time

import pytest

from tests.cluster.api import wait_until
from tests.e2e.installation import Installation
from tests.e2e.story import Story
from tests.e2e.tiny import EVERY, STEPS, job_for

OUTAGE_SECONDS = 30


def a_step(seed: int) -> int:
    """A step after which the fault comes: some checkpoint, but the last ones."""
    return random.Random(seed).randrange(EVERY, STEPS // 2, EVERY)


@pytest.mark.parametrize("seed", [1])
def test_a_training_pod_is_killed(story: Story, undisturbed: Story, seed: int) -> None:
    story.apply(job_for(story))
    story.wait_checkpoint(a_step(seed))
    story.kill(random.Random(seed).choice(story.pods("train")))

    story.wait_succeeded()

    assert story.artifacts() == undisturbed.artifacts()
    assert attempts(story, "train") == 2


@pytest.mark.parametrize("seed", [7])
def test_the_operator_is_killed(story: Story, undisturbed: Story, installation: Installation, seed: int) -> None:
    kind = random.Random(seed).choice(["resolve", "data", "train", "export", "evaluate"])
    story.apply(job_for(story))
    story.wait_stage(kind)
    installation.kill()

    story.wait_succeeded()

    assert story.artifacts() == undisturbed.artifacts()


def test_the_object_store_is_away_for_thirty_seconds(story: Story, undisturbed: Story) -> None:
    story.apply(job_for(story))
    story.wait_checkpoint(a_step(5))
    story.s3.kill()
    time.sleep(OUTAGE_SECONDS)  # the fault's own length
    story.s3.start()

    story.wait_succeeded()

    assert story.artifacts() == undisturbed.artifacts()


def test_a_training_pod_is_evicted(story: Story, undisturbed: Story) -> None:
    story.apply(job_for(story))
    story.wait_checkpoint(a_step(6))
    story.evict(story.pods("train")[-1])

    story.wait_succeeded()

    assert story.artifacts() == undisturbed.artifacts()
    assert all(stage["retries"] == 0 for stage in story.status()["stages"]), f"an eviction is free\n{story.explain()}"


def test_a_job_is_suspended_and_resumed(story: Story, undisturbed: Story) -> None:
    story.apply(job_for(story))
    story.wait_checkpoint(a_step(7))
    story.suspend()

    story.wait_reason("Suspended")
    assert story.pods("train") == []
    saved = story.checkpoints()[-1]
    story.suspend(False)
    story.wait_succeeded()

    assert saved >= a_step(7)
    assert story.artifacts() == undisturbed.artifacts()


def test_a_pod_that_vanishes_is_made_again(story: Story, undisturbed: Story) -> None:
    story.apply(job_for(story))
    # Its work takes long enough to be struck in the middle of it.
    (pod, *_) = story.wait_stage("evaluate")
    story.kill(pod)

    wait_until(lambda: attempts(story, "evaluate") == 2, "another attempt", explain=story.explain)
    story.wait_succeeded()

    assert story.artifacts() == undisturbed.artifacts()


def attempts(story: Story, kind: str) -> int:
    """Attempts of the first stage of a kind."""
    return next(int(stage["attempt"]) for stage in story.status()["stages"] if stage["id"].startswith(kind))
