"""Rules of what goes together: the objective's modes, who the teacher is, and what acts in which mode."""

from dram_operator.api.rule import Rule, object_name
from dram_operator.api.spec import Objective
from dram_workers.objective import Schedule

_DEFAULTS = Objective()

TEACHER = (
    Rule(
        "spec.teacher",
        "has(self.uri) != has(self.endpoint)",
        "set exactly one of uri (the teacher's weights) and endpoint (an OpenAI-compatible API that it answers at)",
    ),
    Rule(
        "spec.teacher.endpoint.url",
        "self.matches('^https?://[^/?#@ ]+(/[^?#@ ]*)?$') && !self.matches('/chat/completions/?$')",
        "'{self}' is not a base URL: write http(s)://host/path as clients of OpenAI take it, mostly up to /v1, "
        "with no credentials in it (they go to secretRef) and without /chat/completions",
    ),
    object_name("spec.teacher.endpoint.secretRef.name", "Secret"),
    Rule(
        "spec",
        "!has(self.teacher) || !has(self.teacher.endpoint) || self.objective.mode == 'Sequence'",
        "an endpoint gives text and no logits: set spec.objective.mode to Sequence, or name the teacher's weights in uri",
        ".teacher.endpoint",
    ),
    Rule(
        "spec",
        "!has(self.teacher) || !has(self.teacher.endpoint) || !has(self.student.fromTeacher)",
        "the teacher is an endpoint, so there are no layers to cut a student from: name a checkpoint in spec.student.uri",
        ".student.fromTeacher",
    ),
)


def _left_alone(field: str, default: Schedule, why: str) -> Rule:
    """A schedule that does nothing in Sequence mode stays as it is by default."""
    same = " && ".join(
        (
            f"self.{field}.start == {default.start:.6}",
            f"self.{field}.end == {default.end:.6}",
            f"self.{field}.schedule == '{default.schedule}'",
        )
    )
    return Rule(
        "spec.objective",
        f"self.mode != 'Sequence' || ({same})",
        f"{why}: remove it, or set mode to Logits",
        f".{field}",
    )


SEQUENCE = (
    _left_alone(
        "alpha",
        _DEFAULTS.alpha,
        "alpha weighs soft targets against hard labels, and Sequence mode has hard labels only",
    ),
    _left_alone("temperature", _DEFAULTS.temperature, "temperature softens logits, and Sequence mode compares none"),
    Rule(
        "spec.objective",
        f"self.mode != 'Sequence' || self.divergence.type == '{_DEFAULTS.divergence.type}'",
        "divergence compares distributions, and Sequence mode has text alone: remove it, or set mode to Logits",
        ".divergence",
    ),
    *(
        Rule(
            "spec.objective",
            f"self.mode != 'Sequence' || !has(self.{term})",
            f"{term} looks into the teacher, and Sequence mode has its text alone: remove it, or set mode to Logits",
            f".{term}",
        )
        for term in ("hiddenStates", "attention")
    ),
    Rule(
        "spec.objective",
        "self.mode != 'Sequence' || self.teacherLogits.mode == 'Online'",
        "there are no logits in Sequence mode that could be cached: remove teacherLogits, or set mode to Logits",
        ".teacherLogits.mode",
    ),
)
"""In Sequence mode the loss is the cross-entropy, so what shapes another term is refused."""

ON_POLICY = (
    Rule(
        "spec.objective",
        "!has(self.onPolicySampling) || self.onPolicyFraction > 0.0",
        "the student writes nothing while onPolicyFraction is 0: raise it, or remove onPolicySampling",
        ".onPolicySampling",
    ),
    Rule(
        "spec.objective",
        "self.onPolicyFraction == 0.0 || self.mode == 'Logits'",
        "what the student writes is judged by the teacher's logits, and Sequence mode has none: "
        "set onPolicyFraction to 0, or mode to Logits",
        ".onPolicyFraction",
    ),
    Rule(
        "spec.objective",
        "self.onPolicyFraction == 0.0 || self.teacherLogits.mode == 'Online'",
        "what the student writes is new to the teacher, and teacherLogits.mode is Cached: "
        "set onPolicyFraction to 0, or teacherLogits.mode to Online",
        ".onPolicyFraction",
    ),
    Rule(
        "spec",
        "self.objective.onPolicyFraction == 0.0 || self.dataset.lossOn == 'Completions'",
        "the student completes prompts, and with dataset.lossOn All prompts are not told from answers: "
        "set lossOn to Completions, or onPolicyFraction to 0",
        ".objective.onPolicyFraction",
    ),
    Rule(
        "spec",
        "self.objective.onPolicyFraction == 0.0 || self.training.deepspeed.zeroStage < 3",
        "with zeroStage 3 the student's weights would be gathered once more for every token that it writes: "
        "set training.deepspeed.zeroStage to 2 or less, or onPolicyFraction to 0",
        ".objective.onPolicyFraction",
    ),
)
"""On-policy samples are written by the student and judged by a teacher at hand."""
