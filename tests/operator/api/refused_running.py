"""Refused: exports and gates, storage, pods, and updates."""

from collections.abc import Iterator

from tests.builders import ABSENT
from tests.operator.api.case import CERTIFICATE, JOB, SUSPENDED, Refused, running


def proof() -> Iterator[Refused]:
    """Exports, golden suite and gates."""
    optional = JOB.exporting("Q8_0", "Q4_0", required=False)
    yield Refused(
        "nothing required",
        optional,
        "spec.exports",
        "no variant is required, so the job would succeed with nothing to release",
    )
    yield Refused(
        "a variant in capitals",
        JOB.having("spec.exports[0].name", "Q4_K_M"),
        "spec.exports[0].name",
        "'Q4_K_M' is not a DNS label: use lower-case letters, digits and `-`",
    )
    for name in ("teacher", "student"):
        yield Refused(
            f"a variant named {name}",
            JOB.having("spec.exports[0].name", name),
            "spec.exports[0].name",
            f"'{name}' is taken, since the {name} is evaluated beside the variants",
        )
    yield Refused(
        "a certain pass rate",
        JOB.with_gates(quality={"minGoldenPassRate": 1}),
        "spec.gates.quality.minGoldenPassRate",
        "a pass rate of 1 cannot be proven by any number of items",
    )
    blind = JOB.with_gates(quality={"maxKLDivergence": 0.1}).having("spec.dataset.validationFraction", 0)
    yield Refused(
        "a divergence without held-out data",
        blind,
        "spec.gates.quality.maxKLDivergence",
        "spec.dataset.validationFraction is 0: raise it, or remove the limit",
    )
    crossed = JOB.with_gates(performance={"p95LatencyMs": 200, "p99LatencyMs": 100})
    yield Refused(
        "a p95 above the p99",
        crossed,
        "spec.gates.performance.p95LatencyMs",
        "p95LatencyMs 200 is above p99LatencyMs 100",
    )
    big = JOB.with_gates(performance={"peakMemoryMiB": 2048}, device={"memoryMiB": 1024})
    yield Refused(
        "more memory than the device has",
        big,
        "spec.gates.performance.peakMemoryMiB",
        "performance.peakMemoryMiB 2048 is more than the device has (device.memoryMiB 1024)",
    )


def storage() -> Iterator[Refused]:
    """Where results go."""
    yield Refused(
        "two kinds of credentials",
        JOB.having("spec.storage.serviceAccountName", "dram"),
        "spec.storage.serviceAccountName",
        "credentials come from one place: set secretRef, or a serviceAccountName with the rights, not both",
    )
    yield Refused(
        "a Secret in capitals",
        JOB.having("spec.storage.secretRef.name", "S3"),
        "spec.storage.secretRef.name",
        "'S3' is not the name of a Secret",
    )
    account = JOB.having("spec.storage", {"uri": "s3://models", "serviceAccountName": "Dram"})
    yield Refused(
        "a service account in capitals",
        account,
        "spec.storage.serviceAccountName",
        "'Dram' is not the name of a ServiceAccount",
    )
    for endpoint in ("s3.example:8333", "https://s3.example/models"):
        yield Refused(
            f"the endpoint {endpoint}",
            JOB.having("spec.storage.endpoint", endpoint),
            "spec.storage.endpoint",
            f"'{endpoint}' is not the URL of an S3 server: write http(s)://host:port, without a path",
        )
    secure = JOB.having("spec.storage.endpoint", "https://s3.example")
    yield Refused(
        "no certificate",
        secure.having("spec.storage.caBundle", "MIIB"),
        "spec.storage.caBundle",
        "there is no PEM certificate in it",
    )
    for name, job in (
        ("without an endpoint", JOB),
        ("for plain HTTP", JOB.having("spec.storage.endpoint", "http://s3.example")),
    ):
        yield Refused(
            f"certificates {name}",
            job.having("spec.storage.caBundle", CERTIFICATE),
            "spec.storage.caBundle",
            "certificates are used for an https:// endpoint only",
        )


