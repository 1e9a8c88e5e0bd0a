"""The cluster that a person means: the kubeconfig, context and namespace, chosen as kubectl chooses them."""

from pathlib import Path

from kubernetes.aio import client, config

from dram_operator.adapters.kubernetes import Kubernetes
from dram_operator.errors import Refused

OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


async def connect(kubeconfig: Path | None, context: str | None) -> tuple[Kubernetes, str]:
    """Requests to that cluster, and the context's namespace. Refused when there is no usable context.

    Without a kubeconfig, KUBECONFIG and ~/.kube/config are read as kubectl does; in a pod without either, its service account.
    """
    configuration = client.Configuration()
    try:
        loader = await config.load_kube_config(  # type: ignore[no-untyped-call]
            str(kubeconfig) if kubeconfig else None,
            context=context,
            client_configuration=configuration,
            persist_config=False,
        )
    except config.ConfigException as error:
        own = None if kubeconfig or context else _own_namespace()
        if own is None:
            raise Refused(f"no usable kubeconfig: {error}") from error
        config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        return Kubernetes(configuration), own
    found = loader.current_context["context"].get("namespace")
    return Kubernetes(configuration), found or "default"


def _own_namespace() -> str | None:
    """The namespace of the pod that this runs in; None outside of one."""
    try:
        return OWN_NAMESPACE.read_text().strip()
    except OSError:
        return None
