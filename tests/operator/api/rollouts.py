"""EdgeRollouts that are accepted and EdgeRollouts that are refused, for the API server and for the check without one."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.builders import ABSENT, ARollout, a_rollout
from tests.operator.api.case import CERTIFICATE

ROLLOUT = a_rollout()
STEPS = "spec.strategy.steps"
DIGEST = "ab" * 32
STORAGE = {
    "secretRef": {"name": "s3-credentials"},
    "endpoint": "https://s3.example:8333",
    "region": "eu-1",
    "pathStyle": True,
    "caBundle": CERTIFICATE,
}
RING = {"matchLabels": {"ring": "early"}}


@dataclass(frozen=True)
class AcceptedRollout:
    """A manifest that is fine."""

    name: str
    rollout: ARollout


@dataclass(frozen=True)
class RefusedRollout:
    """A manifest that is refused for one reason, at one field."""

    name: str
    rollout: ARollout
    want_field: str
    want_message: str


def everything() -> ARollout:
    """A rollout that says everything that can be said."""
    return (
        ROLLOUT.having("spec.artifact", {"uri": "s3://models/support-bot/v7", "sha256": DIGEST, "storage": STORAGE})
        .stepping(
            {"cohort": {"deviceIds": ["0f" * 16, "ab" * 8]}, "bakeSeconds": 600},
            {"cohort": {"percent": "1%", "selector": RING}, "bakeSeconds": 3600},
            {"cohort": {"percent": "2.5%", "deviceIds": ["cd" * 16]}, "bakeSeconds": 0},
            "pause",
            {"cohort": {"percent": "100%"}, "bakeSeconds": 86_400},
        )
        .having("spec.strategy.holdbackPercent", "5%")
        .having("spec.strategy.minDevices", 3)
        .having("spec.strategy.stepDeadlineSeconds", 3600)
        .having("spec.strategy.onStepDeadline", "Rollback")
        .having("spec.strategy.offline", {"afterSeconds": 600, "policy": "CountAsFailed"})
        .having(
            "spec.strategy.windows",
            [
                {"schedule": "0 2 * * *", "durationSeconds": 7200, "timeZone": "Europe/Berlin"},
                {"schedule": "*/30 8-17 1,15 JAN-jun MON#1", "durationSeconds": 60},
            ],
        )
        .having("spec.inventory", {"lookbackSeconds": 86_400, "uri": "s3://fleet/devices.jsonl"})
        .having("spec.analysis", {"prometheusRef": {"name": "fleet"}, "intervalSeconds": 30, "alpha": ".01"})
        .with_metric(name="p95-latency", preset="LatencyP95", max="300m", failureLimit=3, looks=3)
        .with_metric(name="error-rate", preset="ErrorRatio", compareTo="Control", margin="0.005", max=1)
        .with_metric(
            name="own",
            query='avg(own{channel="{{channel}}",attempt="{{attempt}}",arm="{{ arm }}"}[{{window}}])',
            min="-1e3",
            max="2Ki",
            inconclusiveLimit=1,
            errorLimit=1,
            missingData="Fail",
            minSamples=0,
            dryRun=True,
        )
        .having("spec.rollback", {"automatic": False, "maxPercentPerMinute": 10})
        .having("spec.paused", True)
    )


ACCEPTED_ROLLOUTS: tuple[AcceptedRollout, ...] = (
    AcceptedRollout("the smallest rollout", ROLLOUT),
    AcceptedRollout("a rollout that says everything", everything()),
    AcceptedRollout(
        "an artifact that a service account may read",
        ROLLOUT.having(
            "spec.artifact",
            {"uri": "s3://models/a", "sha256": DIGEST, "storage": {"serviceAccountName": "release-reader"}},
        ),
    ),
    AcceptedRollout("all devices at once", ROLLOUT.stepping("100%")),
    AcceptedRollout("the same share twice", ROLLOUT.stepping("10%", "10%", "100.0%")),
    AcceptedRollout(
        "a small share of all after a large one of a ring",
        ROLLOUT.stepping({"cohort": {"percent": "50%", "selector": RING}}, "0.0001%", "100%"),
    ),
    AcceptedRollout("a longest name", ROLLOUT.named("a" * 40)),
    AcceptedRollout("a limit on one side", ROLLOUT.with_metric(preset="GoldenPassRatio", min="0.9")),
    AcceptedRollout("equal limits", ROLLOUT.with_metric(min="1", max="1000m")),
    AcceptedRollout("a comparison alone", ROLLOUT.with_metric(compareTo="Control", margin=1)),
    AcceptedRollout("half of the devices held back", ROLLOUT.having("spec.strategy.holdbackPercent", "50%")),
)


def _artifacts() -> Iterator[RefusedRollout]:
    artifact = "spec.artifact"
    one = "set exactly one of jobRef (a variant of a DistillationJob) and uri (a folder in S3, with its sha256)"
    yield RefusedRollout("no artifact", ROLLOUT.having(artifact, {}), artifact, one)
    both = ROLLOUT.having(f"{artifact}.uri", "s3://models/a").having(f"{artifact}.sha256", DIGEST)
    yield RefusedRollout("two artifacts", both, artifact, one)
    pair = "set both, or neither"
    yield RefusedRollout(
        "an artifact without a digest", ROLLOUT.having(artifact, {"uri": "s3://models/a"}), f"{artifact}.sha256", pair
    )
    yield RefusedRollout(
        "a digest without an artifact", ROLLOUT.having(f"{artifact}.sha256", DIGEST), f"{artifact}.sha256", pair
    )
    for field, what in (("name", "a DistillationJob"), ("variant", "a variant")):
        path = f"{artifact}.jobRef.{field}"
        yield RefusedRollout(
            f"{what} in capitals", ROLLOUT.having(path, "Bot"), path, f"'Bot' is not the name of {what}"
        )
    for uri, wanted in (
        ("file:///models/a", "'file:///models/a' is not of the form s3://bucket/prefix"),
        ("s3://models", "'s3://models' is not of the form s3://bucket/prefix"),
        ("s3://models/../a", "'s3://models/../a' climbs with `..`"),
    ):
        rollout = ROLLOUT.having(artifact, {"uri": uri, "sha256": DIGEST})
        yield RefusedRollout(f"the artifact {uri}", rollout, f"{artifact}.uri", wanted)
        rollout = ROLLOUT.having("spec.inventory.uri", uri)
        of_key = wanted.replace("s3://bucket/prefix", "s3://bucket/key")
        yield RefusedRollout(f"the inventory {uri}", rollout, "spec.inventory.uri", of_key)
    accented = ROLLOUT.having(artifact, {"uri": "s3://models/modèle", "sha256": DIGEST})
    yield RefusedRollout(
        "an artifact of more than plain characters", accented, f"{artifact}.uri", "should match '^[-A-Za-z0"
    )
    yield from _storage()
    yield RefusedRollout(
        "a digest in capitals",
        ROLLOUT.having(artifact, {"uri": "s3://models/a", "sha256": "AB" * 32}),
        f"{artifact}.sha256",
        "should match '^[0-9a-f]{64}$'",
    )


def _storage() -> Iterator[RefusedRollout]:
    """How the bucket of an artifact is reached."""
    path = "spec.artifact.storage"
    of_job = ROLLOUT.having(path, {"secretRef": {"name": "s3-credentials"}})
    yield RefusedRollout("a storage beside a job", of_job, path, "a jobRef takes its job's storage")
    for name, storage, field, message in (
        (
            "two kinds of credentials for an artifact",
            {"secretRef": {"name": "s3"}, "serviceAccountName": "dram"},
            "serviceAccountName",
            "credentials come from one place",
        ),
        ("a secret in capitals", {"secretRef": {"name": "S3"}}, "secretRef.name", "'S3' is not the name of a Secret"),
        (
            "a service account in capitals",
            {"serviceAccountName": "Dram"},
            "serviceAccountName",
            "'Dram' is not the name of a ServiceAccount",
        ),
        ("an endpoint without scheme", {"endpoint": "s3.example:8333"}, "endpoint", "is not the URL of an S3 server"),
        (
            "no certificate in it",
            {"endpoint": "https://s3.example", "caBundle": "MIIB"},
            "caBundle",
            "there is no PEM certificate in it",
        ),
        (
            "certificates without TLS",
            {"endpoint": "http://s3.example", "caBundle": CERTIFICATE},
            "caBundle",
            "certificates are used for an https:// endpoint only",
        ),
    ):
        rollout = ROLLOUT.having("spec.artifact", {"uri": "s3://models/a", "sha256": DIGEST, "storage": storage})
        yield RefusedRollout(name, rollout, f"{path}.{field}", message)


def _steps() -> Iterator[RefusedRollout]:
    for name, last in (
        ("a part of the devices", {"cohort": {"percent": "99.9999%"}}),
        ("a ring", {"cohort": {"percent": "100%", "selector": RING}}),
        ("named devices", {"cohort": {"deviceIds": ["ab" * 16]}}),
        ("a pause", {"pause": {}}),
    ):
        rollout = ROLLOUT.stepping("10%", last)
        yield RefusedRollout(f"the last step is {name}", rollout, STEPS, "the last step must take every device")
    named = [{"cohort": {"deviceIds": [f"{step:016x}{index:016x}" for index in range(151)]}} for step in range(2)]
    yield RefusedRollout(
        "more than 300 devices by name", ROLLOUT.stepping(*named, "100%"), STEPS, "more than 300 devices one by one"
    )
    for name, step in (("neither", {}), ("both", {"pause": {}, "cohort": {"percent": "5%"}})):
        rollout = ROLLOUT.stepping(step, "100%")
        yield RefusedRollout(
            f"{name} of cohort and pause",
            rollout,
            f"{STEPS}[0]",
            "set exactly one of cohort (devices to add) and pause",
        )
    baked = ROLLOUT.stepping({"pause": {}, "bakeSeconds": 5}, "100%")
    yield RefusedRollout("a pause that bakes", baked, f"{STEPS}[0].bakeSeconds", "a pause adds no devices")
    nobody: tuple[tuple[str, dict[str, list[str]]], ...] = (
        ("a cohort of nobody", {}),
        ("a cohort of no ids", {"deviceIds": []}),
    )
    for name, cohort in nobody:
        rollout = ROLLOUT.stepping({"cohort": cohort}, "100%")
        yield RefusedRollout(name, rollout, f"{STEPS}[0].cohort", "there is no device in it")
    whose = ROLLOUT.stepping({"cohort": {"deviceIds": ["ab" * 16], "selector": RING}}, "100%")
    yield RefusedRollout(
        "a selector without a share", whose, f"{STEPS}[0].cohort.percent", "a selector says whose share is taken"
    )
    for percent in ("10", "ten%", "101%", "100.5%", "-1%", "1e1%", "0.00001%", "0%", "00.0%"):
        yield RefusedRollout(
            f"a step of {percent}",
            ROLLOUT.stepping(percent, "100%"),
            f"{STEPS}[0].cohort.percent",
            f"'{percent}' is not a share of devices",
        )
    for labels, wanted in (
        ({}, "should have at least 1 properties"),
        ({"ring.example.com/x": "a"}, "a label of devices has a name of letters, digits and `_`"),
        ({"ring": "a b"}, "a value is not a label value"),
    ):
        ring: dict[str, object] = {"percent": "5%", "selector": {"matchLabels": labels}}
        path = f"{STEPS}[0].cohort.selector.matchLabels"
        yield RefusedRollout(f"the labels {labels}", ROLLOUT.stepping({"cohort": ring}, "100%"), path, wanted)
    for device in ("tv-7", "AB" * 16, "ab" * 9):
        rollout = ROLLOUT.stepping({"cohort": {"deviceIds": [device]}}, "100%")
        yield RefusedRollout(
            f"the device {device}", rollout, f"{STEPS}[0].cohort.deviceIds[0]", "should match '^([0-9a-f]{16}|"
        )
    yield RefusedRollout("no steps", ROLLOUT.having(STEPS, []), STEPS, "should have at least 1 items")
    many = ROLLOUT.stepping(*["100%"] * 17)
    yield RefusedRollout("too many steps", many, STEPS, "Too many: 17: must have at most 16 items")


def _strategy() -> Iterator[RefusedRollout]:
    held = "spec.strategy.holdbackPercent"
    for percent in ("10", "-1%", "50.1%", "all"):
        yield RefusedRollout(
            f"{percent} held back",
            ROLLOUT.having(held, percent),
            held,
            f"'{percent}' is not a share of devices that could be held back",
        )
    silent = ROLLOUT.having("spec.strategy.offline.afterSeconds", 60)
    yield RefusedRollout(
        "offline before it is stale",
        silent,
        "spec.strategy.offline.afterSeconds",
        "afterSeconds is 60, and a device is fresh for three looks of 60 s each",
    )
    for field, value, wanted in (
        ("schedule", "0 2 * * * *", "'0 2 * * * *' is not a schedule in cron's five fields"),
        ("schedule", "every day at two", "'every day at two' is not a schedule in cron's five fields"),
        ("timeZone", "+02:00", "'+02:00' is not the name of an IANA time zone"),
        ("timeZone", "Europe/", "'Europe/' is not the name of an IANA time zone"),
    ):
        window = {"schedule": "0 2 * * *", "durationSeconds": 60} | {field: value}
        yield RefusedRollout(
            f"a window with {field} {value}",
            ROLLOUT.having("spec.strategy.windows", [window]),
            f"spec.strategy.windows[0].{field}",
            wanted,
        )
    yield RefusedRollout(
        "a name too long for a channel",
        ROLLOUT.named("a" * 41),
        "",
        f"metadata.name '{'a' * 41}' is too long or not a DNS label",
    )


def _analysis() -> Iterator[RefusedRollout]:
    root, first = "spec.analysis", "spec.analysis.metrics[0]"
    yield RefusedRollout(
        "an endpoint in capitals",
        ROLLOUT.having(f"{root}.prometheusRef", {"name": "Fleet"}),
        f"{root}.prometheusRef.name",
        "'Fleet' is not the name of one of the installation's endpoints",
    )
    for alpha in ("5%", "0.0", "0.6", "1.5", "1e-2"):
        yield RefusedRollout(
            f"an alpha of {alpha}",
            ROLLOUT.having(f"{root}.alpha", alpha),
            f"{root}.alpha",
            f"'{alpha}' is not a chance that could be promised",
        )
    one, pair = "set exactly one of preset", "compareTo and margin go together"
    for name, rollout, field, wanted in (
        ("in capitals", ROLLOUT.with_metric(name="P95"), ".name", "'P95' is not the name of a metric"),
        ("of nothing", ROLLOUT.with_metric().having(f"{first}.preset", ABSENT), "", one),
        ("of two measures", ROLLOUT.with_metric(preset="LatencyP95", query="up"), "", one),
        (
            "without a limit",
            ROLLOUT.with_metric().having(f"{first}.max", ABSENT),
            "",
            "there is nothing to compare with",
        ),
        ("compared without a margin", ROLLOUT.with_metric(compareTo="Control"), ".margin", pair),
        ("with a margin to nothing", ROLLOUT.with_metric(margin="0.1"), ".margin", pair),
        ("with crossed limits", ROLLOUT.with_metric(min="1", max="999m"), ".min", "min 1 is above max 999m"),
        (
            "with a negative margin",
            ROLLOUT.with_metric(compareTo="Control", margin=-1),
            ".margin",
            "margin -1 leaves no room",
        ),
        (
            "with a margin of nothing",
            ROLLOUT.with_metric(compareTo="Control", margin="0m"),
            ".margin",
            "margin 0m leaves no room",
        ),
        (
            "that cannot fail",
            ROLLOUT.with_metric(failureLimit=6),
            ".failureLimit",
            "failureLimit 6 cannot be reached in 5 looks",
        ),
        (
            "with an unknown hole",
            ROLLOUT.with_metric(query="up{a='{{device}}'}"),
            ".query",
            "something in double braces is not known: use channel, attempt, arm, window",
        ),
        ("of an unknown preset", ROLLOUT.with_metric(preset="Speed"), ".preset", 'Unsupported value: "Speed"'),
        ("without a fraction's quotes", ROLLOUT.with_metric(max=0.3), ".max", 'of type integer,string: "number"'),
    ):
        yield RefusedRollout(f"a metric {name}", rollout, first + field, wanted)
    for field, metric in (
        ("min", {"min": "high"}),
        ("max", {"min": "0", "max": "0.3 s"}),
        ("margin", {"compareTo": "Control", "margin": "5%"}),
    ):
        yield RefusedRollout(
            f"a metric whose {field} is no number",
            ROLLOUT.with_metric(**metric),
            f"{first}.{field}",
            f"'{metric[field]}' is not a number: write it in quotes",
        )
    twice = ROLLOUT.with_metric().with_metric()
    yield RefusedRollout("a metric twice", twice, f"{root}.metrics[1]", 'Duplicate value: {"name":"latency"}')


def _schema_faults() -> Iterator[RefusedRollout]:
    for field in ("artifact", "strategy"):
        yield RefusedRollout(
            f"no field {field}", ROLLOUT.having(f"spec.{field}", ABSENT), f"spec.{field}", "Required value"
        )
    for path, value, message in (
        ("spec.analysis.intervalSeconds", 1, "should be greater than or equal to 5"),
        ("spec.rollback.maxPercentPerMinute", 0, "should be greater than or equal to 1"),
        ("spec.strategy.minDevices", 0, "should be greater than or equal to 1"),
        ("spec.strategy.onStepDeadline", "Promote", 'supported values: "Pause", "Rollback"'),
        ("spec.strategy.offline.policy", "Ignore", 'supported values: "Exclude", "Wait", "CountAsFailed"'),
        ("spec.paused", "yes", 'must be of type boolean: "string"'),
    ):
        yield RefusedRollout(f"{path} of {value}", ROLLOUT.having(path, value), path, message)


REFUSED_ROLLOUTS: tuple[RefusedRollout, ...] = (
    *_schema_faults(),
    *_artifacts(),
    *_steps(),
    *_strategy(),
    *_analysis(),
)
