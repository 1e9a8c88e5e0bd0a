"""A healthy installation, and one fault at a time: which alert fires, and what is near to it and fires none."""

from dataclasses import dataclass, field
from typing import Any

MINUTES = 14 * 60
"""Length of the story; the longest alert waits for twelve hours."""


def steady(value: float) -> str:
    return f"{value}x{MINUTES}"


def rising(per_minute: float) -> str:
    return f"0+{per_minute}x{MINUTES}"


def gone_after(minute: int, value: float = 1) -> str:
    return f"{value}x{minute - 1} stale"


def a_job(reason: str = "Running", status: str = "Unknown") -> str:
    return (
        f'dram_job_condition{{namespace="tv", name="bot", condition="Succeeded", status="{status}", reason="{reason}"}}'
    )


def condition(kind: str, status: str, reason: str) -> str:
    return f'dram_rollout_condition{{namespace="tv", name="bot", condition="{kind}", status="{status}", reason="{reason}"}}'


def state(word: str) -> str:
    return f'dram_rollout_state{{namespace="tv", name="bot", state="{word}"}}'


def devices(word: str) -> str:
    return f'dram_rollout_devices{{namespace="tv", name="bot", state="{word}"}}'


def verdict(word: str) -> str:
    return f'dram_rollout_metric_verdict{{namespace="tv", name="bot", metric="p95", verdict="{word}"}}'


def of_device(name: str, number: int, **labels: str) -> str:
    told = "".join(f', {label}="{value}"' for label, value in labels.items())
    return f'{name}{{channel="tv/bot", device="{number:02}"{told}}}'


def leader(instance: str) -> str:
    return f'dram_operator_leader{{job="dram", instance="{instance}"}}'


PROGRESS = 'dram_job_progress_ratio{namespace="tv", name="bot"}'
TOKENS = 'dram_job_tokens_total{namespace="tv", name="bot"}'
QUEUE = 'dram_operator_queue_depth{kind="EdgeRollout"}'
ERRORS = 'dram_operator_reconcile_errors_total{kind="EdgeRollout"}'
COUNT = 'dram_operator_reconcile_seconds_count{kind="EdgeRollout"}'
TAKEN, NOT_TAKEN = "dram_gateway_accepted_total", "dram_gateway_backend_failures_total"
STALE = "dram_gateway_revocations_stale"
HALF_LIFE = 'dram_releases_half_life_timestamp_seconds{role="timestamp"}'
EXPIRY = 'dram_releases_expiry_timestamp_seconds{role="timestamp"}'
RUNNING, READY, CALM = a_job(), condition("Ready", "True", "Completed"), condition("Stalled", "False", "Progressing")
UNBLOCKED, PUBLISHED = condition("RollbackBlocked", "False", "Pending"), condition("Published", "True", "Signed")
HEALTHY = {number: of_device("dram_device_healthy", number, release="ab") for number in range(10)}
INFO = {number: of_device("dram_device_info", number, release="ab") for number in range(10)}
REFUSED = {number: of_device("dram_device_refused_metadata_total", number, cause="replayed") for number in range(10)}
WELL: dict[str, str] = {
    leader("a"): steady(1),
    leader("b"): steady(0),
    QUEUE: steady(3),
    ERRORS: steady(0),
    COUNT: rising(60),
    TAKEN: rising(600),
    NOT_TAKEN: steady(0),
    STALE: steady(0),
    HALF_LIFE: steady(10**7),
    EXPIRY: steady(2 * 10**7),
    RUNNING: steady(1),
    PROGRESS: rising(0.001),
    TOKENS: rising(1000),
    READY: steady(1),
    CALM: steady(1),
    UNBLOCKED: steady(1),
    PUBLISHED: steady(1),
    state("Idle"): steady(0),
    state("Updating"): steady(1),
    state("RollingBack"): steady(0),
    devices("known"): steady(100),
    devices("expected"): steady(10),
    devices("healthy"): steady(10),
    devices("failed"): steady(0),
    verdict("Pass"): steady(1),
    verdict("Error"): steady(0),
    **dict.fromkeys((*HEALTHY.values(), *INFO.values()), steady(1)),
    **dict.fromkeys(REFUSED.values(), steady(0)),
    # A device that has no local model answers from the cloud, as it should.
    of_device("dram_device_healthy", 99, release="none"): steady(0),
}


