"""One DistillationJob on the cluster, from its manifest to its end, and the faults that befall it."""

import json
from dataclasses import dataclass

from tests.builders import AJob
from tests.cluster.api import Api, Object, wait_until
from tests.cluster.s3 import S3Server

FINISH_SECONDS = 420


@dataclass(frozen=True)
class Story:
    """A DistillationJob in a namespace of its own."""

    api: Api
    s3: S3Server
    namespace: str
    name: str

    def apply(self, job: AJob) -> None:
        """Apply the manifest."""
        self.api.apply(job.named(self.name, self.namespace).manifest())

    def object(self) -> Object:
        """The DistillationJob as it is now."""
        return self.api.get("DistillationJob", self.name, self.namespace)

    def status(self) -> Object:
        """Its status; empty before the first visit."""
        status: Object = self.object().get("status", {})
        return status

    def condition(self, kind: str) -> Object:
        """One of its conditions; empty before the first visit."""
        found = [condition for condition in self.status().get("conditions", []) if condition["type"] == kind]
        return found[0] if found else {}

    def children(self) -> list[Object]:
        """Every object that works for it."""
        label = f"dram.dev/job={self.name}"
        return [
            child for kind in ("Job", "Pod", "Service") for child in self.api.list(kind, self.namespace, labels=label)
        ]

    def pods(self, kind: str) -> list[Object]:
        """Its pods of one kind of stage that have not ended."""
        pods = self.api.list("Pod", self.namespace, labels=f"dram.dev/job={self.name},dram.dev/kind={kind}")
        return [pod for pod in pods if pod["status"].get("phase") in ("Pending", "Running")]

    def wait_finished(self, patience_seconds: float = FINISH_SECONDS) -> Object:
        """Wait for the end; returns the condition Succeeded."""
        return wait_until(
            lambda: (
                self.condition("Succeeded") if self.condition("Succeeded").get("status") in ("True", "False") else None
            ),
            f"{self.namespace}/{self.name} to end",
            patience_seconds=patience_seconds,
            explain=self.explain,
        )

    def wait_succeeded(self, patience_seconds: float = FINISH_SECONDS) -> Object:
        """Wait for success; returns the status."""
        condition = self.wait_finished(patience_seconds)
        assert condition["status"] == "True", f"{condition['reason']}: {condition['message']}\n{self.explain()}"
        return self.status()

    def wait_failed(self) -> Object:
        """Wait for failure; returns the condition Succeeded."""
        condition = self.wait_finished()
        assert condition["status"] == "False", self.explain()
        return condition

    def wait_reason(self, reason: str, kind: str = "Succeeded") -> Object:
        """Wait until a condition has a reason."""
        return wait_until(
            lambda: self.condition(kind) if self.condition(kind).get("reason") == reason else None,
            f"{self.namespace}/{self.name} to be {reason}",
            patience_seconds=180,
            explain=self.explain,
        )

    def wait_stage(self, kind: str) -> list[Object]:
        """Wait until all pods of a kind of stage run; returns them."""

        def running() -> list[Object] | None:
            pods = self.pods(kind)
            return pods if pods and all(pod["status"].get("phase") == "Running" for pod in pods) else None

        return wait_until(running, f"{kind} to run", patience_seconds=FINISH_SECONDS, explain=self.explain)

    def wait_checkpoint(self, at_least: int) -> int:
        """Wait for a complete checkpoint of this step or a later one; returns its step."""
        return wait_until(
            lambda: max((step for step in self.checkpoints() if step >= at_least), default=None),
            f"a checkpoint of step {at_least}",
            patience_seconds=FINISH_SECONDS,
            explain=self.explain,
        )

    def checkpoints(self) -> list[int]:
        """Steps of the complete checkpoints in the store."""
        keys = self.stored("checkpoints/")
        return sorted(int(key.split("/")[-2]) for key in keys if key.endswith("/manifest.json"))

    def stored(self, below: str = "") -> list[str]:
        """Keys in the job's store, relative to its root."""
        root = f"{self.namespace}/"
        pages = self.s3.client().get_paginator("list_objects_v2").paginate(Bucket="dram", Prefix=root + below)
        return [entry["Key"].removeprefix(root) for page in pages for entry in page.get("Contents", [])]

    def suspend(self, suspended: bool = True) -> None:
        """Set spec.suspend."""
        self.api.patch("DistillationJob", self.name, self.namespace, {"spec": {"suspend": suspended}})

    def kill(self, pod: Object) -> None:
        """End a pod without notice."""
        self.api.kill_pod(pod["metadata"]["name"], self.namespace)

    def evict(self, pod: Object) -> None:
        """Ask the API to evict a pod, as a node drain does."""
        name = pod["metadata"]["name"]
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": self.namespace}}
        self.api.create_in("Pod", name, self.namespace, "eviction", body)

    def delete(self) -> None:
        """Delete the resource, and wait until every child is gone."""
        self.api.delete("DistillationJob", self.name, self.namespace)
        wait_until(
            lambda: not self.children(), "the children to go", explain=lambda: json.dumps(_names(self.children()))
        )

    def artifacts(self) -> dict[str, str]:
        """Digest of every variant's model file, read from the published manifest that the status names."""
        return {
            variant["name"]: next(file["sha256"] for file in manifest["files"] if file["path"].endswith(".gguf"))
            for variant in self.status()["variants"]
            for manifest in [json.loads(self.read(f"{variant['uri']}/manifest.json"))]
        }

    def read(self, uri: str) -> bytes:
        """An object of the store, by its full URI."""
        bucket, key = uri.removeprefix("s3://").split("/", 1)
        return self.s3.client().get_object(Bucket=bucket, Key=key)["Body"].read()

    def explain(self) -> str:
        """Conditions, stages, events and the last words of the pods."""
        status = self.status()
        texts = [json.dumps(condition) for condition in status.get("conditions", [])]
        texts += [json.dumps({k: v for k, v in stage.items() if k != "result"}) for stage in status.get("stages", [])]
        for event in self.api.list("Event", self.namespace)[-20:]:
            texts.append(f"{event['involvedObject']['name']}: {event['reason']}: {event['message']}")
        for pod in self.api.list("Pod", self.namespace):
            texts += [f"--- {pod['metadata']['name']}", json.dumps(pod["status"].get("containerStatuses", []))]
            texts.append(self.api.try_logs(pod["metadata"]["name"], self.namespace, tailLines="30"))
        return "\n".join(texts)


def _names(objects: list[Object]) -> list[str]:
    return [f"{obj['kind']}/{obj['metadata']['name']}" for obj in objects]
