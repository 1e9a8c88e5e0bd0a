"""The cluster that a person means: the kubeconfig, context and namespace, chosen as kubectl chooses them."""

import os
from pathlib import Path

import yaml
from kubernetes.aio import client, config

from dram_operator.adapters.kubernetes import Kubernetes
from dram_operator.errors import Refused

OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
DEFAULT = "~/.kube/config"


async def connect(kubeconfig: Path | None, context: str | None) -> tuple[Kubernetes, str]:
    """Requests to that cluster, and the context's namespace. Refused when there is no usable context.

    Without a kubeconfig, KUBECONFIG and ~/.kube/config are read as kubectl does; in a pod without either, its service account.
    """
    files = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG") or DEFAULT
    if not _exists(files):
        own = None if kubeconfig or context else _own_namespace()
        if own is None:
            raise Refused(f"no usable kubeconfig: there is no file {files}")
        configuration = client.Configuration()
        config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        return Kubernetes(configuration), own
    try:
        return await _connect(files, context)
    except config.ConfigException as error:
        raise Refused(f"no usable kubeconfig: {error}") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise Refused(f"no usable kubeconfig: {files}: {' '.join(str(error).split())}") from error
    except (TypeError, AttributeError, KeyError) as error:
        # The library takes any YAML for a kubeconfig.
        raise Refused(f"no usable kubeconfig: {files} is not in the form of one") from error


async def _connect(files: str, context: str | None) -> tuple[Kubernetes, str]:
    configuration = client.Configuration()
    loader = await config.load_kube_config(  # type: ignore[no-untyped-call]
        files, context=context, client_configuration=configuration, persist_config=False
    )
    chosen = loader.current_context
    is_nobody = not configuration.api_key and not configuration.cert_file
    if is_nobody and chosen["context"].get("user") and configuration.host.startswith("https:"):
        # The library says why a plugin gave none, and would go on as nobody.
        raise Refused(f"the context {chosen['name']} has no credentials: log in again")

    async def renew(held: client.Configuration) -> None:
        try:
            await loader.load_and_set(held)
        except config.ConfigException as error:
            raise Refused(f"the credentials of this context ended: {error}") from error

    # Asked before every request: plugins' tokens are good for minutes, and a watch may take hours.
    configuration.refresh_api_key_hook = renew  # type: ignore[assignment]
    return Kubernetes(configuration), chosen["context"].get("namespace") or "default"


def _exists(files: str) -> bool:
    """Whether there is one of these files at least."""
    return any(Path(file).expanduser().exists() for file in files.split(os.pathsep) if file)


def _own_namespace() -> str | None:
    """The namespace of the pod that this runs in; None outside of one."""
    try:
        return OWN_NAMESPACE.read_text().strip()
    except OSError:
        return None
