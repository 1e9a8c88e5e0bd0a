"""However the operator dies on the way of a rollout, and whoever writes in between: the same devices run the same releases."""

import asyncio
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dram_operator.errors import Unavailable
from dram_operator.runtime.rollouts.releases import Repository
from dram_operator.runtime.surroundings import Surroundings
from tests.cluster.api import Api, Object, wait_until
from tests.integration.operator.conftest import NewNamespace
from tests.integration.operator.courses import NAME, SLOW, begin, is_settled, outcome, start, wait_settled
from tests.integration.operator.fleet import Fault, FleetChannel
from tests.integration.operator.replica import Faults, RecordingKubernetes, Replica
from tests.integration.operator.rollouts import (
    SignedArtifacts,
    Site,
    a_twin,
    signed_artifacts,
)

pytestmark = pytest.mark.long

AT_ONCE = 8
"""Replicas that crash side by side, each over a namespace of its own: most of their time is waiting."""
LEASE_SECONDS = 120.0
"""So many operators on one machine may keep each other waiting; that they lose their leases is another story."""


Ended = tuple[Object, int, int]
"""The outcome, the writes and the commits that it took."""


def run(site: Site, namespace: str, fault: Fault | None) -> Ended:
    channel, commits = begin(site, namespace, fault), Commits()
    replica = site.replica(namespace)
    replica.make_artifacts = commits.make
    with replica:
        start(site, namespace)
        wait_settled(site, namespace, channel)
    return outcome(site, channel, namespace), len(replica.writes), commits.count


class Commits:
    """Counts commits of one replica, and has it die after one of them, before it learns so."""

    def __init__(self, die_after: int | None = None) -> None:
        self.count, self._die_after = 0, die_after
        self.die: Callable[[], None] = lambda: None

    def make(self, around: Surroundings, repository: Repository) -> SignedArtifacts:
        publish = repository.releases.publish

        def counted(*args: Any) -> Any:
            versions = publish(*args)
            self.count += 1
            if self.count == self._die_after:
                self.die()
                raise Unavailable("this process is dead")
            return versions

        repository.releases.publish = counted  # type: ignore[method-assign, assignment]
        return signed_artifacts(around, repository)


@pytest.fixture(scope="module", params=["good", "slow"])
def story(request: pytest.FixtureRequest, site: Site, new_namespace: NewNamespace) -> tuple[Fault | None, Ended]:
    """A rollout that completes and one that is rolled back, undisturbed."""
    fault = None if request.param == "good" else SLOW
    return fault, run(site, new_namespace(), fault)


@dataclass(frozen=True)
class Crash:
    """An operator that dies after so many writes to the API server, or after so many commits."""

    kind: str
    after: int
    namespace: str
    site: Site
    channel: FleetChannel

    def replica(self) -> Replica:
        """The one that dies."""
        faults = Faults(crash_after=self.after if self.kind == "write" else None)
        replica, commits = (
            self.site.replica(self.namespace, faults=faults, lease_seconds=LEASE_SECONDS),
            Commits(self.after if self.kind == "commit" else None),
        )
        replica.make_artifacts, commits.die = commits.make, replica.die
        return replica


def test_a_crash_after_any_write_ends_the_same(
    site: Site, new_namespace: NewNamespace, story: tuple[Fault | None, Ended], tmp_path: Path
) -> None:
    fault, (want, writes, commits) = story
    ends = [("write", after) for after in range(1, writes + 1)] + [("commit", after) for after in range(1, commits + 1)]
    dead = 0
    for first in range(0, len(ends), AT_ONCE):
        crashes = [
            a_crash(site, new_namespace(), tmp_path / f"{first}-{number}", end, fault)
            for number, end in enumerate(ends[first : first + AT_ONCE])
        ]
        dead += meet(crashes)
        with ExitStack() as stack:
            for crash in crashes:
                stack.enter_context(crash.site.replica(crash.namespace, lease_seconds=LEASE_SECONDS))
            for crash in crashes:
                wait_settled(crash.site, crash.namespace, crash.channel)
        for crash in crashes:
            found = renamed(outcome(crash.site, crash.channel, crash.namespace), crash.site)
            assert found == renamed(want, site), f"crash after {crash.kind} {crash.after}"
            site.fleet.channels.pop(crash.channel.name)
    assert dead >= len(ends) // 2, "too few died to prove anything"


def a_crash(site: Site, namespace: str, folder: Path, end: tuple[str, int], fault: Fault | None) -> Crash:
    """An installation of its own: operators that share a repository would wait for each other."""
    twin = a_twin(site, folder)
    return Crash(*end, namespace, twin, begin(twin, namespace, fault))


def meet(crashes: list[Crash]) -> int:
    """Run until every operator died or is through; returns how many did."""
    replicas: list[tuple[Crash, Replica]] = []
    try:
        for crash in crashes:
            replicas.append((crash, crash.replica()))
            replicas[-1][1].__enter__()
            start(crash.site, crash.namespace)
        wait_until(
            lambda: all(
                one.api.is_dead or is_settled(crash.site.get(crash.namespace, NAME)) for crash, one in replicas
            ),
            "every replica to die or to be through",
            patience_seconds=400,
            explain=lambda: "\n".join(
                crash.site.tell(crash.namespace) for crash, one in replicas if not one.api.is_dead
            ),
        )
    finally:
        for _, replica in replicas:
            replica.stop()
    return sum(one.api.is_dead for _, one in replicas)


def renamed(found: Object, site: Site) -> Object:
    """An outcome with the names of its releases instead of their digests."""
    text = json.dumps(found, sort_keys=True).replace(site.old, "old").replace(site.new, "new")
    renamed: Object = json.loads(text)
    return renamed


def test_a_conflict_on_every_write_ends_the_same(
    site: Site, api: Api, namespace: str, story: tuple[Fault | None, Ended]
) -> None:
    """Somebody edits the object between every look and every write."""
    met: list[str] = []

    async def touch(client: RecordingKubernetes, method: str, path: str, body: Object) -> None:
        version = body.get("metadata", {}).get("resourceVersion")
        if "/edgerollouts/" in path and version not in met and len(met) % 2 == 0:
            change = {"metadata": {"annotations": {"edited": version}}}
            await asyncio.to_thread(api.patch, "EdgeRollout", NAME, namespace, change)
        if "/edgerollouts/" in path:
            met.append(version)

    fault, (want, *_) = story
    channel = begin(site, namespace, fault)
    with site.replica(namespace, faults=Faults(before=touch)) as replica:
        start(site, namespace)
        wait_settled(site, namespace, channel)
    assert outcome(site, channel, namespace) == want
    accepted = [write for write in replica.writes if "/edgerollouts/" in write.path]
    assert len(met) >= 2 * len(accepted) - 1, "not every write met a conflict"


def test_an_answer_lost_on_every_write_ends_the_same(
    site: Site, namespace: str, story: tuple[Fault | None, Ended]
) -> None:
    """The write is accepted, the operator never learns so and decides again."""
    sent: set[str] = set()

    async def lose(client: RecordingKubernetes, method: str, path: str, body: Object) -> None:
        mark = f"{method} {path} {body}"
        if mark not in sent and "/events" not in path:
            sent.add(mark)
            await super(RecordingKubernetes, client).request(method, path, body=body)
            raise Unavailable("the answer was lost")

    fault, (want, *_) = story
    channel = begin(site, namespace, fault)
    with site.replica(namespace, faults=Faults(before=lose)):
        start(site, namespace)
        wait_settled(site, namespace, channel)
    assert outcome(site, channel, namespace) == want
