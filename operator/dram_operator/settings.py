"""The operator's settings: one frozen object, read from the environment once."""

import os
import socket
import uuid
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from dram_operator.api.spec import Storage
from dram_operator.core.installation import Installation


def own_identity() -> str:
    """This process's name in the lease: the pod's name, and a part that no other process has."""
    return f"{os.environ.get('POD_NAME') or socket.gethostname()}-{uuid.uuid4().hex[:8]}"


class Settings(BaseSettings):
    """Everything that an installation can say, each from an environment variable `DRAM_…`."""

    model_config = SettingsConfigDict(env_prefix="DRAM_", frozen=True, extra="ignore", use_attribute_docstrings=True)

    namespaces: Annotated[tuple[str, ...], NoDecode] = ()
    """Namespaces to serve, separated by commas; none serves all of them."""
    kubeconfig: Path | None = None
    """Kubeconfig to use outside a cluster; absent takes the pod's service account, then KUBECONFIG."""
    identity: Annotated[str, Field(default_factory=own_identity)]
    """This replica's name in the lease. Unique, because two replicas of one name would both lead."""
    lease_namespace: str = "dram-system"
    """Namespace of the lease: the operator's own."""
    lease_name: str = "dram-operator"
    """Name of the lease; installations that share a namespace need different ones."""
    lease_seconds: Annotated[float, Field(ge=1)] = 12.0
    """A silent leader is followed after this long. 12 s keeps a takeover with its first listing under 20 s."""
    workers: Annotated[int, Field(ge=1, le=64)] = 8
    """Reconciles at once. Eight saturate one API server connection pool on two cores; more only queue there."""
    resync_seconds: Annotated[float, Field(ge=1)] = 300.0
    """How often the cache is compared with a listing: a watch does not tell what was deleted while it was away."""

    image: str = ""
    """Worker image for jobs that name none."""
    image_pull_secrets: Annotated[tuple[str, ...], NoDecode] = ()
    """Pull secrets of worker pods, separated by commas."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """Pull policy of worker pods."""
    storage: Storage | None = None
    """Storage for jobs that name none, as JSON in the form of `spec.storage`."""

    progress_url: str | None = None
    """URL that worker pods report to, e.g. https://dram-operator.dram-system.svc:8443; absent, nothing is reported."""
    progress_port: Annotated[int, Field(ge=0, le=65535)] = 8443
    """Port of the progress server."""
    progress_address: str | None = None
    """`host:port` at which other replicas reach this one; absent takes POD_IP and the port."""
    pod_ip: Annotated[str | None, Field(validation_alias="POD_IP")] = None
    """The pod's address, from the downward API."""
    progress_certificate: Path | None = None
    """PEM certificate of the progress server; without it there is no progress server."""
    progress_key: Path | None = None
    """PEM key of that certificate."""
    progress_ca: Path | None = None
    """PEM of the authority that signed it, handed to the worker pods."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """Port of /metrics, /healthz and /readyz."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least level that is logged."""
    log_format: Literal["json", "text"] = "json"
    """One JSON object a line for log stores, or text for people."""

    @field_validator("namespaces", "image_pull_secrets", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    def installation(self) -> Installation:
        """What jobs get from this installation."""
        return Installation(
            image=self.image,
            storage=self.storage,
            progress_url=self.progress_url if self.progress_certificate else None,
            progress_ca=self.progress_ca.read_text() if self.progress_ca else None,
            image_pull_secrets=self.image_pull_secrets,
            image_pull_policy=self.image_pull_policy,
        )
