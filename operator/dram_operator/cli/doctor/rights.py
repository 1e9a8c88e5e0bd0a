"""Which rights the command line and the operator's service account need. A test compares them with the chart's."""

from collections.abc import Iterator
from dataclasses import dataclass

from dram_operator.api.distillation_job import GROUP
from dram_operator.core.rollout.commands import Verb

Rules = tuple[tuple[str, str, tuple[str, ...]], ...]
"""Group, resource and verbs."""

LOOKING: Rules = (
    (GROUP, "distillationjobs", ("get", "list", "watch")),
    (GROUP, "edgerollouts", ("get", "list", "watch")),
)
COMMANDING: Rules = ((GROUP, "edgerollouts", ("patch", *(verb.value for verb in Verb))),)
OBJECTS: Rules = (
    (GROUP, "distillationjobs", ("list", "watch", "delete")),
    (GROUP, "distillationjobs/status", ("patch",)),
    (GROUP, "edgerollouts", ("list", "watch", "patch")),
    (GROUP, "edgerollouts/status", ("patch",)),
    ("batch", "jobs", ("create", "delete", "list", "patch", "watch")),
    ("", "services", ("create", "get")),
    ("", "pods", ("list", "watch")),
    ("", "events", ("create", "list", "patch")),
)
"""Of the operator, in every namespace that it serves."""
LEASE: Rules = (("coordination.k8s.io", "leases", ("create", "get", "patch", "update")),)
"""Of the operator, in its own namespace."""
REVIEWS: Rules = (("authentication.k8s.io", "tokenreviews", ("create",)),)
"""Of the operator, without a namespace."""


@dataclass(frozen=True)
class Right:
    """One verb on one resource, in a namespace or in all."""

    verb: str
    group: str
    resource: str
    namespace: str | None

    def attributes(self) -> dict[str, str]:
        """As access reviews take it."""
        resource, _, subresource = self.resource.partition("/")
        found = {"verb": self.verb, "group": self.group, "resource": resource, "subresource": subresource}
        return found | ({"namespace": self.namespace} if self.namespace else {})

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{f'.{self.group}' if self.group else ''}"


def rights(rules: Rules, namespace: str | None) -> Iterator[Right]:
    """Every single right of the rules."""
    for group, resource, verbs in rules:
        for verb in verbs:
            yield Right(verb, group, resource, namespace)
