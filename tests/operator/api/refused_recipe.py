"""Refused: names, types and bounds, URIs, and the recipe of the training."""

from collections.abc import Iterator
from typing import Any

from dram_workers.deepspeed_settings import OWNED_DEEPSPEED_KEYS
from tests.builders import ABSENT
from tests.operator.api.case import JOB, Refused

HUGE = "x" * 300


def names() -> Iterator[Refused]:
    """Names that pods cannot be made from."""
    for name in ("a" * 41, "bot.v7", "7bot"):
        yield Refused(f"the name {name}", JOB.named(name), "", f"metadata.name '{name}' is too long or not a DNS label")


def schema_faults() -> Iterator[Refused]:
    """What types, bounds and lists of values refuse."""
    for field in ("teacher", "student", "dataset", "exports", "golden"):
        yield Refused(f"no {field}", JOB.having(f"spec.{field}", ABSENT), f"spec.{field}", "Required value")
    quantization = 'Unsupported value: "Q3_K_S": supported values: "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0"'
    yield Refused(
        "an unknown quantization",
        JOB.exporting("Q8_0").having("spec.exports[0].gguf.type", "Q3_K_S"),
        "spec.exports[0].gguf.type",
        quantization,
    )
    yield Refused(
        "an export without a format",
        JOB.having("spec.exports", [{"name": "a"}]),
        "spec.exports[0].gguf",
        "Required value",
    )
    yield Refused(
        "an empty list of exports", JOB.having("spec.exports", []), "spec.exports", "should have at least 1 items"
    )
    many = [{"name": f"v{index}", "gguf": {"type": "Q8_0"}} for index in range(17)]
    yield Refused(
        "too many exports", JOB.having("spec.exports", many), "spec.exports", "Too many: 17: must have at most 16 items"
    )
    twice = [{"name": "a", "gguf": {"type": "Q8_0"}}, {"name": "a", "gguf": {"type": "Q4_0"}}]
    yield Refused(
        "two exports of one name", JOB.having("spec.exports", twice), "spec.exports[1]", 'Duplicate value: {"name":"a"}'
    )
    source = {"uri": "s3://models/a.jsonl"}
    yield Refused(
        "a source twice",
        JOB.having("spec.dataset.sources", [source, source]),
        "spec.dataset.sources[1]",
        'Duplicate value: {"uri":"s3://models/a.jsonl"}',
    )
    for path, value, message in (
        ("spec.student.fromTeacher.layers", 0, "should be greater than or equal to 1"),
        ("spec.dataset.sources[0].weight", 0, "should be greater than 0"),
        ("spec.dataset.validationFraction", 0.6, "should be less than or equal to 0.5"),
        ("spec.training.betas", [0.9, 1], "should be less than 1"),
        ("spec.training.gradientClipping", -1, "should be greater than or equal to 0"),
        ("spec.training.validation.everySteps", 0, "should be greater than or equal to 1"),
        ("spec.training.precision", "TF32", 'Unsupported value: "TF32": supported values: "BF16", "FP16", "FP32"'),
        ("spec.training.betas", [0.9], "should have at least 2 items"),
        ("spec.teacher.workers", 0, "should be greater than or equal to 1"),
        ("spec.objective.teacherLogits.topK", 2000, "should be less than or equal to 1024"),
        ("spec.training.workers", "two", 'must be of type integer: "string"'),
        ("spec.training.workers", 0, "should be greater than or equal to 1"),
        ("spec.training.deepspeed", {"zeroStage": 4}, 'Unsupported value: 4: supported values: "0", "1", "2", "3"'),
        (
            "spec.objective.divergence",
            {"type": "Wasserstein"},
            'Unsupported value: "Wasserstein": supported values: "ForwardKL", "ReverseKL", "JSD"',
        ),
        ("spec.dataset.lossOn", "Answers", 'supported values: "Completions", "All"'),
        ("spec.teacher.uri", f"s3://models/{HUGE}", "Too long: may not be more than 256 bytes"),
        ("spec.golden.minSimilarity", -0.1, "should be greater than or equal to 0"),
        ("spec.storage.region", "", "should be at least 1 chars long"),
        ("spec.retries", -1, "should be greater than or equal to 0"),
        ("spec.suspend", "yes", 'must be of type boolean: "string"'),
    ):
        field = {"betas": "[1]", "deepspeed": ".zeroStage", "divergence": ".type"}.get(path.rsplit(".", 1)[-1], "")
        field = "" if value == [0.9] else field
        yield Refused(f"{path} of {str(value)[:20]}", JOB.having(path, value), path + field, message)


