"""API objects in a few words."""

from typing import Any

Object = dict[str, Any]


def a_job(name: str = "bot", uid: str = "job-1", version: int = 1, **status: Any) -> Object:
    metadata = {"namespace": "ns", "name": name, "uid": uid, "resourceVersion": str(version)}
    return {"kind": "DistillationJob", "metadata": metadata, "spec": {}, "status": status}


def a_child(
    name: str, uid: str, version: int = 1, *, owner: str = "job-1", job: str = "bot", kind: str = "Job", **status: Any
) -> Object:
    metadata = {
        "namespace": "ns",
        "name": name,
        "uid": uid,
        "resourceVersion": str(version),
        "creationTimestamp": "2030-01-01T00:00:00Z",
        "labels": {"dram.dev/job": job, "dram.dev/stage": "train", "dram.dev/attempt": "2", "dram.dev/run": "1"},
        "ownerReferences": [{"uid": owner, "controller": True}],
    }
    return {"kind": kind, "metadata": metadata, "spec": {}, "status": status}


def a_rollout(
    name: str = "edge", uid: str = "rollout-1", version: int = 1, *, job: str = "bot", **status: Any
) -> Object:
    metadata = {"namespace": "ns", "name": name, "uid": uid, "resourceVersion": str(version)}
    spec = {"artifact": {"jobRef": {"name": job, "variant": "q4"}}}
    return {"kind": "EdgeRollout", "metadata": metadata, "spec": spec, "status": status}
