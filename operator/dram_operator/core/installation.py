"""What the installation (a cluster's operator, or a local run) adds to a user's manifest."""

from dataclasses import dataclass, field

from dram_operator.api.pods import Resources
from dram_operator.api.spec import Storage

DEFAULT_RESOURCES = Resources(
    requests={"cpu": "1", "memory": "2Gi", "ephemeral-storage": "2Gi"}, limits={"memory": "8Gi"}
)


@dataclass(frozen=True)
class Installation:
    """Defaults and addresses of the place where stages run."""

    image: str = ""
    """Worker image for jobs that name none."""
    cuda_image: str = ""
    """The same for jobs that ask for NVIDIA's GPUs; empty is `image`."""
    storage: Storage | None = None
    """Storage for jobs that name none."""
    on_cluster: bool = True
    """False in a local run: file:// is allowed, and addresses of pods mean nothing."""
    scratch: str = "/scratch"
    cache: str | None = None
    mounts: dict[str, str] = field(default_factory=dict)
    """URI prefixes that a local run maps to folders."""
    progress_url: str | None = None
    """Base URL at which the operator takes progress, as worker pods reach it."""
    progress_ca: str | None = None
    """PEM of the progress endpoint's certificate authority."""
    max_parallel: int | None = None
    """Stages at work at once; none is no limit."""
    default_resources: Resources = DEFAULT_RESOURCES
    """Resources of worker pods for which the job says nothing."""
    image_pull_secrets: tuple[str, ...] = ()
    image_pull_policy: str = "IfNotPresent"
