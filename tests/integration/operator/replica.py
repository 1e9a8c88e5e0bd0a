"""An operator replica inside the test's process, whose API calls the test sees and may spoil."""

import asyncio
import threading
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dram_operator import app
from dram_operator.adapters.kubernetes import Kubernetes, load_configuration
from dram_operator.adapters.resources import LEASES, TOKEN_REVIEWS, Object
from dram_operator.errors import OperatorError, Unavailable
from dram_operator.runtime.operator import Operator
from dram_operator.runtime.rollouts.service import MakeArtifacts
from dram_operator.settings import Settings


@dataclass
class Write:
    """One accepted write."""

    method: str
    path: str
    body: Object
    answer: Object

    @property
    def is_status(self) -> bool:
        """Whether it wrote the status of an object."""
        return self.path.endswith("/status")


Before = Callable[["RecordingKubernetes", str, str, Object], Awaitable[None]]


@dataclass
class Faults:
    """What goes wrong."""

    crash_after: int | None = None
    """The process dies right after this write was accepted, before it learns so."""
    before: Before | None = None
    """Called before every write, e.g. to write first."""


class RecordingKubernetes(Kubernetes):
    """The real client; it remembers writes, and can die."""

    def __init__(self, configuration: Any, faults: Faults, die: Callable[[], None]) -> None:
        super().__init__(configuration)
        self.writes: list[Write] = []
        self.is_dead = False
        self._faults = faults
        self._die = die

    async def request(
        self, method: str, path: str, *, query: dict[str, str] | None = None, body: Object | None = None
    ) -> Object:
        if self.is_dead:
            raise Unavailable("this process is dead")
        counts = method != "GET" and LEASES.plural not in path and TOKEN_REVIEWS.plural not in path
        if counts and self._faults.before is not None:
            await self._faults.before(self, method, path, body or {})
        answer = await super().request(method, path, query=query, body=body)
        if counts:
            self.writes.append(Write(method, path, body or {}, answer))
            if len(self.writes) == self._faults.crash_after:
                self.is_dead = True
                self._die()
                raise Unavailable("this process is dead")
        return answer


@dataclass
class Replica:
    """`with Replica(kubeconfig):` runs one replica in a thread of its own, with an event loop of its own."""

    kubeconfig: Path
    namespaces: tuple[str, ...] = ()
    faults: Faults = field(default_factory=Faults)
    settings: dict[str, Any] = field(default_factory=dict)
    watch: Callable[[Operator], Awaitable[None]] = app.watch
    make_artifacts: MakeArtifacts | None = None
    error: OperatorError | None = None

    def __enter__(self) -> Self:
        self._ready, self.died = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="replica")
        self._thread.start()
        assert self._ready.wait(30), "the replica did not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        if error is None and self.error is not None:
            raise self.error

    def stop(self) -> None:
        """As SIGTERM does."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        assert not self._thread.is_alive(), "the replica did not stop"

    def kill(self) -> None:
        """As SIGKILL does: nothing more reaches the API server, the lease is not released."""
        self.die()
        self._thread.join(60)

    def die(self) -> None:
        """The same, from any thread and without waiting for the end."""
        self.api.is_dead = True
        self._loop.call_soon_threadsafe(self._task.cancel)

    @property
    def writes(self) -> list[Write]:
        """The writes so far, leases and reviews left out."""
        return list(self.api.writes)

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        configuration = await load_configuration(self.kubeconfig)
        self.api = RecordingKubernetes(configuration, self.faults, self._crash)
        fixed: dict[str, Any] = {
            "lease_namespace": "default",
            "lease_name": f"replica-{uuid.uuid4().hex[:12]}",
            "metrics_port": 0,
            "image": "worker:1",
        }
        values = fixed | {"namespaces": self.namespaces} | self.settings
        self.operator = Operator(Settings(**values), self.api, self.watch, make_artifacts=self.make_artifacts)
        self._task = asyncio.create_task(self.operator.run(self._stop))
        self._ready.set()
        try:
            await self._task
        except asyncio.CancelledError:
            self.died.set()
        except OperatorError as error:
            self.error = error
        finally:
            await self.api.close()
            await self._drop_connections()

    async def _drop_connections(self) -> None:
        """The end of a process closes its sockets; the end of a thread leaves half-closed TLS connections to a warning."""
        for transport in list(self._loop._transports.values()):  # type: ignore[attr-defined]
            transport.abort()
        for _ in range(3):
            await asyncio.sleep(0)

    def _crash(self) -> None:
        self._task.cancel()
