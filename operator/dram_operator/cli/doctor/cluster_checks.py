"""What a cluster needs for Dram: it answers, knows the kinds, grants the rights, and runs the operator."""

from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import combinations
from typing import Any

from dram_operator.adapters.resources import ACCESS_REVIEWS, CRDS, OWN_ACCESS_REVIEWS, PODS, Object
from dram_operator.api.crd import definition
from dram_operator.api.distillation_job import GROUP, VERSION
from dram_operator.api.resources import RESOURCES
from dram_operator.api.resources import Resource as Kind
from dram_operator.cli.cluster import Cluster
from dram_operator.cli.doctor.findings import Finding, Findings, bad, good, unknown
from dram_operator.cli.doctor.installation import SELECTOR, Installation
from dram_operator.cli.doctor.rights import COMMANDING, LEASE, LOOKING, OBJECTS, REVIEWS, Right, rights
from dram_operator.errors import NotFound, OperatorError, Refused

OLDEST = (1, 29)
"""The chart's kubeVersion."""
INSTALL = "install the chart: helm install dram charts/dram -n dram-system --create-namespace"
APPLY = "bring the CRDs to this version: kubectl apply --server-side -f crds/ (or helm upgrade)"
NEWER = "install the command line that belongs to the operator"
PULLING = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
NAMED = 3


async def check_cluster(cluster: Cluster) -> Findings:
    """It answers, and is new enough."""
    answer = await cluster.api.request("GET", "/version")
    told = answer["gitVersion"]
    major, minor = int(answer["major"]), int("".join(filter(str.isdigit, answer["minor"])))
    if (major, minor) < OLDEST:
        yield bad("cluster", f"Kubernetes {told} is too old", "use Kubernetes 1.29 or newer")
    else:
        yield good("cluster", f"Kubernetes {told}")


async def check_kinds(cluster: Cluster) -> Findings:
    """Every kind is served, with the fields of this version."""
    try:
        served = await cluster.api.request("GET", f"/apis/{GROUP}/{VERSION}")
    except NotFound:
        served = {"resources": []}
    names = {one["name"] for one in served["resources"]}
    for kind in RESOURCES:
        name = f"{kind.plural}.{GROUP}"
        if kind.plural not in names:
            yield bad(name, f"{VERSION} is not served", f"{INSTALL}, or {APPLY}")
            continue
        try:
            yield _compared(kind, await cluster.api.request("GET", CRDS.path(name=name)))
        except Refused:
            yield unknown(name, f"{VERSION} is served; you may not read its definition, so its fields are not compared")


def _compared(kind: Kind, installed: Object) -> Finding:
    name = f"{kind.plural}.{GROUP}"
    mine, theirs = (set(_fields(_schema(one))) for one in (definition(kind), installed))
    if missing := sorted(mine - theirs):
        return bad(name, f"older than this command line: it lacks {_some(missing)}", APPLY)
    if more := sorted(theirs - mine):
        return bad(name, f"newer than this command line: it also has {_some(more)}", NEWER)
    return good(name, f"{VERSION} is served, with the fields of dram {version('dram')}")


def _schema(crd: Object) -> Object:
    (found,) = (one for one in crd["spec"]["versions"] if one["name"] == VERSION)
    schema: Object = found["schema"]["openAPIV3Schema"]
    return schema


def _fields(schema: Any, path: str = "") -> Iterable[str]:
    """Paths of all fields of a schema."""
    if path:
        yield path
    for name, inner in schema.get("properties", {}).items():
        yield from _fields(inner, f"{path}.{name}" if path else name)
    for inside in ("items", "additionalProperties"):
        if isinstance(schema.get(inside), dict):
            yield from _fields(schema[inside], f"{path}[]")


async def check_own_rights(cluster: Cluster) -> Findings:
    """What the user may look at, and command."""
    wanted = list(rights(LOOKING, cluster.namespace))
    missing = [right for right in wanted if not await _may(cluster, right, None)]
    remedy = f"ask for the role view in namespace {cluster.namespace}"
    if missing:
        yield bad("your rights", f"you may not {_some(missing)} in namespace {cluster.namespace}", remedy)
    else:
        yield good("your rights", f"you may look at jobs and rollouts in namespace {cluster.namespace}")
    commands = list(rights(COMMANDING, cluster.namespace))
    lacking = [right for right in commands if not await _may(cluster, right, None)]
    if lacking:
        yield unknown("your commands", f"you may not {_some(lacking)}: those levers are for others")
    else:
        yield good("your commands", "you may give every command on rollouts")


