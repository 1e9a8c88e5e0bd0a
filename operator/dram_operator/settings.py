"""The operator's settings: one frozen object, read from the environment once."""

import json
import os
import socket
import uuid
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from dram_operator.api.pods import Resources
from dram_operator.api.spec import Storage
from dram_operator.core.installation import DEFAULT_RESOURCES, Installation
from dram_operator.core.rollout.document import Delivery
from dram_operator.errors import SettingsInvalid
from dram_workers.model import Model

PREFIX = "DRAM_"
Wait = Annotated[int, Field(ge=1, le=31_536_000)]


def own_identity() -> str:
    """This process's name in the lease: the pod's name, and a part that no other process has."""
    return f"{os.environ.get('POD_NAME') or socket.gethostname()}-{uuid.uuid4().hex[:8]}"


class PrometheusEndpoint(Model):
    """A metrics server that EdgeRollouts may name. Secrets are files, read anew for every request."""

    name: Annotated[str, Field(min_length=1, max_length=63)] = "default"
    """As in `spec.analysis.prometheusRef.name`."""
    url: str
    """`http` or `https`, with a path where the API has one before `/api/v1`."""
    ca_file: Path | None = None
    """PEM of the authorities to trust instead of the system's."""
    certificate_file: Path | None = None
    """PEM of a client certificate and its key."""
    token_file: Path | None = None
    """Bearer token."""
    username: str | None = None
    """For basic authentication."""
    password_file: Path | None = None
    """Password for it."""
    headers: dict[str, str] = {}
    """More headers, e.g. X-Scope-OrgID."""
    header_files: dict[str, Path] = {}
    """Headers whose values are secrets, each in a file."""
    timeout_seconds: Annotated[float, Field(ge=1, le=60)] = 10.0
    """Longest time that one query may take."""
    largest_answer_bytes: Annotated[int, Field(ge=1 << 16)] = 32 << 20
    """Longer answers are dropped: ten thousand devices take about 3 MiB."""
    queries_at_once: Annotated[int, Field(ge=1, le=64)] = 8
    """Queries at the same time, of all rollouts together."""


