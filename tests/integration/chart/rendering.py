"""The chart's objects, as helm renders them."""

import subprocess
from pathlib import Path

from tests.cluster.api import Object, manifests
from tests.cluster.binaries import binary
from tests.cluster.folders import REPOSITORY

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job")
CHART = REPOSITORY / "charts" / "dram"


class ChartRefused(RuntimeError):
    """Helm did not render; the message is its own."""


def render(
    *values: str,
    namespace: str = "chart",
    kubernetes: str | None = None,
    files: tuple[Path, ...] = (),
    json_values: tuple[str, ...] = (),
    crds: bool = False,
    release: str = "dram",
) -> list[Object]:
    """The chart's objects with files of values, `--set` and `--set-json` values, for a version of Kubernetes.

    Without the CRDs unless they are asked for: they are most of the text, and always the same.
    """
    settings = [part for file in files for part in ("--values", str(file))]
    settings += [part for value in values for part in ("--set", value)]
    settings += [part for value in json_values for part in ("--set-json", value)]
    settings += [] if crds else ["--set", "crds.enabled=false"]
    settings += ["--kube-version", kubernetes] if kubernetes else []
    command = [str(binary("helm")), "template", release, str(CHART), "--namespace", namespace, *settings]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise ChartRefused(done.stderr)
    return manifests(done.stdout)


def pods(objects: list[Object]) -> list[Object]:
    """A pod of each workload, as its controller would make it."""
    found = []
    for obj in objects:
        template = obj["spec"]["template"] if obj["kind"] in WORKLOADS else obj if obj["kind"] == "Pod" else None
        if template:
            metadata = {**template["metadata"], "name": obj["metadata"]["name"]}
            metadata["namespace"] = obj["metadata"]["namespace"]
            found.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
    return found


def operator_pod(objects: list[Object]) -> Object:
    """A pod of the operator."""
    (pod,) = [pod for pod in pods(objects) if pod["metadata"]["labels"]["app.kubernetes.io/component"] == "operator"]
    return pod


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    """The objects of one kind."""
    return [obj for obj in objects if obj["kind"] == kind]
