"""Manifests for tests, said in the words of the case: `a_job().suspended().exporting("Q8_0").manifest()`."""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from dram_operator.api.distillation_job import DistillationJob
from dram_operator.api.edge_rollout import EdgeRollout

ABSENT = object()
"""Given to `having` to remove a field."""

MINIMAL: dict[str, Any] = {
    "teacher": {"uri": "hf://example/teacher@main"},
    "student": {"fromTeacher": {"layers": 2}},
    "dataset": {"sources": [{"uri": "s3://models/support.jsonl"}]},
    "exports": [{"name": "gguf-q8-0", "gguf": {"type": "Q8_0"}}],
    "golden": {"uri": "s3://models/golden.jsonl"},
    "storage": {"uri": "s3://models/dram", "secretRef": {"name": "s3-credentials"}},
}


@dataclass(frozen=True)
class AJob:
    """A DistillationJob under construction; every method returns another one."""

    spec: dict[str, Any]
    metadata: dict[str, Any]
    status: dict[str, Any] = field(default_factory=dict)

    def having(self, path: str, value: Any) -> "AJob":
        """Set a field by its dotted path below the object, e.g. `spec.exports[0].name`; ABSENT removes it."""
        root = {"spec": self.spec, "metadata": self.metadata, "status": self.status}
        return AJob(**_having(root, path, value))

    def named(self, name: str, namespace: str | None = None) -> "AJob":
        """Set the name, and the namespace where one is given."""
        job = self.having("metadata.name", name)
        return job if namespace is None else job.having("metadata.namespace", namespace)

    def suspended(self, suspended: bool = True) -> "AJob":
        """Set spec.suspend."""
        return self.having("spec.suspend", suspended)

    def exporting(self, *types: str, required: bool = True) -> "AJob":
        """Export one variant a GGUF type, named after it: `Q4_K_M` becomes `gguf-q4-k-m`."""
        exports = [
            {"name": f"gguf-{kind.lower().replace('_', '-')}", "gguf": {"type": kind}, "required": required}
            for kind in types
        ]
        return self.having("spec.exports", exports)

    def storing_at(self, uri: str) -> "AJob":
        """Set the storage URI; a file:// one takes no Secret."""
        storage = {"uri": uri} if uri.startswith("file:") else {**self.spec.get("storage", {}), "uri": uri}
        return self.having("spec.storage", storage)

    def with_training(self, **settings: Any) -> "AJob":
        """Add settings to spec.training, by their names in the manifest."""
        return self.having("spec.training", {**self.spec.get("training", {}), **settings})

    def with_gates(self, **gates: Any) -> "AJob":
        """Set groups of spec.gates, e.g. `quality={"minGoldenPassRate": 0.9}`."""
        return self.having("spec.gates", {**self.spec.get("gates", {}), **gates})

    def with_synthetic(self, **settings: Any) -> "AJob":
        """Let the teacher answer prompts, beside the sources."""
        return self.having("spec.dataset.synthetic", {"promptsUri": "s3://models/prompts.jsonl", **settings})

    def learning_from_text(self) -> "AJob":
        """Sequence mode, with a student of its own."""
        return self.having("spec.objective.mode", "Sequence").having("spec.student", {"uri": "s3://models/student"})

    def with_endpoint(self, **settings: Any) -> "AJob":
        """A teacher behind an endpoint, and what goes with it."""
        endpoint = {"url": "https://api.example.com/v1", "model": "example-large", **settings}
        return self.learning_from_text().having("spec.teacher", {"endpoint": endpoint})

    def manifest(self) -> dict[str, Any]:
        """The manifest as a user writes it; a copy."""
        manifest = {
            "apiVersion": "dram.dev/v1alpha1",
            "kind": "DistillationJob",
            "metadata": deepcopy(self.metadata),
            "spec": deepcopy(self.spec),
        }
        return {**manifest, "status": deepcopy(self.status)} if self.status else manifest

    def build(self) -> DistillationJob:
        """The object as Dram reads it."""
        return DistillationJob.from_object(self.manifest())


def a_job() -> AJob:
    """The smallest useful job: two layers of a teacher, one source, one Q8_0 variant, a golden file and S3."""
    return AJob(spec=deepcopy(MINIMAL), metadata={"name": "support-bot", "namespace": "default"})


@dataclass(frozen=True)
class ARollout:
    """An EdgeRollout under construction; every method returns another one."""

    spec: dict[str, Any]
    metadata: dict[str, Any]
    status: dict[str, Any] = field(default_factory=dict)

    def having(self, path: str, value: Any) -> "ARollout":
        """Set a field by its dotted path below the object, e.g. `spec.paused`; ABSENT removes it."""
        root = {"spec": self.spec, "metadata": self.metadata, "status": self.status}
        return ARollout(**_having(root, path, value))

    def named(self, name: str) -> "ARollout":
        """Set the name."""
        return self.having("metadata.name", name)

    def stepping(self, *steps: str | dict[str, Any]) -> "ARollout":
        """Set the steps: a percentage is a cohort of it, "pause" a pause, anything else is taken as it is."""
        known: dict[str, dict[str, Any]] = {"pause": {"pause": {}}}
        made = [known.get(step, {"cohort": {"percent": step}}) if isinstance(step, str) else step for step in steps]
        return self.having("spec.strategy.steps", made)

    def with_metric(self, **metric: Any) -> "ARollout":
        """Add a metric, by its fields in the manifest; a p95 latency of at most 0.3 s where they say nothing else."""
        usual = {"name": "latency"} | ({} if {"preset", "query"} & metric.keys() else {"preset": "LatencyP95"})
        usual |= {} if {"min", "max", "compareTo"} & metric.keys() else {"max": "300m"}
        return self.having("spec.analysis.metrics", [*self._metrics(), usual | metric])

    def manifest(self) -> dict[str, Any]:
        """The manifest as a user writes it; a copy."""
        manifest = {
            "apiVersion": "dram.dev/v1alpha1",
            "kind": "EdgeRollout",
            "metadata": deepcopy(self.metadata),
            "spec": deepcopy(self.spec),
        }
        return {**manifest, "status": deepcopy(self.status)} if self.status else manifest

    def build(self) -> EdgeRollout:
        """The object as Dram reads it."""
        return EdgeRollout.from_object(self.manifest())

    def _metrics(self) -> list[dict[str, Any]]:
        known: list[dict[str, Any]] = self.spec.get("analysis", {}).get("metrics", [])
        return known


def a_rollout() -> ARollout:
    """The smallest useful rollout: a job's variant, to a tenth of the devices and then to all."""
    spec = {
        "artifact": {"jobRef": {"name": "support-bot-v7", "variant": "gguf-q4-k-m"}},
        "strategy": {"steps": [{"cohort": {"percent": "10%"}}, {"cohort": {"percent": "100%"}}]},
    }
    return ARollout(spec=spec, metadata={"name": "support-bot", "namespace": "tv"})


def _having(root: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of an object with one field set, or removed by ABSENT."""
    root = deepcopy(root)
    *parents, last = [int(step) if step.isdigit() else step for step in _steps(path)]
    node: Any = root
    for step in parents:
        node = node[step] if isinstance(step, int) else node.setdefault(step, {})
    if value is ABSENT:
        del node[last]
    else:
        if isinstance(last, int) and last == len(node):
            node.append(None)
        node[last] = value
    return root


def _steps(path: str) -> list[str]:
    return path.replace("[", ".").replace("]", "").split(".")
