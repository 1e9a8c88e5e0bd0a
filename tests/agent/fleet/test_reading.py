"""fleet.yaml: what is wrong with it is said with line, field and remedy."""

from pathlib import Path

import pytest

from dram_agent.fleet.faults import Slow
from dram_agent.fleet.reading import ScenarioInvalid, read_scenario
from dram_agent.fleet.scenario import hit

GOOD = """\
seed: 7
startsAt: 2030-01-07T12:00:00+01:00
groups:
  - name: all
    count: 10
    class: tv
    labels: {ring: early}
    stable: {latencySeconds: 0.5, measures: {battery: 1.5}}
    candidate: {errorRatio: 0.2}
    faults:
      - {fault: Slow, factor: 3, share: 0.1, afterSeconds: 3600}
"""


def read(folder: Path, text: str) -> str:
    """What is said about a file, without its path; empty for a good one."""
    file = folder / "fleet.yaml"
    file.write_text(text)
    try:
        read_scenario(file)
    except ScenarioInvalid as error:
        return "\n".join(error.problems).replace(f"{file}:", "")
    return ""


def test_a_good_file_says_what_it_means(tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text(GOOD)
    scenario = read_scenario(tmp_path / "fleet.yaml")
    group = scenario.groups[0]
    assert scenario.starts_at.isoformat() == "2030-01-07T12:00:00+01:00"
    assert (group.size, group.device_class, group.labels) == (10, "tv", {"ring": "early"})
    assert group.on_candidate == group.stable.model_copy(update={"error_ratio": 0.2})
    assert group.faults == (Slow(fault="Slow", factor=3, share=0.1, after_seconds=3600),)


@pytest.mark.parametrize(
    ("change", "want"),
    [
        (("count: 10", "cuont: 10"), "5: groups[0].cuont: unknown field: did you mean count?"),
        (("factor: 3", "faktor: 3"), "11: groups[0].faults[0].faktor: unknown field: did you mean factor?"),
        (("factor: 3", "zzz: 3"), "11: groups[0].faults[0].zzz: unknown field: use share, afterSeconds, fault, factor"),
        (("count: 10", "count: 0"), "5: groups[0].count: input should be greater than or equal to 1, not 0"),
        (("count: 10", "count: 20001"), "5: groups[0].count: input should be less than or equal to 20000, not 20001"),
        (("errorRatio: 0.2", "errorRatio: 2"), "9: groups[0].candidate.errorRatio: input should be less than or equal to 1"),
        (("fault: Slow, ", ""), "11: groups[0].faults[0]: Unable to extract tag using discriminator 'fault'"),
        (("fault: Slow", "fault: Slw"), "11: groups[0].faults[0]: Input tag 'Slw' found using 'fault' does not match any"),
        (("  - name: all\n    count: 10", "  - count: 10"), "4: groups[0].name: is missing: it has no default"),
        (("    count: 10\n", ""), "4: groups[0]: set exactly one of count (ids are drawn) and deviceIds"),
        (("2030-01-07T12:00:00+01:00", "2030-01-07 12:00"), "2: startsAt: input should have timezone info"),
        (("seed: 7", "seed: 7\nseed: 8"), "2: seed stands here twice: remove one"),
        (("seed: 7", "seed: [7"), "2: expected ',' or ']', but got ':'"),
        (("seed: 7", "events: [{event: Frozen, fromSeconds: 5, untilSeconds: 5}]"), "1: events[0]: untilSeconds has to be"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_problems_name_line_field_and_remedy(tmp_path: Path, change: tuple[str, str], want: str) -> None:
    assert change[0] in GOOD
    assert read(tmp_path, GOOD.replace(*change)).startswith(want)


def test_devices_and_groups_are_there_once(tmp_path: Path) -> None:
    device = "ab" * 16
    twice = f"groups: [{{name: a, deviceIds: [{device}]}}, {{name: b, deviceIds: [{device}]}}]"
    assert f"device {device} is there twice" in read(tmp_path, twice)
    assert "group a is there twice" in read(tmp_path, "groups: [{name: a, count: 1}, {name: a, count: 1}]")
    many = "groups: [{name: a, count: 20000}, {name: b, count: 1}]"
    assert "the groups have more than 20000 devices" in read(tmp_path, many)


def test_an_empty_file_and_one_that_is_not_there(tmp_path: Path) -> None:
    assert read(tmp_path, "") == "1: groups: is missing: it has no default"
    with pytest.raises(ScenarioInvalid, match="cannot be read: No such file"):
        read_scenario(tmp_path / "nothing.yaml")


@pytest.mark.parametrize(("share", "size", "want"), [(0.01, 10, 1), (0.1, 10, 1), (0.11, 10, 2), (1.0, 7, 7)])
def test_a_fault_hits_at_least_one_device(share: float, size: int, want: int) -> None:
    assert hit(share, size) == want
