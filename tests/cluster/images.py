"""The node's containerd: images are brought to it, of which only the layers that it lacks are copied; containers are killed."""

import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from images.build import buildah
from tests.cluster.folders import cache_folder

NAMESPACE = "k8s.io"
NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"


class ImageRefused(RuntimeError):
    """containerd did not take an image."""


def load(image: str, socket: Path) -> None:
    """Put a built image into the store of the containerd behind a socket, and drop its older versions there."""
    known = _ctr(socket, "images", "ls", "-q").split()
    if image not in known:
        layout = cache_folder("layout")
        buildah("push", "--quiet", "--disable-compression", image, f"oci:{layout}:{image}")
        _import(layout, image, socket)
    older = [name for name in known if name.rsplit(":", 1)[0] == image.rsplit(":", 1)[0] and name != image]
    if older:
        _ctr(socket, "images", "rm", *older)


def kill(container: str, socket: Path) -> None:
    """SIGKILL the first process of a container."""
    _ctr(socket, "tasks", "kill", "--signal", "SIGKILL", container)


def _import(layout: Path, image: str, socket: Path) -> None:
    entry = _entry(layout, image)
    manifest = json.loads(_blob(layout, entry["digest"]).read_bytes())
    wanted = [entry["digest"], manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]
    present = set(_ctr(socket, "content", "ls", "-q").split())
    command = ["ctr", "-a", str(socket), "-n", NAMESPACE, "images", "import", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        with tarfile.open(fileobj=child.stdin, mode="w|") as tar:
            _add(tar, "oci-layout", {"imageLayoutVersion": "1.0.0"})
            _add(tar, "index.json", {"schemaVersion": 2, "manifests": [entry]})
            for digest in wanted:
                if digest not in present:
                    blob = _blob(layout, digest)
                    tar.add(blob, str(blob.relative_to(layout)))
        child.stdin.close()
        said = child.stdout.read().decode()
    if child.returncode:
        raise ImageRefused(f"{image}: {said}")


def _entry(layout: Path, image: str) -> dict[str, Any]:
    manifests = json.loads((layout / "index.json").read_text())["manifests"]
    found = [entry for entry in manifests if entry.get("annotations", {}).get(NAME) == image]
    return {**found[-1], "annotations": {NAME: image, CONTAINERD_NAME: image}}


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def _add(tar: tarfile.TarFile, name: str, content: dict[str, Any]) -> None:
    body = json.dumps(content).encode()
    member = tarfile.TarInfo(name)
    member.size = len(body)
    tar.addfile(member, io.BytesIO(body))


def _ctr(socket: Path, *arguments: str) -> str:
    command = ["ctr", "-a", str(socket), "-n", NAMESPACE, *arguments]
    done = subprocess.run(command, check=False, text=True, capture_output=True)
    if done.returncode:
        raise ImageRefused(f"{' '.join(command)}: {done.stderr}")
    return done.stdout
