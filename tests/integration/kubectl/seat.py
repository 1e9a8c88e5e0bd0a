"""Who sits at the command line, what lies in the cluster, and who handles commands there."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from click.testing import CliRunner, Result

from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.api.rollout_status import EdgeRolloutStatus, StepState
from dram_operator.cli import main
from dram_operator.core.rollout.commands import ANNOTATION, pending, remember, rule_on
from tests.builders import AJob, a_rollout
from tests.cluster.api import Api, Object
from tests.operator.api.rollout_statuses import A_FULL_STATUS

NAMESPACE = "kubectl"
USERS: Mapping[str, tuple[str, ...]] = {
    "vera": ("view",),
    "emil": ("view", "edit"),
    "olga": ("view", "edit", "commands"),
}
"""Users and the chart's roles that they are bound to."""
WAITING = A_FULL_STATUS.model_copy(
    update={
        "step": A_FULL_STATUS.step and A_FULL_STATUS.step.model_copy(update={"state": StepState.AWAITING_APPROVAL}),
        "rollback": None,
        "commands": (),
    }
)
"""A candidate whose second step waits for a person."""
RESTING = WAITING.model_copy(update={"candidate": None, "step": None})
"""A stable release, and nothing on its way."""


@dataclass(frozen=True)
class Seat:
    """A user at the command line."""

    user: str
    kubeconfig: Path

    def dram(self, *arguments: str, typed: str = "") -> Result:
        """Run `kubectl dram` with these arguments."""
        return CliRunner().invoke(main, [*arguments, "--kubeconfig", str(self.kubeconfig)], input=typed)


def rollout(name: str, command: str | None = None) -> Object:
    """A rollout's manifest."""
    made = a_rollout().named(name).having("metadata.namespace", NAMESPACE)
    return (made if command is None else made.having("metadata.annotations", {ANNOTATION: command})).manifest()


def place_rollout(api: Api, name: str, status: EdgeRolloutStatus) -> Object:
    """Create a rollout with a status."""
    api.create(rollout(name))
    return set_status(api, "EdgeRollout", name, status.model_dump(mode="json", by_alias=True, exclude_none=True))


def place_job(api: Api, job: AJob, name: str) -> Object:
    """Create a job with its status."""
    manifest = job.named(name, NAMESPACE).manifest()
    status = manifest.pop("status", None)
    api.create(manifest)
    return set_status(api, "DistillationJob", name, status) if status else {}


def set_status(api: Api, kind: str, name: str, status: Object) -> Object:
    """Write (parts of) a status."""
    return api.patch(kind, name, NAMESPACE, {"status": status}, subresource="status")


def command_of(api: Api, name: str) -> str | None:
    """The annotation as it is."""
    found: dict[str, Any] = api.get("EdgeRollout", name, NAMESPACE)["metadata"].get("annotations", {})
    return found.get(ANNOTATION)


class Clerk:
    """Rules on commands with the operator's own functions, and writes their outcome."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.before: Callable[[EdgeRolloutStatus], EdgeRolloutStatus] = lambda status: status
        """What happens to a rollout just before its command is ruled on."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._over.wait(0.1):
            for obj in self._api.list("EdgeRollout", NAMESPACE):
                seen = EdgeRollout.from_object(obj)
                command = pending(seen.metadata.annotations, seen.status)
                if command:
                    status = self.before(seen.status)
                    after = remember(status, command, rule_on(command, status), datetime.now(UTC), vouched=True)
                    body = after.model_dump(mode="json", by_alias=True, exclude_none=True)
                    set_status(self._api, "EdgeRollout", seen.metadata.name, body)
