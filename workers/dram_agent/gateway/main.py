"""`dram gateway`: listens until SIGTERM."""

import asyncio
import logging
import signal
import ssl

from aiohttp import web

from dram_agent.gateway.app import Gateway, server_tls
from dram_agent.gateway.settings import GatewaySettings

log = logging.getLogger(__name__)
LINGER_SECONDS = 1.0
"""How long a refused body is still read, so that the answer reaches who sends it."""
DRAIN_SECONDS = 5.0
IDLE_SECONDS = 75.0
"""How long a connection may stay without a whole request: who is not let in must not hold it for long. Proxies keep idle ones
for a minute."""


def run_gateway(settings: GatewaySettings) -> int:
    """Run until SIGTERM or SIGINT. SettingsInvalid before anything is started."""
    gateway = Gateway(settings)
    tls = server_tls(settings.certificate_file, settings.client_ca_file)

    async def until_told() -> None:
        told = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        runners = []
        try:
            for app, address, context in (
                (gateway.app(), settings.listen, tls),
                (gateway.own_app(), settings.metrics_listen, None),
            ):
                runners.append(await listen(app, address, context))
            log.info("Listening on %s", settings.listen)
            await told.wait()
        finally:
            for runner in runners:
                await runner.cleanup()

    asyncio.run(until_told())
    return 0


async def listen(app: web.Application, address: str, tls: ssl.SSLContext | None) -> web.AppRunner:
    """Serve an app at `host:port` until the runner is cleaned up."""
    host, _, port = address.rpartition(":")
    runner = web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=DRAIN_SECONDS,
        lingering_time=LINGER_SECONDS,
        keepalive_timeout=IDLE_SECONDS,
    )
    await runner.setup()
    await web.TCPSite(runner, host or None, int(port), ssl_context=tls).start()
    return runner
