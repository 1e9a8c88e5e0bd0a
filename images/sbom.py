"""`python sbom.py NAME OUT [ROOT]`: the bill of materials of an image, as CycloneDX JSON that has been validated.

Python packages as cyclonedx-bom finds them in /opt/dram, Debian's as dpkg knows them, with their licences, and the base image.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from email.parser import HeaderParser
from importlib.metadata import distributions
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseAcknowledgement
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

BASE = "docker.io/library/debian:bookworm-slim"
VERSION = SchemaVersion.V1_6


class NotValid(ValueError):
    """The bill breaks the format's schema."""


def bill(name: str, root: Path) -> str:
    """The bill of the image `dram/<name>` whose files are below `root`.

    Raises NotValid, or CalledProcessError where the Python packages cannot be read.
    """
    found: Bom = Bom.from_json(json.loads(_python_packages(root)))  # type: ignore[attr-defined]
    _declare(found, root)
    found.components.update(_debian_packages(root))
    image = Component(name=f"dram/{name}", type=ComponentType.CONTAINER, bom_ref="image", components=[_base(root)])
    found.metadata.component = image
    found.register_dependency(image, found.components)
    text = str(make_outputter(found, OutputFormat.JSON, VERSION).output_as_string(indent=1))
    wrong = JsonStrictValidator(VERSION).validate_str(text)
    if wrong is not None:
        raise NotValid(str(wrong))
    return text


def _python_packages(root: Path) -> bytes:
    tool = [sys.executable, "-m", "cyclonedx_py", "environment", "--sv", VERSION.to_version(), "--output-reproducible"]
    return subprocess.run([*tool, str(root / "opt/dram/bin/python")], check=True, stdout=subprocess.PIPE).stdout


def _declare(found: Bom, root: Path) -> None:
    """Give the packages that say their licence in words of their own these words: the tool takes only names that it knows."""
    folders = [str(folder) for folder in root.glob("opt/dram/lib/python3*/site-packages")]
    said = {package.name: package.metadata["License"] for package in distributions(path=folders)}
    for part in found.components:
        if not part.licenses and said.get(part.name):
            part.licenses.add(DisjunctiveLicense(name=said[part.name], acknowledgement=LicenseAcknowledgement.DECLARED))


def _base(root: Path) -> Component:
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)', (root / "etc/os-release").read_text(), re.MULTILINE))
    system = Component(
        name=release["ID"], version=release["VERSION_ID"], type=ComponentType.OPERATING_SYSTEM, bom_ref="system"
    )
    name, _, tag = BASE.rpartition(":")
    return Component(name=name, version=tag, type=ComponentType.CONTAINER, bom_ref="base", components=[system])


def _debian_packages(root: Path) -> Iterator[Component]:
    for paragraph in (root / "var/lib/dpkg/status").read_text().split("\n\n"):
        fields = HeaderParser().parsestr(paragraph.lstrip())
        if fields["Status"] != "install ok installed":
            continue
        name, version, architecture = (str(fields[key]) for key in ("Package", "Version", "Architecture"))
        url = PackageURL("deb", "debian", name, version, {"arch": architecture, "distro": "bookworm"})
        licences = [
            DisjunctiveLicense(name=licence) for licence in _licences(root / "usr/share/doc" / name / "copyright")
        ]
        yield Component(
            name=name, version=version, type=ComponentType.LIBRARY, purl=url, bom_ref=str(url), licenses=licences
        )


def _licences(copyright_file: Path) -> list[str]:
    """The licences that a package's copyright file names, where it has the machine-readable form."""
    if not copyright_file.exists():
        return []
    names = re.findall(r"^License: *(\S.*)$", copyright_file.read_text(errors="replace"), re.MULTILINE)
    return sorted({name.strip() for name in names})


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(bill(sys.argv[1], Path(*sys.argv[3:4] or ["/"])))
