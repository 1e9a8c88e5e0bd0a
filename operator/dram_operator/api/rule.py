"""A rule of the resource as data, and the forms that many rules share."""

import json
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """One rule: `rule` must hold for `self`, every value found at `path`."""

    path: str
    """Path in the object, empty for the object itself; `[]` means every item."""
    rule: str
    """A CEL expression; one that says oldSelf runs on updates only."""
    message: str
    """What is wrong and the remedy."""
    field: str = ""
    """The field below `path` to report."""
    cluster_only: bool = False
    """Whether a local run is free of it."""

    @property
    def transition(self) -> bool:
        """Whether it compares with the object before an update."""
        return "oldSelf" in self.rule

    @property
    def message_expression(self) -> str | None:
        """The message as a CEL expression, where it shows a value."""
        shown = re.findall(r"\{(.+?)\}", self.message)
        if not shown:
            return None
        template = re.sub(r"\{.+?\}", "%s", self.message.replace("%", "%%"))
        return f"{json.dumps(template)}.format([{', '.join(shown)}])"


LABEL = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
SUBDOMAIN = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
KEY = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE = "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
QUANTITY = "^([0-9]+([.][0-9]*)?|[.][0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$"
S3 = "s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
PVC = "pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/.+"
HUB = "hf://[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*(@[A-Za-z0-9_./-]+)?"


def uri(path: str, forms: str, pattern: str) -> tuple[Rule, ...]:
    """A URI of one of the forms; what only one machine can read is refused on a cluster."""
    return (
        Rule(
            path,
            "self.contains('://') && !self.startsWith('file:')",
            f"'{{self}}' names a file of one machine, which pods cannot read: give {forms}, or use `dram run`",
            cluster_only=True,
        ),
        Rule(
            path,
            f"!self.contains('://') || self.matches('^({pattern}|file:///.+)$')",
            f"'{{self}}' is not one of the known forms: give {forms}",
        ),
        Rule(
            path,
            "!self.contains('://') || !self.matches('/[.][.](/|$)')",
            "'{self}' climbs with `..`: write the path in full",
        ),
    )


def model_uri(path: str) -> tuple[Rule, ...]:
    """Where a model lies."""
    return uri(path, "hf://org/name@revision, s3://bucket/prefix or pvc://claim/path", f"{HUB}|{S3}/.+|{PVC}")


def data_uri(path: str) -> tuple[Rule, ...]:
    """Where a file of text lies."""
    return uri(path, "s3://bucket/key or pvc://claim/path", f"{S3}/.+|{PVC}")


def object_name(path: str, what: str) -> Rule:
    """The name of another Kubernetes object."""
    return Rule(
        path,
        f"self.matches('{SUBDOMAIN}')",
        f"'{{self}}' is not the name of a {what}: use lower-case letters, digits, `-` and `.`",
    )


def keys(path: str) -> tuple[Rule, ...]:
    """Keys of labels or annotations that a user may set."""
    return (
        Rule(
            path,
            f"self.all(key, key.matches('{KEY}'))",
            "a key is not of the form prefix/name or name, with at most 63 letters, digits, `-`, `_` and `.` in the name",
        ),
        Rule(
            path,
            "self.all(key, !key.startsWith('dram.dev/') && !key.startsWith('kueue.x-k8s.io/'))",
            "keys with dram.dev/ are Dram's own and those with kueue.x-k8s.io/ Kueue's: "
            "remove them, and name a queue in spec.podTemplate.queueName",
        ),
    )


def label_values(path: str) -> Rule:
    """Values of labels."""
    return Rule(
        path,
        f"self.all(key, self[key].size() <= 63 && self[key].matches('{LABEL_VALUE}'))",
        "a value is not a label value: at most 63 letters, digits, `-`, `_` and `.`",
    )


def quantities(path: str) -> Rule:
    """Amounts of resources."""
    return Rule(
        path,
        f"self.all(key, type(self[key]) == int ? self[key] >= 0 : self[key].matches('{QUANTITY}'))",
        "an amount is not a Kubernetes quantity: write for example 2, 500m or 4Gi",
    )


def signed_quantity(path: str) -> Rule:
    """One number, in the form of a Kubernetes quantity."""
    return Rule(
        path,
        f"type(self) == int || self.matches('{QUANTITY.replace('^', '^-?', 1)}')",
        '\'{self}\' is not a number: write it in quotes, as "0.02" or "300m" (0.3)',
    )


def constant(path: str) -> Rule:
    """A constant schedule has one value."""
    return Rule(
        path,
        "self.schedule != 'Constant' || self.start == self.end",
        "start is {self.start} and end {self.end}, but the schedule is Constant: make them equal, or choose Linear or Cosine",
        ".end",
    )


def owned(key: str, instead: str) -> Rule:
    """A DeepSpeed key that Dram sets."""
    path = "spec.training.deepspeed.config"
    return Rule(path, f"!has(self.{key})", f"`{key}` is set by Dram: remove it and use {instead}", f".{key}")


def bucket_access(path: str) -> tuple[Rule, ...]:
    """How a bucket is reached: credentials, endpoint and certificates."""
    return (
        Rule(
            path,
            "!(has(self.secretRef) && has(self.serviceAccountName))",
            "credentials come from one place: set secretRef, or a serviceAccountName with the rights, not both",
            ".serviceAccountName",
        ),
        object_name(f"{path}.secretRef.name", "Secret"),
        object_name(f"{path}.serviceAccountName", "ServiceAccount"),
        Rule(
            f"{path}.endpoint",
            "self.matches('^https?://[^/ ]+/?$')",
            "'{self}' is not the URL of an S3 server: write http(s)://host:port, without a path",
        ),
        Rule(
            f"{path}.caBundle",
            "self.contains('-----BEGIN CERTIFICATE-----')",
            "there is no PEM certificate in it: paste the whole block from -----BEGIN CERTIFICATE----- on",
        ),
        Rule(
            path,
            "!has(self.caBundle) || (has(self.endpoint) && self.endpoint.startsWith('https://'))",
            "certificates are used for an https:// endpoint only: set endpoint to one, or remove caBundle",
            ".caBundle",
        ),
    )