class Settings(BaseSettings):
    """Everything that an installation can say, each from an environment variable `DRAM_…`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", use_attribute_docstrings=True)

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
    cuda_image: str = ""
    """The same for jobs that ask for NVIDIA's GPUs; empty is `image`."""
    image_pull_secrets: Annotated[tuple[str, ...], NoDecode] = ()
    """Pull secrets of worker pods, separated by commas."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """Pull policy of worker pods."""
    worker_resources: Resources | None = None
    """Resources of worker pods for which a job says nothing, as JSON with `requests` and `limits`."""
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

    releases_uri: Annotated[str | None, Field(pattern="^s3://[^/]+(/.*)?$")] = None
    """Where the release repository lies, `s3://bucket/prefix`; without it EdgeRollouts are not served."""
    releases_endpoint: str | None = None
    """URL of the S3 server; absent takes AWS's own."""
    releases_region: str | None = None
    """Region of the bucket."""
    releases_ca: Path | None = None
    """PEM of the authority that signed the S3 server's certificate, where it is not one of the system's."""
    releases_aws_access_key_id: str | None = None
    """Credentials of the bucket; absent takes what the AWS SDK finds (variables, files, a service account's role)."""
    releases_aws_secret_access_key: SecretStr | None = None
    """The secret that belongs to it."""
    releases_aws_session_token: SecretStr | None = None
    """The session token, for temporary credentials."""
    releases_root: Path | None = None
    """The pinned root file that trust begins with, as `dram keys init` wrote it."""
    releases_operator_key: Path | None = None
    """PEM of the operator's signing key."""
    releases_release_key: Path | None = None
    """PEM of the release key; without it artifacts wait for `dram release sign`."""
    prometheus: Annotated[tuple[PrometheusEndpoint, ...], NoDecode] = ()
    """Metrics servers that EdgeRollouts may name, as a JSON list or the path of a file that holds one."""
    delivery_poll_seconds: Wait = 300
    """Seconds between two polls of a device. Five minutes: 100,000 devices make 333 requests a second."""
    delivery_active_poll_seconds: Wait = 60
    """The same for devices that run or should run a candidate: a rollback reaches them within this time."""
    delivery_backoff_seconds: Wait = 3600
    """Longest wait of a device between two polls that fail."""
    delivery_candidate_lease_seconds: Wait = 86_400
    """A device on a candidate that has seen no fresh metadata for so long goes back to stable."""
    commands_vouched: bool = False
    """Whether an admission policy proves who wrote a command; without it names are called unverified."""
    frozen: Path | None = None
    """File with the one switch that stops every forward move: `true` or `false`, read at every pass; absent is false."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least level that is logged."""
    log_format: Literal["json", "text"] = "json"
    """One JSON object a line for log stores, or text for people."""

    @field_validator("namespaces", "image_pull_secrets", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("prometheus", mode="before")
    @classmethod
    def _read_endpoints(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        text = value.strip()
        if text.startswith("/"):
            try:
                text = Path(text).read_text(encoding="utf-8")
            except OSError as error:
                raise ValueError(
                    f"the file cannot be read ({error.strerror}): mount it, or give the JSON list itself"
                ) from error
        try:
            return json.loads(text) if text else ()
        except ValueError as error:
            raise ValueError(
                f'it is not JSON ({error}): write [{{"name": "default", "url": "http://…:9090"}}]'
            ) from error

    @model_validator(mode="after")
    def _check_releases(self) -> "Settings":
        if self.releases_uri is not None:
            for name, remedy in (
                ("releases_root", "mount the root file that `dram keys init` wrote"),
                ("releases_operator_key", "mount the operator's signing key (operator.pem)"),
            ):
                if getattr(self, name) is None:
                    raise ValueError(f"{variable(name)} is not set although {variable('releases_uri')} is: {remedy}")
        if (self.releases_aws_access_key_id is None) != (self.releases_aws_secret_access_key is None):
            raise ValueError(
                f"{variable('releases_aws_access_key_id')} and {variable('releases_aws_secret_access_key')} go together: "
                "set both, or neither"
            )
        names = [endpoint.name for endpoint in self.prometheus]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{variable('prometheus')} names {twice[0]!r} twice: a rollout refers to one by its name")
        return self

    @classmethod
    def load(cls) -> "Settings":
        """Read the environment; SettingsInvalid names every variable that cannot be used."""
        try:
            return cls()
        except ValidationError as error:
            raise SettingsInvalid("; ".join(_explain(one) for one in error.errors())) from error

    def delivery(self, *, frozen: bool) -> Delivery:
        """How devices ask."""
        return Delivery(
            poll_seconds=self.delivery_poll_seconds,
            active_poll_seconds=self.delivery_active_poll_seconds,
            backoff_seconds=self.delivery_backoff_seconds,
            candidate_lease_seconds=self.delivery_candidate_lease_seconds,
            frozen=frozen,
        )

    def installation(self) -> Installation:
        """What jobs get from this installation."""
        return Installation(
            image=self.image,
            cuda_image=self.cuda_image,
            storage=self.storage,
            progress_url=self.progress_url if self.progress_certificate else None,
            progress_ca=self.progress_ca.read_text() if self.progress_ca else None,
            image_pull_secrets=self.image_pull_secrets,
            image_pull_policy=self.image_pull_policy,
            default_resources=self.worker_resources or DEFAULT_RESOURCES,
        )


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"{PREFIX}{name}".upper()


def _explain(error: Any) -> str:
    """One fault: the variable, the place in it, its value where it is no secret, and what is wrong."""
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return str(message)
    name, *place = map(str, error["loc"])
    where = f"{variable(name)}{''.join(f' {part}' for part in place)}"
    words = {word for part in (name, *place) for word in part.lower().split("_")}
    value = str(error["input"]) if isinstance(error["input"], str | int | float) else "{"
    is_shown = "{" not in value and not words & {"headers", "secret", "token"}
    return f"{where} is {value!r}: {message}" if is_shown else f"{where}: {message}"
