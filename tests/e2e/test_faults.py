"""Whatever befalls a job, it ends in the very files of the undisturbed run."""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cluster.api import wait_until
from tests.cluster.s3 import S3Server
from tests.e2e.cluster import Cluster
from tests.e2e.conftest import a_namespace, names_under_test
from tests.e2e.installation import Installation
from tests.e2e.story import Story
from tests.e2e.tiny import EVERY, STEPS, job_for, upload

OUTAGE_SECONDS = 30
AT_ONCE = 2
"""Jobs that are disturbed side by side: most of a short stage's time is the start of its pod."""

Fault = Callable[[Story, Installation], None]


def a_step(seed: int) -> int:
    """A step after which the fault comes: some checkpoint, but the last ones."""
    return random.Random(seed).randrange(EVERY, STEPS // 2, EVERY)


def a_training_pod_is_killed(story: Story, _: Installation) -> None:
    story.wait_checkpoint(a_step(1))
    story.kill(random.Random(1).choice(story.pods("train")))
    story.wait_succeeded()
    assert attempts(story, "train") == 2


def the_operator_is_killed(story: Story, installation: Installation) -> None:
    story.wait_stage(random.Random(7).choice(["resolve", "data", "train", "export", "evaluate"]))
    installation.kill()


def the_object_store_is_away_for_thirty_seconds(story: Story, _: Installation) -> None:
    story.wait_checkpoint(a_step(5))
    story.s3.kill()
    time.sleep(OUTAGE_SECONDS)  # the fault's own length
    story.s3.start()


def a_training_pod_is_evicted(story: Story, _: Installation) -> None:
    story.wait_checkpoint(a_step(6))
    story.evict(story.pods("train")[-1])
    status = story.wait_succeeded()
    assert all(stage["retries"] == 0 for stage in status["stages"]), f"an eviction is free\n{story.explain()}"


def it_is_suspended_and_resumed(story: Story, _: Installation) -> None:
    story.wait_checkpoint(a_step(7))
    story.suspend()
    story.wait_reason("Suspended")
    assert story.pods("train") == []
    assert story.checkpoints()[-1] >= a_step(7)
    story.suspend(False)


def a_pod_vanishes(story: Story, _: Installation) -> None:
    # Its work takes long enough to be struck in the middle of it.
    story.kill(story.wait_stage("evaluate")[0])
    wait_until(lambda: attempts(story, "evaluate") == 2, "another attempt", explain=story.explain)


FAULTS: Mapping[str, Fault] = {
    fault.__name__: fault
    for fault in (
        a_training_pod_is_killed,
        the_object_store_is_away_for_thirty_seconds,
        a_training_pod_is_evicted,
        it_is_suspended_and_resumed,
        a_pod_vanishes,
        the_operator_is_killed,
    )
}
RARER = (a_training_pod_is_evicted, it_is_suspended_and_resumed, a_pod_vanishes)
"""Told by `make e2e-long`: with every change the operator meets their like in tests without pods (tests/integration/operator)."""


def attempts(story: Story, kind: str) -> int:
    """Attempts of the first stage of a kind."""
    return next(int(stage["attempt"]) for stage in story.status()["stages"] if stage["id"].startswith(kind))


def play(story: Story, fault: Fault, installation: Installation) -> Story:
    """Apply the job, let the fault befall it, and wait for its success."""
    story.apply(job_for(story))
    fault(story, installation)
    story.wait_succeeded()
    return story


@pytest.fixture(scope="module")
def own_store(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A store that may go away without taking other jobs' with it."""
    folder: Path = tmp_path_factory.mktemp("own")
    with S3Server(cluster.host) as server:
        for bucket in ("models", "dram"):
            server.bucket(bucket)
        upload(server, folder)
        yield server


@pytest.fixture(scope="module")
def disturbed(
    request: pytest.FixtureRequest, installation: Installation, tiny_files: S3Server, own_store: S3Server
) -> Iterator[Mapping[str, Future[Story]]]:
    """What each fault under test leaves, some at once."""
    with ExitStack() as stack, ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {}
        for name in names_under_test(request):
            store = own_store if FAULTS[name] is the_object_store_is_away_for_thirty_seconds else tiny_files
            story = stack.enter_context(a_namespace(installation, store, name.replace("_", "-")))
            futures[name] = pool.submit(play, story, FAULTS[name], installation)
        yield futures


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if fault in RARER else []) for name, fault in FAULTS.items()]
)
def test_the_files_are_those_of_the_undisturbed_run_although(
    disturbed: Mapping[str, Future[Story]], undisturbed: Story, name: str
) -> None:
    assert disturbed[name].result().artifacts() == undisturbed.artifacts()
