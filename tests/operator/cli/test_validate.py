"""`dram validate` from a user's seat."""

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from dram_operator.cli.validate import validate
from tests.builders import AJob, a_job, a_rollout


def _write(folder: Path, *manifests: object, name: str = "job.yaml") -> str:
    file = folder / name
    file.write_text(yaml.safe_dump_all(manifests))
    return str(file)


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(validate, arguments)


def test_says_that_a_manifest_is_valid(tmp_path: Path) -> None:
    file = _write(tmp_path, a_job().manifest())
    result = _run("-f", file)
    assert (result.exit_code, result.output) == (0, f"{file}: DistillationJob support-bot is valid\n")


def test_names_file_field_and_remedy(tmp_path: Path) -> None:
    file = _write(tmp_path, a_job().with_training(epochs=1, maxSteps=5).manifest())
    result = _run("-f", file)
    assert result.exit_code == 2
    assert result.stderr == (
        f"{file}: spec.training.maxSteps: epochs is 1 and maxSteps 5: "
        "the length of the training is given once, so remove one\n"
    )


def test_checks_all_files_before_it_fails(tmp_path: Path) -> None:
    bad = _write(tmp_path, a_job().named("A").manifest(), name="bad.yaml")
    good = _write(tmp_path, a_job().manifest(), name="good.yaml")
    result = _run("-f", bad, "-f", good)
    assert result.exit_code == 2
    assert f"{bad}: metadata.name 'A' is too long or not a DNS label" in result.stderr
    assert f"{good}: DistillationJob support-bot is valid" in result.stdout


def test_names_the_job_where_a_file_holds_several(tmp_path: Path) -> None:
    bad = a_job().named("second").having("spec.suspend", 1)
    file = _write(tmp_path, a_job().manifest(), bad.manifest())
    assert f"{file} (second): spec.suspend: " in _run("-f", file).stderr


def test_leaves_objects_of_others_alone(tmp_path: Path) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}}
    assert _run("-f", _write(tmp_path, secret, a_job().manifest())).exit_code == 0


@pytest.mark.parametrize("manifest", [{"apiVersion": "v1", "kind": "Secret"}])
def test_a_file_without_a_job_is_a_mistake(tmp_path: Path, manifest: object) -> None:
    file = _write(tmp_path, manifest)
    result = _run("-f", file)
    assert (result.exit_code, result.stderr) == (2, f"{file}: holds no object of dram.dev\n")


def test_a_manifest_without_kind_is_ours_to_refuse(tmp_path: Path) -> None:
    result = _run("-f", _write(tmp_path, {"spec": {}}))
    assert result.exit_code == 2
    assert "kind: None is not known here: write DistillationJob or EdgeRollout" in result.stderr


def test_a_missing_file_is_a_mistake(tmp_path: Path) -> None:
    result = _run("-f", str(tmp_path / "none.yaml"))
    assert result.exit_code == 2
    assert "none.yaml: cannot be read: No such file or directory" in result.stderr


@pytest.mark.parametrize(
    "job", [a_job().having("spec.teacher.uri", "models/teacher"), a_job().storing_at("file:///tmp/store")]
)
def test_local_allows_what_one_machine_can_read(tmp_path: Path, job: AJob) -> None:
    file = _write(tmp_path, job.manifest())
    assert _run("-f", file).exit_code == 2
    assert _run("--local", "-f", file).exit_code == 0


def test_reads_standard_input() -> None:
    result = CliRunner().invoke(validate, ["-f", "-"], input=yaml.safe_dump(a_job().manifest()))
    assert result.output == "-: DistillationJob support-bot is valid\n"


def test_checks_both_kinds_in_one_file(tmp_path: Path) -> None:
    file = _write(tmp_path, a_job().manifest(), a_rollout().named("tv").manifest())
    result = _run("-f", file)
    assert result.exit_code == 0
    assert result.stdout == f"{file}: DistillationJob support-bot is valid\n{file}: EdgeRollout tv is valid\n"


def test_a_rollout_is_refused_by_its_own_rules(tmp_path: Path) -> None:
    file = _write(tmp_path, a_rollout().stepping("10%").manifest())
    result = _run("-f", file)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{file}: spec.strategy.steps: the last step must take every device")
