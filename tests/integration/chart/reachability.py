"""Who reaches whom under NetworkPolicies: their rules as Kubernetes' API reference states them, for TCP."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from tests.cluster.api import Object

PEERS = {"ingress": "from", "egress": "to"}


@dataclass(frozen=True)
class Place:
    """A pod, or something outside of the cluster."""

    namespace: str = ""
    """Empty is outside."""
    labels: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    """Those with a name."""
    address: str = "198.51.100.7"
    """Of what is outside."""


def place_of(pod: Object) -> Place:
    """A rendered pod's place."""
    named = {
        port["name"]: port["containerPort"]
        for container in pod["spec"]["containers"]
        for port in container.get("ports", ())
    }
    return Place(pod["metadata"]["namespace"], pod["metadata"]["labels"], named)


def reaches(policies: Sequence[Object], source: Place, target: Place, port: int | str) -> bool:
    """Whether a connection is let out of where it comes from, and into where it goes."""
    number = target.ports[port] if isinstance(port, str) else port
    return all(
        _lets(policies, direction, pod, peer, (target, number))
        for direction, pod, peer in (("egress", source, target), ("ingress", target, source))
    )


def _lets(policies: Sequence[Object], direction: str, pod: Place, peer: Place, goal: tuple[Place, int]) -> bool:
    rules = list(_rules(policies, direction, pod))
    if not rules:
        return True
    return any(_is_peer(rule, direction, pod, peer) and _is_port(rule, *goal) for rule in rules if rule is not None)


def _rules(policies: Sequence[Object], direction: str, pod: Place) -> Iterator[Object | None]:
    """The rules for a pod; None for a policy, which shuts out all that no rule lets through."""
    for policy in policies:
        spec = policy["spec"]
        if policy["metadata"]["namespace"] != pod.namespace or not _selects(spec["podSelector"], pod.labels):
            continue
        if direction.capitalize() in spec["policyTypes"]:
            yield None
            yield from spec.get(direction) or ()


def _is_peer(rule: Object, direction: str, pod: Place, peer: Place) -> bool:
    peers = rule.get(PEERS[direction])
    return not peers or any(_is_one(one, pod, peer) for one in peers)


def _is_one(one: Object, pod: Place, peer: Place) -> bool:
    if "ipBlock" in one:
        return not peer.namespace and ip_address(peer.address) in ip_network(one["ipBlock"]["cidr"])
    if not peer.namespace:
        return False
    if "namespaceSelector" in one:
        near = _selects(one["namespaceSelector"], {"kubernetes.io/metadata.name": peer.namespace})
    else:
        near = peer.namespace == pod.namespace
    return near and _selects(one.get("podSelector", {}), peer.labels)


def _is_port(rule: Object, target: Place, number: int) -> bool:
    ports = [one["port"] for one in rule.get("ports", ()) if one.get("protocol", "TCP") == "TCP"]
    return not rule.get("ports") or number in [
        target.ports.get(port) if isinstance(port, str) else port for port in ports
    ]


def _selects(selector: Object, labels: dict[str, str]) -> bool:
    exact = selector.get("matchLabels", {}).items() <= labels.items()
    among = all(labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", ()))
    return exact and among