@dataclass(frozen=True)
class Case:
    """A fault in a healthy installation."""

    name: str
    minute: int
    """When it is looked at."""
    fault: dict[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    want: str | None = None
    """The one alert that fires."""
    labels: dict[str, str] = field(default_factory=dict)
    not_yet: int | None = None
    """A minute before, at which none fires."""

    @property
    def series(self) -> dict[str, str]:
        """All that there is."""
        return {name: values for name, values in WELL.items() if name not in self.without} | self.fault


BOT, CHANNEL = {"namespace": "tv", "name": "bot"}, {"channel": "tv/bot"}
KIND, ROLE = {"kind": "EdgeRollout"}, {"role": "timestamp"}
PULL, HELD, ASKS = "ImagePullFailed", "Quarantined", "AwaitingApproval"
STILL: dict[str, str] = {PROGRESS: steady(0.4), TOKENS: steady(5000)}
SLOW = " ".join(f"{percent / 100}x119" for percent in range(MINUTES // 120 + 1))
BLOCKED = {condition("RollbackBlocked", "True", "RollbackBlocked"): steady(1)}
UNLISTED = {condition("Ready", "False", "InventoryUnavailable"): steady(1)}
# Devices are bought meanwhile: the channel grows, and this step does not.
UNTAKEN: dict[str, str] = {devices("healthy"): steady(6), devices("known"): f"100+1x{MINUTES}"}
UNREACHED: dict[str, str] = {verdict("Pass"): steady(0), verdict("Error"): steady(1)}
AT_REST = {state("Updating"): steady(0), state("Idle"): steady(1)}
REPLAYED = {REFUSED[3]: f"0x89 1x{MINUTES}"}
ILL = {HEALTHY[0]: steady(0), HEALTHY[1]: steady(0)}
SILENT = {INFO[number]: gone_after(60) for number in range(6)}
LEADERLESS = {leader("a"): steady(0)}


def unsigned(reason: str) -> dict[str, str]:
    return {condition("Published", "False", reason): steady(1)}


def unready(reason: str) -> dict[str, str]:
    return {condition("ArtifactReady", "False", reason): steady(1)}


def ended(reason: str) -> dict[str, Any]:
    return {"without": (RUNNING,), "fault": {a_job(reason, "False"): steady(1)}}


def stalled(reason: str) -> dict[str, Any]:
    return {"without": (CALM,), "fault": {condition("Stalled", "True", reason): steady(1)}}


def going(reason: str) -> dict[str, Any]:
    """A job that is said to go on, and does not move."""
    return {"without": (RUNNING,), "fault": {a_job(reason): steady(1)} | STILL}


CASES = (
    Case("all is well", MINUTES, not_yet=30),
    Case("no replica reports", 10, without=(leader("a"), leader("b")), want="DramOperatorDown", not_yet=3),
    Case("nobody leads", 10, LEADERLESS, want="DramOperatorNoLeader", labels={"job": "dram"}, not_yet=3),
    Case("the queue grows", 30, {QUEUE: rising(10)}, want="DramOperatorQueueGrowing", labels=KIND, not_yet=10),
    Case("a burst that is worked off", 30, {QUEUE: f"0x18 5000 0x{MINUTES}"}),
    Case("reconciles fail", 40, {ERRORS: rising(10)}, want="DramOperatorReconcileErrors", labels=KIND, not_yet=8),
    Case("few reconciles fail", 40, {ERRORS: rising(3)}),
    Case("a job failed", 10, **ended("GateFailed"), want="DramJobFailed", labels=BOT | {"reason": "GateFailed"}),
    Case("an image was never there", 45, **ended(PULL), want="DramJobFailed", labels=BOT | {"reason": PULL}),
    Case("a job succeeded", MINUTES, without=(RUNNING,), fault={a_job("Completed", "True"): steady(1)} | STILL),
    Case(
        "no node fits",
        45,
        **going("Unschedulable"),
        want="DramJobCannotStart",
        labels=BOT | {"reason": "Unschedulable"},
        not_yet=20,
    ),
    Case("a job stands still", 13 * 60, STILL, want="DramJobStalled", labels=BOT, not_yet=5 * 60),
    Case("a suspended job stands still", MINUTES, **going("Suspended")),
    Case("no training, and one percent in two hours", MINUTES, {TOKENS: steady(0), PROGRESS: SLOW}),
    Case("one percent takes long, and tokens go on", MINUTES, {PROGRESS: steady(0.4)}),
    Case("a rollback cannot go on", 10, BLOCKED, (UNBLOCKED,), "DramRollbackBlocked", BOT, not_yet=1),
    Case(
        "a candidate is withdrawn",
        10,
        {state("RollingBack"): f"0x4 1x{MINUTES}"},
        want="DramRolloutGoesBack",
        labels=BOT,
        not_yet=3,
    ),
    Case(
        "an artifact is not uploaded",
        90,
        unready("UploadFailed"),
        want="DramArtifactUploadFails",
        labels=BOT,
        not_yet=50,
    ),
    Case("an artifact waits to be signed", MINUTES, unready("AwaitingSignature")),
    Case(
        "an artifact is in quarantine",
        13 * 60,
        **stalled(HELD),
        want="DramRolloutStalled",
        labels=BOT | {"reason": HELD},
    ),
    Case(
        "a rollout stalls",
        15,
        **stalled("MetricError"),
        want="DramRolloutStalled",
        labels=BOT | {"reason": "MetricError"},
        not_yet=3,
    ),
    Case(
        "nobody approves",
        13 * 60,
        **stalled(ASKS),
        want="DramRolloutAwaitsPerson",
        labels=BOT | {"reason": ASKS},
        not_yet=10 * 60,
    ),
    Case("devices do not take up", 150, UNTAKEN, want="DramRolloutStuck", labels=BOT, not_yet=90),
    Case("devices take up slowly", MINUTES, {devices("healthy"): rising(0.01)}),
    Case("nothing is on its way, and devices are off", MINUTES, UNTAKEN | AT_REST),
    Case("devices failed", 20, {devices("failed"): steady(2)}, want="DramRolloutDevicesFailed", labels=BOT, not_yet=5),
    Case(
        "the metrics server is down",
        20,
        UNREACHED,
        want="DramMetricSourceDown",
        labels=BOT | {"metric": "p95"},
        not_yet=5,
    ),
    Case("the last look of a finished rollout failed", MINUTES, UNREACHED | AT_REST),
    Case("devices cannot be listed", 20, UNLISTED, (READY,), "DramMetricSourceDown", BOT, not_yet=5),
    Case(
        "the repository cannot be written",
        20,
        unsigned("RepositoryUnavailable"),
        (PUBLISHED,),
        "DramReleaseRepositoryDown",
        BOT,
        not_yet=5,
    ),
    Case("a document is about to be signed", 20, unsigned("Pending"), (PUBLISHED,)),
    Case("nobody signs again", 60, {HALF_LIFE: steady(1200)}, want="DramMetadataPastHalfLife", labels=ROLE, not_yet=30),
    Case("signed again late", 60, {HALF_LIFE: f"1200x24 40000x{MINUTES}"}),
    Case("metadata have expired", 40, {EXPIRY: steady(1200)}, want="DramMetadataExpired", labels=ROLE, not_yet=15),
    Case(
        "a device is offered old metadata",
        100,
        REPLAYED,
        want="DramDevicesRefuseMetadata",
        labels=CHANNEL | {"cause": "replayed"},
        not_yet=80,
    ),
    Case("a device was offered old metadata hours ago", 300, REPLAYED),
    Case("models do not answer", 30, ILL, want="DramDevicesUnhealthy", labels=CHANNEL | {"release": "ab"}, not_yet=10),
    Case("one model of ten does not answer", MINUTES, {HEALTHY[0]: steady(0)}),
    Case("most devices are silent", 120, SILENT, want="DramDevicesSilent", labels=CHANNEL, not_yet=80),
    Case("some devices are silent", MINUTES, {INFO[number]: gone_after(60) for number in range(5)}),
    Case("the backend takes little", 40, {NOT_TAKEN: rising(300)}, want="DramGatewayBackendFails", not_yet=8),
    Case("the backend fails now and then", 40, {NOT_TAKEN: rising(30)}),
    Case("an old revocation list", 60, {STALE: steady(1)}, want="DramGatewayRevocationsStale", not_yet=20),
)
