"""Devices: what they run, and how they do."""

from charts.monitoring.dashboards.frame import Board, Variable
from charts.monitoring.dashboards.panels import Query, figure, graph, table
from dram_agent.telemetry import NONE

CHANNEL = 'channel=~"$namespace/$name"'
RATE = "[$__rate_interval]"
LOCAL = f'{CHANNEL}, served_by="device"'
CLOUD = f'{CHANNEL}, served_by="cloud"'
SERVING = f'{CHANNEL}, release!="{NONE}"'


def _short(expression: str) -> str:
    """The same with the first twelve digits of the digest as `version`."""
    return f'label_replace({expression}, "version", "$1", "release", "(.{{4,12}}).*")'


def _latency(quantile: float, by: str = "", matchers: str = LOCAL) -> str:
    return f"histogram_quantile({quantile}, sum by (le{by}) (rate(dram_device_request_seconds_bucket{{{matchers}}}{RATE})))"


def _requests(matchers: str) -> str:
    return f"sum(rate(dram_device_requests_total{{{matchers}}}{RATE}))"


OVERVIEW = (
    figure("Devices", "Devices that report.", f"count(dram_device_info{{{CHANNEL}}})"),
    figure(
        "Healthy",
        "Share of them whose local model answers.",
        f"avg(dram_device_healthy{{{CHANNEL}}})",
        unit="percentunit",
    ),
    figure("Requests a second", "From people and programs on the devices.", _requests(CHANNEL), unit="reqps"),
    figure(
        "Cloud",
        "Share of requests that the cloud had to answer.",
        f"{_requests(CHANNEL + ', served_by=' + chr(34) + 'cloud' + chr(34))} / {_requests(CHANNEL)}",
        unit="percentunit",
    ),
    figure("p95", "Seconds to the end of an answer of the device.", _latency(0.95), unit="s"),
    figure(
        "Refused in an hour",
        "Metadata, documents and files that were not what was signed.",
        f"sum(increase(dram_device_refused_metadata_total{{{CHANNEL}}}[1h]))",
        bad_from=1,
    ),
)
VERSIONS = (
    graph(
        "Releases",
        "Devices by the release that they serve; none is no local model.",
        Query(_short(f"count by (release) (dram_device_info{{{CHANNEL}}})"), "{{version}}"),
        stacked=True,
    ),
    graph(
        "What updates are at",
        "Devices by the state of their update.",
        Query(f"sum by (state) (dram_device_update_state{{{CHANNEL}}})", "{{state}}"),
        stacked=True,
    ),
    graph(
        "Agents",
        "Devices by the version of the agent.",
        Query(f"count by (agent_version) (dram_device_info{{{CHANNEL}}})", "{{agent_version}}"),
        stacked=True,
        width=8,
    ),
    graph(
        "Classes",
        "Devices by their class.",
        Query(f"count by (device_class) (dram_device_info{{{CHANNEL}}})", "{{device_class}}"),
        stacked=True,
        width=8,
    ),
    graph(
        "Arms",
        "Devices by the arm that they are assigned to, whatever they run.",
        Query(
            f"count by (channel, attempt, arm) (dram_device_info{{{CHANNEL}}})",
            "{{channel}} attempt {{attempt}} {{arm}}",
        ),
        stacked=True,
        width=8,
    ),
)
ANSWERS = (
    graph(
        "Latency",
        "Percentiles of the seconds to the end of an answer, of what the devices answered themselves.",
        *(Query(_latency(quantile), f"p{quantile * 100:g}") for quantile in (0.5, 0.95, 0.99)),
        unit="s",
    ),
    graph(
        "Latency by release",
        "95 % of the answers took no longer.",
        Query(_short(_latency(0.95, ", release", f'{SERVING}, served_by="device"')), "{{version}}"),
        unit="s",
    ),
    graph(
        "Requests",
        "Requests a second by who answered, and how they ended.",
        Query(
            f"sum by (served_by, outcome) (rate(dram_device_requests_total{{{CHANNEL}}}{RATE}))",
            "{{served_by}} {{outcome}}",
        ),
        unit="reqps",
        stacked=True,
    ),
    graph(
        "Fallbacks",
        "Requests a second that the cloud had to answer, by the cause.",
        Query(f"sum by (cause) (rate(dram_device_fallbacks_total{{{CHANNEL}}}{RATE}))", "{{cause}}"),
        unit="reqps",
        stacked=True,
    ),
)
HEALTH = (
    graph(
        "Healthy share",
        "Share of the devices of each release whose local model answers.",
        Query(_short(f"avg by (release) (dram_device_healthy{{{SERVING}}})"), "{{version}}"),
        unit="percentunit",
    ),
    graph(
        "Memory of the model",
        "Largest and middle resident memory of the model's process, by release.",
        Query(_short(f"max by (release) (dram_device_memory_bytes{{{SERVING}}})"), "{{version}} largest"),
        Query(_short(f"quantile by (release) (0.5, dram_device_memory_bytes{{{SERVING}}})"), "{{version}} middle"),
        unit="bytes",
    ),
    graph(
        "Golden subset",
        "Share of the golden subset that passed on the devices: mean and worst, by release.",
        Query(_short(f"avg by (release) (dram_device_golden_pass_ratio{{{SERVING}}})"), "{{version}} mean"),
        Query(_short(f"min by (release) (dram_device_golden_pass_ratio{{{SERVING}}})"), "{{version}} worst"),
        unit="percentunit",
    ),
    graph(
        "Refused",
        "What was not what was signed, by the cause, in an hour.",
        Query(f"sum by (cause) (increase(dram_device_refused_metadata_total{{{CHANNEL}}}[1h]))", "{{cause}}"),
        stacked=True,
    ),
    graph(
        "Gave up",
        "Devices that will not run a release on offer, because it failed there, by release.",
        Query(_short(f"sum by (release) (dram_device_gave_up{{{CHANNEL}}})"), "{{version}}"),
    ),
    graph(
        "Age of the release",
        "Since when the devices run what they run: the youngest and the middle one, by release.",
        Query(_short(f"min by (release) (dram_device_release_seconds{{{SERVING}}})"), "{{version}} youngest"),
        Query(_short(f"quantile by (release) (0.5, dram_device_release_seconds{{{SERVING}}})"), "{{version}} middle"),
        unit="s",
    ),
    table(
        "Most fallbacks",
        "The ten devices that asked the cloud most in the time shown.",
        {
            "fallbacks": f"topk(10, sum by (channel, device) (increase(dram_device_fallbacks_total{{{CHANNEL}}}[$__range])))"
        },
    ),
    table(
        "Most memory",
        "The ten devices whose model takes most.",
        {"memory": f"topk(10, max by (channel, device) (dram_device_memory_bytes{{{SERVING}}}))"},
        units={"memory": "bytes"},
    ),
)
GATEWAY = (
    graph(
        "Pushes",
        "Pushes a second that the backend took, those that it did not take, and those that were refused.",
        Query(f"sum(rate(dram_gateway_accepted_total{RATE}))", "taken"),
        Query(f"sum(rate(dram_gateway_backend_failures_total{RATE}))", "not taken"),
        Query(f"sum by (cause) (rate(dram_gateway_refused_total{RATE}))", "refused: {{cause}}"),
        width=8,
    ),
    graph(
        "Dropped points",
        "Points a second that were left out of pushes, by the cause.",
        Query(f"sum by (cause) (rate(dram_gateway_dropped_points_total{RATE}))", "{{cause}}"),
        width=8,
    ),
    graph(
        "Backend",
        "95 % of the pushes that the backend took, it took in no more than this.",
        Query(f"histogram_quantile(0.95, sum by (le) (rate(dram_gateway_backend_seconds_bucket{RATE})))", "p95"),
        unit="s",
        width=8,
    ),
)
BOARD = Board(
    uid="dram-fleet",
    title="Dram / Fleet",
    meaning="Devices: versions over time, latency percentiles, memory, fallbacks. A channel is namespace/name of its EdgeRollout.",
    variables=(
        Variable("namespace", "label_values(dram_device_info, channel)", part="/(.+)\\/.+/"),
        Variable("name", 'label_values(dram_device_info{channel=~"$namespace/.+"}, channel)', part="/.+\\/(.+)/"),
    ),
    rows=(
        ("Overview", OVERVIEW),
        ("Versions", VERSIONS),
        ("Answers", ANSWERS),
        ("Health", HEALTH),
        ("Gateway", GATEWAY),
    ),
)