def shared_namespaces(sites: Sequence[Installation]) -> Iterator[Finding]:
    """Two operators that serve one namespace would each write what the other does not know."""
    for one, other in combinations(sites, 2):
        mine, theirs = set(one.settings.namespaces), set(other.settings.namespaces)
        # None named is all.
        shared = mine & theirs if mine and theirs else mine | theirs
        if shared or not (mine and theirs):
            where = ", ".join(sorted(shared)) or "all namespaces"
            remedy = "give each its own `namespaces` in the chart's values, with none in common"
            yield bad("operators", f"{one.name} and {other.name} both serve {where}", remedy)


async def check_operators_rights(cluster: Cluster, site: Installation) -> Findings:
    """What the operator may: asked as the operator, or about its service account."""
    user = None if site.is_inside else f"system:serviceaccount:{site.namespace}:{site.account}"
    needed = [right for one in site.settings.namespaces or (None,) for right in rights(OBJECTS, one)]
    needed += [*rights(LEASE, site.namespace), *rights(REVIEWS, None)]
    try:
        missing = [right for right in needed if not await _may(cluster, right, user)]
    except Refused:
        yield unknown("operator's rights", "you may not ask for another's rights", site.exec_remedy)
        return
    if missing:
        where = ", ".join(sorted({right.namespace or "all namespaces" for right in missing}))
        yield bad("operator's rights", f"it may not {_some(missing)} in {where}", "helm upgrade makes its roles anew")
    else:
        yield good("operator's rights", f"all {len(needed)} that it needs")


async def _may(cluster: Cluster, right: Right, user: str | None) -> bool:
    reviews = ACCESS_REVIEWS if user else OWN_ACCESS_REVIEWS
    spec: dict[str, Any] = {"resourceAttributes": right.attributes()} | ({"user": user} if user else {})
    body = {"apiVersion": f"{reviews.group}/{reviews.version}", "kind": reviews.kind, "spec": spec}
    answer = await cluster.api.create(reviews, None, body)
    return bool(answer["status"]["allowed"])


async def check_operator(cluster: Cluster, site: Installation) -> Findings:
    """Its pods are ready and their images can be pulled; the workers' image is the one that belongs to it."""
    deployment = site.deployment
    assert deployment is not None
    wanted = deployment["spec"].get("replicas", 1)
    ready = deployment.get("status", {}).get("readyReplicas", 0)
    name = site.name
    pods = f"kubectl get pods -n {site.namespace} -l {SELECTOR}"
    if ready:
        yield good("operator", f"{name}: {ready} of {wanted} replicas are ready")
    else:
        yield bad("operator", f"{name}: none of {wanted} replicas is ready", f"see why: {pods}, and their logs")
    async for finding in _images(cluster, site, deployment):
        yield finding


async def _images(cluster: Cluster, site: Installation, deployment: Object) -> Findings:
    (container,) = (one for one in deployment["spec"]["template"]["spec"]["containers"] if one["name"] == "operator")
    operator, worker = container["image"], site.settings.image
    try:
        pods, _ = await cluster.api.list(PODS, site.namespace, labels=SELECTOR)
    except OperatorError as error:
        yield unknown("operator's image", f"{operator}: its pods cannot be seen: {error}")
    else:
        stuck = [one for pod in pods for one in pod.get("status", {}).get("containerStatuses", ()) if _is_stuck(one)]
        if stuck:
            waiting = stuck[0]["state"]["waiting"]
            message = f"{stuck[0]['image']}: {waiting['reason']}: {waiting.get('message', '')}"
            yield bad(
                "operator's image", message, "check image.repository, image.tag and imagePullSecrets of the chart"
            )
        else:
            yield good("operator's image", operator)
    # Digests say nothing of versions.
    if not worker:
        yield bad("workers' image", "none is set", "set worker.image.repository, or spec.podTemplate.image in each job")
    elif "@" not in worker + operator and _tag(worker) != _tag(operator):
        message = f"{worker} has another version than the operator's {operator}"
        yield bad("workers' image", message, "set worker.image.tag to the operator's")
    else:
        yield good("workers' image", worker)


def _is_stuck(status: Object) -> bool:
    return status.get("state", {}).get("waiting", {}).get("reason") in PULLING


def _tag(image: str) -> str:
    return image.rpartition("/")[2].partition(":")[2]


def _some(things: Iterable[object]) -> str:
    names = [str(one) for one in things]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
