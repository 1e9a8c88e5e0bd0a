"""Cross-field rules of a DistillationJob, once, as CEL: the API server runs them at apply, `dram validate` runs the same texts.

A message names what is wrong and what to do; `{expression}` in it shows a value. The field stands before the message in
every report. Keep to core CEL and `format`, or the rules cannot run offline.
"""

from dram_operator.api.modes import ON_POLICY, SEQUENCE, TEACHER
from dram_operator.api.rule import (
    LABEL,
    S3,
    Rule,
    bucket_access,
    constant,
    data_uri,
    keys,
    label_values,
    model_uri,
    object_name,
    owned,
    quantities,
    uri,
)
from dram_operator.api.status import ConditionType
from dram_workers.deepspeed_settings import OWNED_DEEPSPEED_KEYS

FROZEN = ("teacher", "student", "storage")
"""Fields of the spec that never change."""
FREE = ("suspend", "activeDeadlineSeconds", "pendingDeadlineSeconds", "retries", "ttlSecondsAfterFinished")
"""Fields of the spec that may change at any time."""
GUARDED = ("dataset", "objective", "training", "exports", "golden", "gates", "podTemplate")
"""Fields of the spec that change only while suspended or after the end. They start a new run, but for those that say
how a run is carried out: while it is only suspended, it goes on with them."""


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
    *TEACHER,
    *model_uri("spec.teacher.uri"),
    *model_uri("spec.student.uri"),
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
    *data_uri("spec.dataset.sources[].uri"),
    *data_uri("spec.dataset.synthetic.promptsUri"),
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
    constant("spec.objective.temperature"),
    constant("spec.objective.alpha"),
    constant("spec.objective.hiddenStates.weight"),
    constant("spec.objective.attention.weight"),
    Rule(
        "spec.objective.divergence",
        "!has(self.beta) || self.type == 'JSD'",
        "beta {self.beta} belongs to JSD, and the type is {self.type}: remove it, or set type to JSD",
        ".beta",
    ),
    Rule(
        "spec",
        "!has(self.objective.attention) || self.dataset.packing",
        "attention maps are compared inside packed rows, and spec.dataset.packing is false: set it to true, or remove them",
        ".objective.attention",
    ),
    Rule(
        "spec.objective",
        "self.teacherLogits.mode != 'Cached' || self.divergence.type == 'ForwardKL'",
        "teacherLogits.mode is Cached, which keeps the teacher's likeliest tokens, and {self.divergence.type} asks for all "
        "that the student finds likely: set divergence.type to ForwardKL, or teacherLogits.mode to Online",
        ".divergence.type",
    ),
    *(
        Rule(
            "spec.objective",
            f"self.teacherLogits.mode != 'Cached' || !has(self.{term})",
            f"teacherLogits.mode is Cached, which keeps logits alone, and {term} compares what is inside the teacher: "
            f"remove {term}, or set teacherLogits.mode to Online",
            f".{term}",
        )
        for term in ("hiddenStates", "attention")
    ),
    Rule(
        "spec.objective",
        "self.teacherLogits.mode != 'Cached' || self.temperature.start == self.temperature.end",
        "teacherLogits.mode is Cached, which keeps the logits at one temperature, and the temperature goes from "
        "{self.temperature.start} to {self.temperature.end}: make them equal, or set teacherLogits.mode to Online",
        ".temperature",
    ),
    *SEQUENCE,
    *ON_POLICY,
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
        "spec.training",
        "!has(self.patience) || has(self.validation)",
        "patience {self.patience} counts validations, and there are none: set validation.everySteps, or remove patience",
        ".patience",
    ),
    Rule(
        "spec",
        "!has(self.training.validation) || self.dataset.validationFraction > 0.0",
        "validation needs held-out data, and spec.dataset.validationFraction is 0: raise it, or remove validation",
        ".training.validation",
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
    *(owned(key, instead) for key, (_, instead) in OWNED_DEEPSPEED_KEYS.items()),
)

_PROOF = (
    Rule(
        "spec.exports",
        "self.size() == 0 || self.exists(export, export.required)",
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
    *data_uri("spec.golden.uri"),
    *model_uri("spec.golden.embedder"),
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
    *uri("spec.storage.uri", "s3://bucket/prefix", f"{S3}(/.*)?"),
    *bucket_access("spec.storage"),
)

_PODS = (
    Rule("spec.podTemplate.image", "self.matches('^[^ ]+$')", "'{self}' is not an image: spaces are not allowed in it"),
    *(
        quantities(f"spec.podTemplate.resources.{kind}.{bound}")
        for kind in ("train", "synthesize", "evaluate", "bench", "default")
        for bound in ("requests", "limits")
    ),
    *keys("spec.podTemplate.labels"),
    label_values("spec.podTemplate.labels"),
    *keys("spec.podTemplate.annotations"),
    label_values("spec.podTemplate.nodeSelector"),
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
    object_name("spec.podTemplate.priorityClassName", "PriorityClass"),
    object_name("spec.podTemplate.runtimeClassName", "RuntimeClass"),
    object_name("spec.podTemplate.queueName", "LocalQueue"),
    object_name("spec.podTemplate.envFromSecrets[].secretName", "Secret"),
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
