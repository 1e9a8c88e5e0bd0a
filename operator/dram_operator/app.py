"""kopf wiring: which watches there are, and what a watch event becomes. No decision is made here.

Only `on.event` handlers are registered: kopf writes nothing for them (no annotation, no finalizer), and never reports
what happened as a diff, so that every event means the same: look at this object again.
"""

import asyncio
import logging
import signal
from collections.abc import Callable
from typing import Any, cast

import kopf

from dram_operator.adapters.kubernetes import Kubernetes
from dram_operator.adapters.resources import JOBS, PODS, Resource
from dram_operator.core.jobs import JOB_LABEL
from dram_operator.errors import OperatorError, SettingsInvalid
from dram_operator.runtime.cache import WATCHED
from dram_operator.runtime.logs import configure
from dram_operator.runtime.operator import Operator
from dram_operator.settings import Settings

log = logging.getLogger(__name__)


def kopf_settings() -> kopf.OperatorSettings:
    """Every kopf setting that matters here, with its reason."""
    settings = kopf.OperatorSettings()
    # Peering is not leader election: equal priorities freeze both, and a stray peer pauses us silently (nolar/kopf#734).
    settings.peering.standalone = True
    # Watching CRDs and namespaces would need cluster-wide rights for something we never use.
    settings.scanning.disabled = True
    # We send our own Events, aggregated; kopf would send one object a message.
    settings.posting.enabled = False
    # A limit here holds a slot for `idle_timeout` after an object's last event: five slots serve one object a second.
    settings.queueing.worker_limit = None
    # Our queue waits, not kopf's worker: let it go at once, so that 1,000 quiet objects hold no task.
    settings.queueing.idle_timeout = 0.5
    # Nothing is diffed, so nothing is remembered; kopf's own storage copies every object on every event, half of our time.
    settings.persistence.diffbase_storage = _NoDiffBase()
    # Pages, so that a big cluster's listing does not arrive as one answer.
    settings.watching.chunk_size = 500
    # Bookmarks come every minute; 70 s without any means a dead connection (nolar/kopf#1267).
    settings.watching.inactivity_timeout = 70.0
    # The API server filters: other people's Jobs and Pods never reach us.
    for resource in (JOBS, PODS):
        settings.watching.label_selectors[_selector(resource)] = JOB_LABEL
    # SIGTERM is ours: reconciles end first. kopf must not kill the process from a timer of its own.
    settings.process.ultimate_exiting_timeout = None
    return settings


def wire(operator: Operator) -> kopf.OperatorRegistry:
    """The handlers of one operator."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        """The watches use the credentials of our own requests, refreshed like those."""
        return await _connection(operator.api)

    for resource in WATCHED:
        kopf.on.event(resource.group, resource.version, resource.plural, registry=registry)(
            _enqueue(operator, resource)
        )
    return registry


class _NoDiffBase(kopf.DiffBaseStorage):
    """Remembers nothing of an object: `on.event` handlers are not told what changed."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None, ignored_fields: Any = None) -> kopf.BodyEssence:
        return cast("kopf.BodyEssence", {})

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        return


def _enqueue(operator: Operator, resource: Resource) -> Callable[..., Any]:
    async def enqueue(event: kopf.RawEvent, **_: Any) -> None:
        key = operator.cache.apply(resource, dict(event["object"]), deleted=event["type"] == "DELETED")
        if key is not None:
            operator.wake(key)

    return enqueue


async def _connection(api: Kubernetes) -> kopf.ConnectionInfo:
    credentials = await api.credentials()
    return kopf.ConnectionInfo(
        server=credentials.server,
        ca_path=credentials.ca_file,
        certificate_path=credentials.certificate_file,
        private_key_path=credentials.key_file,
        scheme="Bearer" if credentials.token else None,
        token=credentials.token,
    )


def _selector(resource: Resource) -> tuple[str, str, str]:
    return (resource.group, resource.version, resource.plural)


async def watch(operator: Operator) -> None:
    """Watch until cancelled. Raises when a watch ends for good, since nothing is heard from then on."""
    present = asyncio.all_tasks()
    namespaces = operator.settings.namespaces
    tasks = await kopf.spawn_tasks(
        registry=wire(operator), settings=kopf_settings(), clusterwide=not namespaces, namespaces=namespaces
    )
    # kopf has just taken the signals; they belong to whoever runs the operator.
    operator.claim_signals()
    await kopf.run_tasks(tasks, ignored=present)
    raise OperatorError("the watches ended")


async def run(settings: Settings, stop: asyncio.Event, *, signals: bool = False) -> None:
    """Run one replica until `stop` is set (by SIGTERM or SIGINT where `signals` are taken)."""
    loop = asyncio.get_running_loop()

    def claim_signals() -> None:
        for number in (signal.SIGTERM, signal.SIGINT) if signals else ():
            loop.add_signal_handler(number, stop.set)

    claim_signals()
    api = await Kubernetes.connect(settings.kubeconfig)
    try:
        await Operator(settings, api, watch, claim_signals).run(stop)
    finally:
        await api.close()


def main() -> int:
    """Run the operator of this pod; 0 when it was told to stop, 1 when it had to."""
    try:
        settings = Settings.load()
    except SettingsInvalid as error:
        configure("INFO", "text")
        log.error("not started: %s", error)  # noqa: TRY400 -- an expected end, not a fault: no traceback
        return 1
    configure(settings.log_level, settings.log_format)
    try:
        asyncio.run(run(settings, asyncio.Event(), signals=True))
    except OperatorError as error:
        log.error("stopped: %s", error)  # noqa: TRY400 -- an expected end, not a fault: no traceback
        return 1
    return 0
