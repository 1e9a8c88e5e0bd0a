"""A cluster as the command line sees it: with the user's own rights, and errors that say what to do."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

import click

from dram_operator.adapters.resources import SELF_REVIEWS, Object, Resource
from dram_operator.errors import Conflict, NotFound, OperatorError, Refused, Unavailable

if TYPE_CHECKING:
    from dram_operator.adapters.kubernetes import Kubernetes

REFUSED, FAILED, INTERRUPTED = 3, 4, 130
"""Exit codes."""
RECONNECT_SECONDS = 1.0
NAMED = 5
"""Names that an error lists."""
ONE_NAMESPACE = "name a namespace with -n, or ask an administrator of the cluster for this right"
MORE_RIGHTS = "ask an administrator of the namespace for this right (`kubectl auth can-i {verb} {what} -n {namespace}`)"

P = ParamSpec("P")


class Failure(click.ClickException):
    """What could not be done, and the remedy."""

    exit_code = FAILED

    def show(self, file: Any = None) -> None:
        click.echo(self.format_message(), err=True, file=file)


class Cluster:
    """Requests to one cluster, about one namespace."""

    def __init__(self, api: "Kubernetes", namespace: str) -> None:
        self.api = api
        self.namespace = namespace

    async def read(self, resource: Resource, name: str) -> Object:
        """One object."""
        async with self.explaining("get", resource, name):
            return await self.api.get(resource, self.namespace, name)

    async def listing(self, resource: Resource, *, everywhere: bool = False) -> list[Object]:
        """The objects of the namespace, or of all."""
        async with self.explaining("list", resource, everywhere=everywhere):
            return (await self.api.list(resource, None if everywhere else self.namespace))[0]

    async def changes(self, resource: Resource, name: str) -> AsyncGenerator[Object, None]:
        """An object as it is, and again whenever it changes. Failure when it goes; a lost connection is made anew."""
        obj = await self.read(resource, name)
        while True:
            yield obj
            try:
                async with self.explaining("watch", resource, name):
                    version = obj["metadata"]["resourceVersion"]
                    async for kind, seen in self.api.watch(resource, self.namespace, name, version):
                        if kind == "DELETED":
                            raise Failure(f"{resource.kind} {self.namespace}/{name} was deleted")
                        if kind == "ERROR":
                            break
                        obj = seen
                        yield obj
            except _Lost as lost:
                click.echo(f"{lost}; trying again", err=True)
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            obj = await self.read(resource, name)

    async def user(self) -> str:
        """Who the cluster takes the user for."""
        async with self.explaining("create", SELF_REVIEWS):
            body = {"apiVersion": "authentication.k8s.io/v1", "kind": SELF_REVIEWS.kind}
            answer = await self.api.create(SELF_REVIEWS, None, body)
        return str(answer["status"]["userInfo"]["username"])

    @asynccontextmanager
    async def explaining(
        self, verb: str, resource: Resource, name: str | None = None, *, everywhere: bool = False
    ) -> AsyncIterator[None]:
        """Turn the errors of one request into what a person can act upon; a Conflict is the caller's."""
        try:
            yield
        except Conflict:
            raise
        except NotFound as error:
            raise Failure(await self._missing(resource, name)) from error
        except Refused as error:
            raise Failure(self._refusal(verb, resource, error, everywhere=everywhere)) from error
        except Unavailable as error:
            raise self._unreachable(verb, error) from error

    async def _missing(self, resource: Resource, name: str | None) -> str:
        """Whether the object is missing, or its kind."""
        try:
            await self.api.request("GET", f"/apis/{resource.group}/{resource.version}")
            served = await self.api.list(resource, self.namespace)
        except NotFound:
            return (
                f"this cluster does not know {resource.plural}.{resource.group}: install Dram's chart, or its CRDs with "
                "`kubectl apply --server-side -f crds/`; `kubectl dram doctor` says what else is missing"
            )
        except OperatorError:
            return f"there is no {resource.kind} {self.namespace}/{name}"
        names = [str(one["metadata"]["name"]) for one in served[0]]
        near = get_close_matches(name or "", names, NAMED, 0.4) or names[:NAMED]
        there = f"there are {', '.join(near)}" if near else "the namespace has none: -n NAMESPACE names another"
        return f"there is no {resource.kind} {self.namespace}/{name}; {there}"

    def _refusal(self, verb: str, resource: Resource, error: Refused, *, everywhere: bool) -> str:
        if error.reason != "Forbidden":
            return str(error)
        what = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
        if everywhere:
            return f"you may not {verb} {resource.plural} in all namespaces: {error}: {ONE_NAMESPACE}"
        remedy = MORE_RIGHTS.format(verb=verb, what=what, namespace=self.namespace)
        return f"you may not {verb} {resource.plural} in namespace {self.namespace}: {error}: {remedy}"

    def _unreachable(self, verb: str, error: Unavailable) -> Exception:
        if "Unauthorized" in str(error):
            return Failure("the cluster does not accept the credentials of this context: log in again")
        if verb == "watch":
            return _Lost(str(error))
        return Failure(
            f"the cluster does not answer: {error}: check `kubectl config current-context`, --context and the network"
        )


class _Lost(Exception):
    """A watch broke off."""


def on_cluster(command: "Callable[Concatenate[Cluster, P], Awaitable[int | None]]") -> Callable[..., None]:
    """A command about a cluster: with kubectl's options for it, and the coroutine's result as the exit code."""

    @wraps(command)
    def run(
        kubeconfig: Path | None, context: str | None, namespace: str | None, *args: P.args, **kwargs: P.kwargs
    ) -> None:
        async def session() -> int | None:
            async with opened(kubeconfig, context, namespace) as cluster:
                return await command(cluster, *args, **kwargs)

        try:
            code = asyncio.run(session())
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None
        if code:
            raise SystemExit(code)

    return _with_options(run)


@asynccontextmanager
async def opened(kubeconfig: Path | None, context: str | None, namespace: str | None) -> AsyncIterator[Cluster]:
    """The cluster that these options mean."""
    from dram_operator.adapters.kubeconfig import connect

    try:
        api, default = await connect(kubeconfig, context)
    except Refused as error:
        raise Failure(f"{error}: name one with --kubeconfig, or check `kubectl config get-contexts`") from error
    try:
        yield Cluster(api, namespace or default)
    finally:
        await api.close()


def _with_options(run: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("-n", "--namespace", metavar="NAME", help="Namespace; absent takes the context's."),
        click.option("--context", metavar="NAME", help="Context of the kubeconfig; absent takes the present one."),
        click.option(
            "--kubeconfig",
            type=click.Path(path_type=Path, dir_okay=False),
            help="Kubeconfig; absent takes KUBECONFIG, then ~/.kube/config.",
        ),
    ):
        run = option(run)
    return run
