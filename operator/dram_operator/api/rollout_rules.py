"""Cross-field rules of an EdgeRollout, once, as CEL: the API server runs them at apply, `dram validate` the same texts."""

from dram_operator.api.rule import LABEL, LABEL_VALUE, S3, Rule, bucket_access, signed_quantity

_PERCENT = "^(100([.]0{1,4})?|[0-9]{1,2}([.][0-9]{1,4})?)%$"
_NONE = "^0{1,2}([.]0{1,4})?%$"
_CRON = "^([-0-9A-Za-z*,/]+ ){4}[-0-9A-Za-z*,/#]+$"
_HOLES = ("channel", "attempt", "arm", "window", "release", "stable")


def _object_uri(path: str, form: str) -> tuple[Rule, ...]:
    return (
        Rule(path, f"self.matches('^{S3}/.+$')", f"'{{self}}' is not of the form {form}: devices are served from S3"),
        Rule(path, "!self.matches('/[.][.](/|$)')", "'{self}' climbs with `..`: write the path in full"),
    )


def _label(path: str, what: str) -> Rule:
    return Rule(
        path,
        f"self.matches('{LABEL}')",
        f"'{{self}}' is not the name of {what}: use lower-case letters, digits and `-`",
    )


_OBJECT = (
    Rule(
        "",
        "self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "metadata.name '{self.metadata.name}' is too long or not a DNS label, and the channel and the names of pods are "
        "made from it: use at most 40 lower-case letters, digits and `-`, with a letter first",
    ),
)

_ARTIFACT = (
    Rule(
        "spec.artifact",
        "has(self.jobRef) != has(self.uri)",
        "set exactly one of jobRef (a variant of a DistillationJob) and uri (a folder in S3, with its sha256)",
    ),
    Rule(
        "spec.artifact",
        "has(self.uri) == has(self.sha256)",
        "uri says where the artifact lies and sha256 which one it is (the digest of its manifest.json): set both, or neither",
        ".sha256",
    ),
    _label("spec.artifact.jobRef.name", "a DistillationJob"),
    _label("spec.artifact.jobRef.variant", "a variant"),
    *_object_uri("spec.artifact.uri", "s3://bucket/prefix"),
    Rule(
        "spec.artifact",
        "!has(self.storage) || has(self.uri)",
        "storage says how the bucket of uri is reached, and a jobRef takes its job's storage: remove it, or set uri and sha256",
        ".storage",
    ),
    *bucket_access("spec.artifact.storage"),
)

_STEPS = (
    Rule(
        "spec.strategy.steps",
        "self.size() == 0 || (has(self[self.size() - 1].cohort) && has(self[self.size() - 1].cohort.percent) && "
        "self[self.size() - 1].cohort.percent.matches('^100([.]0+)?%$') && !has(self[self.size() - 1].cohort.selector))",
        "the last step must take every device, because after it the candidate becomes stable: end with "
        'cohort.percent "100%" and no selector',
    ),
    Rule(
        "spec.strategy.steps",
        "self.filter(step, has(step.cohort) && has(step.cohort.deviceIds))"
        ".map(step, step.cohort.deviceIds.size()).sum() <= 300",
        "the steps name more than 300 devices one by one: give those devices a label, and use selector",
    ),
    Rule(
        "spec.strategy.steps[]",
        "has(self.cohort) != has(self.pause)",
        "set exactly one of cohort (devices to add) and pause (wait for approval)",
    ),
    Rule(
        "spec.strategy.steps[]",
        "!has(self.bakeSeconds) || has(self.cohort)",
        "a pause adds no devices that could be watched: remove bakeSeconds, or set cohort",
        ".bakeSeconds",
    ),
    Rule(
        "spec.strategy.steps[].cohort",
        "(has(self.deviceIds) && self.deviceIds.size() > 0) || has(self.percent)",
        "there is no device in it: set deviceIds, percent, or both",
    ),
    Rule(
        "spec.strategy.steps[].cohort",
        "!has(self.selector) || has(self.percent)",
        'a selector says whose share is taken: set percent too, as "100%" for all of them',
        ".percent",
    ),
    Rule(
        "spec.strategy.steps[].cohort.percent",
        f"self.matches('{_PERCENT}') && !self.matches('{_NONE}')",
        "'{self}' is not a share of devices: write a number above 0 up to 100 with at most four decimals, as \"2.5%\"",
    ),
    Rule(
        "spec.strategy.steps[].cohort.selector.matchLabels",
        "self.all(key, key.matches('^[A-Za-z_][A-Za-z0-9_]*$'))",
        "a label of devices has a name of letters, digits and `_`, without a digit first",
    ),
    Rule(
        "spec.strategy.steps[].cohort.selector.matchLabels",
        f"self.all(key, self[key].matches('{LABEL_VALUE}'))",
        "a value is not a label value: at most 63 letters, digits, `-`, `_` and `.`",
    ),
)

