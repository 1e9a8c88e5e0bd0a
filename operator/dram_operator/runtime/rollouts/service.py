"""EdgeRollouts on one replica: the parts, wired."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dram_operator.adapters.prometheus import Endpoint, EndpointInvalid, Prometheus
from dram_operator.adapters.resources import EDGE_ROLLOUTS
from dram_operator.core.rollout.document import Delivery
from dram_operator.errors import SettingsInvalid
from dram_operator.runtime.cache import Key
from dram_operator.runtime.rollouts.floor import Floor
from dram_operator.runtime.rollouts.metrics import RolloutCollector, Transitions
from dram_operator.runtime.rollouts.publish import Publisher
from dram_operator.runtime.rollouts.reconcile import Artifacts, RolloutReconciler, Senses
from dram_operator.runtime.rollouts.releases import Releases, Repository, open_repository
from dram_operator.runtime.rollouts.sight import ReadList, Sight
from dram_operator.runtime.rollouts.switch import Switch
from dram_operator.runtime.surroundings import Surroundings
from dram_operator.settings import PrometheusEndpoint, Settings, variable

if TYPE_CHECKING:
    from dram_operator.runtime.clearing import Clearing


MakeArtifacts = Callable[[Surroundings, Repository], Artifacts]
"""How artifacts get into the repository; None is by release pods."""


class Rollouts:
    """Serves EdgeRollouts; `run` does what no object asks for. SettingsInvalid when the installation's settings cannot be used."""

    def __init__(self, around: Surroundings, make_artifacts: MakeArtifacts | None) -> None:
        settings = around.settings
        repository = open_repository(settings, around.clock)
        self._around = around
        self._switch = Switch(settings.frozen)
        self._releases: Releases | None = None
        self._artifacts: Artifacts | None = None
        self._clearing: Clearing | None = None
        if repository is not None:
            floor = Floor(around.api, settings.lease_namespace, settings.lease_name)
            self._releases = Releases(repository.releases, floor, time.monotonic)
            self._artifacts = make_artifacts(around, repository) if make_artifacts else self._own_artifacts(repository)
        lists = _lists(repository) if repository else None
        self._sight = Sight(open_endpoints(settings), around.wake, around.clock, time.monotonic, lists)
        self._transitions = Transitions()
        self.reconcile = self._reconciler()

    def collector(self) -> RolloutCollector:
        """What `/metrics` shows of them."""
        releases = self._releases
        return RolloutCollector(
            self._around.cache.edge_rollouts,
            self._transitions,
            lambda: releases.expiries if releases else None,
            self._around.clock,
        )

    async def run(self) -> None:
        """Sign again what is due and follow the switch, until cancelled; then nobody looks any more."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._switch.run(self._wake_all))
                if self._releases is not None:
                    group.create_task(self._releases.run(self._wake_all))
                if self._clearing is not None:
                    group.create_task(self._clearing.run())
        finally:
            await self._sight.close()

    def _reconciler(self) -> RolloutReconciler:
        around = self._around
        senses = Senses(
            sight=self._sight,
            releases=self._releases,
            artifacts=self._artifacts,
            delivery=self._delivery,
            clock=around.clock,
            vouched=around.settings.commands_vouched,
        )
        publisher = Publisher(around.api, around.cache, self._releases)
        return RolloutReconciler(around.cache, senses, publisher, around.recorder, self._transitions)

    def _own_artifacts(self, repository: Repository) -> Artifacts:
        """Release pods and signatures, and the daily clearing of what they made."""
        from dram_operator.runtime.artifacts import make_artifacts
        from dram_operator.runtime.clearing import Clearing

        around = self._around
        made = make_artifacts(around, repository)
        self._clearing = Clearing(
            made.desk, repository.releases, around.cache.edge_rollouts, lambda: made.shown, around.clock
        )
        return made

    def _delivery(self) -> Delivery:
        return self._around.settings.delivery(frozen=self._switch.is_on())

    def _wake_all(self) -> None:
        for obj in self._around.cache.edge_rollouts():
            self._around.wake(Key(obj["metadata"]["namespace"], obj["metadata"]["name"], EDGE_ROLLOUTS.kind))


def _lists(repository: Repository) -> ReadList:
    from dram_operator.adapters.releases.inventory import InventoryFiles

    return InventoryFiles(repository.bucket).inventory_file


def open_endpoints(settings: Settings) -> dict[str, Prometheus]:
    """The installation's metrics servers by name; nothing is asked of them yet. SettingsInvalid for one that cannot be used."""
    try:
        return {each.name: Prometheus(_endpoint(each)) for each in settings.prometheus}
    except EndpointInvalid as error:
        raise SettingsInvalid(f"{variable('prometheus')}: {error}") from error


def _endpoint(setting: PrometheusEndpoint) -> Endpoint:
    return Endpoint(**{name: getattr(setting, name) for name in type(setting).model_fields})
