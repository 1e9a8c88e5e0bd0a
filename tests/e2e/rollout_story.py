"""One EdgeRollout on the cluster: what it is told, what it says, and what its devices do."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import urllib3

from dram_operator.api.rollout_analysis import Preset
from dram_operator.core.rollout.analysis import SHORTEST_WINDOW_SECONDS
from dram_operator.core.rollout.presets import Context, preset_queries
from tests.builders import ARollout, a_rollout
from tests.cluster.api import Api, Object, wait_until
from tests.e2e.fleet import SIZE, Fleet
from tests.integration.api.server import table

STEP_SECONDS = 420
"""The longest that one step may take on a machine that does ten things at once."""
INTERVAL_SECONDS = 10
MIN_SAMPLES = 5
GOLDEN: Object = {"name": "golden", "preset": "GoldenPassRatio", "min": "0.9", "minSamples": MIN_SAMPLES}
ERRORS: Object = {"name": "errors", "preset": "ErrorRatio", "max": "0.1", "minSamples": MIN_SAMPLES}


@dataclass(frozen=True)
class RolloutStory:
    """An EdgeRollout and its devices."""

    api: Api
    prometheus: str
    """Address of the metrics server, as this process reaches it."""
    fleet: Fleet
    namespace: str
    name: str

    @property
    def channel(self) -> str:
        """The channel of its devices."""
        return f"{self.namespace}/{self.name}"

    def offer(self, artifact: Object, *metrics: Object, bake_seconds: int = 5) -> None:
        """Apply the rollout with this artifact: to 1, 3 and 6 of the devices."""
        self.api.apply(the_rollout(artifact, metrics, bake_seconds).named_in(self.name, self.namespace))

    def delete(self) -> None:
        """Delete the rollout, and wait until the operator let it go."""
        self.api.delete("EdgeRollout", self.name, self.namespace)
        gone = "the rollout to go"
        wait_until(lambda: self.api.find("EdgeRollout", self.name, self.namespace) is None, gone, explain=self.explain)

    def object(self) -> Object:
        """The EdgeRollout as it is now."""
        return self.api.get("EdgeRollout", self.name, self.namespace)

    def status(self) -> Object:
        """Its status; empty before the first visit."""
        status: Object = self.object().get("status", {})
        return status

    def condition(self, kind: str) -> Object:
        """One of its conditions; empty before the first visit."""
        return next((one for one in self.status().get("conditions", []) if one["type"] == kind), {})

    def wait_step(self, shown: str) -> Object:
        """Wait for a step of the present attempt."""

        def there() -> Object | None:
            status = self.status()
            return status if status.get("step", {}).get("shown") == shown else None

        return wait_until(there, f"step {shown}", patience_seconds=STEP_SECONDS, explain=self.explain)

    def wait_ended(self, attempts: int) -> Object:
        """Wait until so many attempts are on record; returns the newest."""

        def ended() -> Object | None:
            history = self.status().get("history", [])
            return history[-1] if history and history[-1]["attempt"] >= attempts else None

        patience = 3 * STEP_SECONDS
        record = wait_until(ended, f"attempt {attempts} to end", patience_seconds=patience, explain=self.explain)
        assert record["attempt"] == attempts, self.explain()
        return record

    def wait_completed(self, attempts: int) -> str:
        """Wait until this attempt ended well and every device runs it; returns its digest."""
        record = self.wait_ended(attempts)
        assert record["outcome"] == "Completed", self.explain()
        wait_until(
            lambda: set(self.running().values()) == {record["digest"]} and len(self.running()) == SIZE,
            f"all devices on {record['digest'][:12]}",
            patience_seconds=STEP_SECONDS,
            explain=self.explain,
        )
        return str(record["digest"])

    def events(self) -> list[tuple[str, str]]:
        """Reason and message of its Events, oldest first."""
        fields = f"involvedObject.kind=EdgeRollout,involvedObject.name={self.name}"
        found = self.api.list("Event", self.namespace, fields=fields)
        found.sort(key=lambda event: str(event.get("firstTimestamp") or event["metadata"]["creationTimestamp"]))
        return [(event["reason"], event["message"]) for event in found]

    def shown(self) -> dict[str, Any]:
        """What `kubectl get er` prints."""
        columns, cells = table(self.api, "EdgeRollout", self.name, self.namespace)
        return dict(zip(columns, cells, strict=True))

    def query(self, text: str) -> list[tuple[dict[str, str], float]]:
        """Series of an instant query now."""
        answer = urllib3.request("GET", f"{self.prometheus}/api/v1/query", fields={"query": text})
        return [(one["metric"], float(one["value"][1])) for one in answer.json()["data"]["result"]]

    def running(self) -> dict[str, str]:
        """What the devices say that they run, by id."""
        found = self.query(f'dram_device_info{{channel="{self.channel}"}} == 1')
        return {labels["device"]: labels["release"] for labels, _ in found}

    def value(self, metric: str) -> float:
        """A metric as the rollout measured it last."""
        return next(float(one["value"]) for one in self.status()["analysis"] if one["name"] == metric)

    def wait_breach(self, metric: Object, attempt: int, release: str, *, above: bool) -> float:
        """Wait until Prometheus shows a breach to whoever asks what the rollout asks; returns when it did."""
        limit = float(metric["max" if above else "min"])
        context = Context(self.channel, attempt, SHORTEST_WINDOW_SECONDS, release)
        query = preset_queries(Preset(metric["preset"]), context).value

        def seen() -> float | None:
            values = [value for _, value in self.query(query)]
            return time.time() if any(value > limit if above else value < limit for value in values) else None

        what = f"{metric['name']} to breach"
        return wait_until(seen, what, patience_seconds=STEP_SECONDS, explain=self.explain)

    def wait_back(self, stable: str) -> float:
        """Wait until 95 % of the devices say that they run stable; returns when they did."""

        def back() -> float | None:
            runs = list(self.running().values())
            return time.time() if runs.count(stable) >= 0.95 * SIZE else None

        return wait_until(back, "the devices to be back", patience_seconds=STEP_SECONDS, explain=self.explain)

    def explain(self) -> str:
        """Status, events and what the devices say."""
        status = self.status()
        texts = [json.dumps(status.get(name)) for name in ("conditions", "step", "analysis", "rollback", "history")]
        texts += [f"{reason}: {message}" for reason, message in self.events()[-15:]]
        return "\n".join([*texts, json.dumps(self.running()), self.fleet.explain()])


@dataclass(frozen=True)
class Placed:
    """A rollout that still needs a place."""

    rollout: ARollout

    def named_in(self, name: str, namespace: str) -> Object:
        """The manifest."""
        return self.rollout.named(name).having("metadata.namespace", namespace).manifest()


def the_rollout(artifact: Object, metrics: Sequence[Object], bake_seconds: int) -> Placed:
    """One device, then half of them, then all."""
    steps = [{"cohort": {"percent": percent}, "bakeSeconds": bake_seconds} for percent in ("1%", "50%", "100%")]
    made = a_rollout().having("spec.artifact", artifact).stepping(*steps)
    made = made.having("spec.strategy.minDevices", 1)
    made = made.having("spec.analysis.intervalSeconds", INTERVAL_SECONDS)
    fallback = {"name": "fallback-ratio", "preset": "FallbackRatio", "max": "200m", "minSamples": MIN_SAMPLES}
    return Placed(made.having("spec.analysis.metrics", [*metrics, fallback]))
