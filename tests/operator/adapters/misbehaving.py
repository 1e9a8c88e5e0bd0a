"""A loopback HTTP server that answers as it is told to, byte by byte."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs

Behaviour = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Misbehaving:
    """Where it listens, what it does, and what it was asked."""

    behave: Behaviour
    port: int = 0
    scheme: str = "http"
    requests: list[tuple[str, dict[str, str], dict[str, list[str]]]] = field(default_factory=list)
    """Request line, headers and form of each request."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    """Connections at work."""

    @property
    def url(self) -> str:
        """Its address."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request, and do what is to be done."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *rest = head.strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (text.partition(": ") for text in rest)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.requests.append((line, headers, parse_qs(body.decode())))
            await self.behave(writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # The client went, or the test is over: either way there is nobody to answer.
            pass
        finally:
            self.tasks.discard(task)
            writer.close()


@asynccontextmanager
async def misbehaving(behave: Behaviour, tls: ssl.SSLContext | None = None) -> AsyncIterator[Misbehaving]:
    """Serve on a free port until the end of the block."""
    server = Misbehaving(behave, scheme="https" if tls else "http")
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in server.tasks.copy():
            task.cancel()
        await listener.wait_closed()


def answering(body: bytes | str, status: str = "200 OK", headers: str = "") -> Behaviour:
    """A whole answer."""
    content = body.encode() if isinstance(body, str) else body

    async def behave(writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\nConnection: close\r\n{headers}\r\n"
        writer.write(head.encode() + content)
        await writer.drain()

    return behave


def raw(content: bytes) -> Behaviour:
    """These bytes, and the end."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        writer.write(content)
        await writer.drain()

    return behave


async def endless(writer: asyncio.StreamWriter) -> None:
    """A body without an end."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
    while not writer.is_closing():
        writer.write(b"1," * 30_000)
        await writer.drain()


async def silent(writer: asyncio.StreamWriter) -> None:
    """No answer at all, for as long as the client stays."""
    await asyncio.Event().wait()
