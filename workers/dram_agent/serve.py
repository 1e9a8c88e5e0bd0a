"""The device's OpenAI-compatible endpoint: the local model answers, or the cloud where it cannot, and each cause counts."""

import asyncio
import json
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from prometheus_client import disable_created_metrics
from prometheus_client.exposition import choose_encoder

from dram_agent.errors import NotServing
from dram_agent.local import LocalRuntime
from dram_agent.telemetry import NONE, FallbackCause, Outcome, ServedBy, Telemetry

log = logging.getLogger(__name__)

LARGEST_BODY = 4 << 20
PATHS = ("/v1/chat/completions", "/v1/completions")
SERVER_ERROR = 500
CLIENT_ERROR = 400
CONNECT_SECONDS = 5.0


@dataclass(frozen=True)
class CloudSettings:
    """Who answers when the device cannot: any OpenAI-compatible endpoint."""

    url: str
    """Up to and without `/v1`."""
    model: str | None = None
    """Put in place of the request's own `model`."""
    key_file: Path | None = None
    """A file with the key; read for every request, so that it can be renewed."""
    answer_seconds: float = 60.0
    ca_file: Path | None = None
    """Authority of the address, PEM; None trusts those of the system."""


@dataclass(frozen=True)
class ServeSettings:
    """How long a request may take here before the cloud gets it."""

    first_seconds: float = 10.0
    """To the first byte of a stream."""
    answer_seconds: float = 60.0
    """To the end of an answer."""


@dataclass
class _Turn:
    """One request on its way."""

    started: float
    release: str
    """What it is counted for: the release that was asked, also where another one is served by the time it ends."""
    served_by: ServedBy = ServedBy.DEVICE


class _Failed(Exception):
    """This side could not answer, and nothing was sent to the caller yet."""

    def __init__(self, cause: FallbackCause) -> None:
        super().__init__(cause)
        self.cause = cause


