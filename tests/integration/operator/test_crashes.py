"""However the operator dies, and whatever comes in between: the same end."""

import asyncio
import random
from collections.abc import Iterable

import pytest

from dram_operator import app
from dram_operator.adapters.resources import JOBS, Object, Resource
from dram_operator.errors import Unavailable
from dram_operator.runtime.cache import Key
from dram_operator.runtime.operator import Operator
from tests.builders import AJob, a_job
from tests.cluster.api import Api, wait_until
from tests.cluster.controlplane import ControlPlane
from tests.integration.operator.conftest import NewNamespace
from tests.integration.operator.jobs import condition, outcome, tell, wait_for
from tests.integration.operator.kubelet import WORKS, Ending, Kubelet
from tests.integration.operator.replica import Faults, RecordingKubernetes, Replica

AT_ONCE = 13
"""Replicas that crash side by side, each over a namespace of its own: most of their time is waiting."""
UNREACHED = 8
"""So many of the last writes may be left out by a slower machine, where one visit or one Event tells of more changes."""


def the_job(namespace: str) -> AJob:
    return a_job().named("bot", namespace)


def script(stage: str, attempt: int) -> Ending:
    """One preempted attempt on the way, so that a retry and a second Service are part of the story."""
    return Ending(137, disrupted=True) if stage == "train" and attempt == 1 else WORKS


@pytest.fixture(scope="module")
def undisturbed(plane: ControlPlane, api: Api, new_namespace: NewNamespace) -> tuple[Object, int]:
    """How the job ends when nothing happens, and how many writes that takes."""
    namespace = new_namespace()
    with Kubelet(api, script), Replica(plane.kubeconfig, (namespace,)) as replica:
        api.create(the_job(namespace).manifest())
        job = wait_for(api, namespace, "bot", "Succeeded", "True")
        wait_until(lambda: is_settled(api, namespace), "every finished Job to get a time to live")
    return outcome(job), len(replica.writes)


@pytest.mark.long
def test_a_crash_after_any_write_ends_the_same(
    plane: ControlPlane, api: Api, new_namespace: NewNamespace, undisturbed: tuple[Object, int]
) -> None:
    want, writes = undisturbed
    crashed = 0
    for first in range(1, writes + 1, AT_ONCE):
        crashes = {after: new_namespace() for after in range(first, min(first + AT_ONCE, writes + 1))}
        with Kubelet(api, script):
            crashed += crash_and_go_on(plane, api, crashes)
        for after, namespace in crashes.items():
            assert outcome(api.get("DistillationJob", "bot", namespace)) == want, f"crash after write {after}"
    assert crashed >= writes - UNREACHED


def crash_and_go_on(plane: ControlPlane, api: Api, crashes: dict[int, str]) -> int:
    """Every namespace gets a replica that dies after so many writes; then one successor for all of them.

    Returns how many died: one that needed fewer writes for the whole job than its last one stays alive.
    """
    replicas = [Replica(plane.kubeconfig, (name,), Faults(crash_after=after)) for after, name in crashes.items()]
    for replica in replicas:
        replica.__enter__()
    try:
        for namespace in crashes.values():
            api.create(the_job(namespace).manifest())
        ends = list(zip(replicas, crashes.values(), strict=True))
        wait_until(
            lambda: all(replica.api.is_dead or is_over(api, namespace) for replica, namespace in ends),
            "every replica to die or to be through",
            explain=lambda: "\n".join(tell(api, namespace) for replica, namespace in ends if not replica.api.is_dead),
        )
    finally:
        for replica in replicas:
            replica.stop()
    with Replica(plane.kubeconfig, tuple(crashes.values())):
        for namespace in crashes.values():
            wait_for(api, namespace, "bot", "Succeeded", "True")
    return sum(replica.api.is_dead for replica in replicas)


def test_a_conflict_on_every_status_write_ends_the_same(
    plane: ControlPlane, api: Api, namespace: str, undisturbed: tuple[Object, int]
) -> None:
    """Somebody edits the object between every look and every write."""
    met: list[str] = []

    async def touch(client: RecordingKubernetes, method: str, path: str, body: Object) -> None:
        version = body.get("metadata", {}).get("resourceVersion")
        if path.endswith("/status") and version not in met and len(met) % 2 == 0:
            change = {"metadata": {"annotations": {"edited": version}}}
            await asyncio.to_thread(api.patch, "DistillationJob", "bot", namespace, change)
        if path.endswith("/status"):
            met.append(version)

    with Kubelet(api, script), Replica(plane.kubeconfig, (namespace,), Faults(before=touch)) as replica:
        api.create(the_job(namespace).manifest())
        job = wait_for(api, namespace, "bot", "Succeeded", "True")
    assert outcome(job) == undisturbed[0]
    accepted = [write for write in replica.writes if write.is_status]
    assert len(met) >= 2 * len(accepted) - 1, "not every write met a conflict"


