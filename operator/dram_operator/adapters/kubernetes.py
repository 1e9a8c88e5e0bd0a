"""The Kubernetes API as plain dicts.

The connection (credentials, their refresh, TLS, the pool) is `kubernetes.aio`'s; its generated classes are not used:
they drop fields they do not know and cost a walk over every object, and a manifest here is data already.
"""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client, config

from dram_operator.adapters.resources import Object, Resource
from dram_operator.errors import Conflict, NameTaken, NotFound, OperatorError, Refused, Unavailable

MERGE_PATCH = "application/merge-patch+json"
PAGE = 500
"""Objects in one page of a listing: the API server's own client uses the same."""
TIMEOUT = aiohttp.ClientTimeout(total=30)
"""The library's default of five minutes would let a dead connection hold a worker (and a lease) that long."""

WATCH_SECONDS = 290
WATCH_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=WATCH_SECONDS + 30)
"""A server that ends no watch in time is gone."""

OnWrite = Callable[[str, Resource], None]


@dataclass(frozen=True)
class Credentials:
    """How to reach the API server, for the watches."""

    server: str
    ca_file: str | None
    certificate_file: str | None
    key_file: str | None
    token: str | None


class Kubernetes:
    """Requests to one API server."""

    def __init__(self, configuration: client.Configuration) -> None:
        self._client = client.ApiClient(configuration)
        self.on_write: OnWrite | None = None
        """Told of every accepted write."""

    @classmethod
    async def connect(cls, kubeconfig: Path | None = None) -> "Kubernetes":
        """Use the kubeconfig if one is given, else the pod's service account, else the default kubeconfig."""
        return cls(await load_configuration(kubeconfig))

    async def credentials(self) -> Credentials:
        """The present credentials; a service account's token is read anew when it is due."""
        configuration = self._client.configuration
        scheme_and_token = (await configuration.auth_settings()).get("BearerToken", {}).get("value")
        return Credentials(
            server=configuration.host,
            ca_file=configuration.ssl_ca_cert,
            certificate_file=configuration.cert_file,
            key_file=configuration.key_file,
            token=scheme_and_token.split()[-1] if scheme_and_token else None,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """Read one object."""
        return await self.request("GET", resource.path(namespace, name))

    async def list(
        self, resource: Resource, namespace: str | None, *, labels: str = "", fields: str = ""
    ) -> tuple[list[Object], str]:
        """Read a collection page by page; returns the objects and the resource version of the last page."""
        items: list[Object] = []
        query = {"limit": str(PAGE), "labelSelector": labels, "fieldSelector": fields}
        while True:
            page = await self.request("GET", resource.path(namespace), query={k: v for k, v in query.items() if v})
            items += page["items"]
            query["continue"] = page["metadata"].get("continue", "")
            if not query["continue"]:
                return items, page["metadata"]["resourceVersion"]

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        """Create an object; NameTaken when it exists."""
        return await self._write("create", resource, "POST", resource.path(namespace), body)

    async def patch(
        self, resource: Resource, namespace: str, name: str, body: Object, subresource: str | None = None
    ) -> Object:
        """Merge-patch an object or its subresource; Conflict when `metadata.resourceVersion` is not the present one."""
        return await self._write("patch", resource, "PATCH", resource.path(namespace, name, subresource), body)

    async def replace(self, resource: Resource, namespace: str, name: str, body: Object) -> Object:
        """Replace an object; Conflict when it changed since it was read."""
        return await self._write("update", resource, "PUT", resource.path(namespace, name), body)

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str, propagation: str) -> Object:
        """Delete this very object; returns it, or the server's Status. Conflict when another one has its name."""
        options = {"propagationPolicy": propagation, "preconditions": {"uid": uid}}
        return await self._write("delete", resource, "DELETE", resource.path(namespace, name), options)

    async def _write(self, verb: str, resource: Resource, method: str, path: str, body: Object) -> Object:
        answer = await self.request(method, path, body=body)
        if self.on_write is not None:
            self.on_write(verb, resource)
        return answer

    async def request(
        self, method: str, path: str, *, query: dict[str, str] | None = None, body: Object | None = None
    ) -> Object:
        """Send one request; raises the OperatorError that says whether another attempt helps."""
        answer: Object = json.loads(await (await self._send(method, path, query, body, TIMEOUT)).read())
        return answer

    async def watch(
        self, resource: Resource, namespace: str, name: str, version: str
    ) -> AsyncIterator[tuple[str, Object]]:
        """What happens to one object after a version of it, as type and object; ends when the server ends it."""
        query = {"watch": "1", "fieldSelector": f"metadata.name={name}", "resourceVersion": version}
        query |= {"timeoutSeconds": str(WATCH_SECONDS)}
        response = await self._send("GET", resource.path(namespace), query, None, WATCH_TIMEOUT)
        buffered = bytearray()
        try:
            async for chunk in response.response.content.iter_any():
                buffered += chunk
                *lines, rest = bytes(buffered).split(b"\n")
                buffered = bytearray(rest)
                for line in lines:
                    event = json.loads(line)
                    yield event["type"], event["object"]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"watching {name}: {str(error) or type(error).__name__}") from error
        finally:
            response.response.close()

    async def _send(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None,
        body: Object | None,
        limits: aiohttp.ClientTimeout,
    ) -> Any:
        headers = {"Content-Type": MERGE_PATCH if method == "PATCH" else "application/json"}
        url = self._client.configuration.host + path + ("?" + urlencode(query) if query else "")
        try:
            await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
            response = await self._client.rest_client.request(  # type: ignore[no-untyped-call]
                method, url, headers=headers, body=body, _request_timeout=limits
            )
            if limits is TIMEOUT or response.status >= 400:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"{method} {path}: {str(error) or type(error).__name__}") from error
        if response.status >= 400:
            raise failure(method, response.status, content, response.headers.get("Retry-After"))
        return response


async def load_configuration(kubeconfig: Path | None) -> client.Configuration:
    """Read the credentials; ConfigException when there are none."""
    # Looking for proxies and .netrc costs a thread hop a request; a proxy named in the kubeconfig is still used.
    configuration = client.Configuration(client_session_kwargs={"trust_env": False})
    if kubeconfig is not None:
        await config.load_kube_config(str(kubeconfig), client_configuration=configuration, persist_config=False)  # type: ignore[no-untyped-call]
        return configuration
    try:
        config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
    except config.ConfigException:
        await config.load_kube_config(client_configuration=configuration, persist_config=False)  # type: ignore[no-untyped-call]
    return configuration


def failure(method: str, status: int, content: bytes, retry_after: str | None = None) -> OperatorError:
    """The error behind an HTTP status and the server's Status object."""
    try:
        details = json.loads(content)
    except ValueError:
        details = {}
    message = details.get("message") or content.decode(errors="replace")[:200] or f"HTTP {status}"
    reason = details.get("reason", "")
    match status:
        case 404:
            return NotFound(message)
        case 409 if method == "POST" and reason == "AlreadyExists":
            return NameTaken(message)
        case 409:
            return Conflict(message)
        case 401 | 408 | 429:
            return Unavailable(message, float(retry_after) if retry_after and retry_after.isdigit() else None)
        case _ if status >= 500:
            return Unavailable(message, float(retry_after) if retry_after and retry_after.isdigit() else None)
        case _:
            return Refused(message, reason)
