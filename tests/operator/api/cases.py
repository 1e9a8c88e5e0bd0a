"""Manifests that are accepted and manifests that are refused, for the API server and for the check without one."""

from tests.operator.api import refused_recipe as recipe
from tests.operator.api import refused_running as run
from tests.operator.api.accepted import ACCEPTED
from tests.operator.api.case import Accepted, Refused, everything

__all__ = ["ACCEPTED", "REFUSED", "Accepted", "Refused", "everything"]

REFUSED: tuple[Refused, ...] = (
    *recipe.names(),
    *recipe.schema_faults(),
    *recipe.uris(),
    *recipe.learning(),
    *recipe.modes(),
    *run.proof(),
    *run.storage(),
    *run.pod_faults(),
    *run.updates(),
)
