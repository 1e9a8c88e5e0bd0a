"""What the agents of a small fleet told, in OpenMetrics, for a real Prometheus."""

from dataclasses import dataclass
from datetime import UTC, datetime

START = datetime(2030, 5, 1, 12, tzinfo=UTC)
MINUTES = 10
STEP_SECONDS = 15
CHANNEL = "tv/support-bot"
CANDIDATE, STABLE = "c" * 64, "5" * 64


@dataclass(frozen=True)
class Teller:
    """A device that tells the same for ten minutes, or for a part of them."""

    name: str
    arm: str
    seconds: float = 0.1
    """Of every request."""
    errors: float = 0.0
    """Part of its requests."""
    cloud: float = 0.0
    """Part of its requests that the cloud answers."""
    golden: float = 1.0
    channel: str = CHANNEL
    per_second: float = 2.0
    release: str = ""
    """What it runs; empty is the candidate where it is treated, else stable."""
    attempt: int = 7
    begins: int = 0
    """Second of its first sample."""
    silent_after: int = MINUTES * 60
    """Second of its last sample."""

    @property
    def runs(self) -> str:
        """Its release."""
        return self.release or (CANDIDATE if self.arm == "treated" else STABLE)


def history(*devices: Teller) -> str:
    """The samples of all devices, one every 15 s."""
    families: dict[str, list[str]] = {}
    for device in devices:
        labels = f'channel="{device.channel}",device="{device.name}",release="{device.runs}"'
        for second in range(device.begins, device.silent_after + 1, STEP_SECONDS):
            _tell(families, device, labels, second)
    lines = [line for name, found in families.items() for line in (_kind(name), *found)]
    return "\n".join([*lines, "# EOF\n"])


def _kind(name: str) -> str:
    kinds = {"dram_device_requests": "counter", "dram_device_request_seconds": "histogram"}
    return f"# TYPE {name} {kinds.get(name, 'gauge')}"


def _tell(families: dict[str, list[str]], device: Teller, labels: str, second: int) -> None:
    at = f"{START.timestamp() + second:.0f}"
    total = device.per_second * (second - device.begins)

    def add(family: str, suffix: str, more: str, value: float) -> None:
        inner = f"{labels},{more}" if more else labels
        families.setdefault(family, []).append(f"{family}{suffix}{{{inner}}} {value} {at}")

    add("dram_device_info", "", f'attempt="{device.attempt}",arm="{device.arm}"', 1)
    own = total * (1 - device.cloud)
    add("dram_device_requests", "_total", 'served_by="device",outcome="ok"', own * (1 - device.errors))
    add("dram_device_requests", "_total", 'served_by="device",outcome="error"', own * device.errors)
    add("dram_device_requests", "_total", 'served_by="cloud",outcome="ok"', total * device.cloud)
    for edge in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0):
        count = own if device.seconds <= edge else 0
        add("dram_device_request_seconds", "_bucket", f'served_by="device",le="{edge}"', count)
    add("dram_device_request_seconds", "_bucket", 'served_by="device",le="+Inf"', own)
    add("dram_device_request_seconds", "_count", 'served_by="device"', own)
    add("dram_device_request_seconds", "_sum", 'served_by="device"', own * device.seconds)
    add("dram_device_golden_pass_ratio", "", "", device.golden)
    add("dram_device_memory_bytes", "", "", 1e9)
