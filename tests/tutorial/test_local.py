"""The part of the tutorial that needs no cluster, typed as it stands there."""

import re
import subprocess

import pytest

from tests.tutorial.page import ROOT, Block, blocks, environment


def test_every_command_of_the_page_is_run_somewhere() -> None:
    assert {block.place for block in blocks()} == {"demo", "local", "cluster"}
    assert len(blocks("local")) >= 5


def test_make_demo_is_what_the_tests_of_the_demo_run() -> None:
    assert [block.script.splitlines()[0] for block in blocks("demo")] == ["make demo"]
    recipe = re.search(r"^demo: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    assert recipe[1].split()[:2] == ["@$(BIN)/dram", "demo"]


@pytest.mark.parametrize("block", blocks("local"), ids=lambda block: block.script.split(" -f")[0][-30:])
def test_it_ends_and_prints_as_the_page_says(block: Block) -> None:
    script = ["bash", "-euo", "pipefail", "-c", block.script]
    done = subprocess.run(script, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)

    printed = (done.stdout + done.stderr).splitlines()
    assert done.returncode == block.exit_code, printed
    assert block.shown
    assert [line for line in block.shown if line not in printed] == []
