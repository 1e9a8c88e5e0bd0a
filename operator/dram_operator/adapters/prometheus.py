"""One Prometheus-compatible server: what to ask it, at a time that the caller says, and every way in which it may fail to answer.

A server that misbehaves, or was put there to misbehave, gets nothing out of the operator: redirects and link-local addresses are refused, answers are
bounded in size and time, and nothing of a body goes further than its numbers and labels. (API: https://prometheus.io/docs/prometheus/latest/querying/api/)
"""

import asyncio
import json
import logging
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from dram_operator.core.rollout.answers import Answer, Sample, Trouble
from dram_operator.core.rollout.presets import Queries

LOGGER = logging.getLogger(__name__)
CHUNK_BYTES = 1 << 16
BEARER_LIMIT_BYTES = 1 << 16


class EndpointInvalid(ValueError):
    """An endpoint that cannot be used; the message says why, for people."""


@dataclass(frozen=True)
class Endpoint:
    """A metrics server as the installation names it. Secrets are files, read anew for every request, so that they may be renewed."""

    name: str
    url: str
    """`http` or `https`, with a path where the API has one before `/api/v1`."""
    ca_file: Path | None = None
    """PEM of the authorities to trust instead of the system's."""
    certificate_file: Path | None = None
    """PEM of a client certificate and its key."""
    token_file: Path | None = None
    """Bearer token."""
    username: str | None = None
    password_file: Path | None = None
    """Password for basic authentication, with `username`."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """More headers, e.g. X-Scope-OrgID."""
    header_files: Mapping[str, Path] = field(default_factory=dict)
    """Headers whose values are secrets, each in a file."""
    timeout_seconds: float = 10.0
    largest_answer_bytes: int = 32 << 20
    """Ten thousand devices with long labels take about 3 MiB."""
    queries_at_once: int = 8
    """A Prometheus answers 20 at once unless told otherwise; others want to be answered too."""


class GuardedResolver(AbstractResolver):
    """Looks names up and refuses addresses that belong to the link: a cloud's metadata service lives there."""

    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if any(is_link_local(result["host"]) for result in found):
            raise OSError(f"{host} is a link-local address")
        return found

    async def close(self) -> None:
        await self._resolver.close()


def is_link_local(address: str) -> bool:
    """Whether this is an address of the link itself, also when written as a mapped IPv6 one."""
    parsed = ip_address(address.partition("%")[0])
    if isinstance(parsed, IPv6Address):
        parsed = parsed.ipv4_mapped or parsed
    return parsed.is_link_local


class Prometheus:
    """Asks one endpoint. Never raises for what the server does: that is an answer's trouble."""

    def __init__(self, endpoint: Endpoint) -> None:
        _check(endpoint)
        self._endpoint = endpoint
        self._url = f"{endpoint.url.rstrip('/')}/api/v1"
        self._free = asyncio.Semaphore(endpoint.queries_at_once)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def look(self, queries: Queries, at: datetime) -> Answer:
        """Ask for one look at a metric, all of it as of one moment."""
        value, newest, support = await asyncio.gather(
            *(self.query(query, at) for query in (queries.value, queries.newest, queries.samples))
        )
        trouble = value.trouble or newest.trouble or support.trouble
        if trouble:
            return Answer(trouble=trouble)
        times = [sample.value for sample in newest.samples]
        complete = len(times) == queries.selectors and all(0 <= time <= at.timestamp() + 1 for time in times)
        return Answer(
            samples=value.samples,
            newest=datetime.fromtimestamp(min(times), UTC) if complete else None,
            support=support.samples[0].value if len(support.samples) == 1 else 0.0,
        )

    async def query(self, query: str, at: datetime) -> Answer:
        """The series of an instant query as of `at`; the answer's `newest` and `support` are not known."""
        form = {"query": query, "time": f"{at.timestamp():.3f}", "timeout": f"{self._endpoint.timeout_seconds:g}s"}
        return await self._ask("query", form, read_answer)

    async def series(self, selector: str, since: datetime, until: datetime) -> Answer:
        """The label sets of all series that had a sample in that time, each with the value 1: no sample is read for it."""
        form = {"match[]": selector, "start": f"{since.timestamp():.3f}", "end": f"{until.timestamp():.3f}"}
        return await self._ask("series", form, read_series)

    async def _ask(self, path: str, form: dict[str, str], read: Callable[[bytes], Answer]) -> Answer:
        async with self._free:
            body = await self._post(path, form)
        if isinstance(body, Answer):
            return body
        answer = read(body)
        return self._failed(answer.trouble) if answer.trouble else answer

    async def _post(self, path: str, form: dict[str, str]) -> bytes | Answer:
        """The body of an answer, or the answer that tells why there is none."""
        try:
            async with self._opened().post(
                f"{self._url}/{path}", data=form, headers=self._headers(), allow_redirects=False
            ) as response:
                if response.status != 200:
                    return self._failed(
                        Trouble.REDIRECTED if 300 <= response.status < 400 else Trouble.HTTP_STATUS, response.status
                    )
                body = await self._body(response)
        except TimeoutError:
            return self._failed(Trouble.TIMED_OUT)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return self._failed(Trouble.UNREACHABLE, type(error).__name__)
        return self._failed(Trouble.TOO_LARGE) if body is None else body

    def _failed(self, trouble: Trouble, detail: object = "") -> Answer:
        LOGGER.debug("%s: %s %s", self._endpoint.name, trouble.value, detail)
        return Answer(trouble=trouble)

    async def _body(self, response: aiohttp.ClientResponse) -> bytes | None:
        """The body; None as soon as it is too long."""
        body = bytearray()
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            body += chunk
            if len(body) > self._endpoint.largest_answer_bytes:
                return None
        return bytes(body)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=_tls(self._endpoint), resolver=GuardedResolver()),
                timeout=aiohttp.ClientTimeout(total=self._endpoint.timeout_seconds),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session

    def _headers(self) -> dict[str, str]:
        """An answer must come as it is: a small compressed one may be large."""
        endpoint = self._endpoint
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", **endpoint.headers}
        headers |= {name: _secret(path) for name, path in endpoint.header_files.items()}
        if endpoint.token_file:
            headers["Authorization"] = f"Bearer {_secret(endpoint.token_file)}"
        if endpoint.username is not None:
            password = _secret(endpoint.password_file) if endpoint.password_file else ""
            headers["Authorization"] = aiohttp.encode_basic_auth(endpoint.username, password)
        return headers


