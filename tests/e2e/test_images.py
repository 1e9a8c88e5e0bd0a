"""What each image says of itself is what is in it."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.build import IMAGES, build, buildah
from tests.test_sbom import licences

PYTHON = "from importlib.metadata import distributions as d; print(*(f'{i.name} {i.version}' for i in d()), sep='\\n')"
LABEL = '{{index .OCIv1.Config.Labels "dev.dram.sbom"}}'


class Container:
    """An image in which commands are run."""

    def __init__(self, image: str) -> None:
        self.image = image
        self.name = buildah("from", "--pull-never", image).strip()

    @property
    def root(self) -> Path:
        """Its files."""
        return Path(buildah("mount", self.name).strip())

    def pairs(self, *command: str) -> set[tuple[str, ...]]:
        """Names and versions, a line each."""
        # Not by `buildah run`, whose chroot loses the end of what a command says.
        said = subprocess.run(["chroot", self.root, *command], check=True, capture_output=True, text=True).stdout
        return {tuple(line.split()) for line in said.splitlines()}


@pytest.fixture(scope="module", params=IMAGES)
def container(request: pytest.FixtureRequest) -> Iterator[Container]:
    """Each of the images."""
    made = Container(build(request.param))
    yield made
    buildah("rm", made.name)


def test_the_bill_of_materials_names_every_package_that_is_installed(container: Container) -> None:
    path = buildah("inspect", "--format", LABEL, container.image).strip()
    components = json.loads((container.root / path.lstrip("/")).read_text())["components"]
    named = {(part.get("purl", "pkg:pypi")[4:].split("/")[0], part["name"], part["version"]) for part in components}
    python = {("pypi", *pair) for pair in container.pairs("/opt/dram/bin/python", "-c", PYTHON)}
    debian = {("deb", *pair) for pair in container.pairs("dpkg-query", "-W", "-f", "${Package} ${Version}\\n")}
    assert {"dram", "pydantic"} <= {name for _, name, _ in python}
    assert {"libc6", "python3"} <= {name for _, name, _ in debian}
    assert named == python | debian
    assert [part["name"] for part in components if "purl" not in part] == ["dram"], "only ours is on no index"
    without = {part["name"] for part in components if "pkg:deb" not in part.get("purl", "") and not licences(part)}
    assert without <= {"promql-parser"}, "it names its licence by a file only"


def test_the_user_is_nobody(container: Container) -> None:
    assert buildah("inspect", "--format", "{{.OCIv1.Config.User}}", container.image).strip() == "65532:65532"
