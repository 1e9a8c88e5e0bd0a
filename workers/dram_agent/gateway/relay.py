"""Passes stamped series on. Keeps nothing: what a backend does not take now, the next push of the device brings."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from dram_agent.gateway.settings import Backend
from dram_agent.otlp import CONTENT_TYPE
from dram_agent.settings import SettingsInvalid


class BackendFailed(Exception):
    """The backend did not take it; the message says how, and nothing of what it answered."""


@dataclass(frozen=True)
class Relay:
    """One backend."""

    backend: Backend
    session: aiohttp.ClientSession

    async def send(self, body: bytes) -> None:
        """Pass a push on. BackendFailed."""
        headers = {**self.backend.headers, "Content-Type": CONTENT_TYPE}
        try:
            if self.backend.token_file is not None:
                headers["Authorization"] = f"Bearer {self.backend.token_file.read_text().strip()}"
            async with self.session.post(self.backend.url, data=body, headers=headers, allow_redirects=False) as answer:
                if answer.status >= 300:
                    raise BackendFailed(f"HTTP {answer.status}")
        except (aiohttp.ClientError, OSError) as error:
            raise BackendFailed(type(error).__name__) from error


@asynccontextmanager
async def opened(backend: Backend) -> AsyncIterator[Relay]:
    """The connections to a backend. SettingsInvalid when a certificate cannot be read."""
    try:
        tls = ssl.create_default_context(cafile=backend.ca_file)
        if backend.certificate_file is not None:
            tls.load_cert_chain(backend.certificate_file)
    except OSError as error:
        raise SettingsInvalid(f"backend: a certificate cannot be read: {error}") from error
    timeout = aiohttp.ClientTimeout(total=backend.timeout_seconds)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls), timeout=timeout) as session:
        yield Relay(backend, session)