def uris() -> Iterator[Refused]:
    """Every URI: of one machine, of no known form, and climbing."""
    model = "hf://org/name@revision, s3://bucket/prefix or pvc://claim/path"
    data = "s3://bucket/key or pvc://claim/path"
    synthetic, student = JOB.with_synthetic(), JOB.having("spec.student", {"uri": "s3://models/student"})
    for job, path, forms in (
        (JOB, "spec.teacher.uri", model),
        (student, "spec.student.uri", model),
        (JOB, "spec.golden.embedder", model),
        (JOB, "spec.dataset.sources[0].uri", data),
        (synthetic, "spec.dataset.synthetic.promptsUri", data),
        (JOB, "spec.golden.uri", data),
        (JOB, "spec.storage.uri", "s3://bucket/prefix"),
    ):
        for machine in ("file:///models/it", "models/it"):
            wanted = f"'{machine}' names a file of one machine, which pods cannot read: give {forms}, or use `dram run`"
            yield Refused(f"{machine} in {path}", job.having(path, machine), path, wanted, locally_fine=True)
        wanted = f"'ftp://models/it' is not one of the known forms: give {forms}"
        yield Refused(f"an unknown scheme in {path}", job.having(path, "ftp://models/it"), path, wanted)
        wanted = "'s3://models/../it' climbs with `..`: write the path in full"
        yield Refused(f"a climbing {path}", job.having(path, "s3://models/../it"), path, wanted)
    for uri in ("hf://teacher", "hf://org/name@", "s3://UPPER/a", "s3://models", "pvc://claim", "pvc:///path"):
        wanted = f"'{uri}' is not one of the known forms"
        yield Refused(f"a teacher at {uri}", JOB.having("spec.teacher.uri", uri), "spec.teacher.uri", wanted)


