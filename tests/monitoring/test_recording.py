"""The recording rules, evaluated by promtool: every device counts once, by what it told last, and an interruption blames nobody."""

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from charts.monitoring import catalogue, recording
from dram_operator.core.rollout.recording import AGES, COUNTS, KNOWN, MEMORY, REQUESTS, SOAKS, recordings
from tests.cluster.folders import REPOSITORY
from tests.monitoring.test_alerts import promtool

FILE = REPOSITORY / "charts" / "dram" / "files" / "recording-rules.yaml"
MINUTES = 40
STATE = f'sum by (state) ({COUNTS}{{attempt="7", release="new", within=~"|180"}})'
NOW_KNOWN = f'sum({KNOWN}{{within="2592000"}})'
HEARD = f'sum({KNOWN}{{within="300"}})'


def series(name: str, device: str, values: str, **labels: str) -> dict[str, str]:
    """A device's series, a sample each minute."""
    told = "".join(f', {label}="{text}"' for label, text in labels.items())
    return {"series": f'{name}{{channel="tv/bot", device="{device}"{told}}}', "values": values}


@dataclass
class Story:
    """Devices on the release `new` in attempt 7 from the first minute on, and what is counted of them at a minute."""

    name: str
    minute: int
    want: dict[str, float] = field(default_factory=dict)
    """By state."""
    query: str = STATE
    silent_after: tuple[int, ...] = ()
    """For each device, the minute of its last word."""
    others: int = 1
    """Devices that report all the time, and are on another release."""
    more: tuple[dict[str, str], ...] = ()
    unhealthy: bool = False

    def input(self) -> list[dict[str, str]]:
        """What was scraped."""
        found = [
            series("dram_device_info", f"other{number}", f"1x{MINUTES}", attempt="7", arm="control", release="old")
            for number in range(self.others)
        ]
        for number, last in enumerate(self.silent_after):
            device, ends = f"d{number}", " stale" if last < MINUTES else ""
            ages = "0x" if self.unhealthy else "0+60x"
            found += [
                series("dram_device_info", device, f"1x{last}{ends}", attempt="7", arm="treated", release="new"),
                series("dram_device_release_seconds", device, f"0+60x{last}{ends}", release="new"),
                series("dram_device_healthy_seconds", device, f"{ages}{last}{ends}", release="new"),
            ]
        return [*found, *self.more]

    def test(self) -> dict[str, Any]:
        """As promtool reads it."""
        samples = [
            {"labels": f'{{state="{state}"}}' if state else "{}", "value": value} for state, value in self.want.items()
        ]
        asked = {"expr": self.query, "eval_time": f"{self.minute}m", "exp_samples": samples}
        return {"name": self.name, "interval": "1m", "input_series": self.input(), "promql_expr_test": [asked]}


