"""The two listeners of a replica: metrics and health in the clear, progress over TLS."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from dram_operator.core.configs import PROGRESS_PATH
from dram_operator.runtime.progress import LARGEST_BODY, ProgressEndpoint, read_body

FORWARDED = "Dram-Forwarded"
"""Set on a report that a replica passed on: it is passed on once."""
FORWARD_TIMEOUT = aiohttp.ClientTimeout(total=5)
CERTIFICATE_CHECK_SECONDS = 30.0
"""How often the certificate's file is looked at: a mounted Secret follows its renewal within about a minute."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Health:
    """What the probes ask."""

    is_live: Callable[[], bool]
    is_ready: Callable[[], bool]


def metrics_app(registry: CollectorRegistry, health: Health) -> web.Application:
    """`/metrics`, `/healthz` (restart me when it fails) and `/readyz`."""

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    def probe(passes: Callable[[], bool]) -> Handler:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(text="ok\n") if passes() else web.Response(status=503, text="not ok\n")

        return answer

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", probe(health.is_live))
    app.router.add_get("/readyz", probe(health.is_ready))
    return app


@dataclass(frozen=True)
class Leadership:
    """Who takes reports."""

    leads: Callable[[], bool]
    address: Callable[[], str | None]
    """`host:port` of the replica that leads; None while nobody knows."""


class ProgressRouter:
    """Gives a report to this replica's endpoint when it leads, else to the leader's."""

    def __init__(
        self, endpoint: ProgressEndpoint, leadership: Leadership, url: str | None, ca_file: Path | None
    ) -> None:
        self._endpoint = endpoint
        self._leadership = leadership
        self._server_name = urlsplit(url).hostname if url else None
        self._tls = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        self._session: aiohttp.ClientSession | None = None

    def app(self) -> web.Application:
        """The application of the TLS listener."""
        app = web.Application(client_max_size=LARGEST_BODY)
        app.router.add_post(PROGRESS_PATH, self._route)
        app.on_cleanup.append(self._close)
        return app

    async def _route(self, request: web.Request) -> web.Response:
        if self._leadership.leads():
            return await self._endpoint.accept(request)
        address = self._leadership.address()
        if address is None or FORWARDED in request.headers:
            return web.Response(status=503, text="no replica leads at the moment\n")
        return await self._forward(address, request.headers.get("Authorization", ""), await read_body(request))

    async def _forward(self, address: str, authorization: str, body: bytes) -> web.Response:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=FORWARD_TIMEOUT)
        headers = {"Authorization": authorization, FORWARDED: "1", "Content-Type": "application/json"}
        target = f"https://{address}{PROGRESS_PATH}"
        try:
            async with self._session.post(
                target, data=body, headers=headers, ssl=self._tls, server_hostname=self._server_name
            ) as answer:
                return web.Response(status=answer.status, body=await answer.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            return web.Response(status=503, text=f"the leader at {address} does not answer: {type(error).__name__}\n")

    async def _close(self, app: web.Application) -> None:
        if self._session is not None:
            await self._session.close()


def server_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS of the progress listener."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    return context


def _written_at(path: Path) -> float:
    return path.stat().st_mtime


async def follow_renewal(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Load the certificate again whenever its file changed; new connections use it."""
    loaded = _written_at(certificate)
    while True:
        await asyncio.sleep(CERTIFICATE_CHECK_SECONDS)
        written = _written_at(certificate)
        if written != loaded:
            context.load_cert_chain(certificate, key)
            loaded = written


@dataclass
class Listener:
    """An application listening on a port of all interfaces."""

    app: web.Application
    port: int
    tls: ssl.SSLContext | None = None
    _runner: web.AppRunner | None = None

    async def start(self) -> int:
        """Listen; returns the port, which the system chose where 0 was asked for."""
        self._runner = web.AppRunner(self.app, access_log=None, shutdown_timeout=2.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, port=self.port, ssl_context=self.tls)
        await site.start()
        # Asked for port 0, the system gives each address family a port of its own.
        return int(min(self._runner.addresses, key=len)[1])

    async def stop(self) -> None:
        """Close the listener and what is open."""
        if self._runner is not None:
            await self._runner.cleanup()