def learning() -> Iterator[Refused]:
    """Student, data, objective and training."""
    one = "set exactly one of uri (a checkpoint of its own) and fromTeacher (a cut of the teacher)"
    both = {"uri": "s3://models/student", "fromTeacher": {"layers": 2}}
    yield Refused("no student at all", JOB.having("spec.student", {}), "spec.student", one)
    yield Refused("two students", JOB.having("spec.student", both), "spec.student", one)
    nothing = "there is nothing to learn from: give sources, or synthetic"
    yield Refused("no data", JOB.having("spec.dataset", {}), "spec.dataset", nothing)
    yield Refused("an empty list of data", JOB.having("spec.dataset.sources", []), "spec.dataset", nothing)
    greedy = "4 responses at temperature 0 are all the same: set responsesPerPrompt to 1, or a temperature above 0"
    yield Refused(
        "greedy answers four times",
        JOB.with_synthetic(responsesPerPrompt=4),
        "spec.dataset.synthetic.responsesPerPrompt",
        greedy,
    )
    yield from _schedules(
        "temperature", ((0.0, 1.0), (1.0, 0.0)), "the temperature goes from {} to {} and must stay above 0"
    )
    yield from _schedules("alpha", ((1.5, 0.5), (0.5, 1.5)), "alpha goes from {} to {} and is a weight between 0")
    for name in ("temperature", "alpha"):
        wanted = "start is 0.9 and end 0.5, but the schedule is Constant: make them equal, or choose Linear or Cosine"
        schedule = {"start": 0.9, "end": 0.5}
        yield Refused(
            f"a constant {name} that changes",
            JOB.having(f"spec.objective.{name}", schedule),
            f"spec.objective.{name}.end",
            wanted,
        )
    for name in ("hiddenStates", "attention"):
        yield Refused(
            f"a constant weight of {name} that changes",
            JOB.having(f"spec.objective.{name}", {"weight": {"start": 0.5, "end": 0.1}}),
            f"spec.objective.{name}.weight.end",
            "start is 0.5 and end 0.1, but the schedule is Constant: make them equal, or choose Linear or Cosine",
        )
    yield Refused(
        "beta without JSD",
        JOB.having("spec.objective.divergence", {"type": "ReverseKL", "beta": 0.5}),
        "spec.objective.divergence.beta",
        "beta 0.5 belongs to JSD, and the type is ReverseKL: remove it, or set type to JSD",
    )
    yield Refused(
        "attention maps of unpacked rows",
        JOB.having("spec.dataset.packing", False).having("spec.objective.attention", {}),
        "spec.objective.attention",
        "attention maps are compared inside packed rows, and spec.dataset.packing is false",
    )
    cached = JOB.having("spec.objective.teacherLogits", {"mode": "Cached"})
    yield Refused(
        "cached logits for reverse KL",
        cached.having("spec.objective.divergence", {"type": "ReverseKL"}),
        "spec.objective.divergence.type",
        "teacherLogits.mode is Cached, which keeps the teacher's likeliest tokens, and ReverseKL asks for all that",
    )
    for term in ("hiddenStates", "attention"):
        yield Refused(
            f"cached logits and {term}",
            cached.having(f"spec.objective.{term}", {}),
            f"spec.objective.{term}",
            f"teacherLogits.mode is Cached, which keeps logits alone, and {term} compares what is inside the teacher",
        )
    falling = {"start": 2, "end": 1, "schedule": "Linear"}
    yield Refused(
        "cached logits at a temperature that changes",
        JOB.having("spec.objective", {"teacherLogits": {"mode": "Cached"}, "temperature": falling}),
        "spec.objective.temperature",
        "teacherLogits.mode is Cached, which keeps the logits at one temperature, and the temperature goes from 2 to 1: "
        "make them equal, or set teacherLogits.mode to Online",
    )
    yield Refused(
        "epochs and steps",
        JOB.with_training(epochs=2, maxSteps=100),
        "spec.training.maxSteps",
        "epochs is 2 and maxSteps 100: the length of the training is given once, so remove one",
    )
    yield Refused(
        "warm-up beyond the end",
        JOB.with_training(maxSteps=10, warmupSteps=11),
        "spec.training.warmupSteps",
        "warmupSteps 11 is more than maxSteps 10",
    )
    yield Refused(
        "patience without validation",
        JOB.with_training(patience=3),
        "spec.training.patience",
        "patience 3 counts validations, and there are none: set validation.everySteps, or remove patience",
    )
    yield Refused(
        "validation without held-out data",
        JOB.with_training(validation={"everySteps": 10}).having("spec.dataset.validationFraction", 0),
        "spec.training.validation",
        "validation needs held-out data, and spec.dataset.validationFraction is 0: raise it, or remove validation",
    )
    yield Refused(
        "offload without ZeRO",
        JOB.with_training(deepspeed={"zeroStage": 0, "offload": "Optimizer"}),
        "spec.training.deepspeed.offload",
        "the optimizer is offloaded only where ZeRO shards it: set zeroStage to 1, 2 or 3, or offload to None",
    )
    yield Refused(
        "offload of whole parameters",
        JOB.with_training(deepspeed={"zeroStage": 2, "offload": "OptimizerAndParameters"}),
        "spec.training.deepspeed.offload",
        "set zeroStage to 3 (it is 2), or offload to Optimizer",
    )
    values: dict[str, Any] = {"object": {"enabled": True}, "integer": 8, "number": 0.5, "boolean": True}
    for key, (kind, instead) in OWNED_DEEPSPEED_KEYS.items():
        job = JOB.with_training(deepspeed={"config": {key: values[kind]}})
        yield Refused(
            f"DeepSpeed's {key}",
            job,
            f"spec.training.deepspeed.config.{key}",
            f"`{key}` is set by Dram: remove it and use {instead}",
        )


