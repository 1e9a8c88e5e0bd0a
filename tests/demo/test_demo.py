"""The demo as a stranger runs it: the real teacher, minutes long."""

import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dram_operator.cli import main

pytestmark = [pytest.mark.demo, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


def demo(workdir: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["demo", "--workdir", str(workdir), *options])


def status(workdir: Path) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = json.loads((workdir / "support-bot/status.json").read_text())
    return found


def test_the_demo_releases_two_variants_that_are_what_the_status_says(workdir: Path) -> None:
    result = demo(workdir)
    assert result.exit_code == 0, result.output
    succeeded = next(c for c in status(workdir)["conditions"] if c["type"] == "Succeeded")
    assert succeeded["status"] == "True"
    variants = status(workdir)["variants"]
    assert [variant["name"] for variant in variants] == ["gguf-q8-0", "gguf-q4-k-m"]
    for variant in variants:
        folder = Path(variant["uri"].removeprefix("file://"))
        for entry in json.loads((folder / "manifest.json").read_text())["files"]:
            assert hashlib.sha256((folder / entry["path"]).read_bytes()).hexdigest() == entry["sha256"]
    assert (workdir / "support-bot/report.html").stat().st_size > 10_000


def test_a_second_demo_finds_every_stage_done(workdir: Path) -> None:
    result = demo(workdir)
    assert result.exit_code == 0, result.output
    assert {stage["id"] for stage in status(workdir)["stages"] if stage["reason"] != "Cached"} == {"resolve"}


def test_an_untrained_student_fails_the_quality_gate(workdir: Path) -> None:
    result = demo(workdir, "--set", "spec.training.maxSteps=0")
    assert result.exit_code == 3, result.output
    assert "quality." in result.output
    assert all("uri" not in variant for variant in status(workdir)["variants"])
