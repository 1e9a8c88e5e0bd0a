"""Cross-field rules of a DistillationJob, once, as CEL: the API server runs them at apply, `dram validate` runs the same texts.

A message names what is wrong and what to do; `{expression}` in it shows a value. The field stands before the message in
every report. Keep to core CEL and `format`, or the rules cannot run offline.
"""

import json
import re
from dataclasses import dataclass

from dram_operator.api.status import ConditionType
from dram_workers.stages import OWNED_DEEPSPEED_KEYS


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

FROZEN = ("teacher", "student", "storage")
"""Fields of the spec that never change."""
FREE = ("suspend", "activeDeadlineSeconds", "pendingDeadlineSeconds", "retries", "ttlSecondsAfterFinished")
"""Fields of the spec that may change at any time."""
GUARDED = ("dataset", "objective", "training", "exports", "golden", "gates", "podTemplate")
"""Fields of the spec that change only while suspended or after the end, and start a new run."""


def _uri(path: str, forms: str, pattern: str) -> tuple[Rule, ...]:
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


def _model_uri(path: str) -> tuple[Rule, ...]:
    return _uri(path, "hf://org/name@revision, s3://bucket/prefix or pvc://claim/path", f"{HUB}|{S3}/.+|{PVC}")


def _data_uri(path: str) -> tuple[Rule, ...]:
    return _uri(path, "s3://bucket/key or pvc://claim/path", f"{S3}/.+|{PVC}")


def _object_name(path: str, what: str) -> Rule:
    return Rule(
        path,
        f"self.matches('{SUBDOMAIN}')",
        f"'{{self}}' is not the name of a {what}: use lower-case letters, digits, `-` and `.`",
    )


def _keys(path: str) -> tuple[Rule, ...]:
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


def _label_values(path: str) -> Rule:
    return Rule(
        path,
        f"self.all(key, self[key].size() <= 63 && self[key].matches('{LABEL_VALUE}'))",
        "a value is not a label value: at most 63 letters, digits, `-`, `_` and `.`",
    )


def _quantities(path: str) -> Rule:
    return Rule(
        path,
        f"self.all(key, type(self[key]) == int ? self[key] >= 0 : self[key].matches('{QUANTITY}'))",
        "an amount is not a Kubernetes quantity: write for example 2, 500m or 4Gi",
    )


def _constant(path: str) -> Rule:
    return Rule(
        path,
        "self.schedule != 'Constant' || self.start == self.end",
        "start is {self.start} and end {self.end}, but the schedule is Constant: make them equal, or choose Linear or Cosine",
        ".end",
    )


def _owned(key: str, instead: str) -> Rule:
    path = "spec.training.deepspeed.config"
    return Rule(path, f"!has(self.{key})", f"`{key}` is set by Dram: remove it and use {instead}", f".{key}")


def _unchanged(field: str) -> str:
    mine, old = f"self.spec.{field}", f"oldSelf.spec.{field}"
    return f"has({mine}) == has({old}) && (!has({mine}) || {mine} == {old})"


_FINISHED = (
    "has(oldSelf.status) && has(oldSelf.status.conditions) && oldSelf.status.conditions.exists(c, "
    f"c.type == '{ConditionType.SUCCEEDED}' && c.status != 'Unknown')"
)

_OBJECT = (
    Rule(
        "",
        "self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "metadata.name '{self.metadata.name}' is too long or not a DNS label, and the names of pods are made from it: "
        "use at most 40 lower-case letters, digits and `-`, with a letter first",
    ),
    Rule(
        "",
        f"self.spec.suspend || oldSelf.spec.suspend || ({_FINISHED}) || "
        f"({' && '.join(_unchanged(field) for field in GUARDED)})",
        f"{', '.join(GUARDED)} change only while the job is suspended or finished: "
        "set spec.suspend to true with or before the edit",
        ".spec",
    ),
    *(
        Rule(f"spec.{field}", "self == oldSelf", f"{field} never changes: make another DistillationJob")
        for field in FROZEN
    ),
    Rule(
        "spec",
        "has(self.storage) == has(oldSelf.storage)",
        "storage is neither added nor removed later: make another DistillationJob",
        ".storage",
    ),
)