def pod_faults() -> Iterator[Refused]:
    """What the pods differ in."""
    root = "spec.podTemplate"
    yield Refused(
        "an image with a space",
        JOB.having(f"{root}.image", "worker :1"),
        f"{root}.image",
        "'worker :1' is not an image",
    )
    for kind in ("train", "synthesize", "evaluate", "bench", "default"):
        for bound in ("requests", "limits"):
            path = f"{root}.resources.{kind}.{bound}"
            yield Refused(
                f"{bound} of 4 gigs to {kind}",
                JOB.having(path, {"memory": "4 gigs"}),
                path,
                "an amount is not a Kubernetes quantity: write for example 2, 500m or 4Gi",
            )
    yield Refused(
        "negative cores",
        JOB.having(f"{root}.resources.train.requests", {"cpu": -1}),
        f"{root}.resources.train.requests",
        "an amount is not a Kubernetes quantity",
    )
    for field in ("labels", "annotations"):
        path = f"{root}.{field}"
        yield Refused(
            f"{field} with a bad key",
            JOB.having(path, {"a b": "1"}),
            path,
            "a key is not of the form prefix/name or name",
        )
        for key in ("dram.dev/job", "kueue.x-k8s.io/queue-name"):
            yield Refused(
                f"{key} in {field}",
                JOB.having(path, {key: "1"}),
                path,
                "keys with dram.dev/ are Dram's own and those with kueue.x-k8s.io/ Kueue's",
            )
    for field in ("labels", "nodeSelector"):
        path = f"{root}.{field}"
        yield Refused(f"{field} with a bad value", JOB.having(path, {"a": "b c"}), path, "a value is not a label value")
    for name, toleration, below, wanted in (
        ("of everything by accident", {"effect": "NoSchedule"}, "", "without a key everything is tolerated"),
        (
            "with a useless value",
            {"key": "gpu", "operator": "Exists", "value": "yes"},
            ".value",
            "value 'yes' is not compared by operator Exists",
        ),
        (
            "with useless seconds",
            {"key": "gpu", "operator": "Exists", "tolerationSeconds": 5},
            ".tolerationSeconds",
            "tolerationSeconds counts for NoExecute only",
        ),
    ):
        yield Refused(
            f"a toleration {name}",
            JOB.having(f"{root}.tolerations", [toleration]),
            f"{root}.tolerations[0]{below}",
            wanted,
        )
    for field, what in (
        ("priorityClassName", "PriorityClass"),
        ("runtimeClassName", "RuntimeClass"),
        ("queueName", "LocalQueue"),
    ):
        yield Refused(
            f"a {what} in capitals",
            JOB.having(f"{root}.{field}", "Fast"),
            f"{root}.{field}",
            f"'Fast' is not the name of a {what}",
        )
    for below, value, wanted in (
        ("secretName", "My_Secret", "'My_Secret' is not the name of a Secret"),
        ("name", "HF-TOKEN", "'HF-TOKEN' is not the name of an environment variable"),
        ("name", "DRAM_X", "'DRAM_X' is set by Dram"),
        ("name", "AWS_ACCESS_KEY_ID", "storage credentials go to spec.storage.secretRef"),
        ("name", "RANK", "'RANK' is set by Dram"),
        ("key", "to/ken", "'to/ken' is not a key of a Secret"),
    ):
        env = {"name": "HF_TOKEN", "secretName": "hub", "key": "token"} | {below: value}
        yield Refused(
            f"a variable with {below} {value}",
            JOB.having(f"{root}.envFromSecrets", [env]),
            f"{root}.envFromSecrets[0].{below}",
            wanted,
        )


def updates() -> Iterator[Refused]:
    """What an object may not become."""
    moved = JOB.having("spec.teacher.uri", "hf://example/other@main")
    yield Refused(
        "another teacher", moved, "spec.teacher", "teacher never changes: make another DistillationJob", old=JOB
    )
    yield Refused(
        "another teacher while suspended", moved.suspended(), "spec.teacher", "teacher never changes", old=SUSPENDED
    )
    yield Refused(
        "another student",
        JOB.having("spec.student.fromTeacher.layers", 3),
        "spec.student",
        "student never changes",
        old=JOB,
    )
    yield Refused(
        "another storage",
        JOB.having("spec.storage.uri", "s3://other"),
        "spec.storage",
        "storage never changes",
        old=JOB,
    )
    without = JOB.having("spec.storage", ABSENT)
    yield Refused("storage removed", without, "spec.storage", "storage is neither added nor removed later", old=JOB)
    yield Refused("storage added", JOB, "spec.storage", "storage is neither added nor removed later", old=without)
    for path, value in (
        ("spec.dataset.maxLength", 64),
        ("spec.objective.temperature", {"start": 2, "end": 2}),
        ("spec.training.seed", 7),
        ("spec.exports[0].gguf.type", "Q4_0"),
        ("spec.golden.minSimilarity", 0.5),
        ("spec.gates.quality", {"maxScoreDrop": 0.1}),
        ("spec.podTemplate.image", "worker:2"),
    ):
        wanted = "change only while the job is suspended or finished: set spec.suspend to true with or before the edit"
        yield Refused(f"{path} changed while running", JOB.having(path, value), "spec", wanted, old=running(JOB))
