"""Images of the servers for trying out, made from the programs that other tests run: no registry is asked."""

import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

from images.build import BASE, REPOSITORY, buildah, ensure_base, exists
from tests.cluster.binaries import binary
from tests.cluster.node import Node

DOCKERFILE = 'FROM {base}\nCOPY {name} /usr/bin/{name}\nUSER 65532:65532\nENTRYPOINT ["/usr/bin/{name}"]\n'


def images(node: Node) -> dict[str, str]:
    """The images by the chart's word for the server, on the node."""
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or "weed"
    built = {"s3": _build(Path(weed)), "prometheus": _build(binary("prometheus"))}
    for image in built.values():
        node.load(image)
    return built


def _build(program: Path) -> str:
    digest = hashlib.sha256(program.read_bytes()).hexdigest()[:12]
    image = f"{REPOSITORY}/{program.name}:{digest}"
    if not exists(image):
        ensure_base()
        with tempfile.TemporaryDirectory(prefix="dram-server-") as folder:
            shutil.copy(program, folder)
            file = Path(folder) / "Dockerfile"
            file.write_text(DOCKERFILE.format(base=BASE, name=program.name))
            buildah("bud", "--isolation", "chroot", "--pull-never", "--file", str(file), "--tag", image, folder)
    return image
