"""What there is of an installation: its Deployment, and the settings that its pods get."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from dram_operator.adapters.resources import DEPLOYMENTS, Object
from dram_operator.cli.cluster import Cluster
from dram_operator.errors import SettingsInvalid
from dram_operator.settings import PREFIX, Settings

SELECTOR = "app.kubernetes.io/name=dram,app.kubernetes.io/component=operator"
AS_JSON = {"storage"}
"""Settings whose variable is JSON that pydantic decodes."""
FIELDS = set(Settings.model_fields)
INSIDE = f"{PREFIX}LEASE_NAMESPACE"
"""Set where this process is the operator's pod."""


@dataclass(frozen=True)
class Installation:
    """One operator."""

    settings: Settings
    namespace: str
    account: str
    is_inside: bool
    """Whether this process sees what the operator sees: its network, its files, its identity."""
    deployment: Object | None = None

    @property
    def name(self) -> str:
        """Namespace and name of its Deployment."""
        return f"{self.namespace}/{self.deployment['metadata']['name'] if self.deployment else 'dram'}"

    @property
    def exec_remedy(self) -> str:
        """How to look from inside."""
        name = self.name.partition("/")[2]
        return f"look from inside: kubectl exec -n {self.namespace} deploy/{name} -- dram doctor"


def own_installation() -> Installation | None:
    """The installation that this process is a pod of; None elsewhere. SettingsInvalid where its settings are wrong."""
    if INSIDE not in os.environ:
        return None
    settings = Settings.load()
    return Installation(settings, settings.lease_namespace, "", is_inside=True)


async def find_deployments(cluster: Cluster, namespace: str | None) -> list[Object]:
    """Operators of a namespace, or of all that the user may see."""
    items, _ = await cluster.api.list(DEPLOYMENTS, namespace, labels=SELECTOR)
    return items


def of_deployment(deployment: Object) -> Installation:
    """The installation behind a Deployment. SettingsInvalid where its settings are wrong. Secrets stay unknown."""
    pod = deployment["spec"]["template"]["spec"]
    (container,) = (one for one in pod["containers"] if one["name"] == "operator")
    given = {one["name"]: one["value"] for one in container.get("env", ()) if "value" in one}
    return Installation(
        settings=_settings(given),
        namespace=deployment["metadata"]["namespace"],
        account=pod.get("serviceAccountName", "default"),
        is_inside=False,
        deployment=deployment,
    )


def _settings(environment: Mapping[str, str]) -> Settings:
    given = {name.removeprefix(PREFIX).lower(): value for name, value in environment.items() if name.startswith(PREFIX)}
    known = {name: json.loads(text) if name in AS_JSON else text for name, text in given.items() if name in FIELDS}
    try:
        return Settings.model_validate(known)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise SettingsInvalid(f"{place}: {first['msg']}") from error
