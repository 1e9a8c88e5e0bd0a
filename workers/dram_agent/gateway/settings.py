"""What the owner of a gateway writes down: one YAML file, read once. Tokens, keys and the revocation list are files."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from dram_agent.settings import Address
from dram_workers.model import Model


class Backend(Model):
    """Where series go: anything that takes OTLP metrics by HTTP with protobuf."""

    url: Annotated[str, Field(pattern=r"^https?://")]
    """Full address, e.g. http://prometheus:9090/api/v1/otlp/v1/metrics."""
    headers: Annotated[dict[str, str], Field(max_length=16)] = {}
    """More headers, e.g. X-Scope-OrgID."""
    token_file: Path | None = None
    """File with a bearer token; read for every push."""
    ca_file: Path | None = None
    """Authority of the address, PEM; absent, those of the system."""
    certificate_file: Path | None = None
    """Certificate and key to show there, PEM."""
    timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 10.0
    """Longest wait for its answer."""


class Limits(Model):
    """What one device may do."""

    body_bytes: Annotated[int, Field(ge=1024)] = 262_144
    """Longest push; an agent's has about 20,000 bytes."""
    body_seconds: Annotated[float, Field(gt=0)] = 10.0
    """The longest that a push may take to arrive."""
    points: Annotated[int, Field(ge=1)] = 500
    """Points of one push; an agent has fewer than 150."""
    variants: Annotated[int, Field(ge=1)] = 64
    """Different releases, attempts, versions and owner's labels, as they stand together on series, in `memorySeconds`."""
    least_seconds: Annotated[float, Field(gt=0)] = 5.0
    """Shortest time between two pushes, in the mean."""
    burst: Annotated[int, Field(ge=1)] = 4
    """Pushes that may come at once after a silence."""
    requests_per_second: Annotated[float, Field(gt=0)] = 100.0
    """The most requests that a device can have answered, in the mean since its last push."""
    memory_seconds: Annotated[float, Field(ge=60)] = 3600.0
    """How long a silent device is remembered."""
    conflict_seconds: Annotated[float, Field(ge=1)] = 600.0
    """How long an id is refused after two spoke under it."""


class GatewaySettings(Model):
    """`gateway.yaml`."""

    issuer_keys: Annotated[tuple[Path, ...], Field(min_length=1, max_length=8)]
    """Public keys of the owners whose tokens count, PEM."""
    revocations: Path | None = None
    """List of revoked devices, as `dram agent revoke` writes it; looked at again when it changes."""
    backend: Backend
    listen: Address = "0.0.0.0:4318"
    """Where devices push to, at /v1/metrics."""
    metrics_listen: Address = "127.0.0.1:9109"
    """Where /metrics and /healthz are served."""
    certificate_file: Path | None = None
    """Certificate and key of `listen`, PEM; absent, TLS ends before the gateway."""
    client_ca_file: Path | None = None
    """Authority of the devices' certificates, PEM. With it a push needs one, and its common name is the device's id."""
    limits: Limits = Limits()
