"""The bill of materials of an image names what is in it."""

import json
import subprocess
import sys
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from images.sbom import bill

STATUS = """\
Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2.15-2+b8
Description: shell
 of GNU

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: tzdata
Status: install ok installed
Architecture: all
Version: 2026a-0+deb12u1
"""
METADATA = """\
Metadata-Version: 2.4
Name: Little.Library
Version: 1.5
License-Expression: MIT OR Apache-2.0
"""
OWN_WORDS = "Metadata-Version: 2.1\nName: wordy\nVersion: 2\nLicense: Three clauses of our own\n"
FILES = {
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n',
    "var/lib/dpkg/status": STATUS,
    "usr/share/doc/bash/copyright": "Files: *\nLicense: GPL-3+\n\nFiles: doc/*\nLicense: GFDL-NIV-1.3\n\nLicense: GPL-3+\n text\n",
    "opt/dram/lib/python3.11/site-packages/little_library-1.5.dist-info/METADATA": METADATA,
    "opt/dram/lib/python3.11/site-packages/wordy-2.dist-info/METADATA": OWN_WORDS,
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The bill of a small tree."""
    root = tmp_path_factory.mktemp("image")
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / "opt/dram"], check=True)
    for name, text in FILES.items():
        file = root / name.replace("python3.11", python)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    text = bill("worker", root)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    read: dict[str, Any] = json.loads(text)
    return read


def licences(component: dict[str, Any]) -> list[str]:
    return [
        given.get("expression") or given["license"].get("id") or given["license"]["name"]
        for given in component.get("licenses", ())
    ]


def test_every_package_has_a_version_a_purl_and_the_licences_that_it_names(found: dict[str, Any]) -> None:
    named = {part["purl"]: (part["name"], part["version"], licences(part)) for part in found["components"]}
    assert named == {
        "pkg:pypi/little.library@1.5": ("Little.Library", "1.5", ["MIT OR Apache-2.0"]),
        "pkg:pypi/wordy@2": ("wordy", "2", ["Three clauses of our own"]),
        "pkg:deb/debian/bash@5.2.15-2%2Bb8?arch=amd64&distro=bookworm": (
            *("bash", "5.2.15-2+b8"),
            ["GFDL-NIV-1.3", "GPL-3+"],
        ),
        "pkg:deb/debian/tzdata@2026a-0%2Bdeb12u1?arch=all&distro=bookworm": ("tzdata", "2026a-0+deb12u1", []),
    }


def test_the_image_is_on_its_base_and_depends_on_everything_in_it(found: dict[str, Any]) -> None:
    image = found["metadata"]["component"]
    (base,) = image["components"]
    (system,) = base["components"]
    assert (image["name"], image["type"]) == ("dram/worker", "container")
    assert (base["name"], base["version"]) == ("docker.io/library/debian", "bookworm-slim")
    assert (system["name"], system["version"], system["type"]) == ("debian", "12", "operating-system")
    depends = {one["ref"]: one.get("dependsOn", []) for one in found["dependencies"]}
    assert set(depends[image["bom-ref"]]) == {part["bom-ref"] for part in found["components"]}
