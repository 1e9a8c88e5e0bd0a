"""Each alert fires on its fault and on nothing else, asks only for what the code exports, and has a page that says what to do."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts.monitoring import catalogue
from tests.cluster.binaries import binary
from tests.cluster.folders import REPOSITORY
from tests.monitoring.alert_cases import CASES, WELL, Case
from tests.monitoring.promql import Checker

FILE = REPOSITORY / "charts" / "dram" / "files" / "alerts.yaml"
RUNBOOKS = REPOSITORY / "docs" / "operations" / "alerts"
RULES: list[dict[str, Any]] = [rule for group in yaml.safe_load(FILE.read_text())["groups"] for rule in group["rules"]]
NAMES = [rule["alert"] for rule in RULES]
CHECKER = Checker(catalogue.series())
FIRING = (
    "sum by (alertname, namespace, name, reason, metric, kind, role, job, channel, cause, release) "
    '(ALERTS{alertstate="firing"})'
)


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(binary("promtool")), *arguments], check=False, capture_output=True, text=True)


def a_test(case: Case) -> dict[str, Any]:
    """As promtool reads it: exactly one alert fires, with these labels, or none."""
    expected = [{"labels": _written({"alertname": case.want, **case.labels}), "value": 1}] if case.want else []
    looks = [(case.minute, expected)] + ([(case.not_yet, [])] if case.not_yet is not None else [])
    return {
        "name": case.name,
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "promql_expr_test": [
            {"expr": FIRING, "eval_time": f"{minute}m", "exp_samples": samples} for minute, samples in looks
        ],
    }


def _written(labels: dict[str, str | None]) -> str:
    return "{" + ", ".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def test_promtool_takes_the_rules() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", str(FILE))
    assert done.returncode == 0, done.stderr
    assert f"SUCCESS: {len(RULES)} rules found" in done.stdout


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_exactly_the_right_alert_fires(tmp_path: Path, case: Case) -> None:
    file = tmp_path / "tests.yaml"
    every = "5m" if case.minute > 120 else "1m"
    tests = {"rule_files": [str(FILE)], "evaluation_interval": every, "tests": [a_test(case)]}
    file.write_text(yaml.safe_dump(tests))
    done = promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_fault_that_it_fires_on() -> None:
    assert {case.want for case in CASES} - {None} == set(NAMES)


@pytest.mark.parametrize("name", sorted({name for case in CASES for name in case.series}))
def test_the_cases_tell_of_series_that_exist(name: str) -> None:
    CHECKER.labels(name)


def test_the_healthy_installation_has_every_series_that_alerts_ask_for() -> None:
    asked = set(re.findall(r"dram_\w+", " ".join(rule["expr"] for rule in RULES)))
    assert asked == {re.split(r"\{", name)[0] for name in WELL} & asked


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_an_alert_names_only_what_is_exported(rule: dict[str, Any]) -> None:
    labels = CHECKER.labels(rule["expr"])
    told = " ".join(rule["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", told)) <= labels
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"].keys() == {"summary", "description"}


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert sorted(path.stem for path in RUNBOOKS.glob("Dram*.md")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_runbook_says_what_to_look_at_and_what_to_do(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["What it means", "Look", "Do"]
    assert "```sh\nkubectl " in text


def test_guides_ask_only_for_what_is_exported() -> None:
    guides = "".join(path.read_text() for path in sorted((REPOSITORY / "docs" / "operations").glob("*.md")))
    asked = [each for each in re.findall(r"`([^`\n]*dram_[^`\n]*)`", guides) if re.search(r"[{(<>=]", each)]
    assert asked
    for query in asked:
        CHECKER.labels(query)
