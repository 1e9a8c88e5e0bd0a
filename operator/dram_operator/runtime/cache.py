"""What the watches and our own writes have shown of the cluster.

Three sources tell of an object: a listing, a watch, and the answer to our own write, in any order. The object's
resource version says which is newest, and the UID of a deleted object is remembered, so that a late message never
brings back what was already overtaken. Objects are read-only.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from dram_operator.adapters.resources import DISTILLATION_JOBS, EDGE_ROLLOUTS, JOBS, PODS, Object, Resource
from dram_operator.adapters.views import has_ended, owner_uid
from dram_operator.core.jobs import JOB_LABEL

WATCHED = (DISTILLATION_JOBS, EDGE_ROLLOUTS, JOBS, PODS)
SERVED = (DISTILLATION_JOBS, EDGE_ROLLOUTS)
"""The kinds that are reconciled."""
TOMBSTONES = 10_000
"""Deleted UIDs remembered: far more than can be in flight between a write's answer and its watch event."""


class Key(NamedTuple):
    """An object that is reconciled, by name."""

    namespace: str
    name: str
    kind: str = DISTILLATION_JOBS.kind


Name = tuple[str, str]
"""Namespace and name of any object."""


@dataclass(frozen=True)
class Snapshot:
    """One DistillationJob and its children."""

    job: Object
    jobs: tuple[Object, ...]
    pods: dict[str, tuple[Object, ...]]
    """Pods by the UID of their Job; those that ended and are gone count as long as it is there."""


