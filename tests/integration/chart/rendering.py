"""The chart's objects, as helm renders them."""

import subprocess
from pathlib import Path

from tests.cluster.api import Object, manifests
from tests.cluster.binaries import binary
from tests.cluster.folders import REPOSITORY

CHART = REPOSITORY / "charts" / "dram"


class ChartRefused(RuntimeError):
    """Helm did not render; the message is its own."""


def render(
    *values: str, namespace: str = "chart", kubernetes: str | None = None, files: tuple[Path, ...] = ()
) -> list[Object]:
    """The chart's objects with files of values and `--set` values, for a version of Kubernetes."""
    settings = [part for file in files for part in ("--values", str(file))]
    settings += [part for value in values for part in ("--set", value)]
    settings += ["--kube-version", kubernetes] if kubernetes else []
    command = [str(binary("helm")), "template", "dram", str(CHART), "--namespace", namespace, *settings]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise ChartRefused(done.stderr)
    return manifests(done.stdout)


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    """The objects of one kind."""
    return [obj for obj in objects if obj["kind"] == kind]
