"""Six devices on the good release of a job, what that one is like, and a place for worse ones."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from tests.cluster.api import Object
from tests.e2e.models import Source, put
from tests.e2e.releases import Releases
from tests.e2e.rollout_story import ERRORS, MIN_SAMPLES, RolloutStory

CHANNEL = "support-bot"
WORSE = 5.0
"""How many times the latency of the good model a slow one has at least."""
LEAST_LIMIT_SECONDS = 0.25
"""Below this, a busy machine's own hiccups are as long."""
WINDOW_SECONDS = 60


@dataclass(frozen=True)
class Bench:
    """The fleet on its first release, what that one is like, and worse ones."""

    story: RolloutStory
    releases: Releases
    model: bytes
    stable: str
    """Digest of the first release."""
    latency_seconds: float
    """95th percentile of it, on all devices under the test's traffic."""
    folder: Path

    @property
    def latency(self) -> Object:
        """The gate on latency, as an absolute limit."""
        limit = max(LEAST_LIMIT_SECONDS, WORSE * self.latency_seconds)
        return {"name": "latency", "preset": "LatencyP95", "max": f"{limit:.3f}", "minSamples": MIN_SAMPLES}

    def artifact(self, name: str, model: bytes) -> Source:
        """Store a model."""
        s3 = self.releases.s3
        storage: Object = {"endpoint": s3.endpoint, "region": s3.region, "pathStyle": True, "secretRef": {"name": "s3"}}
        return replace(put(s3.client(), f"{self.story.namespace}/offered", name, model), storage=storage)

    def is_calm(self) -> bool:
        """Whether no device is slow or fails any more, in the window that the next step looks at."""
        channel = f'channel="{self.story.channel}"'
        buckets = f"sum by (device, le) (rate(dram_device_request_seconds_bucket{{{channel}}}[{WINDOW_SECONDS}s]))"
        failed, asked = (
            f"sum by (device) (rate(dram_device_requests_total{{{channel}{which}}}[{WINDOW_SECONDS}s]))"
            for which in (',outcome="error"', "")
        )
        worst = (f"max(histogram_quantile(0.95, {buckets}))", f"max({failed} / {asked})")
        seconds, ratio = (next((value for _, value in self.story.query(query)), 1e9) for query in worst)
        return seconds < float(self.latency["max"]) / 2 and ratio < float(ERRORS["max"]) / 2


def baseline(story: RolloutStory) -> float:
    """95th percentile of the latency of all devices, once they have served this release for a window."""
    time.sleep(WINDOW_SECONDS)  # the window of a rate, filled by this release alone
    buckets = (
        f'rate(dram_device_request_seconds_bucket{{channel="{story.channel}",served_by="device"}}[{WINDOW_SECONDS}s])'
    )
    ((_, seconds),) = story.query(f"histogram_quantile(0.95, sum by (le) ({buckets}))")
    return seconds
