"""A device's endpoint under test: a real model in a real process, a cloud that answers as told, and a client."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from dram_agent.child import RuntimeSettings
from dram_agent.disk import Disk
from dram_agent.document import Artifact, Requirements
from dram_agent.local import LocalRuntime
from dram_agent.serve import CloudSettings, Front, ServeSettings
from dram_agent.slots import Held, Slot, Slots
from dram_agent.smoke import SmokeSettings
from dram_agent.telemetry import Identity, Telemetry

A_RELEASE, B_RELEASE = "a" * 64, "b" * 64
ARTIFACT = Artifact(
    path=f"artifacts/{'a' * 64}/manifest.json", requires=Requirements(format="gguf", memory_bytes=1, agent_version="0")
)
HELLO = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "temperature": 0}
PATIENCE_SECONDS = 120.0


@dataclass
class Cloud:
    """Somebody else's endpoint."""

    status: int = 200
    seen: list[tuple[str, dict[str, Any], str | None]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        self.seen.append((request.path, await request.json(), request.headers.get("Authorization")))
        choice = {"index": 0, "message": {"role": "assistant", "content": "from the cloud"}}
        return web.json_response({"choices": [choice]}, status=self.status)


def held(release: str) -> Held:
    return Held(release=release, artifact=release, model="model.gguf")


def local_runtime(folder: Path, model: Path, smoke: SmokeSettings | None = None, **more: Any) -> LocalRuntime:
    """The runtime over two slots that hold the same file as two releases."""
    disk = Disk(folder)
    for slot in Slot:
        path = disk.path(f"slots/{slot}")
        path.mkdir(parents=True, exist_ok=True)
        (path / "model.gguf").symlink_to(model)
    slots = Slots(disk, None, None, lambda: 0)  # type: ignore[arg-type]
    settings = RuntimeSettings(**{"context_tokens": 512, "threads": 1, **more})
    telemetry = Telemetry(Identity("tv/bot", "device-1"))
    return LocalRuntime(slots, settings, smoke or SmokeSettings(), telemetry, time.time)


def until(check: Callable[[], object], local: LocalRuntime | None = None) -> None:
    """Wait for something that takes as long as it takes; gives up after minutes."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not check():
        assert time.monotonic() < deadline
        if local is not None:
            local.watch()
        time.sleep(0.02)


def serve_and_wait(local: LocalRuntime, slot: Slot = Slot.A, release: str = A_RELEASE) -> None:
    local.serve(slot, held(release))
    until(lambda: local.healthy_since() is not None, local)


@dataclass
class Client:
    """Asks the endpoint."""

    url: str
    cloud: Cloud
    session: aiohttp.ClientSession

    async def ask(self, body: Any, path: str = "/v1/chat/completions") -> tuple[int, Any]:
        async with self.session.post(f"{self.url}{path}", json=body) as answer:
            return answer.status, await answer.json()


@asynccontextmanager
async def endpoint(
    local: LocalRuntime,
    settings: ServeSettings | None = None,
    key_file: Path | None = None,
    *,
    with_cloud: bool = True,
    ca_file: Path | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Client]:
    """The endpoint with its cloud, listening."""
    cloud = Cloud()
    elsewhere = web.Application()
    elsewhere.router.add_post("/v1/{name:.*}", cloud.answer)
    there = TestServer(elsewhere)
    await there.start_server(ssl=tls)
    async with there:
        url = str(there.make_url("")).rstrip("/")
        given = CloudSettings(url, "big-model", key_file, ca_file=ca_file) if with_cloud else None
        front = Front(local, local.telemetry, settings or ServeSettings(), given)
        async with TestServer(front.app()) as here, aiohttp.ClientSession() as session:
            yield Client(str(here.make_url("")).rstrip("/"), cloud, session)


def sample(local: LocalRuntime, name: str, **labels: str) -> float | None:
    """A sample of the device's metrics."""
    found = [
        each.value
        for family in local.telemetry.collect()
        for each in family.samples
        if each.name == name and labels.items() <= each.labels.items()
    ]
    return sum(found) if found else None


async def in_thread(check: Callable[[], object], local: LocalRuntime | None = None) -> None:
    """`until` beside a running endpoint."""
    await asyncio.to_thread(until, check, local)
