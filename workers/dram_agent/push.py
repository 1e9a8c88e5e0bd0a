"""Telemetry sent by OTLP over HTTP, for devices that nobody can scrape."""

import asyncio
import logging
import secrets
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp
from prometheus_client.registry import Collector

from dram_agent.otlp import CONTENT_TYPE, export
from dram_agent.settings import Push, SettingsInvalid

log = logging.getLogger(__name__)

SESSION, SEQUENCE = "Dram-Session", "Dram-Sequence"
"""Headers: a random number of this process, and the number of the push in it. By them a gateway tells a device that was
started again from two devices under one id."""
TIMEOUT = aiohttp.ClientTimeout(total=10)
RESOURCE = {"service.name": "dram-agent"}


@dataclass
class Pusher:
    """Sends the series at every interval. What is lost is made up for: counters are cumulative. SettingsInvalid."""

    settings: Push
    series: Collector
    wall: Callable[[], float] = time.time
    session: str = field(default_factory=lambda: secrets.token_hex(16))
    sequence: int = 0
    started: float = field(init=False)
    tls: ssl.SSLContext = field(init=False)

    def __post_init__(self) -> None:
        self.started, self.tls = self.wall(), _tls(self.settings)

    async def run(self) -> None:
        """Send now and after every interval."""
        connector = aiohttp.TCPConnector(ssl=self.tls)
        async with aiohttp.ClientSession(connector=connector, timeout=TIMEOUT) as client:
            while True:
                await self.push(client)
                await asyncio.sleep(self.settings.interval_seconds)

    async def push(self, client: aiohttp.ClientSession) -> bool:
        """One push; whether it was taken."""
        self.sequence += 1
        try:
            body = export(self.series, RESOURCE, self.wall(), self.started)
            async with client.post(
                self.settings.url, data=body, headers=self._headers(), allow_redirects=False
            ) as answer:
                if answer.status < 300:
                    return True
                log.warning("Telemetry was not taken: HTTP %d", answer.status)
        except (aiohttp.ClientError, OSError) as error:
            log.warning("Telemetry was not taken: %s", type(error).__name__)
        return False

    def _headers(self) -> dict[str, str]:
        """The token is read every time: it may be renewed."""
        headers = {"Content-Type": CONTENT_TYPE, SESSION: self.session, SEQUENCE: str(self.sequence)}
        if self.settings.token_file is not None:
            headers["Authorization"] = f"Bearer {self.settings.token_file.read_text().strip()}"
        return headers


def _tls(settings: Push) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.certificate_file is not None:
            context.load_cert_chain(settings.certificate_file)
    except OSError as error:
        raise SettingsInvalid(f"push: a certificate cannot be read: {error}") from error
    return context