ALWAYS = MINUTES
GAVE_UP = "dram_device_gave_up"
STORIES = (
    Story("devices that are well", 10, {"reporting": 2, "healthy": 2}, silent_after=(ALWAYS, ALWAYS)),
    Story("well for less than the soak", 2, {"reporting": 1}, silent_after=(ALWAYS,)),
    Story("not well", 10, {"reporting": 1}, silent_after=(ALWAYS,), unhealthy=True),
    Story("silent for less than the soak", 4, {"reporting": 1}, silent_after=(2,)),
    Story("silent too soon", 10, {"silent": 1}, silent_after=(2,)),
    Story("silent for long, blamed still", 39, {"silent": 1}, silent_after=(2,)),
    Story("silent after its soak", 10, silent_after=(5,)),
    Story("all of the channel silent", 10, silent_after=(2, 2), others=0),
    Story(
        "the telemetry came back a minute ago",
        11,
        {},
        silent_after=(2,),
        others=0,
        more=(series("dram_device_info", "back", "_x10 1x20", attempt="7", arm="control", release="old"),),
    ),
    Story(
        "the telemetry has been back for longer than the soak",
        15,
        {"silent": 1},
        silent_after=(2,),
        others=0,
        more=(series("dram_device_info", "back", "_x10 1x20", attempt="7", arm="control", release="old"),),
    ),
    Story(
        "gave up while it serves",
        10,
        {"reporting": 1, "gave-up": 1},
        silent_after=(ALWAYS,),
        more=(series(GAVE_UP, "d0", "0x4 1x30", release="new"),),
    ),
    Story(
        "gave up and fell silent: failed once",
        20,
        {"gave-up": 1},
        silent_after=(2,),
        more=(series(GAVE_UP, "d0", "0 1 1 stale", release="new"),),
    ),
    Story(
        "gave up in an earlier attempt, tried again, and fell silent",
        20,
        {},
        silent_after=(8,),
        more=(series(GAVE_UP, "d0", "1x3 0x4 stale", release="new"),),
    ),
    Story(
        "at a new address it counts once",
        10,
        {"reporting": 1, "healthy": 1},
        silent_after=(ALWAYS,),
        more=(
            series(
                "dram_device_info", "d0", "1x4 stale", attempt="7", arm="treated", release="new", instance="10.0.0.9"
            ),
        ),
    ),
    Story(
        "what it pushed before lingers, and does not count",
        6,
        {"": 2},
        NOW_KNOWN,
        (ALWAYS,),
        more=(series("dram_device_info", "d0", "1x4", attempt="6", arm="control", release="old"),),
    ),
    Story("silent for longer than a span", 12, {"": 1}, HEARD, (4,)),
    Story("silent and still known", 12, {"": 2}, NOW_KNOWN, (4,)),
    Story(
        "a device without a name is nobody",
        10,
        {"": 1},
        NOW_KNOWN,
        more=({"series": 'dram_device_info{channel="tv/bot", release="new"}', "values": "1x30"},),
    ),
    Story(
        "a restart takes nothing from the rates, and two address labels break nothing",
        20,
        {"": 4},
        f'sum({REQUESTS}{{arm="treated", release="new", outcome="ok"}})',
        (ALWAYS, ALWAYS),
        more=(
            series("dram_device_requests_total", "d0", "0+120x15 0+120x20", release="new", outcome="ok"),
            series("dram_device_requests_total", "d1", "0+120x30", release="new", outcome="ok", instance="a"),
        ),
    ),
    Story(
        "the device that takes most memory",
        20,
        {"": 9},
        f'max({MEMORY}{{arm="treated", release="new", attempt="7"}})',
        (ALWAYS, ALWAYS),
        more=(
            series("dram_device_memory_bytes", "d0", "5x40", release="new"),
            series("dram_device_memory_bytes", "d1", "9x40", release="new"),
        ),
    ),
)


def test_the_file_is_what_the_code_says_and_promtool_takes_it() -> None:
    assert FILE.read_text() == recording.text()
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", str(FILE))
    assert done.returncode == 0, done.stderr
    assert f"SUCCESS: {len(recordings())} rules found" in done.stdout


def test_devices_are_counted_by_what_they_told_last(tmp_path: Path) -> None:
    tests = [story.test() for story in STORIES]
    (tmp_path / "tests.yaml").write_text(
        yaml.safe_dump({"rule_files": [str(FILE)], "evaluation_interval": "30s", "tests": tests})
    )
    done: subprocess.CompletedProcess[str] = promtool("test", "rules", str(tmp_path / "tests.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_read_only_what_devices_export_or_a_rule_before_them_records() -> None:
    known = set(catalogue.series())
    for each in recordings():
        known.add(each.record)
        read = set(re.findall(r"(?:\w+:)?dram_\w+(?::\w+)?", each.expr))
        assert read
        assert read <= known, each


def test_every_span_has_its_counts() -> None:
    spans = {(each.record, each.labels.get("state"), each.labels.get("within")) for each in recordings()}
    assert {(KNOWN, None, str(age)) for age in AGES} <= spans
    states = ("reporting", "healthy", "silent")
    assert {(COUNTS, state, str(soak)) for state in states for soak in SOAKS} <= spans