def _schedules(field: str, ends: tuple[tuple[float, float], ...], message: str) -> Iterator[Refused]:
    for start, end in ends:
        path = f"spec.objective.{field}"
        job = JOB.having(path, {"start": start, "end": end, "schedule": "Linear"})
        yield Refused(f"{field} from {start:g} to {end:g}", job, path, message.format(f"{start:g}", f"{end:g}"))


def modes() -> Iterator[Refused]:
    """What does not act in a mode, and teachers that give no logits."""
    one = "set exactly one of uri (the teacher's weights) and endpoint"
    yield Refused("no teacher at all", JOB.having("spec.teacher", {}), "spec.teacher", one)
    both = JOB.with_endpoint().having("spec.teacher.uri", "hf://example/teacher")
    yield Refused("two teachers", both, "spec.teacher", one)
    for url in (
        "api.example.com/v1",
        "https://key@api.example.com/v1",
        "https://a.b/v1?key=1",
        "https://a.b/v1/chat/completions",
    ):
        wanted = f"'{url}' is not a base URL"
        yield Refused(f"an endpoint at {url}", JOB.with_endpoint(url=url), "spec.teacher.endpoint.url", wanted)
    yield Refused(
        "a key in no Secret",
        JOB.with_endpoint(secretRef={"name": "sk-Secret"}),
        "spec.teacher.endpoint.secretRef.name",
        "'sk-Secret' is not the name of a Secret",
    )
    yield Refused(
        "logits of an endpoint",
        JOB.with_endpoint().having("spec.objective.mode", "Logits"),
        "spec.teacher.endpoint",
        "an endpoint gives text and no logits: set spec.objective.mode to Sequence",
    )
    yield Refused(
        "a cut of an endpoint",
        JOB.with_endpoint().having("spec.student", {"fromTeacher": {"layers": 2}}),
        "spec.student.fromTeacher",
        "the teacher is an endpoint, so there are no layers to cut a student from",
    )
    text = JOB.learning_from_text()
    for field, value, why in (
        ("alpha", {"start": 0.5, "end": 0.5}, "alpha weighs soft targets against hard labels"),
        ("temperature", {"start": 2, "end": 2}, "temperature softens logits, and Sequence mode compares none"),
        ("divergence", {"type": "ReverseKL"}, "divergence compares distributions, and Sequence mode has text alone"),
        ("hiddenStates", {}, "hiddenStates looks into the teacher, and Sequence mode has its text alone"),
        ("attention", {}, "attention looks into the teacher, and Sequence mode has its text alone"),
        (
            "onPolicyFraction",
            0.5,
            "what the student writes is judged by the teacher's logits, and Sequence mode has none",
        ),
    ):
        yield Refused(f"{field} on text", text.having(f"spec.objective.{field}", value), f"spec.objective.{field}", why)
    yield Refused(
        "cached logits of text",
        text.having("spec.objective.teacherLogits", {"mode": "Cached"}),
        "spec.objective.teacherLogits.mode",
        "there are no logits in Sequence mode that could be cached",
    )
    own = JOB.having("spec.objective.onPolicyFraction", 0.25)
    yield Refused(
        "cached logits of new words",
        own.having("spec.objective.teacherLogits", {"mode": "Cached"}),
        "spec.objective.onPolicyFraction",
        "what the student writes is new to the teacher, and teacherLogits.mode is Cached",
    )
    yield Refused(
        "completions without prompts",
        own.having("spec.dataset.lossOn", "All"),
        "spec.objective.onPolicyFraction",
        "the student completes prompts, and with dataset.lossOn All prompts are not told from answers",
    )
    yield Refused(
        "completions under ZeRO 3",
        own.with_training(deepspeed={"zeroStage": 3}),
        "spec.objective.onPolicyFraction",
        "with zeroStage 3 the student's weights would be gathered once more for every token that it writes",
    )
    yield Refused(
        "sampling of nothing",
        JOB.having("spec.objective.onPolicySampling", {"temperature": 0.5}),
        "spec.objective.onPolicySampling",
        "the student writes nothing while onPolicyFraction is 0",
    )
