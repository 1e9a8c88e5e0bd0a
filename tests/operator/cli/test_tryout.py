"""What the operator's pods run beside the operator: with the packages of that image only, and with the cause when it cannot be done."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from dram_operator.cli import main

OF_WORKERS = ("torch", "numpy", "transformers", "tokenizers", "safetensors", "rich", "matplotlib", "jinja2", "gguf")
WITHOUT = """
import pathlib, sys
sys.modules.update(dict.fromkeys({packages}))
from dram_operator.cli.selftest import selftest
from dram_operator.cli.tryout import tryout
from dram_operator.local.sample import write_sample
write_sample(pathlib.Path({folder!r}))
"""


def test_the_operators_image_has_all_that_they_need(tmp_path: Path) -> None:
    program = WITHOUT.format(packages=OF_WORKERS, folder=str(tmp_path / "sample"))
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sample" / "teacher" / "model.safetensors").stat().st_size > 1 << 19


def test_without_a_repository_there_is_nothing_to_prepare(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["tryout", "--keys", str(tmp_path)])
    assert (done.exit_code, "DRAM_RELEASES_URI is not set" in done.output) == (4, True)


def test_a_server_that_does_not_answer_yet_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "DRAM_RELEASES_URI": "s3://releases",
        "DRAM_RELEASES_ENDPOINT": "http://127.0.0.1:9",
        "DRAM_RELEASES_AWS_ACCESS_KEY_ID": "a",
        "DRAM_RELEASES_AWS_SECRET_ACCESS_KEY": "b",
        "DRAM_RELEASES_ROOT": str(tmp_path / "root.json"),
        "DRAM_RELEASES_OPERATOR_KEY": str(tmp_path / "operator.pem"),
    }.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(main, ["tryout", "--keys", str(tmp_path)])
    assert (done.exit_code, "127.0.0.1:9" in done.output) == (4, True), done.output
    assert not (tmp_path / "root.json").exists()
