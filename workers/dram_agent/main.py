"""`dram agent`: the parts put together, until SIGTERM."""

import asyncio
import fcntl
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from aiohttp import web

from dram_agent.child import RuntimeSettings
from dram_agent.clock import ClockGuard
from dram_agent.device import Updater
from dram_agent.disk import Disk
from dram_agent.local import LocalRuntime
from dram_agent.push import Pusher
from dram_agent.serve import CloudSettings, Front, ServeSettings, metrics_app
from dram_agent.settings import AgentSettings, SettingsInvalid, read_id
from dram_agent.slots import Slots
from dram_agent.smoke import SmokeSettings
from dram_agent.standing import Phase
from dram_agent.telemetry import Identity, Telemetry
from dram_agent.trust import Trust
from dram_agent.update import Device
from dram_agent.web import Web, WebSettings

log = logging.getLogger(__name__)

WATCH_SECONDS = 1.0


@dataclass(frozen=True)
class Agent:
    """A device's agent, wired."""

    settings: AgentSettings
    telemetry: Telemetry
    local: LocalRuntime
    updater: Updater
    pusher: Pusher | None

    @classmethod
    def build(cls, settings: AgentSettings) -> "Agent":
        """Wire the parts; nothing is started, nobody is asked. SettingsInvalid when a file is missing."""
        root, device_id = _file(settings.root), read_id(settings.device_id_file)
        disk = Disk(settings.state)
        clock = ClockGuard(disk)
        label = device_id if settings.device_label else None
        identity = Identity(settings.channel, label, settings.device_class, version("dram"), settings.labels)
        telemetry = Telemetry(identity)
        web_client = Web(WebSettings(settings.repository, _text(settings.repository_ca_file)))
        trust = Trust(disk, web_client, clock, root, settings.channel, telemetry.count_refusal)
        slots = Slots(disk, trust, web_client, disk.free_bytes)
        threads = {} if settings.threads is None else {"threads": settings.threads}
        local = LocalRuntime(
            slots,
            RuntimeSettings(settings.context_tokens, settings.parallel, **threads),
            SmokeSettings(settings.golden, least_ratio=settings.golden_least_ratio, memory_bytes=settings.memory_bytes),
            telemetry,
            clock.now,
        )
        updater = Updater(disk, trust, slots, clock, local, lambda: _device(settings, device_id))

        def show(phase: Phase) -> None:
            telemetry.show_phase(phase)
            telemetry.show_standing(updater.standing())

        updater.on_phase, local.before_start = show, updater.count_start
        pusher = Pusher(settings.push, telemetry) if settings.push else None
        return cls(settings, telemetry, local, updater, pusher)

    async def run(self) -> None:
        """Serve, update and report until it is cancelled; then no process is left."""
        cloud = self.settings.cloud
        answers = None
        if cloud:
            answers = CloudSettings(cloud.url, cloud.model, cloud.key_file, cloud.answer_seconds, cloud.ca_file)
        limits = ServeSettings(self.settings.first_seconds, self.settings.answer_seconds)
        runners = [
            await _listen(Front(self.local, self.telemetry, limits, answers).app(), self.settings.listen),
            await _listen(metrics_app(self.telemetry), self.settings.metrics_listen),
        ]
        try:
            await asyncio.to_thread(self.updater.boot)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._update())
                tasks.create_task(self._watch())
                if self.pusher is not None:
                    tasks.create_task(self.pusher.run())
        finally:
            await asyncio.to_thread(self.local.close)
            for runner in runners:
                await runner.cleanup()

    async def _update(self) -> None:
        while True:
            seconds = await asyncio.to_thread(self.updater.cycle)
            await asyncio.sleep(seconds)

    async def _watch(self) -> None:
        while True:
            await asyncio.to_thread(self._look)
            await asyncio.sleep(WATCH_SECONDS)

    def _look(self) -> None:
        self.local.watch()
        self.updater.tick()
        self.telemetry.show_standing(self.updater.standing())


def run_agent(settings: AgentSettings) -> int:
    """Run until SIGTERM or SIGINT. SettingsInvalid before anything is started."""

    async def until_told(agent: Agent) -> None:
        task = asyncio.ensure_future(agent.run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            log.info("Told to end")

    with _alone_in(settings.state):
        asyncio.run(until_told(Agent.build(settings)))
    return 0


@contextmanager
def _alone_in(state: Path) -> Iterator[None]:
    """Have the state folder to ourselves: two agents would write over each other's slots. SettingsInvalid.

    The folder itself is locked (flock(2)): on a full disk there is no room for a file to lock.
    """
    try:
        state.mkdir(parents=True, exist_ok=True)
        folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise SettingsInvalid(f"state: {state} cannot be used: {error.strerror}") from error
    try:
        if not os.access(state, os.W_OK | os.X_OK):
            raise SettingsInvalid(f"state: {state} cannot be written: give it to user {os.geteuid()}, e.g. with chown")
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"state: another agent works in {state}: stop it, or give this one a folder of its own"
            raise SettingsInvalid(message) from error
        except OSError as error:  # Some network file systems lock no folders.
            log.warning("%s cannot be locked (%s): see that no other agent uses it", state, error.strerror)
        yield
    finally:
        os.close(folder)


async def _listen(app: web.Application, address: str) -> web.AppRunner:
    host, _, port = address.rpartition(":")
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=5.0)
    await runner.setup()
    await web.TCPSite(runner, host or None, int(port)).start()
    return runner


def _device(settings: AgentSettings, device_id: str) -> Device:
    pin = settings.pin_file.read_text().strip() if settings.pin_file.is_file() else None
    return Device(
        id=device_id,
        labels=settings.labels,
        device_class=settings.device_class,
        memory_bytes=settings.memory_bytes,
        agent_version=version("dram"),
        veto=settings.veto_file.exists(),
        pin=pin,
    )


def _file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsInvalid(f"{path} cannot be read: {error.strerror}") from error


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