class Cache:
    """The newest known version of every watched object, children by their DistillationJob."""

    def __init__(self) -> None:
        self._objects: dict[Resource, dict[Name, Object]] = {resource: {} for resource in WATCHED}
        self._children: dict[Resource, dict[Key, dict[str, Object]]] = {
            resource: defaultdict(dict) for resource in (JOBS, PODS)
        }
        self._waiting: dict[Key, set[Key]] = defaultdict(set)
        self._last_words: dict[str, dict[str, Object]] = defaultdict(dict)
        self._tombstones: OrderedDict[str, None] = OrderedDict()

    def apply(self, resource: Resource, obj: Object, deleted: bool = False) -> Key | None:
        """Take a message in; returns the reconciled object that it concerns, None when it tells nothing new."""
        metadata = obj["metadata"]
        name = (metadata["namespace"], metadata["name"])
        known = self._objects[resource].get(name)
        if metadata["uid"] in self._tombstones or (known and not deleted and not _is_newer(obj, known)):
            return None
        if deleted:
            self._bury(metadata["uid"])
            self._remember(resource, obj)
            if known and known["metadata"]["uid"] == metadata["uid"]:
                self._remove(resource, name, known)
        else:
            self._store(resource, name, obj)
        return owner_key(resource, obj)

    def replace(
        self, resource: Resource, listed: Iterable[Object], version: str, namespace: str | None = None
    ) -> set[Key]:
        """Take a listing in; returns the reconciled objects of which it told something new, deletions included."""
        changed: set[Key | None] = set()
        seen = set()
        for obj in listed:
            seen.add(obj["metadata"]["uid"])
            changed.add(self.apply(resource, obj))
        for known in [*self._objects[resource].values()]:
            metadata = known["metadata"]
            listable = namespace in (None, metadata["namespace"]) and int(metadata["resourceVersion"]) <= int(version)
            if listable and metadata["uid"] not in seen:
                changed.add(self.apply(resource, known, deleted=True))
        return {key for key in changed if key}

    def snapshot(self, key: Key) -> Snapshot | None:
        """A DistillationJob with the children that it owns; None when there is no such DistillationJob."""
        job = self.find(DISTILLATION_JOBS, key.namespace, key.name)
        if job is None:
            return None
        uid = job["metadata"]["uid"]
        jobs = tuple(child for child in self._children[JOBS].get(key, {}).values() if owner_uid(child) == uid)
        pods: dict[str, list[Object]] = {child["metadata"]["uid"]: [] for child in jobs}
        for pod in self._children[PODS].get(key, {}).values():
            if (owner := owner_uid(pod)) in pods:
                pods[owner].append(pod)
        for owner, present in pods.items():
            present.extend(self._last_words.get(owner, {}).values())
        return Snapshot(job, jobs, {owner: tuple(owned) for owner, owned in pods.items()})

    def find(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """One object by its name."""
        return self._objects[resource].get((namespace, name))

    def knows(self, resource: Resource, obj: Object) -> bool:
        """Whether this version of an object, or a later one, or its end, has been told."""
        metadata = obj["metadata"]
        known = self.find(resource, metadata["namespace"], metadata["name"])
        return metadata["uid"] in self._tombstones or (known is not None and not _is_newer(obj, known))

    def distillation_jobs(self) -> Iterator[Object]:
        """Every DistillationJob as it was last seen."""
        yield from list(self._objects[DISTILLATION_JOBS].values())

    def edge_rollouts(self) -> Iterator[Object]:
        """Every EdgeRollout as it was last seen."""
        yield from list(self._objects[EDGE_ROLLOUTS].values())

    def waiting_for(self, job: Key) -> tuple[Key, ...]:
        """The EdgeRollouts that name a DistillationJob whose variant they do not have yet."""
        return tuple(self._waiting.get(job, ()))

    def _store(self, resource: Resource, name: Name, obj: Object) -> None:
        obj["metadata"].pop("managedFields", None)
        if resource is EDGE_ROLLOUTS:
            self._note_wait(obj, known=self._objects[resource].get(name))
        self._objects[resource][name] = obj
        owner = owner_key(resource, obj)
        if owner and resource in self._children:
            self._children[resource][owner][name[1]] = obj

    def _remove(self, resource: Resource, name: Name, known: Object) -> None:
        del self._objects[resource][name]
        if resource is EDGE_ROLLOUTS:
            self._note_wait(None, known)
        owner = owner_key(resource, known)
        if owner and resource in self._children:
            siblings = self._children[resource][owner]
            siblings.pop(name[1], None)
            if not siblings:
                del self._children[resource][owner]

    def _note_wait(self, rollout: Object | None, known: Object | None) -> None:
        """Keep in mind which job a rollout waits for."""
        for obj, waits in ((known, False), (rollout, True)):
            job = _awaited(obj) if obj else None
            if obj is None or job is None:
                continue
            key = Key(obj["metadata"]["namespace"], obj["metadata"]["name"], EDGE_ROLLOUTS.kind)
            (self._waiting[job].add if waits else self._waiting[job].discard)(key)
            if not self._waiting[job]:
                del self._waiting[job]

    def _remember(self, resource: Resource, obj: Object) -> None:
        """Keep how a pod ended: an evicted one is often gone before its Job is called failed, and only it knows why."""
        uid, owner, key = obj["metadata"]["uid"], owner_uid(obj), owner_key(resource, obj)
        if resource is JOBS:
            self._last_words.pop(uid, None)
        elif resource is PODS and owner and key and has_ended(obj) and self._is_ours(key, owner):
            self._last_words[owner][uid] = obj

    def _is_ours(self, key: Key, uid: str) -> bool:
        return any(job["metadata"]["uid"] == uid for job in self._children[JOBS].get(key, {}).values())

    def _bury(self, uid: str) -> None:
        self._tombstones[uid] = None
        if len(self._tombstones) > TOMBSTONES:
            self._tombstones.popitem(last=False)


def owner_key(resource: Resource, obj: Object) -> Key | None:
    """The reconciled object that an object is, or the DistillationJob that it is labelled for."""
    metadata = obj["metadata"]
    if resource in SERVED:
        return Key(metadata["namespace"], metadata["name"], resource.kind)
    label = metadata.get("labels", {}).get(JOB_LABEL)
    return Key(metadata["namespace"], label) if label else None


def _awaited(rollout: Object) -> Key | None:
    """The DistillationJob whose variant a rollout wants and has not taken up."""
    reference, status = rollout["spec"].get("artifact", {}).get("jobRef"), rollout.get("status", {})
    taken = [status.get(known, {}).get("source", {}).get("jobRef") for known in ("candidate", "stable")]
    if reference is None or reference in taken:
        return None
    return Key(rollout["metadata"]["namespace"], reference["name"])


def _is_newer(obj: Object, known: Object) -> bool:
    """Kubernetes promises since 1.35 what etcd always gave: versions of one resource compare as numbers."""
    return int(obj["metadata"]["resourceVersion"]) > int(known["metadata"]["resourceVersion"])