_STRATEGY = (
    Rule(
        "spec.strategy.holdbackPercent",
        "self.matches('^(50([.]0{1,4})?|[0-4]?[0-9]([.][0-9]{1,4})?)%$')",
        "'{self}' is not a share of devices that could be held back: write a number from 0 to 50 with at most four "
        'decimals, as "5%"',
    ),
    Rule(
        "spec",
        "self.strategy.offline.afterSeconds >= 3 * self.analysis.intervalSeconds",
        "strategy.offline.afterSeconds is {self.strategy.offline.afterSeconds}, and a device is fresh for three looks of "
        "{self.analysis.intervalSeconds} s each: raise it to at least three times analysis.intervalSeconds",
        ".strategy.offline.afterSeconds",
    ),
    Rule(
        "spec.strategy.windows[].schedule",
        f"self.matches('{_CRON}')",
        "'{self}' is not a schedule in cron's five fields: write minute, hour, day of the month, month and day of the week, "
        "as 0 2 * * 1-5",
    ),
    Rule(
        "spec.strategy.windows[].timeZone",
        "self.matches('^[A-Za-z][-+A-Za-z0-9_]*(/[A-Za-z][-+A-Za-z0-9_]*)*$')",
        "'{self}' is not the name of an IANA time zone: write one as Europe/Berlin",
    ),
    *_object_uri("spec.inventory.uri", "s3://bucket/key"),
)

_ANALYSIS = (
    _label("spec.analysis.prometheusRef.name", "one of the installation's endpoints"),
    Rule(
        "spec.analysis.alpha",
        "self.matches('^0?[.][0-9]+$') && double(self) > 0.0 && double(self) <= 0.5",
        "'{self}' is not a chance that could be promised: write a decimal above 0 up to 0.5, as \"0.05\"",
    ),
    _label("spec.analysis.metrics[].name", "a metric"),
    Rule(
        "spec.analysis.metrics[]",
        "has(self.preset) != has(self.query)",
        "set exactly one of preset (a measure that Dram knows) and query (PromQL of your own)",
    ),
    Rule(
        "spec.analysis.metrics[]",
        "has(self.min) || has(self.max) || has(self.compareTo)",
        "there is nothing to compare with: set min, max, or compareTo with margin",
    ),
    Rule(
        "spec.analysis.metrics[]",
        "has(self.margin) == has(self.compareTo)",
        "compareTo and margin go together: margin says how much worse than the control is still good",
        ".margin",
    ),
    *(signed_quantity(f"spec.analysis.metrics[].{field}") for field in ("min", "max", "margin")),
    Rule(
        "spec.analysis.metrics[]",
        "!has(self.min) || !has(self.max) || !isQuantity(string(self.min)) || !isQuantity(string(self.max)) || "
        "quantity(string(self.min)).compareTo(quantity(string(self.max))) <= 0",
        "min {self.min} is above max {self.max}, so no value is good: swap them, or remove one",
        ".min",
    ),
    Rule(
        "spec.analysis.metrics[]",
        "!has(self.margin) || !isQuantity(string(self.margin)) || quantity(string(self.margin)).compareTo(quantity('0')) > 0",
        "margin {self.margin} leaves no room, so a candidate as good as the control could never pass: use more than 0",
        ".margin",
    ),
    Rule(
        "spec.analysis.metrics[]",
        "self.failureLimit <= self.looks",
        "failureLimit {self.failureLimit} cannot be reached in {self.looks} looks: lower it, or raise looks",
        ".failureLimit",
    ),
    Rule(
        "spec.analysis.metrics[].query",
        f"self.matches('^([^{{]|[{{]([^{{]|$)|[{{][{{] *({'|'.join(_HOLES)}) *[}}][}}])*$')",
        f"something in double braces is not known: use {', '.join(_HOLES)}",
    ),
)

ROLLOUT_RULES: tuple[Rule, ...] = _OBJECT + _ARTIFACT + _STEPS + _STRATEGY + _ANALYSIS
"""Every rule, in the order of the spec."""
