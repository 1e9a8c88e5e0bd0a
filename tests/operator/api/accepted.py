"""Manifests that are accepted."""

from tests.builders import ABSENT
from tests.operator.api.case import JOB, SUSPENDED, Accepted, everything, finished, running

EDITED = JOB.with_training(seed=7)

ACCEPTED: tuple[Accepted, ...] = (
    Accepted("the smallest manifest", JOB),
    Accepted("a manifest that says everything", everything()),
    Accepted("no storage, where the installation has one", JOB.having("spec.storage", ABSENT)),
    Accepted(
        "a service account instead of a Secret",
        JOB.having("spec.storage", {"uri": "s3://models", "serviceAccountName": "dram"}),
    ),
    Accepted(
        "models and data on a volume",
        JOB.having("spec.teacher.uri", "pvc://models/teacher").having("spec.golden.uri", "pvc://models/golden.jsonl"),
    ),
    Accepted("the teacher writes all data", JOB.having("spec.dataset.sources", ABSENT).with_synthetic()),
    Accepted("a divergence between the two", JOB.having("spec.objective.divergence", {"type": "JSD", "beta": 0.1})),
    Accepted("a divergence with its default", JOB.having("spec.objective.divergence", {"type": "JSD"})),
    Accepted(
        "hidden states of unpacked rows",
        JOB.having("spec.dataset.packing", False).having("spec.objective.hiddenStates", {}),
    ),
    Accepted(
        "attention of named layers",
        JOB.having(
            "spec.objective.attention", {"layers": [{"student": 0, "teacher": 0}, {"student": 1, "teacher": 3}]}
        ),
    ),
    Accepted("several pods for the teacher", JOB.having("spec.teacher.workers", 8)),
    Accepted(
        "cached logits at one temperature",
        JOB.having(
            "spec.objective", {"teacherLogits": {"mode": "Cached", "topK": 32}, "temperature": {"start": 2, "end": 2}}
        ),
    ),
    Accepted("text instead of logits", JOB.learning_from_text()),
    Accepted("text for a cut of the teacher", JOB.having("spec.objective.mode", "Sequence")),
    Accepted(
        "a teacher behind an endpoint",
        JOB.with_endpoint(secretRef={"name": "openai"}, concurrency=2).with_synthetic(),
    ),
    Accepted("an endpoint without a key in the cluster", JOB.with_endpoint(url="http://llm.models.svc:8000/v1/")),
    Accepted(
        "completions of the student's own",
        JOB.having("spec.objective.onPolicyFraction", 0.5)
        .having("spec.objective.onPolicySampling", {"temperature": 0.7, "maxNewTokens": 64})
        .with_training(deepspeed={"zeroStage": 2}),
    ),
    Accepted("the untrained student", JOB.with_training(maxSteps=0, warmupSteps=10)),
    Accepted(
        "validation with patience, beside a schedule for the embeddings",
        JOB.with_training(
            validation={"everySteps": 50}, patience=3, freezeEmbeddingsSteps=100, gradientClipping=0, precision="FP16"
        ),
    ),
    Accepted("a part of an epoch", JOB.with_training(epochs=0.5)),
    Accepted("the optimizer offloaded", JOB.with_training(deepspeed={"offload": "Optimizer"})),
    Accepted(
        "an optional variant",
        JOB.exporting("Q8_0").having("spec.exports[1]", {"name": "small", "gguf": {"type": "Q4_0"}, "required": False}),
    ),
    Accepted("a longest name", JOB.named("a" * 40)),
    Accepted("a toleration of everything", JOB.having("spec.podTemplate.tolerations", [{"operator": "Exists"}])),
    Accepted("suspending", SUSPENDED, old=JOB),
    Accepted("resuming", JOB, old=SUSPENDED),
    Accepted("an edit while suspended", EDITED.suspended(), old=SUSPENDED),
    Accepted("an edit that suspends", EDITED.suspended(), old=running(JOB)),
    Accepted("an edit that resumes", EDITED, old=SUSPENDED),
    Accepted("an edit after the end", EDITED, old=finished(JOB)),
    Accepted(
        "more retries and time while running",
        JOB.having("spec.retries", 9)
        .having("spec.activeDeadlineSeconds", 60)
        .having("spec.pendingDeadlineSeconds", 60)
        .having("spec.ttlSecondsAfterFinished", 60),
        old=running(JOB),
    ),
    Accepted("the same again while running", JOB, old=running(JOB)),
    Accepted("metadata while running", JOB.having("metadata.labels", {"team": "search"}), old=running(JOB)),
)
