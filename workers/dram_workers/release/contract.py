"""The contract of the release pod: the operator writes it, the pod reads it. Import-light, as `stages` is."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from dram_workers.model import Model
from dram_workers.stages import StoreSettings

RELEASE = "release"
"""`dram worker release`."""
MANIFEST = "manifest.json"
LARGEST_MANIFEST = 256_000
"""Bytes. A device reads no longer one."""
DEEPEST = 2
"""Components of a file's path below the artifact, as the delegation to the release key has them."""

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Upload(Model):
    """One file to upload: a PUT of exactly these bytes, for as long as the URL is valid."""

    path: str
    """Relative to the artifact."""
    url: str
    headers: dict[str, str]
    """What the request must carry: the URL's signature covers it, and so the digest of the body."""


class ReleaseConfig(Model):
    """What the release pod reads."""

    kind: Literal["release"] = "release"
    store: StoreSettings
    """Rooted at the artifact's folder."""
    digest: Sha256
    """SHA-256 of the artifact's manifest."""
    uploads: tuple[Upload, ...]
    """What the repository lacks."""
    fields: dict[str, str] = {}
    """What the user calls a field of the store, by its name in `spec.storage`."""
    ca_file: str | None = None
    """PEM file of the authority of the repository's server."""
    scratch: str = "/scratch"
    """Writable folder."""


class ArtifactFile(Model):
    """One file of an artifact."""

    model_config = ConfigDict(extra="ignore")

    path: Annotated[str, Field(max_length=255)]
    """Relative to the manifest, with at most one folder."""
    sha256: Sha256
    size: Annotated[int, Field(ge=0)]
    """Bytes."""
    role: str | None = None
    """`model`, `card` or `golden`."""


class Measured(Model):
    """A figure of the artifact."""

    model_config = ConfigDict(extra="ignore")

    name: str
    value: float


class ArtifactManifest(Model):
    """The part of an artifact's manifest that its release depends on."""

    model_config = ConfigDict(extra="ignore")

    files: Annotated[tuple[ArtifactFile, ...], Field(min_length=1, max_length=1000)]
    """What belongs to it."""
    measures: tuple[Measured, ...] = ()
    """What was measured of it."""


def is_beside_manifest(path: str) -> bool:
    """Whether a file of this path can lie beside a manifest, and only there."""
    parts = path.split("/")
    return len(parts) <= DEEPEST and path != MANIFEST and all(part not in ("", ".", "..") for part in parts)