def read_answer(body: bytes) -> Answer:
    """The series in a body; Malformed for whatever is not a whole answer with one value a series."""
    try:
        answer = json.loads(body)
        if answer["status"] != "success":
            return Answer(trouble=Trouble.MALFORMED)
        if answer.get("warnings"):
            return Answer(trouble=Trouble.PARTIAL)
        kind, result = answer["data"]["resultType"], answer["data"]["result"]
        if kind == "scalar":
            return Answer((Sample({}, _number(result)),))
        if kind != "vector":
            return Answer(trouble=Trouble.MALFORMED)
        return Answer(tuple(Sample(_labels(series["metric"]), _number(series["value"])) for series in result))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Answer(trouble=Trouble.MALFORMED)


def read_series(body: bytes) -> Answer:
    """The label sets in a body; Malformed for whatever is not a whole answer."""
    try:
        answer = json.loads(body)
        if answer["status"] != "success":
            return Answer(trouble=Trouble.MALFORMED)
        if answer.get("warnings"):
            return Answer(trouble=Trouble.PARTIAL)
        return Answer(tuple(Sample(_labels(labels), 1.0) for labels in answer["data"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Answer(trouble=Trouble.MALFORMED)


def _number(pair: Any) -> float:
    time, text = pair
    if not isinstance(time, int | float) or not isinstance(text, str):
        raise TypeError(type(text))
    return float(text)


def _labels(metric: Any) -> dict[str, str]:
    if not all(isinstance(text, str) for text in metric.values()):
        raise TypeError("labels are texts")
    return dict(metric)


def _check(endpoint: Endpoint) -> None:
    url = urlsplit(endpoint.url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise EndpointInvalid(f"endpoint {endpoint.name}: the URL has to start with http:// or https:// and a host")
    if url.username or url.query or url.fragment:
        raise EndpointInvalid(f"endpoint {endpoint.name}: the URL may hold no user, query or fragment")
    if _is_address(url.hostname) and is_link_local(url.hostname):
        raise EndpointInvalid(f"endpoint {endpoint.name}: {url.hostname} is a link-local address")


def _is_address(host: str) -> bool:
    """Whether this is no name: a name's addresses are looked at whenever it is looked up."""
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _tls(endpoint: Endpoint) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(endpoint.ca_file) if endpoint.ca_file else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if endpoint.certificate_file:
        context.load_cert_chain(endpoint.certificate_file)
    return context


def _secret(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        text = file.read(BEARER_LIMIT_BYTES).strip()
    if any(ord(letter) < 32 for letter in text):
        raise ValueError("a secret with control characters")
    return text
