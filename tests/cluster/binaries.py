"""Find or build the control plane's programs.

Lookup order: `KUBEBUILDER_ASSETS`, `PATH`, the cache, and at last a build from the pinned Go modules beside this file. Only what is asked for is built.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.folders import cache_folder

MODULES = Path(__file__).parent / "modules"
VERSION_VARIABLE = "k8s.io/component-base/version.gitVersion"


class BinaryMissing(RuntimeError):
    """A program is neither installed nor can it be built; the message says what to install."""


@dataclass(frozen=True)
class Program:
    """A program and the Go package that it is built from."""

    name: str
    module: str
    """Folder below `modules/`."""
    package: str
    anywhere: bool = True
    """Whether one found on PATH serves as well; false where the version must fit the API server's."""


PROGRAMS = {
    program.name: program
    for program in (
        Program("etcd", "controlplane", "go.etcd.io/etcd/server/v3"),
        Program("kube-apiserver", "controlplane", "k8s.io/kubernetes/cmd/kube-apiserver"),
        Program("kube-controller-manager", "controlplane", "k8s.io/kubernetes/cmd/kube-controller-manager", False),
        Program("kube-scheduler", "controlplane", "k8s.io/kubernetes/cmd/kube-scheduler", False),
        Program("kubelet", "controlplane", "k8s.io/kubernetes/cmd/kubelet", False),
        Program("kube-proxy", "controlplane", "k8s.io/kubernetes/cmd/kube-proxy", False),
        Program("kubectl", "kubectl", "k8s.io/kubernetes/cmd/kubectl"),
        Program("coredns", "coredns", "github.com/coredns/coredns"),
        Program("helm", "helm", "helm.sh/helm/v4/cmd/helm"),
        Program("prometheus", "prometheus", "github.com/prometheus/prometheus/cmd/prometheus"),
        Program("promtool", "prometheus", "github.com/prometheus/prometheus/cmd/promtool"),
    )
}


def binary(name: str) -> Path:
    """Path of a program, built when it is nowhere to be found; raises BinaryMissing."""
    program = PROGRAMS[name]
    return _installed(program) or _cached_or_built(program)


def kubernetes_version() -> str:
    """The version that the pinned module builds, e.g. `v1.34.4`."""
    found = re.search(r"k8s\.io/kubernetes (v\S+)", (MODULES / "controlplane" / "go.mod").read_text())
    if found is None:
        raise BinaryMissing(f"{MODULES}/controlplane/go.mod does not pin k8s.io/kubernetes")
    return found[1]


def _installed(program: Program) -> Path | None:
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and (path := Path(assets) / program.name).is_file():
        return path
    found = shutil.which(program.name) if program.anywhere else None
    return Path(found) if found else None


def _cached_or_built(program: Program) -> Path:
    module = MODULES / program.module
    pins = hashlib.sha256((module / "go.mod").read_bytes() + (module / "go.sum").read_bytes()).hexdigest()[:12]
    folder = cache_folder("bin", f"{program.module}-{pins}")
    path = folder / program.name
    with _lock(folder / f".{program.name}.lock"):
        if not path.exists():
            _build(program, module, path)
    return path


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Let one of several test runs build, and the others wait."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(program: Program, module: Path, path: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise BinaryMissing(
            f"{program.name} is not in KUBEBUILDER_ASSETS, on PATH or in {path.parent}, and there is no Go to build it with. "
            "Install Go (https://go.dev/dl), or point KUBEBUILDER_ASSETS at a folder with the programs."
        )
    sys.stderr.write(f"building {program.name} from {module} (minutes the first time)\n")
    named = f" -X {VERSION_VARIABLE}={kubernetes_version()}" if program.package.startswith("k8s.io/") else ""
    unfinished = path.with_suffix(".unfinished")
    built = subprocess.run(
        [go, "build", "-trimpath", "-ldflags", f"-s -w{named}", "-o", str(unfinished), program.package],
        cwd=module,
        env={**os.environ, "CGO_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        raise BinaryMissing(f"building {program.name} in {module} failed:\n{built.stderr[-4000:]}")
    unfinished.rename(path)


if __name__ == "__main__":
    for wanted in sys.argv[1:] or PROGRAMS:
        sys.stdout.write(f"{binary(wanted)}\n")