def test_an_answer_lost_on_every_write_ends_the_same(
    plane: ControlPlane, api: Api, namespace: str, undisturbed: tuple[Object, int]
) -> None:
    """The write is accepted, the operator never learns so and writes again."""
    sent: set[str] = set()

    async def lose(client: RecordingKubernetes, method: str, path: str, body: Object) -> None:
        mark = f"{method} {path} {body}"
        if mark not in sent and "/events" not in path:
            sent.add(mark)
            await super(RecordingKubernetes, client).request(method, path, body=body)
            raise Unavailable("the answer was lost")

    with Kubelet(api, script), Replica(plane.kubeconfig, (namespace,), Faults(before=lose)):
        api.create(the_job(namespace).manifest())
        job = wait_for(api, namespace, "bot", "Succeeded", "True")
    assert outcome(job) == undisturbed[0]


@pytest.mark.parametrize("seed", [1, 2])
def test_repeated_late_and_reordered_events_end_the_same(
    plane: ControlPlane, api: Api, namespace: str, undisturbed: tuple[Object, int], seed: int
) -> None:
    async def watch(operator: Operator) -> None:
        await app.watch(Disorder(operator, random.Random(seed)))  # type: ignore[arg-type]

    with Kubelet(api, script), Replica(plane.kubeconfig, (namespace,), watch=watch):
        api.create(the_job(namespace).manifest())
        job = wait_for(api, namespace, "bot", "Succeeded", "True")
    assert outcome(job) == undisturbed[0]


@pytest.mark.long
def test_a_lost_deletion_is_found_by_the_next_listing(plane: ControlPlane, api: Api, namespace: str) -> None:
    async def watch(operator: Operator) -> None:
        await app.watch(Deaf(operator))  # type: ignore[arg-type]

    settings = {"resync_seconds": 1.0}
    with Kubelet(api, lambda *_: None), Replica(plane.kubeconfig, (namespace,), watch=watch, settings=settings):
        api.create(the_job(namespace).manifest())
        wait_until(
            lambda: api.find("Job", "bot-resolve-1", namespace), "the first Job", explain=lambda: tell(api, namespace)
        )
        uid = api.get("Job", "bot-resolve-1", namespace)["metadata"]["uid"]
        api.delete("Job", "bot-resolve-1", namespace)
        wait_until(lambda: uid not in uids(api, namespace) and uids(api, namespace), "the Job to be made again")


class Disorder:
    """An operator as the watches see it: events come twice, late and in another order."""

    def __init__(self, operator: Operator, chance: random.Random) -> None:
        self.api, self.wake, self.settings = operator.api, operator.wake, operator.settings
        self.claim_signals, self._cache, self._chance = operator.claim_signals, operator.cache, chance
        self._late: list[tuple[Resource, Object, bool]] = []
        self.cache = self

    def apply(self, resource: Resource, obj: Object, deleted: bool = False) -> Key | None:
        self._late += [(resource, obj, deleted)] * self._chance.randint(1, 3)
        self._chance.shuffle(self._late)
        now = self._chance.randint(0, len(self._late))
        for late in [self._late.pop() for _ in range(now)]:
            self._deliver(*late)
        asyncio.get_running_loop().call_later(0.5, self._flush)
        return None

    def _flush(self) -> None:
        while self._late:
            self._deliver(*self._late.pop())

    def _deliver(self, resource: Resource, obj: Object, deleted: bool) -> None:
        copy = obj | {"metadata": dict(obj["metadata"])}
        key = self._cache.apply(resource, copy, deleted)
        if key is not None:
            self.wake(key)


class Deaf:
    """An operator as the watches see it, whose watch was away when a Job was deleted."""

    def __init__(self, operator: Operator) -> None:
        self.api, self.wake, self.settings = operator.api, operator.wake, operator.settings
        self.claim_signals, self._cache = operator.claim_signals, operator.cache
        self.cache = self

    def apply(self, resource: Resource, obj: Object, deleted: bool = False) -> Key | None:
        return None if deleted and resource is JOBS else self._cache.apply(resource, obj, deleted)


def is_settled(api: Api, namespace: str) -> bool:
    jobs = api.list("Job", namespace)
    return bool(jobs) and all("ttlSecondsAfterFinished" in job["spec"] for job in jobs)


def is_over(api: Api, namespace: str) -> bool:
    job = api.get("DistillationJob", "bot", namespace)
    return condition(job, "Succeeded")[0] == "True" and is_settled(api, namespace)


def uids(api: Api, namespace: str) -> Iterable[str]:
    return [job["metadata"]["uid"] for job in api.list("Job", namespace)]
