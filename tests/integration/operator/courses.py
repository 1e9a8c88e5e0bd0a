"""A rollout of two steps from its beginning to its end, and what of it must not depend on when the operator died."""

from functools import partial
from itertools import dropwhile

from tests.cluster.api import Object, wait_until
from tests.integration.operator.fleet import Fault, FleetChannel
from tests.integration.operator.rollouts import Site, condition, is_completed, step

NAME = "bot"
LATENCY = {"name": "latency", "preset": "LatencyP95", "max": "300m"}
SLOW = Fault(seconds=0.9)
"""Beyond what LATENCY allows."""


def begin(site: Site, namespace: str, fault: Fault | None = None) -> FleetChannel:
    """A channel; its rollout is made by `start`."""
    return site.channel(namespace, NAME, **({f"r{site.new}": fault} if fault else {}))


def start(site: Site, namespace: str) -> None:
    """Make the rollout."""
    rollout = site.rollout(namespace, NAME, step("50%", 0), step("100%", 0)).with_metric(**LATENCY)
    site.api.create(rollout.manifest())


def is_settled(obj: Object) -> bool:
    """Completed, or rolled back and kept away."""
    return is_completed(obj) or condition(obj, "Stalled") == "True Quarantined"


def wait_settled(site: Site, namespace: str, channel: FleetChannel) -> None:
    """Wait for the end, also as the devices know it."""
    site.wait(namespace, NAME, "to settle", is_settled)
    wait_until(partial(is_told, channel), "the last document")


def is_told(channel: FleetChannel) -> bool:
    """Whether the devices saw that nothing is on its way any more."""
    return channel.document is not None and channel.document.candidate is None


def outcome(site: Site, channel: FleetChannel, namespace: str) -> Object:
    """What must not depend on when the operator died."""
    status = site.get(namespace, NAME)["status"]
    return {
        "conditions": {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]},
        "stable": status["stable"]["release"]["digest"],
        "attempt": status["attempt"],
        "history": [(one["attempt"], one["digest"], one["outcome"], one["reason"]) for one in status["history"]],
        "quarantined": [one["digest"] for one in status.get("quarantined", ())],
        "moves": sorted(device.moves for device in channel.devices),
        "offered": offered(channel),
    }


def offered(channel: FleetChannel) -> list[tuple[str, int]]:
    """What was signed, in the order in which it was seen: the candidate and the number of devices that are meant.

    From the first candidate on: whether anybody looked before it was offered is chance.
    """
    told = [(one.candidate.digest if one.candidate else "", len(one.cohorts)) for one in channel.documents]
    since = list(dropwhile(lambda one: not one[0], told))
    return [one for index, one in enumerate(since) if index == 0 or since[index - 1] != one]
