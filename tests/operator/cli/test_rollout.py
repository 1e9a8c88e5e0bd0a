"""`dram rollout simulate` and `dram rollout plan` from a user's seat."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from dram_operator.cli.rollout import rollout
from tests.operator.simulation.imagined import DIGEST, a_group, a_policy, a_step

ROOT = Path(__file__).parents[3]
JOB = {"jobRef": {"name": "support-bot", "variant": "gguf"}}


def files(folder: Path, policy: Any = None, **fleet: Any) -> list[str]:
    """Options that name a rollout and a fleet."""
    (folder / "rollout.yaml").write_text(yaml.safe_dump((policy or a_policy()).manifest()))
    (folder / "fleet.yaml").write_text(yaml.safe_dump({"groups": [a_group()], **fleet}))
    return ["-f", str(folder / "rollout.yaml"), "--fleet", str(folder / "fleet.yaml")]


def simulate(*arguments: str) -> Result:
    return CliRunner().invoke(rollout, ["simulate", *arguments])


def test_prints_a_line_a_transition_and_the_verdict(tmp_path: Path) -> None:
    result = simulate(*files(tmp_path))
    assert result.exit_code == 0, result.output
    first = result.output.splitlines()[0].split(maxsplit=4)
    assert first[:4] == ["0d", "00:00:00", "Normal", "Resolved"]
    assert result.output.splitlines()[-1].endswith(f"{DIGEST[:12]} is stable")


def test_the_example_tells_what_the_documentation_says() -> None:
    folder = ROOT / "examples" / "fleet"
    result = simulate("-f", str(folder / "rollout.yaml"), "--fleet", str(folder / "fleet.yaml"))
    page = (ROOT / "docs" / "user" / "fleet-simulation.md").read_text()
    assert (result.exit_code, _told(result.output)) == (3, _told(page))


def _told(text: str) -> list[str]:
    """Time, type and reason of every transition in a text."""
    return re.findall(r"^ *(\d+d [\d:]{8}  (?:Normal|Warning|Waits|Fleet) +\w+)", text, re.MULTILINE)


def test_a_rollback_is_another_exit_code_and_leaves_page_and_timeline(tmp_path: Path) -> None:
    group = a_group(candidate={"errorRatio": 0.5})
    result = simulate(*files(tmp_path, groups=[group]), "--output", str(tmp_path / "out"))
    assert result.exit_code == 3
    told = json.loads((tmp_path / "out" / "timeline.json").read_text())
    assert told["verdict"] == "RolledBack"
    assert [line["reason"] for line in told["lines"]][-2:] == ["RolledBack", "Quarantined"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") == 2 + len({name for one in told["samples"] for name in one["looks"]})
    assert "errors against its limit" in page
    assert "RollingBack" in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "")


def test_seed_and_digest_may_be_given(tmp_path: Path) -> None:
    options = files(tmp_path, a_policy().having("spec.artifact", JOB), longestSeconds=600)
    assert "offers support-bot/gguf" in simulate(*options, "--seed", "5", "--digest", "a" * 64).output


@pytest.mark.parametrize(
    ("policy", "fleet", "want"),
    [
        (a_policy().having("spec.strategy.stepz", 1), {}, "spec.strategy.stepz: unknown field, did you mean steps?"),
        (a_policy(), {"grups": []}, "fleet.yaml:1: groups: is missing"),
        (a_policy(), {"grups": []}, "grups: unknown field: did you mean groups?"),
        (
            a_policy(metrics=({"name": "own", "query": "sum(x)", "max": "1"},)),
            {},
            "metric own of the rollout has a query",
        ),
    ],
)
def test_bad_input_is_told_and_is_exit_code_2(tmp_path: Path, policy: Any, fleet: dict[str, Any], want: str) -> None:
    options = files(tmp_path, policy, **fleet)
    if fleet:
        (tmp_path / "fleet.yaml").write_text(yaml.safe_dump(fleet))
    result = simulate(*options)
    assert result.exit_code == 2
    assert want in result.stderr


def test_a_file_holds_one_rollout(tmp_path: Path) -> None:
    options = files(tmp_path)
    (tmp_path / "rollout.yaml").write_text(yaml.safe_dump_all([a_policy().manifest()] * 2))
    assert "holds 2 EdgeRollouts: give one" in simulate(*options).stderr


def plan(folder: Path, policy: Any, *arguments: str, devices: str | None = None) -> Result:
    (folder / "rollout.yaml").write_text(yaml.safe_dump(policy.manifest()))
    lines = [json.dumps({"id": f"{number:032x}"}) for number in range(20)]
    (folder / "devices.jsonl").write_text("\n".join(lines) if devices is None else devices)
    options = ["-f", str(folder / "rollout.yaml"), "--inventory", str(folder / "devices.jsonl")]
    return CliRunner().invoke(rollout, ["plan", *options, *arguments])


def test_a_plan_names_the_devices_of_every_step(tmp_path: Path) -> None:
    policy = a_policy(a_step("10%"), a_step("100%"))
    text, exact = plan(tmp_path, policy), plan(tmp_path, policy, "--json")
    assert text.exit_code == exact.exit_code == 0
    steps = json.loads(exact.output)["steps"]
    assert [len(step["moves"]) for step in steps] == [2, 18]
    assert all(device in text.output for device in steps[0]["moves"])
    assert "and 13 more: --json names them" in text.output


def test_a_plan_needs_the_digest_that_salts_the_cohorts(tmp_path: Path) -> None:
    policy = a_policy().having("spec.artifact", JOB)
    refused = plan(tmp_path, policy)
    assert (refused.exit_code, "give --digest" in refused.stderr) == (2, True)
    assert plan(tmp_path, policy, "--digest", "A" * 64).exit_code == 2
    moves = [
        json.loads(plan(tmp_path, policy, "--json", "--digest", digest * 64).output)["steps"][0]["moves"]
        for digest in "aab"
    ]
    assert moves[0] == moves[1] != moves[2]


@pytest.mark.parametrize(
    ("devices", "want"),
    [
        ('{"id": "x"}', "devices.jsonl: line 1 of the inventory: id"),
        ("no", "devices.jsonl: line 1 of the inventory is not JSON"),
    ],
)
def test_a_bad_inventory_is_told(tmp_path: Path, devices: str, want: str) -> None:
    result = plan(tmp_path, a_policy(), devices=devices)
    assert (result.exit_code, want in result.stderr) == (2, True)


def test_a_window_that_cannot_be_is_told(tmp_path: Path) -> None:
    window = {"schedule": "0 2 * * *", "durationSeconds": 3600, "timeZone": "Europe/Nowhere"}
    result = plan(tmp_path, a_policy(windows=[window]))
    assert (result.exit_code, "'Europe/Nowhere' is not a time zone" in result.stderr) == (2, True)