_LEARNING = (
    *_model_uri("spec.teacher.uri"),
    *_model_uri("spec.student.uri"),
    Rule(
        "spec.student",
        "has(self.uri) != has(self.fromTeacher)",
        "set exactly one of uri (a checkpoint of its own) and fromTeacher (a cut of the teacher)",
    ),
    Rule(
        "spec.dataset",
        "(has(self.sources) && self.sources.size() > 0) || has(self.synthetic)",
        "there is nothing to learn from: give sources, or synthetic with prompts for the teacher to answer",
    ),
    *_data_uri("spec.dataset.sources[].uri"),
    *_data_uri("spec.dataset.synthetic.promptsUri"),
    Rule(
        "spec.dataset.synthetic",
        "self.temperature > 0.0 || self.responsesPerPrompt == 1",
        "{self.responsesPerPrompt} responses at temperature 0 are all the same: "
        "set responsesPerPrompt to 1, or a temperature above 0",
        ".responsesPerPrompt",
    ),
    Rule(
        "spec.objective.temperature",
        "self.start > 0.0 && self.end > 0.0",
        "the temperature goes from {self.start} to {self.end} and must stay above 0: 1 leaves the distributions as they are",
    ),
    Rule(
        "spec.objective.alpha",
        "self.start <= 1.0 && self.end <= 1.0",
        "alpha goes from {self.start} to {self.end} and is a weight between 0 (hard labels only) and 1 (teacher only)",
    ),
    _constant("spec.objective.temperature"),
    _constant("spec.objective.alpha"),
    Rule(
        "spec.training",
        "!(has(self.epochs) && has(self.maxSteps))",
        "epochs is {self.epochs} and maxSteps {self.maxSteps}: the length of the training is given once, so remove one",
        ".maxSteps",
    ),
    Rule(
        "spec.training",
        "!has(self.maxSteps) || self.maxSteps == 0 || self.warmupSteps <= self.maxSteps",
        "warmupSteps {self.warmupSteps} is more than maxSteps {self.maxSteps}, so the learning rate would never be reached: "
        "lower it",
        ".warmupSteps",
    ),
    Rule(
        "spec.training.deepspeed",
        "self.offload != 'Optimizer' || self.zeroStage >= 1",
        "the optimizer is offloaded only where ZeRO shards it: set zeroStage to 1, 2 or 3, or offload to None",
        ".offload",
    ),
    Rule(
        "spec.training.deepspeed",
        "self.offload != 'OptimizerAndParameters' || self.zeroStage == 3",
        "parameters are offloaded only where ZeRO shards them: set zeroStage to 3 (it is {self.zeroStage}), "
        "or offload to Optimizer",
        ".offload",
    ),
    *(_owned(key, instead) for key, (_, instead) in OWNED_DEEPSPEED_KEYS.items()),
)

_PROOF = (
    Rule(
        "spec.exports",
        "self.exists(export, export.required)",
        "no variant is required, so the job would succeed with nothing to release: set required on at least one",
    ),
    Rule(
        "spec.exports[]",
        f"self.name.matches('{LABEL}')",
        "'{self.name}' is not a DNS label: use lower-case letters, digits and `-`",
        ".name",
    ),
    Rule(
        "spec.exports[]",
        "!(self.name in ['teacher', 'student'])",
        "'{self.name}' is taken, since the {self.name} is evaluated beside the variants: choose another name",
        ".name",
    ),
    *_data_uri("spec.golden.uri"),
    *_model_uri("spec.golden.embedder"),
    Rule(
        "spec.gates.quality",
        "!has(self.minGoldenPassRate) || self.minGoldenPassRate < 1.0",
        "a pass rate of 1 cannot be proven by any number of items: 0.9 takes 29 items that all pass, 0.98 takes 149",
        ".minGoldenPassRate",
    ),
    Rule(
        "spec",
        "!has(self.gates.quality.maxKLDivergence) || self.dataset.validationFraction > 0.0",
        "the divergence is measured on held-out data, and spec.dataset.validationFraction is 0: raise it, or remove the limit",
        ".gates.quality.maxKLDivergence",
    ),
    Rule(
        "spec.gates.performance",
        "!has(self.p95LatencyMs) || !has(self.p99LatencyMs) || self.p95LatencyMs <= self.p99LatencyMs",
        "p95LatencyMs {self.p95LatencyMs} is above p99LatencyMs {self.p99LatencyMs}, so it could never decide: "
        "lower it, or remove it",
        ".p95LatencyMs",
    ),
    Rule(
        "spec.gates",
        "!has(self.device) || !has(self.performance) || !has(self.performance.peakMemoryMiB) || "
        "self.performance.peakMemoryMiB <= self.device.memoryMiB",
        "performance.peakMemoryMiB {self.performance.peakMemoryMiB} is more than the device has "
        "(device.memoryMiB {self.device.memoryMiB}): lower it, or remove it",
        ".performance.peakMemoryMiB",
    ),
)

