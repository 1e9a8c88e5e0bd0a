"""The gateway as an HTTP server: who pushes, may they, what of it goes on."""

import asyncio
import logging
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from dram_agent.gateway.memory import Memory
from dram_agent.gateway.metrics import Metrics
from dram_agent.gateway.refusal import STATUS, Reason, Refused
from dram_agent.gateway.relay import BackendFailed, Relay, opened
from dram_agent.gateway.revocations import Revocations
from dram_agent.gateway.settings import GatewaySettings
from dram_agent.gateway.stamp import stamp
from dram_agent.identity import Claims, Issuers, TokenInvalid, load_public_key
from dram_agent.otlp import CONTENT_TYPE
from dram_agent.push import SEQUENCE, SESSION
from dram_agent.settings import SettingsInvalid

log = logging.getLogger(__name__)

PATH = "/v1/metrics"
BEARER = re.compile(r"Bearer ([A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)")
RANDOM = re.compile("[0-9a-f]{32}")
COUNT = re.compile("[0-9]{1,15}")
NEEDS_A_PERSON = (Reason.CLONED, Reason.REVOKED, Reason.CERTIFICATE)
BACKEND_PAUSE_SECONDS = 30.0


@dataclass
class Gateway:
    """Judges pushes, in the order in which they cost: headers, memory, body, points."""

    settings: GatewaySettings
    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    metrics: Metrics = field(default_factory=Metrics)
    issuers: Issuers = field(init=False)
    revocations: Revocations = field(init=False)
    memory: Memory = field(init=False)
    _relay: Relay | None = None

    def __post_init__(self) -> None:
        """Read keys and the revocation list. SettingsInvalid."""
        self.issuers = Issuers(load_public_key(path) for path in self.settings.issuer_keys)
        self.revocations = Revocations(self.settings.revocations)
        self.revocations.load()
        self.memory = Memory(self.settings.limits)

    def app(self) -> web.Application:
        """What devices see."""
        app = web.Application()
        app.router.add_post(PATH, self._push)
        app.cleanup_ctx.append(self._backend)
        return app

    def own_app(self) -> web.Application:
        """`/metrics` and `/healthz`."""
        app = web.Application()
        app.router.add_get("/metrics", self._tell)
        app.router.add_get("/healthz", self._health)
        return app

    async def _backend(self, _: web.Application) -> AsyncIterator[None]:
        async with opened(self.settings.backend) as self._relay:
            yield

    async def _push(self, request: web.Request) -> web.Response:
        try:
            body = await self._judge(request)
        except Refused as refused:
            self.metrics.count_refused(refused.reason)
            headers = {} if refused.retry_after is None else {"Retry-After": f"{refused.retry_after + 1:.0f}"}
            return web.Response(status=STATUS[refused.reason], text=f"{refused.reason}\n", headers=headers)
        return await self._pass_on(body)

    async def _judge(self, request: web.Request) -> bytes:
        """The push as it goes on. Refused."""
        limits = self.settings.limits
        claims = self._identify(request)
        session, sequence = request.headers.get(SESSION, ""), request.headers.get(SEQUENCE, "")
        is_push = request.content_type == CONTENT_TYPE and "Content-Encoding" not in request.headers
        if not (is_push and RANDOM.fullmatch(session) and COUNT.fullmatch(sequence)):
            raise Refused(Reason.MALFORMED)
        try:
            self.memory.admit(claims.device, session, int(sequence), self.monotonic())
        except Refused as refused:
            self._log(refused.reason, claims)
            raise
        stamped = stamp(await self._read(request), claims, self.wall(), limits.points)
        self.memory.check(claims.device, stamped.requests, stamped.variants, self.monotonic())
        for cause, points in stamped.dropped.items():
            self.metrics.count_dropped(cause, points)
        return bytes(stamped.request.SerializeToString())

    def _identify(self, request: web.Request) -> Claims:
        """Whose push it is."""
        token = BEARER.fullmatch(request.headers.get("Authorization", ""))
        if token is None:
            raise Refused(Reason.UNSIGNED)
        try:
            claims = self.issuers.verify(token[1])
        except TokenInvalid as error:
            raise Refused(Reason.UNSIGNED) from error
        if claims.expires_at <= self.wall():
            raise Refused(Reason.EXPIRED)
        self.revocations.refresh()
        if self.revocations.has_revoked(claims):
            self._log(Reason.REVOKED, claims)
            raise Refused(Reason.REVOKED)
        if self.settings.client_ca_file is not None and _common_name(request) != claims.device:
            self._log(Reason.CERTIFICATE, claims)
            raise Refused(Reason.CERTIFICATE)
        return claims

    def _log(self, reason: Reason, claims: Claims) -> None:
        if reason in NEEDS_A_PERSON:
            log.warning("Refused %s of %s: %s", claims.device, claims.channel, reason)

    async def _read(self, request: web.Request) -> bytes:
        """The body, bounded in length and time."""
        limits = self.settings.limits
        if (request.content_length or 0) > limits.body_bytes:
            raise Refused(Reason.OVERSIZED)
        body = bytearray()
        try:
            async with asyncio.timeout(limits.body_seconds):
                async for chunk in request.content.iter_any():
                    body += chunk
                    if len(body) > limits.body_bytes:
                        raise Refused(Reason.OVERSIZED)
        except TimeoutError as error:
            raise Refused(Reason.SLOW) from error
        return bytes(body)

    async def _pass_on(self, body: bytes) -> web.Response:
        assert self._relay is not None
        started = self.monotonic()
        try:
            await self._relay.send(body)
        except BackendFailed as failed:
            self.metrics.count_failed()
            log.warning("The backend did not take a push: %s", failed)
            headers = {"Retry-After": f"{BACKEND_PAUSE_SECONDS:.0f}"}
            return web.Response(status=503, text="the backend did not take it\n", headers=headers)
        self.metrics.count_accepted(self.monotonic() - started)
        return web.Response(content_type=CONTENT_TYPE)

    async def _tell(self, request: web.Request) -> web.Response:
        self.revocations.refresh()
        self.metrics.show(len(self.memory), is_stale=not self.revocations.is_current)
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self.metrics.registry), headers={"Content-Type": content_type})

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")


def server_tls(certificate_file: Path | None, client_ca_file: Path | None) -> ssl.SSLContext | None:
    """TLS towards the devices; None where it ends before the gateway. SettingsInvalid."""
    if certificate_file is None:
        if client_ca_file is not None:
            raise SettingsInvalid("clientCaFile needs certificateFile: the certificate of a device is shown in TLS")
        return None
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca_file)
        context.load_cert_chain(certificate_file)
    except OSError as error:
        raise SettingsInvalid(f"a certificate cannot be read: {error}") from error
    if client_ca_file is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _common_name(request: web.Request) -> str | None:
    """The name in the client's certificate, which TLS has verified."""
    certificate = request.transport.get_extra_info("peercert") if request.transport else None
    subject = (certificate or {}).get("subject", ())
    return next((value for part in subject for name, value in part if name == "commonName"), None)