class Front:
    """Takes requests."""

    def __init__(
        self,
        local: LocalRuntime,
        telemetry: Telemetry,
        settings: ServeSettings,
        cloud: CloudSettings | None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._local = local
        self._telemetry = telemetry
        self._settings = settings
        self._cloud = cloud
        self._monotonic = monotonic
        self._session: aiohttp.ClientSession | None = None

    def app(self) -> web.Application:
        """Chat, completions, models, health."""
        app = web.Application(client_max_size=LARGEST_BODY)
        for path in PATHS:
            app.router.add_post(path, self._complete)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.cleanup_ctx.append(self._client)
        return app

    async def _client(self, _: web.Application) -> AsyncIterator[None]:
        # llama.cpp's server ends idle connections: one that was kept would look like a crash.
        authority = self._cloud.ca_file if self._cloud else None
        tls = ssl.create_default_context(cafile=authority) if authority else True
        connector = aiohttp.TCPConnector(force_close=True, limit=0, ssl=tls)
        async with aiohttp.ClientSession(connector=connector) as self._session:
            yield

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        turn = _Turn(self._monotonic(), self._telemetry.release)
        body = await _json(request)
        if not isinstance(body, dict):
            self._count(Outcome.INVALID, turn)
            return _error(400, "the body is not a JSON object", "invalid_request_error")
        try:
            async with self._backend(turn) as url:
                return await self._forward(request, body, url, {}, self._settings.answer_seconds, turn)
        except _Failed as failure:
            cause = failure.cause
        return await self._fall_back(request, body, cause, turn)

    async def _fall_back(
        self, request: web.Request, body: dict[str, Any], cause: FallbackCause, turn: _Turn
    ) -> web.StreamResponse:
        cloud = self._cloud
        if cloud is None:
            self._count(Outcome.ERROR, turn)
            return _error(503, f"the device cannot answer now ({cause}), and no cloud is configured", "unavailable")
        self._telemetry.count_fallback(cause, turn.release)
        turn.served_by = ServedBy.CLOUD
        headers = {}
        if cloud.key_file is not None:
            key = await asyncio.to_thread(cloud.key_file.read_text)
            headers["Authorization"] = f"Bearer {key.strip()}"
        body = {**body, "model": cloud.model} if cloud.model else body
        try:
            url = cloud.url.rstrip("/")
            return await self._forward(request, body, url, headers, cloud.answer_seconds, turn)
        except _Failed as failure:
            self._count(Outcome.ERROR, turn)
            return _error(502, f"neither device ({cause}) nor cloud ({failure.cause}) could answer", "unavailable")

    @asynccontextmanager
    async def _backend(self, turn: _Turn) -> AsyncIterator[str]:
        """The local model's address for the length of one request."""
        try:
            backend = self._local.acquire()
        except NotServing as error:
            raise _Failed(FallbackCause.UNHEALTHY) from error
        if backend is None:
            raise _Failed(FallbackCause.OVERLOAD)
        turn.release = backend.held.release
        try:
            assert backend.child.url is not None
            yield backend.child.url
        finally:
            self._local.release(backend)

    async def _forward(
        self,
        request: web.Request,
        body: dict[str, Any],
        url: str,
        headers: dict[str, str],
        seconds: float,
        turn: _Turn,
    ) -> web.StreamResponse:
        """Pass a request on and its answer back. _Failed as long as nothing was sent to the caller."""
        assert self._session is not None
        first = self._settings.first_seconds if body.get("stream") else seconds
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS)
        try:
            async with (
                asyncio.timeout(first) as limit,
                self._session.post(f"{url}{request.path}", json=body, headers=headers, timeout=timeout) as answer,
            ):
                if answer.status >= SERVER_ERROR or (
                    turn.served_by is ServedBy.CLOUD and answer.status >= CLIENT_ERROR
                ):
                    raise _Failed(FallbackCause.UNHEALTHY)
                if not body.get("stream") or answer.status >= CLIENT_ERROR:
                    return self._whole(answer, await answer.read(), turn)
                chunk = await answer.content.readany()
                limit.reschedule(None)
                return await self._stream(request, answer, chunk, turn)
        except TimeoutError as error:
            raise _Failed(FallbackCause.TIMEOUT) from error
        except aiohttp.ClientError as error:
            raise _Failed(FallbackCause.CRASH) from error

    def _whole(self, answer: aiohttp.ClientResponse, content: bytes, turn: _Turn) -> web.Response:
        self._count(Outcome.INVALID if answer.status >= CLIENT_ERROR else Outcome.OK, turn)
        return web.Response(body=content, status=answer.status, content_type=answer.content_type)

    async def _stream(
        self, request: web.Request, answer: aiohttp.ClientResponse, chunk: bytes, turn: _Turn
    ) -> web.StreamResponse:
        """From the first byte on there is no way back to the cloud: what breaks off is an error."""
        response = web.StreamResponse(headers={"Content-Type": answer.headers.get("Content-Type", "text/event-stream")})
        await response.prepare(request)
        outcome = Outcome.OK
        try:
            while chunk:
                await response.write(chunk)
                chunk = await answer.content.readany()
        except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, TimeoutError) as error:
            outcome = Outcome.ERROR
            log.warning("A stream broke off: %s", type(error).__name__)
            event = {"error": {"message": "the answer broke off", "type": "unavailable"}}
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
        except ConnectionResetError:
            outcome = Outcome.INVALID
            return response
        finally:
            self._count(outcome, turn)
        await response.write_eof()
        return response

    async def _models(self, _: web.Request) -> web.Response:
        release = self._telemetry.release
        found = [] if release == NONE else [{"id": release, "object": "model", "owned_by": "dram"}]
        return web.json_response({"object": "list", "data": found})

    async def _health(self, _: web.Request) -> web.Response:
        healthy = self._local.healthy_since() is not None
        who = ServedBy.DEVICE if healthy else ServedBy.CLOUD if self._cloud else None
        body = {"status": "ok" if who else "unavailable", "servedBy": who, "release": self._telemetry.release}
        return web.json_response(body, status=200 if who else 503)

    def _count(self, outcome: Outcome, turn: _Turn) -> None:
        self._telemetry.count_request(outcome, turn.served_by, self._monotonic() - turn.started, turn.release)


def metrics_app(telemetry: Telemetry) -> web.Application:
    """`/metrics`."""
    # they would double the series, and a push has its start times without them
    disable_created_metrics()  # type: ignore[no-untyped-call]

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(telemetry), headers={"Content-Type": content_type})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    return app


async def _json(request: web.Request) -> object:
    """The body; None when it is no JSON."""
    try:
        body: object = await request.json()
    except ValueError:
        return None
    return body


def _error(status: int, message: str, kind: str) -> web.Response:
    """An error in the form of OpenAI's API."""
    return web.json_response({"error": {"message": message, "type": kind, "code": status}}, status=status)