_STORAGE = (
    *_uri("spec.storage.uri", "s3://bucket/prefix", f"{S3}(/.*)?"),
    Rule(
        "spec.storage",
        "!(has(self.secretRef) && has(self.serviceAccountName))",
        "credentials come from one place: set secretRef, or a serviceAccountName with the rights, not both",
        ".serviceAccountName",
    ),
    _object_name("spec.storage.secretRef.name", "Secret"),
    _object_name("spec.storage.serviceAccountName", "ServiceAccount"),
    Rule(
        "spec.storage.endpoint",
        "self.matches('^https?://[^/ ]+/?$')",
        "'{self}' is not the URL of an S3 server: write http(s)://host:port, without a path",
    ),
    Rule(
        "spec.storage.caBundle",
        "self.contains('-----BEGIN CERTIFICATE-----')",
        "there is no PEM certificate in it: paste the whole block from -----BEGIN CERTIFICATE----- on",
    ),
    Rule(
        "spec.storage",
        "!has(self.caBundle) || (has(self.endpoint) && self.endpoint.startsWith('https://'))",
        "certificates are used for an https:// endpoint only: set endpoint to one, or remove caBundle",
        ".caBundle",
    ),
)

_PODS = (
    Rule("spec.podTemplate.image", "self.matches('^[^ ]+$')", "'{self}' is not an image: spaces are not allowed in it"),
    *(
        _quantities(f"spec.podTemplate.resources.{kind}.{bound}")
        for kind in ("train", "synthesize", "evaluate", "bench", "default")
        for bound in ("requests", "limits")
    ),
    *_keys("spec.podTemplate.labels"),
    _label_values("spec.podTemplate.labels"),
    *_keys("spec.podTemplate.annotations"),
    _label_values("spec.podTemplate.nodeSelector"),
    Rule(
        "spec.podTemplate.tolerations[]",
        "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
        "without a key everything is tolerated, which must be said: set key, or operator to Exists",
    ),
    Rule(
        "spec.podTemplate.tolerations[]",
        "!has(self.value) || !has(self.operator) || self.operator == 'Equal'",
        "value '{self.value}' is not compared by operator Exists: remove value, or set operator to Equal",
        ".value",
    ),
    Rule(
        "spec.podTemplate.tolerations[]",
        "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
        "tolerationSeconds counts for NoExecute only: set effect to NoExecute, or remove it",
        ".tolerationSeconds",
    ),
    _object_name("spec.podTemplate.priorityClassName", "PriorityClass"),
    _object_name("spec.podTemplate.runtimeClassName", "RuntimeClass"),
    _object_name("spec.podTemplate.queueName", "LocalQueue"),
    _object_name("spec.podTemplate.envFromSecrets[].secretName", "Secret"),
    Rule(
        "spec.podTemplate.envFromSecrets[].name",
        "self.matches('^[A-Za-z_][A-Za-z0-9_]*$')",
        "'{self}' is not the name of an environment variable: use letters, digits and `_`",
    ),
    Rule(
        "spec.podTemplate.envFromSecrets[].name",
        "!self.startsWith('DRAM_') && !self.startsWith('AWS_') && "
        "!(self in ['RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'])",
        "'{self}' is set by Dram: remove it; storage credentials go to spec.storage.secretRef",
    ),
    Rule(
        "spec.podTemplate.envFromSecrets[].key",
        "self.matches('^[-._a-zA-Z0-9]+$')",
        "'{self}' is not a key of a Secret: use letters, digits, `-`, `_` and `.`",
    ),
)

RULES: tuple[Rule, ...] = _OBJECT + _LEARNING + _PROOF + _STORAGE + _PODS
"""Every rule, in the order of the spec."""
